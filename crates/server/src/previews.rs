//! Preview links at work: whose text names what, and who was the first to use one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use control::{Preview, State};
use vocab::{Id, Pseudonym, Timestamp};

use crate::app::lock;

/// See the module.
pub(crate) struct Previews {
    key: [u8; 32],
    known: ArcSwap<Known>,
    /// First uses that are not on record yet.
    bound: Mutex<HashMap<Id, Pseudonym>>,
}

/// What counts.
#[derive(Default)]
struct Known {
    by_id: BTreeMap<Id, Preview>,
    by_subject: HashMap<(String, Pseudonym), Id>,
    /// Previews that nobody has used so far, by flag; flags that have only used ones are here, too.
    flags: HashMap<String, Vec<Id>>,
}

impl std::fmt::Debug for Previews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Previews")
    }
}

impl Previews {
    pub(crate) fn new(key: [u8; 32]) -> Previews {
        Previews { key, known: ArcSwap::default(), bound: Mutex::default() }
    }

    /// What the state knows, without the flags that were killed ahead of the record.
    pub(crate) fn update(&self, state: &State, killed: &BTreeSet<String>) {
        let mut known = Known::default();
        for preview in state.previews().filter(|preview| !killed.contains(&preview.flag)) {
            let unused = known.flags.entry(preview.flag.clone()).or_default();
            match preview.subject {
                Some(subject) => _ = known.by_subject.insert((preview.flag.clone(), subject), preview.id),
                None => unused.push(preview.id),
            }
            known.by_id.insert(preview.id, preview.clone());
        }
        self.known.store(Arc::new(known));
    }

    pub(crate) fn text(&self, preview: &Preview) -> String {
        auth::preview_text(&self.key, preview.id, preview.ends)
    }

    pub(crate) fn pseudonym(&self, subject: &str) -> Pseudonym {
        otlp::pseudonym(&self.key, subject)
    }

    /// First uses to put on record.
    pub(crate) fn to_record(&self) -> Vec<(Id, Pseudonym)> {
        let known = self.known.load();
        let mut bound = lock(&self.bound);
        bound.retain(|id, _| known.by_id.get(id).is_some_and(|preview| preview.subject.is_none()));
        bound.iter().map(|(id, subject)| (*id, *subject)).collect()
    }

    /// The preview of a flag that a subject is on.
    pub(crate) fn of(&self, flag: &str, subject: &str, now: Timestamp) -> Option<Id> {
        let known = self.known.load();
        let unused = known.flags.get(flag)?;
        let subject = self.pseudonym(subject);
        let used = known.by_subject.get(&(flag.to_owned(), subject)).copied();
        // Used for the first time, and not on record yet: few at any time.
        let first = || {
            let bound = lock(&self.bound);
            bound.iter().find(|(id, by)| **by == subject && unused.contains(id)).map(|(id, _)| *id)
        };
        let id = used.or_else(first)?;
        known.by_id.get(&id).filter(|preview| now < preview.ends).map(|preview| preview.id)
    }
}

impl openfeature::Previews for Previews {
    fn variant(&self, text: &str, flag: &str, subject: &str, now: Timestamp) -> Option<(Id, Arc<str>)> {
        let id = auth::read_preview(&self.key, text, now)?;
        let known = self.known.load();
        let preview = known.by_id.get(&id).filter(|preview| preview.flag == flag && now < preview.ends)?;
        let subject = self.pseudonym(subject);
        // Exactly one person: named when it was made, or else whoever is first.
        let owner = preview.subject.unwrap_or_else(|| *lock(&self.bound).entry(id).or_insert(subject));
        (owner == subject).then(|| (id, preview.variant.clone()))
    }
}
