//! Who and what was evaluated lately: a bounded sample of contexts for judging changes, and for each flag when it was asked for.
//!
//! Contexts are in memory only: they are what targeting needs, raw keys included, and nothing of them reaches a disk, a log or an
//! answer. After a restart the sample fills again with the first evaluations. What is written down (by [`crate::lifecycle`]) is when each
//! flag was asked for and how many contexts were known, so that after a restart it can be said how many are still missing.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Mutex;

use flags::Context;
use lifecycle::Asked;
use openfeature::Watcher;
use serde::{Deserialize, Serialize};
use vocab::{Arm, Id, Millis, Timestamp};

use crate::app::lock;
use crate::exposed::Exposed;

/// Subjects that are remembered: enough to tell a share of 1 % from one of 2 %.
const SUBJECTS_MAX: usize = 10_000;
/// Keys that are remembered, unknown ones included.
const KEYS_MAX: usize = 100_000;
/// So many contexts are taken to have been there where nobody wrote down how many: half of them are awaited before shares count.
const UNKNOWN_CONTEXTS: usize = 200;
/// A context with more text than this is not remembered; it takes part in no judgement.
const CONTEXT_BYTES_MAX: usize = 4_096;
/// The longest key of a flag.
const KEY_BYTES_MAX: usize = 256;
/// How often what is old is taken out of full tables.
const SWEEP: Millis = Millis::from_secs(600);
/// How long somebody counts as seen lately.
const LATELY: Millis = Millis::from_secs(24 * 3_600);

/// Flags that one subject asks for by name; beyond that he counts for all.
const ASKS_MAX: usize = 256;
/// Moves of one flag that are remembered one by one.
const MOVES_MAX: usize = 100;

/// What a subject asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks {
    all: bool,
    /// Hashes of keys.
    keys: Vec<u64>,
}

impl Asks {
    fn note(&mut self, key: Option<u64>) {
        match key {
            Some(key) if !self.all && !self.keys.contains(&key) && self.keys.len() < ASKS_MAX => self.keys.push(key),
            Some(key) if self.all || self.keys.contains(&key) => {}
            _ => *self = Asks { all: true, keys: Vec::new() },
        }
    }
}

/// How many contexts were known at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) contexts: usize,
    pub(crate) at: Timestamp,
}

/// What outlives a restart: keys, times and counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) asked: BTreeMap<String, Asked>,
    /// When somebody asked for all flags at once.
    pub(crate) all: Option<Timestamp>,
    pub(crate) remembered: Remembered,
    /// Shares of their users that flags' changes moved at once, unwatched.
    pub(crate) moved: BTreeMap<String, Vec<(Timestamp, f64)>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By a keyed hash of subject and names of attributes: those with the lowest hashes are kept, which is a fair sample of all,
    /// however often each comes by. Two services that send other attributes are two contexts.
    contexts: BTreeMap<u64, (Timestamp, Context, Asks)>,
    moved: BTreeMap<String, Vec<(Timestamp, f64)>>,
    swept: Timestamp,
    asked: HashMap<String, Asked>,
    /// When somebody asked for all flags at once.
    all: Option<Timestamp>,
    /// From before the start.
    remembered: Remembered,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Who takes part in experiments.
    pub(crate) exposed: Exposed,
    inner: Mutex<Inner>,
    hasher: RandomState,
}

impl Watcher for Recent {
    fn exposed(&self, key: &str, subject: &str, (experiment, arm): (Id, Arm), variant: Option<&str>) {
        self.exposed.note(experiment, key, subject, arm, variant);
    }

