//! Who uses which flag, counted.
//!
//! Two sources, kept apart since one evaluation may come by both: what this server resolved ([`Asked`]), and what clients report they
//! evaluated ([`Reported`]), by service and version. Keys, names and counts only; no subject is in it.
//!
//! All of it is bounded. Flags that exist have room; keys that are no flag share [`UNKNOWN_MAX`] places, where the one that was not heard
//! of for longest goes first; beyond [`BYTES_MAX`] no new service or variant is taken. What was not taken is counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vocab::Timestamp;

/// Reported keys that are no flag: misspelled, deleted, or not made yet. A client that makes them up gets no more of our memory.
pub const UNKNOWN_MAX: usize = 5_000;
/// Services with their versions that are known of one flag: some releases of some services. The one not heard of for longest goes.
pub const CALLERS_MAX: usize = 16;
/// Variants of one flag that are counted by name.
pub const VARIANTS_MAX: usize = 20;
/// The longest name of a service, version or variant; longer ones are cut.
pub const NAME_BYTES_MAX: usize = 128;
/// The longest key of a flag; no flag has a longer one.
pub const KEY_BYTES_MAX: usize = 256;
/// All of the table: a hundred thousand flags, each with two services.
pub const BYTES_MAX: usize = 64 << 20;
/// What an entry weighs beside its text.
const ENTRY_BYTES: usize = 96;

/// What this server resolved of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
    /// Whether the flag existed the last time.
    pub known: bool,
}

/// A service in a version, as telemetry names it; either name may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// `service.name`
    pub service: String,
    /// `service.version`
    pub version: String,
    /// When it last evaluated the flag.
    pub last: Timestamp,
    /// How often it did.
    pub count: u64,
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&named(&self.service, &self.version))
    }
}

/// A service and its version, for people; in one line, whatever a client calls itself.
pub(crate) fn named(service: &str, version: &str) -> String {
    let service = if service.is_empty() { "a service without a name" } else { service };
    let name = if version.is_empty() { service.to_owned() } else { format!("{service} {version}") };
    name.replace(char::is_control, " ")
}

/// What clients report of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// How often.
    pub count: u64,
    /// Whether the flag existed the last time.
    pub known: bool,
    /// At most [`CALLERS_MAX`], in no order.
    pub callers: Vec<Caller>,
    /// How often each variant was given; the empty name is the code default.
    pub variants: BTreeMap<String, u64>,
    /// The variant that every report since then gave.
    pub only: Option<(String, Timestamp)>,
}

/// Since when a flag is there as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Since when it is known to exist.
    pub since: Timestamp,
    /// The audit index of its last change.
    pub version: u64,
    /// When that change was noticed.
    pub changed: Timestamp,
}

/// One reported evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'a> {
    /// The flag's key.
    pub key: &'a str,
    /// Whether there is such a flag.
    pub known: bool,
    /// `service.name`, or empty.
    pub service: &'a str,
    /// `service.version`, or empty.
    pub version: &'a str,
    /// A variant that the flag has; none for the code default, or for one that it does not have.
    pub variant: Option<&'a str>,
    /// Whether it failed: it then says nothing of variants.
    pub failed: bool,
    /// When.
    pub at: Timestamp,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    reported: BTreeMap<String, Reported>,
    placed: BTreeMap<String, Placed>,
    /// When anybody last reported anything.
    heard: Option<Timestamp>,
    /// Reports of which some part was not taken for want of room.
    lost: u64,
    #[serde(skip)]
    bytes: usize,
    #[serde(skip)]
    unknown: usize,
}

