//! Preview links at work: whose text names what, and who was the first to use one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use control::{Preview, State};
use vocab::{Id, Pseudonym, Timestamp};

use crate::app::lock;

/// See the module.
pub(crate) struct Previews {
    key: [u8; 32],
    known: ArcSwap<BTreeMap<Id, Preview>>,
    /// First uses that are not on record yet.
    bound: Mutex<HashMap<Id, Pseudonym>>,
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

    /// What the state knows.
    pub(crate) fn update(&self, state: &State) {
        let known = state.previews().map(|preview| (preview.id, preview.clone())).collect();
        self.known.store(Arc::new(known));
    }

    pub(crate) fn text(&self, preview: &Preview) -> String {
        auth::preview_text(&self.key, preview.id, preview.ends)
    }

    pub(crate) fn pseudonym(&self, subject: &str) -> Pseudonym {
        otlp::pseudonym(&self.key, subject)
    }

    fn owner(&self, preview: &Preview) -> Option<Pseudonym> {
        preview.subject.or_else(|| lock(&self.bound).get(&preview.id).copied())
    }

    /// First uses to put on record.
    pub(crate) fn to_record(&self) -> Vec<(Id, Pseudonym)> {
        let known = self.known.load();
        let mut bound = lock(&self.bound);
        bound.retain(|id, _| known.get(id).is_some_and(|preview| preview.subject.is_none()));
        bound.iter().map(|(id, subject)| (*id, *subject)).collect()
    }

    /// The preview of a flag that a subject is on.
    pub(crate) fn of(&self, flag: &str, subject: &str, now: Timestamp) -> Option<Id> {
        let known = self.known.load();
        let mut of_flag = known.values().filter(|p| p.flag == flag && now < p.ends).peekable();
        of_flag.peek()?;
        let subject = self.pseudonym(subject);
        of_flag.find(|preview| self.owner(preview) == Some(subject)).map(|preview| preview.id)
    }
}

impl openfeature::Previews for Previews {
    fn variant(&self, text: &str, flag: &str, subject: &str, now: Timestamp) -> Option<(Id, Arc<str>)> {
        let id = auth::read_preview(&self.key, text, now)?;
        let known = self.known.load();
        let preview = known.get(&id).filter(|preview| preview.flag == flag && now < preview.ends)?;
        let subject = self.pseudonym(subject);
        // Exactly one person: named when it was made, or else whoever is first.
        let owner = preview.subject.unwrap_or_else(|| *lock(&self.bound).entry(id).or_insert(subject));
        (owner == subject).then(|| (id, preview.variant.clone()))
    }
}
