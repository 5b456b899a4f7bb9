//! Evaluating a flag for a context, in OpenFeature's terms.

use std::sync::Arc;

use serde_json::Value;
use vocab::{Arm, Id, Timestamp};

use crate::bucket::Slice;
use crate::context::Context;
use crate::document::Flag;
use crate::logic::{Outcome, Scope};

/// Why this value (OpenFeature's resolution reasons, as flagd uses them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No rule: the same for everybody; clients may cache it.
    Static,
    /// A rule chose it.
    TargetingMatch,
    /// An experiment chose it by the subject's place in hash space.
    Split,
    /// No rule matched.
    Default,
    /// The flag is off: the code default.
    Disabled,
}

impl Reason {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Static => "STATIC",
            Reason::TargetingMatch => "TARGETING_MATCH",
            Reason::Split => "SPLIT",
            Reason::Default => "DEFAULT",
            Reason::Disabled => "DISABLED",
        }
    }
}

/// OpenFeature's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No flag with that key.
    FlagNotFound,
    /// The rule cannot be evaluated.
    ParseError,
    /// The flag's values are of another type than asked for.
    TypeMismatch,
    /// The rule needs a targeting key.
    TargetingKeyMissing,
    /// The context is not an object, or nested too deeply.
    InvalidContext,
    /// The rule names no variant.
    General,
}

impl ErrorCode {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::FlagNotFound => "FLAG_NOT_FOUND",
            ErrorCode::ParseError => "PARSE_ERROR",
            ErrorCode::TypeMismatch => "TYPE_MISMATCH",
            ErrorCode::TargetingKeyMissing => "TARGETING_KEY_MISSING",
            ErrorCode::InvalidContext => "INVALID_CONTEXT",
            ErrorCode::General => "GENERAL",
        }
    }
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct EvaluationError {
    /// For clients.
    pub code: ErrorCode,
    /// For people.
    pub detail: String,
}

/// A decision. Without a value the client uses its code default.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<'a> {
    /// The variant's name.
    pub variant: Option<&'a str>,
    /// The variant's value.
    pub value: Option<&'a Value>,
    /// Why.
    pub reason: Reason,
    /// The experiment that the subject takes part in through this flag, and its arm.
    pub experiment: Option<(Id, Arm)>,
}

/// An experiment in front of a flag's own rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// Which experiment.
    pub experiment: Id,
    /// Who takes part.
    pub slice: Slice,
    /// What treatment subjects get.
    pub variant: Arc<str>,
}

impl Flag {
    /// Decides for `context` at `now`. Baseline subjects of the overlay, and everybody outside its slice, get what the
    /// flag's own rules say. A disabled flag is off for everybody: the kill switch beats every experiment.
    pub fn evaluate<'a>(
        &'a self,
        context: &Context,
        overlay: Option<&Overlay>,
        now: Timestamp,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        if !self.enabled {
            return Ok(Evaluation { variant: None, value: None, reason: Reason::Disabled, experiment: None });
        }
        let mut experiment = None;
        if let Some((overlay, subject)) = overlay.zip(context.targeting_key()) {
            if let Some(arm) = overlay.slice.arm(subject) {
                experiment = Some((overlay.experiment, arm));
                let place = self.variants.iter().position(|(name, _)| **name == *overlay.variant);
                if let (true, Some(place)) = (arm.is_treatment(), place) {
                    return Ok(self.decision(Some(place), Reason::Split, experiment));
                }
            }
        }
        let Some(rule) = &self.targeting else {
            let reason = if self.default.is_some() { Reason::Static } else { Reason::Default };
            // A value that depends on the subject must not be cached for others.
            let reason = if overlay.is_some() && reason == Reason::Static { Reason::Split } else { reason };
            return Ok(self.decision(self.default, reason, experiment));
        };
        let scope = Scope { context, flag_key: &self.key, now, bucketing: self.bucketing };
        match rule.outcome(&scope) {
            Outcome::Nothing => Ok(self.decision(self.default, Reason::Default, experiment)),
            Outcome::Variant(name) => match self.variants.iter().position(|(key, _)| *key == *name) {
                Some(place) => Ok(self.decision(Some(place), Reason::TargetingMatch, experiment)),
                None => Err(EvaluationError {
                    code: ErrorCode::General,
                    detail: format!("the rule of flag {:?} names a variant that it does not have", self.key),
                }),
            },
            Outcome::Failed(detail) => Err(EvaluationError {
                code: ErrorCode::ParseError,
                detail: format!("the rule of flag {:?} cannot be evaluated: {detail}", self.key),
            }),
        }
    }

    fn decision(&self, place: Option<usize>, reason: Reason, experiment: Option<(Id, Arm)>) -> Evaluation<'_> {
        let variant = place.map(|place| &self.variants[place]);
        Evaluation {
            variant: variant.map(|(name, _)| name.as_str()),
            value: variant.map(|(_, value)| value),
            reason,
            experiment,
        }
    }
}
