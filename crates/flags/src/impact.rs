//! What a change of flags would do to subjects that were seen lately.

use std::borrow::Borrow;

use vocab::Timestamp;

use crate::context::Context;
use crate::document::FlagSet;
use crate::evaluate::Reason;

/// Evaluations that one judgement may take; with many changed flags fewer subjects are looked at.
const EVALUATIONS_MAX: usize = 2_000_000;
/// However many flags change, so many subjects are looked at.
const SUBJECTS_MIN: usize = 200;

/// One flag whose answers may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impact {
    /// Which.
    pub key: String,
    /// How many subjects were looked at.
    pub subjects: usize,
    /// Whose variant changes, but for those in `safer`.
    pub changed: usize,
    /// Who gets the off variant or the code default because the flag is off from now on.
    pub safer: usize,
}

/// Evaluates before and after for every subject and every flag that decides differently, through what it needs too. Sorted by key.
pub fn impact(before: &FlagSet, after: &FlagSet, subjects: &[impl Borrow<Context>], now: Timestamp) -> Vec<Impact> {
    let mut keys: Vec<&str> = before.flags().into_keys().chain(after.flags().into_keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| {
        before.flag(key).is_none() != after.flag(key).is_none() || before.digest_of(key) != after.digest_of(key)
    });
    let looked_at = (EVALUATIONS_MAX / keys.len().max(1)).max(SUBJECTS_MIN).min(subjects.len());
    let mut impacts = Vec::with_capacity(keys.len());
    for key in keys {
        let mut impact = Impact { key: key.to_owned(), subjects: looked_at, changed: 0, safer: 0 };
        for context in &subjects[..looked_at] {
            let served = |set: &FlagSet| match set.evaluate(key, context.borrow(), now) {
                Ok(found) => (found.variant.map(str::to_owned), found.value.cloned(), found.reason == Reason::Disabled),
                // No such flag, or a rule that breaks: the code default, as without a value.
                Err(_) => (None, None, false),
            };
            let (was, will) = (served(before), served(after));
            if (&was.0, &was.1) != (&will.0, &will.1) {
                if will.2 { impact.safer += 1 } else { impact.changed += 1 }
            }
        }
        impacts.push(impact);
    }
    impacts
}
