//! No side door: a change of flags that moves more of the subjects seen lately than the first step of the flag's risk is
//! not made at once, unless it makes things safer or somebody breaks the glass. With a rollout profile that says how to watch it,
//! it becomes a rollout in stages by itself; without one it is refused.

use flags::{Flag, FlagSet, Impact};
use vocab::Share;

use crate::state::Refusal;

/// How many jumps a refusal lists.
const LISTED_MAX: usize = 5;

/// With less of the sample from before a restart nothing can be said of shares.
const KNOWN_MIN: f64 = 0.5;

/// The share of subjects that may change at once, by risk: low 25 %, medium 10 %, high 5 %, critical 1 %.
pub fn first_step(flag: Option<&Flag>) -> Share {
    let ppm = match flag.map_or("medium", Flag::risk) {
        "low" => 250_000,
        "high" => 50_000,
        "critical" => 10_000,
        _ => 100_000,
    };
    Share::from_ppm(ppm).unwrap_or(Share::NONE)
}

/// One flag's change that is too much at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Jump {
    /// Which flag.
    pub key: String,
    /// Why it is too much, for a person.
    pub detail: String,
    /// The share that may change at once.
    pub step: Share,
    /// Whether a rollout in stages can carry it out: it is all there now, and nothing more comes later by itself.
    pub can_be_staged: bool,
}

/// What of a change is too much at once; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Jumps(pub Vec<Jump>);

impl Jumps {
    /// In words, for a person.
    pub fn detail(&self) -> String {
        let mut detail = self.0.iter().take(LISTED_MAX).map(|jump| jump.detail.as_str()).collect::<Vec<_>>().join("; ");
        if self.0.len() > LISTED_MAX {
            detail.push_str(&format!("; and {} more", self.0.len() - LISTED_MAX));
        }
        detail
    }

    /// As a refusal, with the way on.
    pub fn refusal(&self, way: &str) -> Refusal {
        let remedy = format!("{way}, or change it for fewer; in an emergency `--break-glass --reason …`");
        Refusal { code: "unwatched-change", detail: self.detail(), remedy, findings: Vec::new() }
    }
}

/// Judges what a change does. `asked` says whether anybody evaluated a flag lately: nobody is moved by one that nobody asks for;
/// one that is asked for by subjects unknown to us moves all of them. `known_share` is how much of the sample from before a restart is
/// known again: with less than half of it the others count as moved. `moved` is the share that a flag's changes moved at once during
/// the last day: many small steps are a large one.
pub fn judge(
    impacts: &[Impact],
    before: &FlagSet,
    after: &FlagSet,
    asked: &dyn Fn(&str) -> bool,
    known_share: f64,
    moved: &dyn Fn(&str) -> f64,
) -> Result<(), Jumps> {
    let known = known_share >= KNOWN_MIN;
    let asked_for = impacts.iter().filter(|impact| asked(&impact.key));
    let jumps: Vec<Jump> =
        asked_for.filter_map(|impact| jump(impact, before, after, known, moved(&impact.key))).collect();
    if jumps.is_empty() { Ok(()) } else { Err(Jumps(jumps)) }
}

/// Why one flag's change is too much at once, if it is.
fn jump(impact: &Impact, before: &FlagSet, after: &FlagSet, known: bool, moved: f64) -> Option<Jump> {
    let key = &impact.key;
    let (was, will) = (before.flag(key).map(|flag| &**flag), after.flag(key).map(|flag| &**flag));
    let step = first_step(was.or(will));
    let found = |can_be_staged, detail| Some(Jump { key: key.clone(), detail, step, can_be_staged });
    let share =
        |subjects: usize| Share::from_fraction(subjects as f64 / impact.subjects.max(1) as f64).unwrap_or(Share::ALL);
    let (changed, later) = (share(impact.changed), share(impact.later));
    if let (Some(was), Some(will)) = (was, will) {
        if first_step(Some(will)) > first_step(Some(was)) {
            let detail = format!("{key:?} would have a lower risk ({} instead of {})", will.risk(), was.risk());
            return found(false, detail);
        }
    }
    // Off for good, and as it was off before.
    let off = |flag: &Flag| flag.definition().get("off_variant").cloned().unwrap_or_default();
    // Off later, or a kill, would give it to everybody at once.
    let served_off = |flag: &Flag| {
        let off = off(flag);
        let value = off.as_str().and_then(|name| flag.definition()["variants"].get(name)).cloned();
        (off, value)
    };
    if let (Some(was), Some(will)) = (was, will) {
        if !off(will).is_null() && served_off(was) != served_off(will) && was.is_ours() {
            return found(false, format!("{key:?} would serve something else when it is off"));
        }
    }
    let turned_off = will.is_some_and(|will| {
        !will.ever_enabled() && (off(will).is_null() || was.is_some_and(|was| off(was) == off(will)))
    });
    if turned_off {
        return None;
    }
    if impact.unclear {
        return found(false, format!("what {key:?} does as time passes cannot be judged"));
    }
    if impact.subjects == 0 {
        return found(true, format!("{key:?} is asked for, and nobody is known who could be counted"));
    }
    if !known {
        return found(
            true,
            format!("{key:?} is asked for, and too few of its users are known again since the restart"),
        );
    }
    if later > step {
        let detail = format!("{key:?} would change by itself, later, for {later} at once (first step {step})");
        return found(false, detail);
    }
    if changed > step {
        let of = impact.subjects;
        return found(true, format!("{key:?} would change for {changed} of {of} subjects at once (first step {step})"));
    }
    let within_a_day = Share::from_fraction((changed.fraction() + moved).min(1.0)).unwrap_or(Share::ALL);
    if impact.changed > 0 && within_a_day > step {
        return found(
            true,
            format!("{key:?} would change for {within_a_day} of its subjects within a day (first step {step})"),
        );
    }
    None
}
