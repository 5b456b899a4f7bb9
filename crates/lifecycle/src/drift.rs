//! The drift alarm: which client gives users another variant than the pinned bucketing.
//!
//! Every library that hashes in process has one generation, whatever the flag is pinned to, and then the same user is in two places.
//! Clients report which variant they gave; here that is set beside what the flag gives, for each reported subject. Where they differ,
//! flagd's other generations are tried, and the one that explains the reports is named.
//!
//! Judged is only what can be known. A report is passed over if
//!
//! - the flag hashes nobody, or its answer for this subject reads an attribute: reports carry none;
//! - an experiment, or whatever else stands in front of the rules, decides for this subject;
//! - it comes from another ruleset: it names a version under which the flag was another, or it names none and the flag changed within
//!   [`QUIET`] before it;
//! - it has no subject or no variant, or the evaluation failed.
//!
//! Kept is, for each flag, service and version, a fair sample of subjects as hashes, with their last report; names of subjects are looked
//! at and forgotten. A change of the flag, or of what it needs, begins anew.

use std::collections::{BTreeMap, VecDeque};

use flags::{Bucketing, FlagSet, generation};
use vocab::{Millis, Timestamp};

use crate::usage::{cut, named};

/// How long a flag must be as it is before a report without a version is judged: clients hear of a change within seconds.
pub const QUIET: Millis = Millis::from_secs(60);
/// Flags that are watched at a time, of those that hash somebody. One that was not reported for [`HEARD`] makes room for another.
const FLAGS_MAX: usize = 1_000;
/// Services with their versions that are told apart on one flag; the one not heard of for longest goes.
const CALLERS_MAX: usize = 16;
/// Subjects of one service and version: with more, those of the lowest hashes stand for all.
const SUBJECTS_MAX: usize = 2_048;
/// Subjects of all: about 16 MB. At the bound the caller not heard of for longest goes.
const ALL_SUBJECTS_MAX: usize = 250_000;
/// Versions of the ruleset that are remembered; a client that is further behind is not judged.
const VERSIONS_MAX: usize = 64;
/// How long a subject's report counts.
const LATELY: Millis = Millis::from_secs(24 * 3_600);
/// A client that was not heard from for this long raises no alarm: it was mended, or it is gone.
const HEARD: Millis = Millis::from_secs(3_600);
/// Fewer judged subjects raise no alarm.
pub const SUBJECTS_MIN: usize = 20;
/// Fewer misassigned subjects raise no alarm: one client that lags behind is a handful of users.
pub const MISASSIGNED_MIN: usize = 5;
/// A share up to this raises no alarm: late reports, clocks that go wrong.
pub const SHARE_MAX: f64 = 0.01;
/// A generation explains the reports if so many of them are as it says.
const EXPLAINS: f64 = 0.99;

/// A reported evaluation of a flag that exists.
#[derive(Clone, Copy)]
pub struct Exposure<'a> {
    /// The flag's key.
    pub key: &'a str,
    /// The variant that the subject got.
    pub variant: &'a str,
    /// The targeting key in clear text; it is looked at and not kept.
    pub subject: &'a str,
    /// A hash of it that nobody can turn round.
    pub hash: u64,
    /// `service.name`, or empty.
    pub service: &'a str,
    /// `service.version`, or empty.
    pub version: &'a str,
    /// The version of the ruleset that the client says it used.
    pub ruleset: Option<&'a str>,
    /// When it was, by the client's clock.
    pub at: Timestamp,
}

impl std::fmt::Debug for Exposure<'_> {
    /// Without the subject.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exposure").field("key", &self.key).field("variant", &self.variant).finish_non_exhaustive()
    }
}

/// How one subject's variant agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Agreement {
    at: Timestamp,
    pinned: bool,
    /// With each of [`generation::FLAGD`].
    generations: [bool; 3],
}

#[derive(Debug)]
struct Caller {
    service: String,
    version: String,
    last: Timestamp,
    /// By hash.
    subjects: BTreeMap<u64, Agreement>,
    /// Whether there were more.
    sampled: bool,
}

#[derive(Debug)]
struct Watched {
    digest: [u8; 16],
    /// Since when the flag and what it needs are as they are, as far as is known.
    since: Timestamp,
    /// The number of the first ruleset with it as it is.
    first: u64,
    /// The number of the ruleset under which that was last looked up.
    checked: u64,
    /// As clients of each generation see it; worked out when it is first needed.
    others: Option<Box<[Option<FlagSet>; 3]>>,
    last: Timestamp,
    callers: Vec<Caller>,
}

/// Everything that is watched.
#[derive(Debug, Default)]
pub struct Drift {
    /// Rulesets as they came, numbered; the newest last.
    versions: VecDeque<(String, u64)>,
    flags: BTreeMap<String, Watched>,
    subjects: usize,
}