    fn evaluated(&self, key: Option<&str>, context: &Context, known: bool, now: Timestamp) {
        // An evaluation never waits for the one beside it: what is missed then is seen the next time.
        let Ok(mut guard) = self.inner.try_lock() else { return };
        let inner = &mut *guard;
        // What is old makes room, now and then.
        if now.since(inner.swept) > SWEEP && (inner.contexts.len() >= SUBJECTS_MAX || inner.asked.len() >= KEYS_MAX) {
            inner.swept = now;
            inner.contexts.retain(|_, (at, ..)| now.since(*at) < LATELY);
            if inner.asked.len() >= KEYS_MAX {
                // Keys that are no flag first.
                inner.asked.retain(|_, asked| asked.known || now.since(asked.last) < LATELY);
            }
            if inner.asked.len() >= KEYS_MAX {
                inner.asked.retain(|_, asked| now.since(asked.last) < LATELY);
            }
        }
        let room = inner.asked.len() < KEYS_MAX;
        match key {
            None => inner.all = Some(now),
            // No flag has such a key.
            Some(key) if key.len() > KEY_BYTES_MAX => {}
            Some(key) => match inner.asked.get_mut(key) {
                Some(asked) => *asked = Asked { first: asked.first, last: now, count: asked.count + 1, known },
                None if room => {
                    inner.asked.insert(key.to_owned(), Asked { first: now, last: now, count: 1, known });
                }
                None => {}
            },
        }
        let Some(subject) = context.targeting_key() else { return };
        let mut hasher = self.hasher.build_hasher();
        subject.hash(&mut hasher);
        context.attributes().keys().for_each(|name| name.hash(&mut hasher));
        let hash = hasher.finish();
        let full = inner.contexts.len() >= SUBJECTS_MAX;
        let asked_for = key.map(|key| self.hasher.hash_one(key));
        if let Some((at, held, asks)) = inner.contexts.get_mut(&hash) {
            *at = now;
            asks.note(asked_for);
            if held.attributes() != context.attributes() && weight(context) <= CONTEXT_BYTES_MAX {
                *held = context.clone();
            }
            return;
        }
        if full && inner.contexts.last_key_value().is_some_and(|(last, _)| hash > *last) {
            return;
        }
        if weight(context) > CONTEXT_BYTES_MAX {
            return;
        }
        let mut asks = Asks::default();
        asks.note(asked_for);
        inner.contexts.insert(hash, (now, context.clone(), asks));
        if inner.contexts.len() > SUBJECTS_MAX {
            inner.contexts.pop_last();
        }
    }
}

fn weight(context: &Context) -> usize {
    context.targeting_key().map_or(0, str::len)
        + context.attributes().iter().map(|(name, value)| name.len() + value.to_string().len()).sum::<usize>()
}

impl Inner {
    /// Contexts of subjects seen lately.
    fn known(&self, now: Timestamp) -> usize {
        self.contexts.values().filter(|(at, ..)| now.since(*at) < LATELY).count()
    }

    /// How many there were before the restart, if that is not too long ago.
    fn remembered_still(&self, now: Timestamp) -> Option<Remembered> {
        Some(self.remembered).filter(|remembered| now.since(remembered.at) < LATELY)
    }
}

impl Recent {
    /// Contexts of subjects seen lately, in no order, and what each asks for.
    pub(crate) fn sample(&self, now: Timestamp) -> (Vec<Context>, Vec<Asks>) {
        let inner = lock(&self.inner);
        let lately = inner.contexts.values().filter(|(at, ..)| now.since(*at) < LATELY);
        lately.map(|(_, context, asks)| (context.clone(), asks.clone())).unzip()
    }

    /// Whether a subject of the sample asks for a flag.
    pub(crate) fn asks(&self, asks: &Asks, key: &str) -> bool {
        asks.all || asks.keys.contains(&self.hasher.hash_one(key))
    }

    /// A number that is another one after a restart.
    pub(crate) fn nonce(&self) -> u64 {
        self.hasher.hash_one("nonce")
    }

