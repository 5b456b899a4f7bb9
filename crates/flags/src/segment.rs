//! Segments: named groups of subjects, by list and by condition.

use std::sync::Arc;

use hashbrown::HashSet;
use serde_json::Value;

use crate::clock::Clock;
use crate::condition::{Condition, Reader};
use crate::document::Finding;
use crate::evaluate::{EvaluationError, Scene};
use crate::fields::{Fields, Findings};
use crate::model;

/// A compiled segment.
#[derive(Clone, Debug)]
pub struct Segment {
    pub(crate) include: HashSet<Box<str>>,
    pub(crate) exclude: HashSet<Box<str>>,
    pub(crate) when: Option<Condition>,
    definition: Arc<Value>,
}

impl Segment {
    /// Reads a definition: `{"description", "include", "exclude", "when"}`.
    pub fn compile(definition: &Value) -> Result<Segment, Vec<Finding>> {
        let mut findings = Findings::default();
        let Some(mut fields) = Fields::of(definition, "", &mut findings) else { return Err(findings.0) };
        fields.text("description", &mut findings);
        let include = fields.texts("include", &mut findings).into_iter().map(Into::into).collect();
        let exclude = fields.texts("exclude", &mut findings).into_iter().map(Into::into).collect();
        let when = fields.value("when").map(|value| {
            let mut reader = Reader { flag_key: "", findings: &mut findings, nodes: 0 };
            reader.read(value, "/when", 0)
        });
        fields.finish(&mut findings);
        if findings.0.is_empty() {
            Ok(Segment { include, exclude, when, definition: Arc::new(definition.clone()) })
        } else {
            Err(findings.0)
        }
    }

    /// As it was given.
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// Flags that decide along.
    pub fn needs_flags(&self) -> Vec<Box<str>> {
        self.needs().0
    }

    /// Keys of flags and segments that decide along.
    pub(crate) fn needs(&self) -> (Vec<Box<str>>, Vec<Box<str>>) {
        let (mut flags, mut segments) = (Vec::new(), Vec::new());
        self.when.iter().for_each(|when| model::needs(when, &mut flags, &mut segments));
        (flags, segments)
    }

    pub(crate) fn clock(&self, clock: &mut Clock) {
        self.when.iter().for_each(|when| model::read_clock(when, clock));
    }

    pub(crate) fn holds(&self, scene: &Scene<'_>) -> Result<bool, EvaluationError> {
        if let Some(key) = scene.context.targeting_key() {
            if self.include.contains(key) {
                return Ok(true);
            }
            if self.exclude.contains(key) {
                return Ok(false);
            }
        }
        self.when.as_ref().map_or(Ok(false), |when| when.holds(scene))
    }
}