/// What was found of one flag, service and version.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The flag's key.
    pub flag: String,
    /// `service.name`, or empty.
    pub service: String,
    /// `service.version`, or empty.
    pub version: String,
    /// What the flag hashes with, as [`flags::Flag::hashed_by`] says it.
    pub pinned: String,
    /// Which of flagd's generations explain the reports; none if the pinned one does, or none does.
    pub explained_by: Vec<Bucketing>,
    /// Subjects whose variant could be judged.
    pub judged: usize,
    /// Those who got another one.
    pub misassigned: usize,
    /// Whether the subjects are a sample of more.
    pub sampled: bool,
    /// The last report.
    pub last: Timestamp,
    /// Whether somebody should look at it.
    pub alarm: bool,
}

impl Finding {
    /// The share of judged subjects who got another variant, `[0, 1]`.
    pub fn share(&self) -> f64 {
        if self.judged == 0 { 0.0 } else { self.misassigned as f64 / self.judged as f64 }
    }

    /// The finding as a sentence.
    pub fn sentence(&self) -> String {
        let (who, flag, pinned) = (named(&self.service, &self.version), &self.flag, &self.pinned);
        let names: Vec<&str> = self.explained_by.iter().map(|generation| generation.as_str()).collect();
        let users = if self.sampled { format!("a sample of {}", count(self.judged)) } else { count(self.judged) };
        let does = match (names.is_empty(), self.misassigned) {
            (_, 0) => format!("service {who} buckets {flag:?} as it is pinned, {pinned}"),
            (false, _) => format!("service {who} buckets {flag:?} with {}, pinned is {pinned}", names.join(" or ")),
            (true, _) => {
                format!(
                    "service {who} gives other variants of {flag:?} than {pinned} does, and no generation of flagd's explains it"
                )
            }
        };
        let share = match self.share() * 100.0 {
            share if share > 0.0 && share < 9.95 => format!("{share:.1}"),
            share => format!("{share:.0}"),
        };
        format!("{does}: {share} % of {users} users misassigned")
    }
}

/// A number with commas.
fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Watched {
    fn new() -> Watched {
        Watched {
            digest: [0; 16],
            since: Timestamp::default(),
            first: 0,
            checked: 0,
            others: None,
            last: Timestamp::default(),
            callers: Vec::new(),
        }
    }

    /// Looks whether the flag is still what it was; what is another one begins anew.
    fn check(&mut self, set: &FlagSet, key: &str, ruleset: u64, now: Timestamp) {
        if self.checked == ruleset {
            return;
        }
        let digest = set.digest_of(key);
        if digest != self.digest {
            *self = Watched { digest, since: now, first: ruleset, ..Watched::new() };
        }
        self.checked = ruleset;
    }

    fn subjects(&self) -> usize {
        self.callers.iter().map(|caller| caller.subjects.len()).sum()
    }

    fn caller(&mut self, service: &str, version: &str, now: Timestamp) -> &mut Caller {
        let place = self.callers.iter().position(|c| c.service == service && c.version == version);
        let place = place.unwrap_or_else(|| {
            if self.callers.len() >= CALLERS_MAX {
                let oldest = self.callers.iter().enumerate().min_by_key(|(_, c)| c.last).map(|(n, _)| n);
                oldest.map(|oldest| self.callers.swap_remove(oldest));
            }
            self.callers.push(Caller {
                service: service.to_owned(),
                version: version.to_owned(),
                last: now,
                subjects: BTreeMap::new(),
                sampled: false,
            });
            self.callers.len() - 1
        });
        &mut self.callers[place]
    }
}

impl Caller {
    /// Whether this subject is one of those that are kept.
    fn wants(&mut self, hash: u64) -> bool {
        let full = self.subjects.len() >= SUBJECTS_MAX && !self.subjects.contains_key(&hash);
        self.sampled |= full;
        !full || self.subjects.last_key_value().is_some_and(|(last, _)| hash < *last)
    }

    fn finding(&self, flag: &str, pinned: &str, now: Timestamp) -> Finding {
        let lately: Vec<&Agreement> = self.subjects.values().filter(|a| now.since(a.at) < LATELY).collect();
        let judged = lately.len();
        let agree = lately.iter().filter(|a| a.pinned).count();
        let fits: Vec<usize> = (0..3).map(|n| lately.iter().filter(|a| a.generations[n]).count()).collect();
        let best = fits.iter().copied().max().unwrap_or_default();
        let explains = best > agree && best as f64 >= EXPLAINS * judged as f64;
        let generations = generation::FLAGD.into_iter().zip(fits);
        let mut finding = Finding {
            flag: flag.to_owned(),
            service: self.service.clone(),
            version: self.version.clone(),
            pinned: pinned.to_owned(),
            explained_by: generations
                .filter(|(_, n)| explains && *n == best)
                .map(|(generation, _)| generation)
                .collect(),
            judged,
            misassigned: judged - agree,
            sampled: self.sampled,
            last: self.last,
            alarm: false,
        };
        finding.alarm = judged >= SUBJECTS_MIN
            && finding.misassigned >= MISASSIGNED_MIN
            && finding.share() > SHARE_MAX
            && now.since(self.last) < HEARD;
        finding
    }
}

