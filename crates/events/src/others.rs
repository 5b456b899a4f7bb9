//! What a store shares with others over a bucket: batches and files to send, and files and batches of others to show in answers.
//!
//! What is shown of others is never merged, cooled or removed here; whoever wrote it does that. How it gets from one to another is
//! unknown here.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use files::Files;
use vocab::Timestamp;

use crate::builder::Builder;
use crate::store::{OpenError, Part, Place, Store, covering, known, lock, name, remove, unpack};

/// What others have.
#[derive(Debug, Default)]
pub(crate) struct Others {
    pub(crate) parts: Vec<Arc<Part>>,
    /// Why some of it may be missing.
    pub(crate) problem: Option<String>,
}

/// Rows that are elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Foreign(Arc<Part>);

/// A file of this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Below the store's directory.
    pub path: String,
    /// Numbers of its first and last batch.
    pub batches: (u64, u64),
    /// Its newest row.
    pub newest: Timestamp,
    /// Whether it is in the bucket alone.
    pub away: bool,
}

impl LocalFile {
    /// What the name of a file says; nothing for names of the first version and of other files.
    pub fn of(path: &str) -> Option<LocalFile> {
        let name = name(path)?;
        let (_, newest, _) = name.extent?;
        let batches = (name.first, name.last);
        Some(LocalFile { path: path.to_owned(), batches, newest: Timestamp::from_nanos(newest), away: false })
    }
}

impl Foreign {
    /// A file by its name; `files` brings it when somebody asks for its time. None if it is not a name that says everything.
    pub fn file(files: &Arc<dyn Files>, path: &str, bytes: u64) -> Option<Foreign> {
        let name = name(path)?;
        let known = known(files, path, bytes, true, (name.first, name.last, name.extent?, name.crc?));
        Some(Foreign(Arc::new(known)))
    }

    /// Whether its file was read and is not what was written.
    pub fn is_damaged(&self) -> bool {
        match &self.0.place {
            Place::Memory(_) => false,
            Place::Hot(hot) => hot.is_damaged(),
            Place::Cold(cold) => matches!(cold.metadata.get(), Some(Err(_))),
        }
    }

    /// Batches of a write-ahead log, numbered from `first` on, and their keys with the times of receipt. The error is the number of
    /// the batch that cannot be read.
    pub fn batches<'a>(
        first: u64,
        payloads: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(Foreign, Vec<(u128, Timestamp)>), u64> {
        let mut builder = Builder::default();
        let mut keys = Vec::new();
        let mut next = first;
        for payload in payloads {
            let (received, key, rows) = unpack(payload).ok_or(next)?;
            keys.extend(key.map(|key| (key, received)));
            rows.iter().for_each(|row| builder.push(row));
            next += 1;
        }
        let place = Place::Memory(Arc::new(builder.freeze()));
        Ok((Foreign(Arc::new(Part { first, last: next.saturating_sub(1), place })), keys))
    }
}

/// Those of the paths whose batches are in no other of them: a file that was merged into another stays for a while.
pub fn newest(paths: Vec<String>) -> Vec<String> {
    covering(paths).into_iter().map(|covering| covering.path).collect()
}

impl Store {
    /// From now on each batch that is taken is kept until it was [sent](Store::sent).
    pub fn share(&self) {
        lock(&self.log).unsent.get_or_insert_default();
    }

    /// Batches that were not sent, in order, with their numbers; at least one if there is one, and `bytes_max` or less if there are
    /// more. Those that are in files are left out.
    pub fn unsent(&self, bytes_max: usize) -> Vec<(u64, Bytes)> {
        let stored_to = self.stored_to();
        let mut log = lock(&self.log);
        let Some(unsent) = &mut log.unsent else { return Vec::new() };
        while unsent.front().is_some_and(|(number, _)| *number < stored_to) {
            unsent.pop_front();
        }
        let mut bytes = 0;
        let fits = unsent.iter().take_while(|(_, payload)| {
            bytes += payload.len();
            bytes <= bytes_max
        });
        let n = fits.count().max(1);
        unsent.iter().take(n).cloned().collect()
    }

    /// Forgets what was to be sent, up to and with this number.
    pub fn sent(&self, last: u64) {
        if let Some(unsent) = &mut lock(&self.log).unsent {
            while unsent.front().is_some_and(|(number, _)| *number <= last) {
                unsent.pop_front();
            }
        }
    }

    /// All batches below this are in files.
    pub fn stored_to(&self) -> u64 {
        self.listed_parts().iter().filter(|part| part.is_on_disk()).map(|part| part.last + 1).max().unwrap_or(0)
    }

    /// The segments and Parquet files of this store; those whose names are of the first version are left out.
    pub fn local_files(&self) -> Vec<LocalFile> {
        let file = |part: &Arc<Part>| Some(LocalFile { away: part.is_away(), ..LocalFile::of(part.path()?)? });
        self.listed_parts().iter().filter_map(file).collect()
    }

    /// Bytes of a file of this store; of a path with `.sparse.arrow` at its end none, if there is no such file.
    pub fn file_bytes(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        match self.files.read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// While the files here have more bytes than that, the oldest of which `place` says where else it is goes, and is read from there.
    pub fn move_out(
        &self,
        bytes_max: u64,
        elsewhere: &Arc<dyn Files>,
        place: impl Fn(&str) -> Option<String>,
    ) -> Result<(), OpenError> {
        let _one = lock(&self.tending);
        let parts = self.listed_parts();
        let mut bytes: u64 = parts.iter().map(|part| part.bytes()).sum();
        let mut oldest: Vec<&Arc<Part>> = parts.iter().filter(|part| part.is_on_disk() && !part.is_away()).collect();
        oldest.sort_by_key(|part| part.extent().1);
        for part in oldest {
            if bytes <= bytes_max {
                break;
            }
            let Some(path) = part.path() else { continue };
            let Some(away) = place(path).and_then(|there| Foreign::file(elsewhere, &there, part.bytes())) else {
                continue;
            };
            let Some(away) = Arc::into_inner(away.0) else { continue };
            bytes -= part.bytes();
            self.put_in_place(std::slice::from_ref(part), Some(away.place));
            remove(&*self.files, path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        }
        Ok(())
    }

    /// From now on answers show these rows, too, and say that some may be missing if there is a `problem`.
    pub fn show_others(&self, others: &[Foreign], problem: Option<String>) {
        let parts = others.iter().map(|foreign| foreign.0.clone()).collect();
        *self.others.write().unwrap_or_else(PoisonError::into_inner) = Others { parts, problem };
    }

    /// Batches with these keys were taken elsewhere: a client that goes on with them here sent them before.
    pub fn remember(&self, keys: &[(u128, Timestamp)]) {
        let mut log = lock(&self.log);
        keys.iter().for_each(|(key, received)| log.keys.insert(*key, *received));
    }
}
