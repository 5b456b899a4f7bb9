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
    let jumps: Vec<String> = impacts
        .iter()
        .filter_map(|impact| {
            let flag = before.flag(&impact.key).or_else(|| after.flag(&impact.key));
            let (step, share) = (first_step(flag.map(|flag| &**flag)), share(impact)?);
            let is_off = after.flag(&impact.key).is_some_and(|flag| !flag.ever_enabled());
            (share > step && asked(&impact.key) && !is_off).then(|| {
                format!(
                    "{:?} would change for {share} of {} subjects at once (first step {step})",
                    impact.key, impact.subjects
                )
            })
        })
        .collect();
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

/// The share that changes; everybody if nobody is known. None if nothing changes.
pub fn share(impact: &Impact) -> Option<Share> {
    if impact.subjects == 0 {
        return Some(Share::ALL);
    }
    let share = impact.changed as f64 / impact.subjects as f64;
    (impact.changed > 0).then(|| Share::from_fraction(share).unwrap_or(Share::ALL))
}
