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
/// Steps of all evaluations together: some seconds.
const STEPS_MAX: u64 = 60_000_000;

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
    /// Those of them whose variant changes at once at a later moment, by itself.
    pub later: usize,
    /// Who gets what the flag served when off before, or the code default, because the flag is off from now on.
    pub safer: usize,
    /// Whether what it does cannot be said: it reckons with the time in its own way, turns too often, or takes too long.
    pub unclear: bool,
}

/// Evaluates before and after for every subject and every flag that decides differently, through what it needs too. Words for
/// people (description, owner) decide nothing. Of a flag those subjects count that ask for it: `asks` tells by a subject's place and
/// the key. Sorted by key.
pub fn impact(
    before: &FlagSet,
    after: &FlagSet,
    subjects: &[impl Borrow<Context>],
    asks: &dyn Fn(usize, &str) -> bool,
    now: Timestamp,
) -> Vec<Impact> {
    let mut keys: Vec<&str> = before.flags().into_iter().chain(after.flags()).map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    let there = |set: &FlagSet, key: &str| set.flag(key).is_some();
    keys.retain(|key| {
        there(before, key) != there(after, key) || before.decisive_digest_of(key) != after.decisive_digest_of(key)
    });
    let changes: Vec<_> = keys.iter().map(|key| after.clock_of(key).changes(now)).collect();
    let rounds: usize = changes.iter().map(|changes| 2 + 2 * changes.as_ref().map_or(0, Vec::len)).sum();
    let looked_at = (EVALUATIONS_MAX / rounds.max(1)).max(SUBJECTS_MIN).min(subjects.len());
    let mut steps = 0_u64;
    let mut impacts = Vec::with_capacity(keys.len());
    for (key, changes) in keys.into_iter().zip(changes) {
        // Off as it was declared before; a new off variant is a change like any other.
        let off_before = before.flag(key).and_then(|flag| flag.off_variant_at(now));
        let these = subjects.iter().enumerate().filter(|(n, _)| asks(*n, key)).map(|(_, context)| context);
        let these: Vec<_> = these.take(looked_at).collect();
        let mut serve = |set: &FlagSet, at: Timestamp| -> Vec<Served> {
            let mut all = Vec::with_capacity(these.len());
            for context in &these {
                if steps > STEPS_MAX {
                    break;
                }
                let (served, taken) = served(set, key, (*context).borrow(), at, off_before);
                steps += u64::from(taken) + 10;
                all.push(served);
            }
            all
        };
        let unclear = changes.is_none();
        let mut impact = Impact { key: key.to_owned(), subjects: these.len(), changed: 0, later: 0, safer: 0, unclear };
        let (was, is) = (serve(before, now), serve(after, now));
        impact.safer = moved(&was, &is).filter(|(_, will)| will.off).count();
        impact.changed = moved(&was, &is).filter(|(_, will)| !will.off).count();
        for (from, to) in changes.into_iter().flatten() {
            let (was, will) = (serve(after, from), serve(after, to));
            impact.later = impact.later.max(moved(&was, &will).filter(|(_, will)| !will.off).count());
        }
        impact.changed = impact.changed.max(impact.later);
        impact.unclear |= steps > STEPS_MAX;
        impacts.push(impact);
    }
    impacts
}

fn moved<'a>(was: &'a [Served], will: &'a [Served]) -> impl Iterator<Item = (&'a Served, &'a Served)> {
    was.iter().zip(will).filter(|(was, will)| was.answer != will.answer)
}

/// What a subject gets.
struct Served {
    /// Variant and value; none without such a flag, or with a rule that breaks: the code default, as without a value.
    answer: Option<(String, Value)>,
    /// It is what the flag serves when off.
    off: bool,
}

fn served(set: &FlagSet, key: &str, context: &Context, now: Timestamp, off_before: Option<&str>) -> (Served, u32) {
    let (found, steps) = set.evaluate_counted(key, context, now);
    let served = match found {
        Ok(found) => Served {
            off: found.reason == Reason::Disabled && (found.variant.is_none() || found.variant == off_before),
            answer: found.variant.map(|variant| (variant.to_owned(), found.value.cloned().unwrap_or_default())),
        },
        Err(_) => Served { answer: None, off: false },
    };
    (served, steps)
}
