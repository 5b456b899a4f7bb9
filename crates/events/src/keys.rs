//! Keys of the batches of the last minutes, so that what a client sends again is not stored twice, not even after a restart.
//!
//! | path | content |
//! |---|---|
//! | `<dir>/keys` | 24 bytes a key: the key (16) and the time of receipt in nanoseconds (8); then the CRC-32C of all that (4); little-endian |
//!
//! The first version had no checksum. It is read, and nothing in it can be found damaged.
//! A key is in the write-ahead log with its batch, and in this file before the batch leaves the log.

use std::collections::{HashSet, VecDeque};
use std::io;

use files::Files;
use vocab::Timestamp;

use crate::store::KEYS_FOR;

/// Keys that are remembered; beyond it the oldest go early.
const KEYS_MAX: usize = 200_000;
/// Bytes of a key and its time.
const ENTRY: usize = 24;
/// Bytes of the checksum.
const CRC: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: HashSet<u128>,
    /// Oldest first.
    order: VecDeque<(u128, Timestamp)>,
}

impl Keys {
    /// What the file says; nothing if it is not there. A damaged one is worth nothing, and its reader must hear of it.
    pub(crate) fn read(files: &dyn Files, path: &str) -> Result<Vec<(u128, Timestamp)>, String> {
        let bytes = match files.read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|error| format!("{path}: {error}"))?,
        };
        let whole = match bytes.len() % ENTRY {
            0 => &bytes[..],
            CRC => {
                let (entries, crc) = bytes.split_at(bytes.len() - CRC);
                if crc32c::crc32c(entries).to_le_bytes() != crc {
                    return Err(format!("{path}: does not match its checksum"));
                }
                entries
            }
            _ => return Err(format!("{path}: is cut short")),
        };
        let entry = |entry: &[u8]| {
            let (key, at) = (entry.first_chunk::<16>()?, entry.last_chunk::<8>()?);
            Some((u128::from_le_bytes(*key), Timestamp::from_nanos(i64::from_le_bytes(*at))))
        };
        Ok(whole.chunks_exact(ENTRY).filter_map(entry).collect())
    }

    /// Of keys from several places, in any order.
    pub(crate) fn of(mut known: Vec<(u128, Timestamp)>) -> Keys {
        // In order of time, so that the newest stay where there are too many.
        known.sort_by_key(|(_, received)| *received);
        let mut keys = Keys::default();
        known.into_iter().for_each(|(key, received)| keys.insert(key, received));
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
        let mut bytes = Vec::with_capacity(self.order.len() * ENTRY + CRC);
        for (key, at) in &self.order {
            bytes.extend(key.to_le_bytes());
            bytes.extend(at.nanos().to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }
}