impl Drift {
    /// Judges one report against the flags as they are: `set` at version `ruleset`.
    pub fn take(&mut self, set: &FlagSet, ruleset: &str, exposure: &Exposure<'_>, now: Timestamp) {
        let Exposure { key, subject, hash, at, .. } = *exposure;
        let (service, version) = (cut(exposure.service), cut(exposure.version));
        let Some(flag) = set.flag(key).filter(|_| set.hashes_somebody(key)) else { return };
        let number = match self.versions.back() {
            Some((version, number)) if version == ruleset => *number,
            last => {
                let number = last.map_or(1, |(_, number)| number + 1);
                self.versions.push_back((ruleset.to_owned(), number));
                if self.versions.len() > VERSIONS_MAX {
                    self.versions.pop_front();
                }
                number
            }
        };
        if !self.flags.contains_key(key) {
            if !self.make_room(now) {
                return;
            }
            self.flags.insert(key.to_owned(), Watched::new());
        }
        let Some(watched) = self.flags.get_mut(key) else { return };
        let before = watched.subjects();
        watched.check(set, key, number, now);
        watched.last = now;
        self.subjects -= before - watched.subjects();
        if at > now + QUIET {
            return;
        }
        // The same flag under another version is the same flag.
        let known = |version: &str| self.versions.iter().any(|(v, number)| v == version && *number >= watched.first);
        let own = flag.metadata().get("version").and_then(|version| version.as_str());
        match exposure.ruleset {
            Some(version) if known(version) => {}
            // Clients that evaluate in process know the flag's own version only.
            Some(version) if Some(version) != own => return,
            _ if at < watched.since + QUIET => return,
            _ => {}
        }
        if set.stands_in_front(key, subject) {
            return;
        }
        let Some(expected) = set.evaluate_by_key(key, subject, at).and_then(|found| found.variant) else { return };
        let before = watched.subjects();
        let caller = watched.caller(service, version, now);
        caller.last = caller.last.max(now);
        if !caller.wants(hash) {
            self.subjects = (self.subjects + watched.subjects()) - before;
            return;
        }
        // What moves with the time may be seen by either clock.
        let gives = |set: &FlagSet| {
            let at_that_time =
                |at| set.evaluate_by_key(key, subject, at).and_then(|found| found.variant) == Some(exposure.variant);
            at_that_time(at) || at_that_time(now)
        };
        let pinned = expected == exposure.variant || gives(set);
        let others = watched
            .others
            .get_or_insert_with(|| Box::new(generation::FLAGD.map(|generation| set.hashed_as(key, generation))));
        let generations = [0, 1, 2].map(|n| others[n].as_ref().is_some_and(gives));
        let caller = watched.caller(service, version, now);
        caller.subjects.insert(hash, Agreement { at: now, pinned, generations });
        if caller.subjects.len() > SUBJECTS_MAX {
            caller.subjects.pop_last();
        }
        self.subjects = (self.subjects + watched.subjects()) - before;
        if self.subjects > ALL_SUBJECTS_MAX {
            self.drop_oldest_caller();
        }
    }

    /// Whether another flag may come.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if self.flags.len() < FLAGS_MAX {
            return true;
        }
        let oldest = self.flags.iter().min_by_key(|(_, watched)| watched.last);
        let oldest = oldest.filter(|(_, watched)| now.since(watched.last) > HEARD).map(|(key, _)| key.clone());
        match oldest.and_then(|key| self.flags.remove(&key)) {
            Some(gone) => {
                self.subjects -= gone.subjects();
                true
            }
            None => false,
        }
    }

    fn drop_oldest_caller(&mut self) {
        let oldest = self
            .flags
            .values_mut()
            .flat_map(|watched| {
                let place = watched.callers.iter().enumerate().min_by_key(|(_, c)| c.last).map(|(n, _)| n);
                place.map(|place| (watched, place))
            })
            .min_by_key(|(watched, place)| watched.callers[*place].last);
        if let Some((watched, place)) = oldest {
            self.subjects -= watched.callers.swap_remove(place).subjects.len();
        }
    }

    /// Lets go what is too old to count.
    pub fn sweep(&mut self, now: Timestamp) {
        for watched in self.flags.values_mut() {
            watched.callers.retain(|caller| now.since(caller.last) < LATELY);
            watched.callers.iter_mut().for_each(|caller| caller.subjects.retain(|_, a| now.since(a.at) < LATELY));
        }
        self.flags.retain(|_, watched| now.since(watched.last) < LATELY);
        self.subjects = self.flags.values().map(Watched::subjects).sum();
    }

    /// What was found of every client that was judged, by flag; those who got it wrong for the most users first. Flags that are not in
    /// `set` any more are left out.
    pub fn findings(&self, set: &FlagSet, now: Timestamp) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        for (key, watched) in &self.flags {
            let Some(flag) = set.flag(key) else { continue };
            let pinned = flag.hashed_by().unwrap_or("what it needs");
            let callers = watched.callers.iter().map(|caller| caller.finding(key, pinned, now));
            findings.extend(callers.filter(|finding| finding.judged > 0));
        }
        findings.sort_by(|a, b| {
            b.alarm.cmp(&a.alarm).then(b.share().total_cmp(&a.share())).then_with(|| a.flag.cmp(&b.flag))
        });
        findings
    }
}

#[cfg(test)]
mod tests;
