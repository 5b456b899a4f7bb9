//! How a flag stands: from its definition, its use and the time, with the evidence in words.
//!
//! | stage | when |
//! |---|---|
//! | `never-seen` | in production, and nobody evaluated it |
//! | `live` | it does its work |
//! | `stale` | by its kind it should have gone: not evaluated for longer than [`stale_after`], or one variant for everybody for as long |
//! | `expired` | its `expires` has passed |
//! | `safe-to-remove` | stale or expired, then [`SILENT`] without any evaluation; no other flag needs it, no experiment is on it |
//!
//! What is not told is not seen: clients that take all flags at once, or evaluate in process, show which ones they use only if they
//! report it. While there are such clients and no reports, nothing is safe to remove.

use flags::Flag;
use vocab::{Millis, Timestamp};

use crate::usage::{Asked, Placed, Reported};

const DAY: u64 = 24 * 3_600;
/// How long nobody may have evaluated a flag that was stale before it is safe to remove: a week holds a weekend, and what runs weekly.
pub const SILENT: Millis = Millis::from_secs(7 * DAY);
/// A client that asked for all flags at once within this time may use any of them: as long as a silence that counts.
const ASKED_ALL: Millis = SILENT;
/// Services that are named in one sentence.
const NAMED_MAX: usize = 3;

/// How long a flag of a kind may last: Unleash's expected lifetimes (release and experiment 40 days, kill switch and permission for ever)
/// but for `ops`, which goes stale after 7 days there; here an operational flag and a fault may rest as a kill switch may. None is for ever.
pub fn stale_after(kind: &str) -> Option<Millis> {
    match kind {
        "ops" | "kill-switch" | "permission" | "fault" => None,
        _ => Some(Millis::from_secs(40 * DAY)),
    }
}

/// How a flag stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In production, 0 users, never seen.
    NeverSeen,
    /// It does its work.
    Live,
    /// It should have gone.
    Stale,
    /// Its date has passed.
    Expired,
    /// Nothing uses it.
    SafeToRemove,
}

impl Stage {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::NeverSeen => "never-seen",
            Stage::Live => "live",
            Stage::Stale => "stale",
            Stage::Expired => "expired",
            Stage::SafeToRemove => "safe-to-remove",
        }
    }

    /// Whether somebody should do something about it.
    pub fn is_overdue(self) -> bool {
        matches!(self, Stage::Stale | Stage::Expired | Stage::SafeToRemove)
    }
}

/// What is known of one flag.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `kind` of its definition.
    pub kind: &'a str,
    /// `expires` of its definition.
    pub expires: Option<Timestamp>,
    /// Whether everybody gets the same, as its definition stands.
    pub same_for_all: bool,
    /// Since when it is there as it is.
    pub placed: Placed,
    /// Flags that need it.
    pub needed_by: Vec<String>,
    /// A live experiment on it.
    pub experiment: Option<String>,
    /// What this server resolved of it.
    pub asked: Option<Asked>,
    /// What clients report of it.
    pub reported: Option<&'a Reported>,
    /// When a client last asked for all flags at once, or took them to evaluate in process.
    pub all: Option<Timestamp>,
    /// When a client last reported an evaluation of any flag.
    pub heard: Option<Timestamp>,
}

/// How it stands and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How.
    pub stage: Stage,
    /// Sentences for a person.
    pub why: String,
    /// The first evaluation that is known.
    pub first_seen: Option<Timestamp>,
    /// The last one.
    pub last_seen: Option<Timestamp>,
    /// At least so many: one that this server resolved and a client reported is one.
    pub evaluations: u64,
}

/// `kind` and `expires` of a definition; in flagd's dialect they are in its metadata.
pub fn said(flag: &Flag) -> (&str, Option<Timestamp>) {
    let text = |name: &str| {
        let value = if flag.is_ours() { flag.definition().get(name) } else { flag.metadata().get(name) };
        value.and_then(|value| value.as_str())
    };
    (text("kind").unwrap_or("release"), text("expires").and_then(|text| Timestamp::parse(text).ok()))
}

