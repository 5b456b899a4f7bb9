//! Deciding with nothing but the targeting key: what can be said of a subject whose attributes are unknown.
//!
//! Attributes have one way out of a [`Context`]; an evaluation that takes it depends on more than the key, and says nothing here.

use vocab::Timestamp;

use crate::context::Context;
use crate::document::FlagSet;
use crate::evaluate::Evaluation;

impl FlagSet {
    /// What a subject with this key gets at `now`, whatever its attributes are; none if that depends on them, or if there is no answer.
    pub fn evaluate_by_key(&self, key: &str, subject: &str, now: Timestamp) -> Option<Evaluation<'_>> {
        let (context, looked) = Context::blind(subject);
        let found = self.evaluate(key, &context, now).ok()?;
        (!looked.load(std::sync::atomic::Ordering::Relaxed)).then_some(found)
    }

    /// Whether an experiment, or whatever else stands in front of the rules of this flag or of one it needs, decides for this subject.
    pub fn stands_in_front(&self, key: &str, subject: &str) -> bool {
        if self.overlays().is_empty() {
            return false;
        }
        let (flags, _) = self.closure(key);
        flags.iter().any(|key| self.overlay(key).is_some_and(|overlay| overlay.slice.arm(subject).is_some()))
    }
}