/// A name as it is kept.
pub(crate) fn cut(text: &str) -> &str {
    let end = (0..=NAME_BYTES_MAX.min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
    &text[..end]
}

impl Reported {
    fn bytes(&self) -> usize {
        let callers = self.callers.iter().map(|c| ENTRY_BYTES + c.service.len() + c.version.len()).sum::<usize>();
        ENTRY_BYTES + callers + self.variants.keys().map(|name| ENTRY_BYTES + name.len()).sum::<usize>()
    }
}

impl Usage {
    /// What is worked out from the rest; to be called on a table that was read back, which it also brings back within the bounds.
    #[must_use]
    pub fn restored(mut self) -> Usage {
        self.reported.retain(|key, _| key.len() <= KEY_BYTES_MAX);
        for reported in self.reported.values_mut() {
            reported.callers.sort_by_key(|caller| std::cmp::Reverse(caller.last));
            reported.callers.truncate(CALLERS_MAX);
        }
        self.bytes = self.reported.iter().map(|(key, reported)| key.len() + reported.bytes()).sum();
        self.unknown = self.reported.values().filter(|reported| !reported.known).count();
        self.make_room();
        self
    }

    /// Takes one reported evaluation.
    pub fn take(&mut self, evaluated: &Evaluated<'_>) {
        let Evaluated { key, known, at, .. } = *evaluated;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return;
        }
        self.heard = self.heard.max(Some(at));
        if !self.reported.contains_key(key) {
            if self.bytes > BYTES_MAX {
                self.lost += 1;
                return;
            }
            self.reported.insert(key.to_owned(), Reported { first: at, last: at, known, ..Reported::default() });
            self.bytes += ENTRY_BYTES + key.len();
            self.unknown += usize::from(!known);
            self.make_room();
        }
        let Some(reported) = self.reported.get_mut(key) else { return };
        if reported.known != known {
            self.unknown = if known { self.unknown - 1 } else { self.unknown + 1 };
            reported.known = known;
        }
        (reported.first, reported.last) = (reported.first.min(at), reported.last.max(at));
        reported.count += 1;
        let room = self.bytes <= BYTES_MAX;
        let before = reported.bytes();
        let (service, version) = (cut(evaluated.service), cut(evaluated.version));
        match reported.callers.iter_mut().find(|c| c.service == service && c.version == version) {
            Some(caller) => {
                caller.last = caller.last.max(at);
                caller.count += 1;
            }
            None if room => {
                if reported.callers.len() >= CALLERS_MAX {
                    let oldest = reported.callers.iter().enumerate().min_by_key(|(_, caller)| caller.last);
                    if let Some((oldest, _)) = oldest {
                        reported.callers.swap_remove(oldest);
                    }
                }
                reported.callers.push(Caller {
                    service: service.to_owned(),
                    version: version.to_owned(),
                    last: at,
                    count: 1,
                });
            }
            None => self.lost += 1,
        }
        if known && !evaluated.failed {
            let variant = cut(evaluated.variant.unwrap_or_default());
            let room = room && reported.variants.len() < VARIANTS_MAX;
            match reported.variants.get_mut(variant) {
                Some(count) => *count += 1,
                None if room => {
                    reported.variants.insert(variant.to_owned(), 1);
                }
                None => self.lost += 1,
            }
            if reported.only.as_ref().is_none_or(|(only, _)| only != variant) {
                reported.only = Some((variant.to_owned(), at));
            }
        }
        self.bytes = (self.bytes + reported.bytes()).saturating_sub(before);
    }

    /// Of too many keys that are no flag, a quarter goes: those not heard of for longest.
    fn make_room(&mut self) {
        if self.unknown <= UNKNOWN_MAX {
            return;
        }
        let unknown = self.reported.iter().filter(|(_, reported)| !reported.known);
        let mut by_age: Vec<(Timestamp, String)> =
            unknown.map(|(key, reported)| (reported.last, key.clone())).collect();
        by_age.sort_unstable();
        for (_, key) in by_age.into_iter().take(self.unknown - UNKNOWN_MAX + UNKNOWN_MAX / 4) {
            if let Some(gone) = self.reported.remove(&key) {
                self.bytes = self.bytes.saturating_sub(key.len() + gone.bytes());
                self.unknown -= 1;
                self.lost += 1;
            }
        }
    }

    /// Takes note of the flags that exist, with the audit index of each one's last change.
    pub fn exist<'a>(&mut self, flags: impl Iterator<Item = (&'a str, u64)>, now: Timestamp) {
        let mut placed = BTreeMap::new();
        for (key, version) in flags {
            placed.insert(key.to_owned(), self.placed(key, version, now));
        }
        self.placed = placed;
        for (key, reported) in &mut self.reported {
            let known = self.placed.contains_key(key);
            if reported.known != known {
                self.unknown = if known { self.unknown - 1 } else { self.unknown + 1 };
                reported.known = known;
            }
        }
        self.make_room();
    }

    /// Since when a flag with this last change is there as it is.
    pub fn placed(&self, key: &str, version: u64, now: Timestamp) -> Placed {
        match self.placed.get(key) {
            Some(placed) if placed.version == version => *placed,
            Some(placed) => Placed { since: placed.since, version, changed: now },
            None => Placed { since: now, version, changed: now },
        }
    }

    /// What clients report of a key.
    pub fn reported(&self, key: &str) -> Option<&Reported> {
        self.reported.get(key)
    }

    /// Reported keys that are no flag, by key.
    pub fn unknown(&self) -> impl Iterator<Item = (&str, &Reported)> {
        self.reported.iter().filter(|(_, reported)| !reported.known).map(|(key, reported)| (key.as_str(), reported))
    }

    /// When anybody last reported any evaluation.
    pub fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// Reports of which some part was not taken for want of room.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests;