    /// A change of a flag moved this share of its users at once.
    pub(crate) fn note_moved(&self, key: &str, share: f64, now: Timestamp) {
        let mut inner = lock(&self.inner);
        inner.moved.retain(|_, moves| {
            moves.retain(|(at, _)| now.since(*at) < LATELY);
            !moves.is_empty()
        });
        let moves = inner.moved.entry(key.to_owned()).or_default();
        // As if all of it had happened now: never less than it is.
        let before = if moves.len() >= MOVES_MAX { moves.pop().map_or(0.0, |(_, share)| share) } else { 0.0 };
        moves.push((now, before + share));
    }

    /// The share of a flag's users that its changes moved at once within the last day; those who were moved twice count twice.
    pub(crate) fn moved(&self, key: &str, now: Timestamp) -> f64 {
        let inner = lock(&self.inner);
        let moves = inner.moved.get(key).into_iter().flatten();
        moves.filter(|(at, _)| now.since(*at) < LATELY).map(|(_, share)| share).sum()
    }

    /// Nothing is known of who asked for what before the start, though there were flags: everything may have been asked for.
    pub(crate) fn know_nothing(&self, now: Timestamp) {
        let mut inner = lock(&self.inner);
        inner.all = Some(now);
        inner.remembered = Remembered { contexts: UNKNOWN_CONTEXTS, at: now };
    }

    /// Whether somebody asked for this flag, by name or for all, lately.
    pub(crate) fn asked_lately(&self, key: &str, now: Timestamp) -> bool {
        let inner = lock(&self.inner);
        let lately = |at: Timestamp| now.since(at) < LATELY;
        // With a full table nobody can say who did not ask.
        let full = inner.asked.len() >= KEYS_MAX;
        full || inner.all.is_some_and(lately) || inner.asked.get(key).is_some_and(|asked| lately(asked.last))
    }

    /// What outlives a restart. A sample that is still smaller than the one before the last restart does not replace its number.
    pub(crate) fn kept(&self, now: Timestamp) -> Kept {
        let inner = lock(&self.inner);
        let known = Remembered { contexts: inner.known(now), at: now };
        let before = inner.remembered_still(now).filter(|before| before.contexts > known.contexts);
        let asked = inner.asked.iter().map(|(key, asked)| (key.clone(), *asked)).collect();
        Kept { asked, all: inner.all, remembered: before.unwrap_or(known), moved: inner.moved.clone() }
    }

    /// Goes on from what was kept.
    pub(crate) fn restore(&self, kept: Kept) {
        let mut inner = lock(&self.inner);
        inner.asked = kept.asked.into_iter().filter(|(key, _)| key.len() <= KEY_BYTES_MAX).take(KEYS_MAX).collect();
        (inner.all, inner.remembered) = (kept.all, kept.remembered);
        inner.moved = kept.moved.into_iter().take(KEYS_MAX).collect();
    }

    /// How much of the sample from before the last restart is there again, in `[0, 1]`; 1 if there was none within the last day.
    pub(crate) fn known_share(&self, now: Timestamp) -> f64 {
        let inner = lock(&self.inner);
        match inner.remembered_still(now) {
            Some(before) if before.contexts > 0 => (inner.known(now) as f64 / before.contexts as f64).min(1.0),
            _ => 1.0,
        }
    }

    /// When a client last asked for all flags at once, or took them to evaluate in process.
    pub(crate) fn asked_all(&self) -> Option<Timestamp> {
        lock(&self.inner).all
    }

    /// What is known of one flag's evaluations.
    pub(crate) fn asked(&self, key: &str) -> Option<Asked> {
        lock(&self.inner).asked.get(key).copied()
    }

    /// Flags that clients ask for and that do not exist, the most asked first.
    pub(crate) fn unknown(&self, exists: impl Fn(&str) -> bool) -> Vec<(String, Asked)> {
        let inner = lock(&self.inner);
        let mut list: Vec<(String, Asked)> =
            inner.asked.iter().filter(|(key, _)| !exists(key)).map(|(key, asked)| (key.clone(), *asked)).collect();
        list.sort_by(|a, b| b.1.count.cmp(&a.1.count).then_with(|| a.0.cmp(&b.0)));
        list
    }
}

#[cfg(test)]
mod tests;
