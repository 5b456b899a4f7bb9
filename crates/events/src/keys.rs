//! Keys of the batches of the last minutes, so that what a client sends again is not stored twice, not even after a restart.
//!
//! | path | content |
//! |---|---|
//! | `<dir>/keys` | 24 bytes a key: the key (16) and the time of receipt in nanoseconds (8), little-endian |
//!
//! A key is in the write-ahead log with its batch, and in this file before the batch leaves the log.

use std::collections::{HashSet, VecDeque};

use files::Files;
use vocab::Timestamp;

use crate::store::KEYS_FOR;

/// Keys that are remembered; beyond it the oldest go early.
const KEYS_MAX: usize = 200_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: HashSet<u128>,
    /// Oldest first.
    order: VecDeque<(u128, Timestamp)>,
}

impl Keys {
    /// What the file says; nothing if it is not there or not whole.
    pub(crate) fn load(files: &dyn Files, path: &str) -> Keys {
        let mut keys = Keys::default();
        let bytes = files.read(path).unwrap_or_default();
        for entry in bytes.chunks_exact(24) {
            let (Some(key), Some(at)) = (entry.first_chunk::<16>(), entry.last_chunk::<8>()) else { continue };
            keys.insert(u128::from_le_bytes(*key), Timestamp::from_nanos(i64::from_le_bytes(*at)));
        }
        keys
    }

    pub(crate) fn contains(&self, key: u128) -> bool {
        self.known.contains(&key)
    }

    pub(crate) fn insert(&mut self, key: u128, received: Timestamp) {
        if self.known.insert(key) {
            self.order.push_back((key, received));
            if self.order.len() > KEYS_MAX {
                self.forget_first();
            }
        }
    }

    pub(crate) fn forget_old(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|(_, at)| now.since(*at) > KEYS_FOR) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((key, _)) = self.order.pop_front() {
            self.known.remove(&key);
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.order.len() * 24);
        for (key, at) in &self.order {
            bytes.extend(key.to_le_bytes());
            bytes.extend(at.nanos().to_le_bytes());
        }
        bytes
    }
}
