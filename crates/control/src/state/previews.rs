//! Previews: one person on one variant, for a while.

use std::sync::Arc;

use vocab::{Id, Kind, Millis, Pseudonym, Timestamp};

use super::{Refusal, State, refuse};
use crate::entry::Action;

/// Previews at once.
const PREVIEWS_MAX: usize = 10_000;
/// The longest.
const LONGEST: Millis = Millis::from_secs(31 * 86_400);

/// One person on one variant, for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// Given by the fold.
    pub id: Id,
    /// Of which flag.
    pub flag: String,
    /// What the person gets.
    pub variant: Arc<str>,
    /// Who; none until somebody uses it for the first time.
    pub subject: Option<Pseudonym>,
    /// It counts until then.
    pub ends: Timestamp,
    /// Who made it.
    pub by: String,
}

impl State {
    /// The previews that were not revoked, some of which may have ended.
    pub fn previews(&self) -> impl DoubleEndedIterator<Item = &Preview> {
        self.previews.values()
    }

    /// One preview.
    pub fn preview(&self, id: Id) -> Option<&Preview> {
        self.previews.get(&id)
    }

    pub(super) fn create_preview(
        &self,
        flag: String,
        variant: String,
        subject: Option<Pseudonym>,
        ends: Timestamp,
        now: Timestamp,
    ) -> Result<Action, Refusal> {
        let record = self.known_flag(&flag)?;
        if record.before_kill.is_some() {
            let detail = format!("flag {flag:?} was killed and stays off, for previews too");
            return refuse("killed", detail, format!("look why, then `seaworthy flag revive {flag}`"));
        }
        if !record.flag.variants().iter().any(|(name, _)| *name == variant) {
            let names: Vec<&str> = record.flag.variants().iter().map(|(name, _)| name.as_str()).collect();
            let detail = format!("flag {flag:?} has no variant {variant:?}");
            return refuse("unknown-variant", detail, format!("choose one of {}", names.join(", ")));
        }
        if ends <= now || ends.since(now) > LONGEST {
            return refuse(
                "invalid-end",
                "a preview lasts more than nothing and at most 31 days",
                "choose another end",
            );
        }
        if self.previews.values().filter(|preview| now < preview.ends).count() >= PREVIEWS_MAX {
            return refuse("too-many-previews", format!("there are {PREVIEWS_MAX} previews"), "revoke some");
        }
        let subject = subject.map(|subject| subject.to_string());
        Ok(Action::PreviewCreate { flag, variant, subject, ends: ends.micros() })
    }

    pub(super) fn known_preview(&self, id: Id) -> Result<&Preview, Refusal> {
        match self.previews.get(&id) {
            Some(preview) => Ok(preview),
            None => refuse("unknown-preview", format!("there is no preview {id}"), "see `seaworthy preview list`"),
        }
    }

    pub(super) fn add_preview(&mut self, index: u64, at: Timestamp, by: String, action: Action) {
        let Action::PreviewCreate { flag, variant, subject, ends } = action else { return };
        // What has ended makes room.
        self.previews.retain(|_, preview| at < preview.ends);
        let id = Id::new(Kind::Preview, index);
        let subject = subject.and_then(|text| Pseudonym::parse(&text).ok());
        let ends = Timestamp::from_micros(ends);
        self.previews.insert(id, Preview { id, flag, variant: variant.into(), subject, ends, by });
    }

    pub(super) fn bind_preview(&mut self, id: Id, subject: &str) {
        if let Some(preview) = self.previews.get_mut(&id) {
            preview.subject = preview.subject.or(Pseudonym::parse(subject).ok());
        }
    }
}
