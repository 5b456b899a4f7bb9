//! A change of flags and segments that is served to some subjects before it counts for all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::document::{Flag, FlagSet, digest};
use crate::segment::Segment;

/// A change of a flag or a segment, as it is asked for and recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlagChange {
    /// Make or change a flag.
    Put {
        /// Which.
        key: String,
        /// In flagd's dialect or ours.
        definition: Value,
    },
    /// Remove a flag.
    Delete(String),
    /// Make a killed flag what it was before.
    Revive(String),
    /// Make or change a segment.
    PutSegment {
        /// Which.
        key: String,
        /// See docs/reference/flags.md.
        definition: Value,
    },
    /// Remove a segment.
    DeleteSegment(String),
}

impl FlagChange {
    /// Whether it is a flag (true) or a segment, and its key.
    pub fn place(&self) -> (bool, &str) {
        match self {
            FlagChange::Put { key, .. } | FlagChange::Delete(key) | FlagChange::Revive(key) => (true, key),
            FlagChange::PutSegment { key, .. } | FlagChange::DeleteSegment(key) => (false, key),
        }
    }

    /// What is changed, in words: `flag player`.
    pub fn target(&self) -> String {
        let (is_flag, key) = self.place();
        format!("{} {key}", if is_flag { "flag" } else { "segment" })
    }
}

/// Flags and segments as they will be.
#[derive(Clone)]
pub struct Patch {
    flags: BTreeMap<String, Arc<Flag>>,
    segments: BTreeMap<String, Arc<Segment>>,
    /// Flags (true) and segments that will be gone.
    gone: BTreeSet<(bool, String)>,
    digest: [u8; 16],
}

impl Patch {
    /// Flags and segments that take the place of those with their keys, or join them. A flag that will be gone is here as one that
    /// is off ([`Flag::absent`]).
    pub fn new(flags: impl IntoIterator<Item = Arc<Flag>>, segments: BTreeMap<String, Arc<Segment>>) -> Patch {
        let flags: BTreeMap<_, _> = flags.into_iter().map(|flag| (flag.key().to_owned(), flag)).collect();
        let mut parts: Vec<String> = flags.iter().map(|(key, flag)| format!("{key:?} {:?}", flag.digest())).collect();
        parts.extend(segments.iter().map(|(key, segment)| format!("{key:?} {}", segment.definition())));
        let digest = digest(&parts.iter().map(String::as_str).collect::<Vec<_>>());
        Patch { flags, segments, gone: BTreeSet::new(), digest }
    }

    /// With flags (true) and segments that will be gone. Those flags are among its flags, as absent ones.
    #[must_use]
    pub fn without(self, gone: BTreeSet<(bool, String)>) -> Patch {
        Patch { gone, ..self }
    }

    /// Puts into a set what it makes, and takes out what will be gone.
    pub fn carry_out(&self, set: &mut FlagSet) {
        self.flags.values().for_each(|flag| set.insert(flag.clone()));
        self.segments.iter().for_each(|(key, segment)| set.set_segment(key, Some(segment.clone())));
        for (is_flag, key) in &self.gone {
            if *is_flag {
                set.remove(key);
            } else {
                set.set_segment(key, None);
            }
        }
    }

    /// What it changes, and what decides along with that once it is carried out (`after`): flags (true) and segments.
    pub fn depends_on(&self, after: &FlagSet) -> BTreeSet<(bool, String)> {
        let mut found: BTreeSet<(bool, String)> = self.segments.keys().map(|key| (false, key.clone())).collect();
        found.extend(self.gone.iter().cloned());
        for key in self.flags.keys() {
            found.insert((true, key.clone()));
            let (flags, segments) = after.needed_by(key);
            found.extend(flags.into_iter().map(|key| (true, key)).chain(segments.into_iter().map(|key| (false, key))));
        }
        for segment in self.segments.values() {
            let (flags, segments) = segment.needs();
            let needs = flags.into_iter().map(|key| (true, key)).chain(segments.into_iter().map(|key| (false, key)));
            for (is_flag, key) in needs {
                let (flags, segments) = if is_flag { after.needed_by(&key) } else { Default::default() };
                found.insert((is_flag, key.into_string()));
                found.extend(
                    flags.into_iter().map(|key| (true, key)).chain(segments.into_iter().map(|key| (false, key))),
                );
            }
        }
        found
    }

    /// The flags, by key.
    pub fn flags(&self) -> &BTreeMap<String, Arc<Flag>> {
        &self.flags
    }

    /// The segments, by key.
    pub fn segments(&self) -> &BTreeMap<String, Arc<Segment>> {
        &self.segments
    }

    /// When answers under it may change by themselves.
    pub(crate) fn clock(&self, clock: &mut Clock) {
        self.flags.values().for_each(|flag| clock.merge(flag.clock()));
        self.segments.values().for_each(|segment| segment.clock(clock));
    }

    /// Every flag of `set` that decides otherwise, or may, under this patch: those it names, and those that need what it names, now
    /// or under the patch, directly or not.
    pub fn touches(&self, set: &FlagSet) -> BTreeSet<String> {
        // What needs what, turned round: from a flag (true) or a segment (false) to those that need it.
        let mut needed_by: HashMap<(bool, String), Vec<(bool, String)>> = HashMap::new();
        let mut note = |by: (bool, &str), (flags, segments): (Vec<Box<str>>, Vec<Box<str>>)| {
            let flags = flags.into_iter().map(|key| (true, key));
            for (is_flag, key) in flags.chain(segments.into_iter().map(|key| (false, key))) {
                needed_by.entry((is_flag, key.into_string())).or_default().push((by.0, by.1.to_owned()));
            }
        };
        for flag in set.all_flags().chain(self.flags.values()).filter(|flag| flag.needs_any()) {
            note((true, flag.key()), flag.needs().clone());
        }
        let own = self.segments.iter().map(|(key, segment)| (key.as_str(), segment));
        for (key, segment) in set.segments().into_iter().chain(own) {
            note((false, key), segment.needs());
        }
        let mut open: Vec<(bool, String)> = self.flags.keys().map(|key| (true, key.clone())).collect();
        open.extend(self.segments.keys().map(|key| (false, key.clone())));
        let mut seen: BTreeSet<(bool, String)> = BTreeSet::new();
        while let Some(node) = open.pop() {
            if !seen.contains(&node) {
                open.extend(needed_by.get(&node).into_iter().flatten().cloned());
                seen.insert(node);
            }
        }
        seen.into_iter().filter(|(is_flag, _)| *is_flag).map(|(_, key)| key).collect()
    }
}

/// By its digest: what it says of flags is long, and lists in it have no order.
impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patch({})", self.digest.map(|byte| format!("{byte:02x}")).concat())
    }
}

impl PartialEq for Patch {
    fn eq(&self, other: &Patch) -> bool {
        self.digest == other.digest
    }
}

impl Flag {
    /// The flag as clients meet it while it is not there: off, without a value, so that they take the code default; and still known,
    /// so that an answer can name the experiment.
    pub fn absent(&self) -> Option<Flag> {
        let variants: Map<String, Value> = self.variants().iter().cloned().collect();
        let definition = json!({"state": "DISABLED", "variants": variants});
        Flag::compile(self.key(), &definition, &Map::new(), &Map::new()).ok()
    }
}
