//! No side door: a change of flags that moves more of the subjects seen lately than the first step of the flag's risk is
//! refused, unless it makes things safer or somebody breaks the glass. Whoever wants to move more starts a rollout, which is
//! staged and watched.

use flags::{Flag, FlagSet, Impact};
use vocab::Share;

use crate::state::Refusal;

/// How many jumps a refusal lists.
const LISTED_MAX: usize = 5;

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

/// Judges what a change does. `asked` says whether anybody evaluated a flag lately: nobody is moved by one that nobody asks for;
/// one that is asked for by subjects unknown to us moves all of them.
pub fn judge(
    impacts: &[Impact],
    before: &FlagSet,
    after: &FlagSet,
    asked: &dyn Fn(&str) -> bool,
) -> Result<(), Refusal> {
    let jumps: Vec<String> =
        impacts.iter().filter(|impact| asked(&impact.key)).filter_map(|impact| jump(impact, before, after)).collect();
    if jumps.is_empty() {
        return Ok(());
    }
    let more = jumps.len().saturating_sub(LISTED_MAX);
    let mut detail = jumps[..jumps.len().min(LISTED_MAX)].join("; ");
    if more > 0 {
        detail.push_str(&format!("; and {more} more"));
    }
    Err(Refusal {
        code: "unwatched-change",
        detail,
        remedy: "start a rollout, which is staged and watched (`seaworthy experiment start`), or change it for fewer; in an \
                 emergency `--break-glass --reason …`"
            .to_owned(),
    })
}

/// Why one flag's change is too much at once, if it is.
fn jump(impact: &Impact, before: &FlagSet, after: &FlagSet) -> Option<String> {
    let key = &impact.key;
    let (was, will) = (before.flag(key).map(|flag| &**flag), after.flag(key).map(|flag| &**flag));
    let rank = |flag: &Flag| first_step(Some(flag));
    if let (Some(was), Some(will)) = (was, will) {
        if rank(will) > rank(was) {
            return Some(format!("{key:?} would have a lower risk ({} instead of {})", will.risk(), was.risk()));
        }
    }
    // Off for good, and as it was off before.
    let off = |flag: &Flag| flag.definition().get("off_variant").cloned().unwrap_or_default();
    let turned_off = will.is_some_and(|will| {
        !will.ever_enabled() && (off(will).is_null() || was.is_some_and(|was| off(was) == off(will)))
    });
    if turned_off {
        return None;
    }
    let step = first_step(was.or(will));
    if impact.unclear {
        return Some(format!("what {key:?} does as time passes cannot be judged"));
    }
    if impact.subjects == 0 {
        return Some(format!("{key:?} is asked for, and nobody is known who could be counted"));
    }
    let share = Share::from_fraction(impact.changed as f64 / impact.subjects as f64).unwrap_or(Share::ALL);
    (share > step).then(|| {
        format!("{key:?} would change for {share} of {} subjects at once (first step {step})", impact.subjects)
    })
}