/// A length of time in whole days, or smaller units.
fn long(length: Millis) -> String {
    let units = [(DAY, "day"), (3_600, "hour"), (60, "minute")];
    let secs = length.0 / 1_000;
    let (n, unit) = units.iter().find(|(unit, _)| secs >= *unit).map_or((secs, "second"), |(n, name)| (secs / n, name));
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

fn list(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let mut text = names[..names.len().min(NAMED_MAX)].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

impl Facts<'_> {
    fn last_seen(&self) -> Option<Timestamp> {
        self.asked.map(|asked| asked.last).max(self.reported.map(|reported| reported.last))
    }

    /// The variant that everybody gets, and since when; the empty name where the definition says it for all.
    fn one_variant(&self) -> Option<(&str, Timestamp)> {
        if self.same_for_all {
            return Some(("", self.placed.changed));
        }
        // Reports speak for everybody only if nobody asks beside them.
        let reported = self.reported.filter(|r| self.asked.is_none_or(|asked| asked.count <= r.count))?;
        let (variant, since) = reported.only.as_ref()?;
        Some((variant, (*since).max(self.placed.changed)))
    }

    /// Clients that may use it without saying so.
    fn blind(&self, now: Timestamp) -> bool {
        let lately = |at: Option<Timestamp>| at.is_some_and(|at| now.since(at) <= ASKED_ALL);
        lately(self.all) && !lately(self.heard)
    }

    /// By whom it was last evaluated, the last first.
    fn by(&self) -> String {
        let mut callers: Vec<_> = self.reported.iter().flat_map(|reported| &reported.callers).collect();
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.last));
        let names: Vec<String> = callers.into_iter().map(ToString::to_string).collect();
        match names.as_slice() {
            [] => ", by clients that do not report who they are".to_owned(),
            names => format!(", by {}", list(names)),
        }
    }
}

/// Says how a flag stands.
pub fn standing(facts: &Facts<'_>, now: Timestamp) -> Standing {
    let last = facts.last_seen();
    let limit = stale_after(facts.kind);
    let expired = facts.expires.filter(|expires| *expires <= now);
    let mut words = Vec::new();
    let mut removable;
    let mut stage = match last {
        None => {
            let age = now.since(facts.placed.since);
            words.push(format!("in production, 0 users, never seen; there for {}", long(age)));
            removable = limit.is_some_and(|limit| age.0 > limit.0 + SILENT.0)
                || expired.is_some_and(|expired| now.since(expired.max(facts.placed.since)) > SILENT);
            Stage::NeverSeen
        }
        Some(last) => {
            let silence = now.since(last);
            words.push(format!("last evaluated {} ago ({}){}", long(silence), day(last), facts.by()));
            let one = facts.one_variant();
            // Judged at the last evaluation: code that was cleaned up lets the flag go a week later.
            let settled = one.filter(|(_, since)| limit.is_some_and(|limit| last.since(*since) > limit));
            let too_silent = limit.is_some_and(|limit| silence > limit);
            if let Some((variant, since)) = settled {
                let what = if variant.is_empty() { "the same".to_owned() } else { format!("{variant:?}") };
                words.push(format!("everybody gets {what}, unchanged since {}: code can do without it", day(since)));
            }
            let week_after = limit.is_some_and(|limit| silence.0 > limit.0 + SILENT.0);
            removable = silence > SILENT && (settled.is_some() || expired.is_some() || week_after);
            if settled.is_some() || too_silent { Stage::Stale } else { Stage::Live }
        }
    };
    if let Some(expired) = expired {
        words.push(format!("it was to be gone by {}", day(expired)));
        stage = Stage::Expired;
    }
    if let Some(experiment) = &facts.experiment {
        words.push(format!("{experiment} is under way on it"));
        removable = false;
        if stage == Stage::Stale {
            stage = Stage::Live;
        }
    }
    if !facts.needed_by.is_empty() {
        words.push(format!("needed by {}", list(&facts.needed_by)));
        removable = false;
    }
    let quiet = last.is_none_or(|last| now.since(last) > SILENT);
    if quiet && facts.blind(now) {
        words.push(
            "clients that take all flags at once report nothing, so whether they use it cannot be known; switch on their telemetry"
                .to_owned(),
        );
        removable = false;
    }
    if removable {
        stage = Stage::SafeToRemove;
        if let Some(all) = facts.all.filter(|all| now.since(*all) <= ASKED_ALL) {
            words.push(format!(
                "careful: clients take all flags at once, last on {}, and show what they use only if they report it",
                day(all)
            ));
        }
        if let "kill-switch" | "permission" | "ops" | "fault" = facts.kind {
            words.push(format!(
                "careful: a flag of kind {} may be silent until it is needed; silence alone does not say that nobody counts on it",
                facts.kind
            ));
        }
    }
    let counts = [facts.asked.map_or(0, |asked| asked.count), facts.reported.map_or(0, |reported| reported.count)];
    Standing {
        stage,
        why: words.join("; "),
        first_seen: [facts.asked.map(|asked| asked.first), facts.reported.map(|r| r.first)].into_iter().flatten().min(),
        last_seen: last,
        evaluations: counts.into_iter().max().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
