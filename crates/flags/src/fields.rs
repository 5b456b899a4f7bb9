//! Reading an object of a definition: every key is asked for by name, and what nobody asked for is a finding.

use serde_json::{Map, Value};
use vocab::Timestamp;

use crate::document::Finding;

/// Findings so far; a definition with many faults is not worth listing whole.
pub(crate) const FINDINGS_MAX: usize = 100;

/// An object that is being read, and where it is.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: &'a str,
    asked: Vec<&'static str>,
}

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, place: impl Into<String>, reason: impl Into<String>) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(Finding::new(place, reason));
        }
    }
}

impl<'a> Fields<'a> {
    /// Begins to read; none, with a finding, if `value` is no object.
    pub(crate) fn of(value: &'a Value, place: &'a str, findings: &mut Findings) -> Option<Fields<'a>> {
        match value {
            Value::Object(map) => Some(Fields { map, place, asked: Vec::new() }),
            _ => {
                findings.add(place, "expected an object");
                None
            }
        }
    }

    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    /// The value of a key; a null counts as absent.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.asked.push(name);
        self.map.get(name).filter(|v| !v.is_null())
    }

    pub(crate) fn text(&mut self, name: &'static str, findings: &mut Findings) -> Option<&'a str> {
        let value = self.value(name)?;
        if value.as_str().is_none() {
            findings.add(self.at(name), "expected text");
        }
        value.as_str()
    }

    pub(crate) fn bool(&mut self, name: &'static str, findings: &mut Findings) -> Option<bool> {
        let value = self.value(name)?;
        if value.as_bool().is_none() {
            findings.add(self.at(name), "expected true or false");
        }
        value.as_bool()
    }

    pub(crate) fn list(&mut self, name: &'static str, findings: &mut Findings) -> &'a [Value] {
        match self.value(name) {
            None => &[],
            Some(Value::Array(items)) => items,
            Some(_) => {
                findings.add(self.at(name), "expected a list");
                &[]
            }
        }
    }

    /// A list of texts.
    pub(crate) fn texts(&mut self, name: &'static str, findings: &mut Findings) -> Vec<&'a str> {
        let items = self.list(name, findings);
        if let Some(n) = items.iter().position(|item| !item.is_string()) {
            findings.add(format!("{}/{n}", self.at(name)), "expected text");
        }
        items.iter().filter_map(Value::as_str).collect()
    }

    pub(crate) fn time(&mut self, name: &'static str, findings: &mut Findings) -> Option<Timestamp> {
        let text = self.text(name, findings)?;
        match Timestamp::parse(text) {
            Ok(time) => Some(time),
            Err(error) => {
                findings.add(self.at(name), error.to_string());
                None
            }
        }
    }

    /// Names the keys that nobody asked for.
    pub(crate) fn finish(self, findings: &mut Findings) {
        for key in self.map.keys().filter(|key| !self.asked.contains(&key.as_str())) {
            findings.add(format!("{}/{key}", self.place), format!("unknown key; expected {}", self.asked.join(", ")));
        }
    }
}
