//! What a change of flags would do to subjects that were seen lately.

use std::borrow::Borrow;

use serde_json::Value;
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
    /// Whose variant changes at once, but for those in `safer`: now, or at a later moment by a schedule, a ramp or a rule that reads
    /// the time, whichever moves the most.
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
    let moments: Vec<Vec<Timestamp>> = keys.iter().map(|key| after.clock_of(key).moments(now)).collect();
    let rounds: usize = moments.iter().map(|moments| moments.len() + 2).sum();
    let looked_at = (EVALUATIONS_MAX / rounds.max(1)).max(SUBJECTS_MIN).min(subjects.len());
    let subjects = &subjects[..looked_at];
    let serve = |set: &FlagSet, key: &str, now: Timestamp| -> Vec<Served> {
        subjects.iter().map(|context| served(set, key, context.borrow(), now)).collect()
    };
    let mut impacts = Vec::with_capacity(keys.len());
    for (key, moments) in keys.into_iter().zip(moments) {
        let mut impact = Impact { key: key.to_owned(), subjects: looked_at, changed: 0, safer: 0 };
        let mut last = serve(before, key, now);
        for (n, at) in std::iter::once(now).chain(moments).enumerate() {
            let next = serve(after, key, at);
            let moved = last.iter().zip(&next).filter(|(was, will)| was.answer != will.answer);
            let (safer, changed): (Vec<_>, Vec<_>) = moved.partition(|(_, will)| will.off);
            impact.changed = impact.changed.max(changed.len());
            if n == 0 {
                impact.safer = safer.len();
            }
            last = next;
        }
        impacts.push(impact);
    }
    impacts
}

/// What a subject gets.
struct Served {
    /// Variant and value; none without such a flag, or with a rule that breaks: the code default, as without a value.
    answer: Option<(String, Value)>,
    off: bool,
}

fn served(set: &FlagSet, key: &str, context: &Context, now: Timestamp) -> Served {
    match set.evaluate(key, context, now) {
        Ok(found) => Served {
            answer: found.variant.map(|variant| (variant.to_owned(), found.value.cloned().unwrap_or_default())),
            off: found.reason == Reason::Disabled,
        },
        Err(_) => Served { answer: None, off: false },
    }
}
