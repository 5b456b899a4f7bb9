//! The store: write-ahead log, the chunk being filled, frozen chunks, segments.
//!
//! Three locks, taken in this order and none of them held while anything is counted, merged or written: the log, the chunk being
//! filled, the list of parts. A query freezes what is being filled, takes a copy of the list (of pointers) and works on that, so it
//! never holds up whoever writes.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use arrow_buffer::Buffer;
use bytes::Bytes;
use files::{Files, Wal, WalError};
use rows::{Row, codec};
use vocab::{Millis, Timestamp};

use crate::builder::Builder;
use crate::chunk::Chunk;
use crate::cold::Cold;
use crate::keys::Keys;
use crate::merge::merge;
use crate::others::Others;
use crate::parallel::parallel;
use crate::segment;

/// Rows in frozen chunks that make a segment worth writing, unless the store was told otherwise. All other sizes follow from it.
pub const SEGMENT_ROWS: usize = 131_072;
/// The chunk being filled is frozen at so small a part of a segment: at 16,384 rows, few enough to be done within some
/// milliseconds, as a writer waits for it.
const FREEZE_PART: usize = 8;
/// Bytes of text that freeze it, too: long log lines.
const FREEZE_TEXT_BYTES: usize = 32 << 20;
/// Frozen chunks that are merged by whoever asks next: many questions about few rows leave many small ones.
pub(crate) const FROZEN_MAX: usize = 24;
/// Rows of Parquet files that one question reads: what it looks at is in memory meanwhile.
const COLD_ROWS_MAX: usize = 16_000_000;
/// The first byte of a batch in the log that has a key, where others have the version of the codec.
const KEYED: u8 = 0xf1;

/// Rows of one request.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The rows.
    pub rows: Vec<Row>,
    /// What is the same when a client sends the same again; a batch whose key came within the last 15 minutes is not stored twice.
    pub key: Option<u128>,
}

impl From<Vec<Row>> for Batch {
    fn from(rows: Vec<Row>) -> Batch {
        Batch { rows, key: None }
    }
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, under this number.
    Stored(u64),
    /// It was stored before.
    Duplicate,
}

/// An event store below a directory.
#[derive(Debug)]
pub struct Store {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) dir: String,
    pub(crate) log: Mutex<Log>,
    filling: Mutex<Filling>,
    pub(crate) parts: RwLock<Vec<Arc<Part>>>,
    /// One at a time merges, writes and removes.
    pub(crate) tending: Mutex<()>,
    segment_rows: usize,
    findings: Vec<String>,
    /// What is missing in every answer, as nobody knows of which time it was.
    lost: Vec<String>,
    /// What other servers over the same bucket have.
    pub(crate) others: RwLock<Others>,
}

#[derive(Debug)]
pub(crate) struct Log {
    wal: Wal,
    pub(crate) keys: Keys,
    /// Batches that are in the log and not yet in the bucket, if there is one.
    pub(crate) unsent: Option<VecDeque<(u64, Bytes)>>,
}

#[derive(Debug)]
struct Filling {
    builder: Builder,
    /// Rows that freeze it.
    rows_max: usize,
    /// Number of its first batch in the write-ahead log, once it has rows.
    first: Option<u64>,
    last: u64,
}

/// Where the rows of some batches are.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum Place {
    /// Frozen; in the write-ahead log, too.
    Memory(Arc<Chunk>),
    /// A segment.
    Hot(Hot),
    /// A Parquet file.
    Cold(Cold),
}

/// What the name of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Smallest and largest time, how many rows, and the checksum of the file; none in names of the first version.
    pub(crate) extent: Option<(i64, i64, usize)>,
    pub(crate) crc: Option<u32>,
}

/// A segment. Nothing is read before somebody asks, and nothing is believed before the checksum was right.
#[derive(Debug)]
pub(crate) struct Hot {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Whether it is in the bucket alone.
    pub(crate) away: bool,
    files: Arc<dyn Files>,
    extent: (i64, i64, usize),
    crc: Option<u32>,
    chunk: OnceLock<Result<Arc<Chunk>, String>>,
}

impl Hot {
    /// The chunk, or what is wrong with it. What cannot be read now may be readable later; what is damaged stays so.
    pub(crate) fn chunk(&self) -> Result<&Arc<Chunk>, String> {
        let at = |reason: String| format!("{}: {reason}", self.path);
        let known = match self.chunk.get() {
            Some(known) => known,
            None => {
                let main = map(&*self.files, &self.path).map_err(at)?;
                let mut second = Ok(());
                let chunk = self.read(&main, &mut second);
                second.map_err(at)?;
                self.chunk.get_or_init(|| chunk.map(Arc::new).map_err(at))
            }
        };
        known.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn is_damaged(&self) -> bool {
        matches!(self.chunk.get(), Some(Err(_)))
    }

    /// `second` says whether the second file could be read.
    fn read(&self, main: &Buffer, second: &mut Result<(), String>) -> Result<Chunk, String> {
        if self.crc.is_some_and(|crc| crc32c::crc32c(main) != crc) {
            return Err("does not match its checksum".to_owned());
        }
        let rare = || map(&*self.files, &sparse_path(&self.path)).inspect_err(|reason| *second = Err(reason.clone()));
        let chunk = segment::read(main, rare).map_err(|e| e.to_string())?;
        if chunk.is_sound() { Ok(chunk) } else { Err("codes without a value".into()) }
    }
}

impl Part {
    /// Times of its rows, both inclusive, and how many there are.
    pub(crate) fn extent(&self) -> (i64, i64, usize) {
        match &self.place {
            Place::Memory(chunk) => (chunk.time_min, chunk.time_max, chunk.len()),
            Place::Hot(hot) => hot.extent,
            Place::Cold(cold) => cold.extent(),
        }
    }

    /// Its rows, or what is wrong with its file.
    pub(crate) fn chunk(&self) -> Result<Arc<Chunk>, String> {
        match &self.place {
            Place::Memory(chunk) => Ok(chunk.clone()),
            Place::Hot(hot) => hot.chunk().cloned(),
            Place::Cold(cold) => cold.chunk(),
        }
    }

    /// Whether it is in a file, here or in the bucket.
    pub(crate) fn is_on_disk(&self) -> bool {
        !matches!(self.place, Place::Memory(_))
    }

    pub(crate) fn is_away(&self) -> bool {
        match &self.place {
            Place::Memory(_) => false,
            Place::Hot(hot) => hot.away,
            Place::Cold(cold) => cold.away,
        }
    }
}

/// The rows as they were when it was asked for. Keeping it holds nobody up.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Oldest first.
    pub(crate) chunks: Vec<Arc<Chunk>>,
    /// What is left out, and why; an answer that lacks rows must say so.
    pub incomplete: Vec<String>,
}

impl Parts {
    pub(crate) fn refs(&self) -> Vec<&Chunk> {
        self.chunks.iter().map(|chunk| &**chunk).collect()
    }
}

/// Why a store cannot be opened or tended.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The write-ahead log cannot be read.
    #[error("event store")]
    Wal(#[from] WalError),
    /// The disk said no.
    #[error("event store, {path}")]
    Io {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Why a batch is not accepted. Nothing of it is stored; the sender may try again.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No room.
    #[error("the disk under the event store is full")]
    Full(#[source] WalError),
    /// The write-ahead log refused.
    #[error("event store")]
    Wal(#[source] WalError),
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The payload of a batch in the write-ahead log.
fn payload(received: Timestamp, batch: &Batch) -> Vec<u8> {
    let mut bytes = received.nanos().to_le_bytes().to_vec();
    if let Some(key) = batch.key {
        bytes.push(KEYED);
        bytes.extend(key.to_le_bytes());
    }
    codec::encode_into(&batch.rows, &mut bytes);
    bytes
}

/// Time of receipt, key and rows of a payload.
pub(crate) fn unpack(bytes: &[u8]) -> Option<(Timestamp, Option<u128>, Vec<Row>)> {
    let (received, mut rest) = bytes.split_first_chunk::<8>()?;
    let mut key = None;
    if rest.first() == Some(&KEYED) {
        let (bytes, after) = rest[1..].split_first_chunk::<16>()?;
        (key, rest) = (Some(u128::from_le_bytes(*bytes)), after);
    }
    Some((Timestamp::from_nanos(i64::from_le_bytes(*received)), key, codec::decode(rest).ok()?))
}

impl Store {
    /// Opens or makes the store below `dir`. Each batch that is still in the write-ahead log is handed to `replay` in order, with its
    /// number and time of receipt, whether or not it is in a segment already: for whoever keeps running totals. Segments are
    /// read when somebody asks for their time; see [`Store::damage`].
    pub fn open(
        files: Arc<dyn Files>,
        dir: &str,
        replay: impl FnMut(u64, Timestamp, &[Row]),
    ) -> Result<Store, OpenError> {
        Store::with_segments_of(SEGMENT_ROWS, files, dir, replay)
    }

    /// The same with segments of another size than [`SEGMENT_ROWS`]: smaller ones are written, merged and cooled sooner.
    pub fn with_segments_of(
        segment_rows: usize,
        files: Arc<dyn Files>,
        dir: &str,
        mut replay: impl FnMut(u64, Timestamp, &[Row]),
    ) -> Result<Store, OpenError> {
        let segment_rows = segment_rows.clamp(1, SEGMENT_ROWS);
        let mut findings = Vec::new();
        let mut lost = Vec::new();
        let mut parts = Vec::new();
        let mut waiting = covering(segment_paths(&*files, dir)?);
        while let Some(Covering { path, covered }) = waiting.pop() {
            // What a file took in, left by a crash before it was removed, goes once that file is known to be sound.
            let sound = load(&files, &path).and_then(|part| match covered.is_empty() {
                true => Ok(part),
                false => part.chunk().map(|_| part),
            });
            match sound {
                Ok(part) => {
                    parts.push(Arc::new(part));
                    for path in covered {
                        remove(&*files, &path).map_err(|source| OpenError::Io { path, source })?;
                    }
                }
                Err(reason) => {
                    let finding = if reason.starts_with(&path) { reason } else { format!("{path}: {reason}") };
                    if covered.is_empty() {
                        lost.push(finding.clone());
                    }
                    findings.push(finding);
                    waiting.extend(covering(covered));
                }
            }
        }
        parts.sort_by_key(|part| part.first);
        let stored_to = parts.iter().map(|part| part.last + 1).max().unwrap_or(0);
        let mut keys = Keys::read(&*files, &keys_path(dir)).unwrap_or_else(|finding| {
            findings.push(format!("{finding}: what clients send again of the last 15 minutes may be stored twice"));
            Vec::new()
        });
        let mut filling =
            Filling { builder: Builder::default(), rows_max: segment_rows / FREEZE_PART, first: None, last: 0 };
        let mut frozen = Vec::new();
        let mut unread = Vec::new();
        let wal = format!("{dir}/wal");
        let salvaged = Wal::salvage(files.clone(), &wal, stored_to, |number, bytes| {
            let Some((received, key, rows)) = unpack(bytes) else {
                unread.push(format!("{wal}: batch {number} cannot be read"));
                return;
            };
            keys.extend(key.map(|key| (key, received)));
            replay(number, received, &rows);
            if number >= stored_to {
                filling.push(number, &rows);
                if filling.is_full() {
                    frozen.extend(filling.freeze());
                }
            }
        })?;
        lost.extend(salvaged.damage.into_iter().chain(unread));
        findings.extend(lost.iter().filter(|finding| !findings.contains(finding)).cloned().collect::<Vec<String>>());
        remove_orphans(&*files, dir, &parts, salvaged.wal.first())?;
        parts.extend(frozen.into_iter().map(Arc::new));
        let log = Mutex::new(Log { wal: salvaged.wal, keys: Keys::of(keys), unsent: None });
        let (filling, parts) = (Mutex::new(filling), RwLock::new(parts));
        let (tending, others) = (Mutex::new(()), RwLock::default());
        let dir = dir.to_owned();
        Ok(Store { files, dir, log, filling, parts, tending, segment_rows, findings, lost, others })
    }

    /// See [`Store::with_segments_of`].
    pub fn segment_rows(&self) -> usize {
        self.segment_rows
    }

    /// What could not be read on opening, with its place.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Makes batches durable as one commit and visible; says what became of each. Empty batches are fine.
    pub fn append(&self, received: Timestamp, batches: &[Batch]) -> Result<Vec<Appended>, AppendError> {
        let mut log = lock(&self.log);
        log.keys.forget_old(received);
        let mut seen = std::collections::HashSet::new();
        let is_new: Vec<bool> = batches
            .iter()
            .map(|batch| batch.key.is_none_or(|key| !log.keys.contains(key) && seen.insert(key)))
            .collect();
        let new = || batches.iter().zip(&is_new).filter(|(_, is_new)| **is_new).map(|(batch, _)| batch);
        let payloads: Vec<Vec<u8>> = new().map(|batch| payload(received, batch)).collect();
        if payloads.is_empty() {
            return Ok(vec![Appended::Duplicate; batches.len()]);
        }
        // The log stays locked until the rows are visible, so that chunks hold batches in log order.
        let first = log
            .wal
            .commit(payloads.iter().map(Vec::as_slice))
            .map_err(|e| if e.is_full() { AppendError::Full(e) } else { AppendError::Wal(e) })?;
        new().filter_map(|batch| batch.key).for_each(|key| log.keys.insert(key, received));
        if let Some(unsent) = &mut log.unsent {
            unsent.extend((first..).zip(payloads.into_iter().map(Bytes::from)));
        }
        let mut filling = lock(&self.filling);
        let mut number = first;
        let mut appended = Vec::with_capacity(batches.len());
        for (batch, is_new) in batches.iter().zip(is_new) {
            if !is_new {
                appended.push(Appended::Duplicate);
                continue;
            }
            filling.push(number, &batch.rows);
            appended.push(Appended::Stored(number));
            number += 1;
            if filling.is_full() {
                self.freeze(&mut filling);
            }
        }
        Ok(appended)
    }

    /// The number the next batch will get.
    pub fn next_batch(&self) -> u64 {
        lock(&self.log).wal.next()
    }

    fn freeze(&self, filling: &mut Filling) {
        if let Some(part) = filling.freeze() {
            self.parts.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(part));
        }
    }

    /// All parts, with what is being filled frozen: for whoever reads the rows.
    pub(crate) fn all_parts(&self) -> Vec<Arc<Part>> {
        let mut filling = lock(&self.filling);
        self.freeze(&mut filling);
        self.listed_parts()
    }

    /// The parts there are, without what is being filled: for whoever only counts and tends.
    pub(crate) fn listed_parts(&self) -> Vec<Arc<Part>> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rows that are in no part yet.
    pub(crate) fn rows_filling(&self) -> usize {
        lock(&self.filling).builder.len()
    }

    /// The rows as they are now.
    pub fn parts(&self) -> Parts {
        self.parts_in(Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX))
    }

    /// The chunks that may have rows within `[from, to)`.
    pub fn parts_in(&self, from: Timestamp, to: Timestamp) -> Parts {
        let mut parts = self.all_parts();
        if parts.iter().filter(|part| !part.is_on_disk()).count() > FROZEN_MAX {
            self.merge_frozen();
            parts = self.listed_parts();
        }
        let mut found = Parts { incomplete: self.lost.clone(), ..Parts::default() };
        {
            // Before what is here: the chunks are listed from the old end.
            let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
            parts.splice(..0, others.parts.iter().cloned());
            found.incomplete.extend(others.problem.clone());
        }
        let mut wanted = Vec::new();
        let (mut cold_rows, mut too_cold) = (0, 0);
        // Newest first, as what is too much is left out at the old end.
        for part in parts.iter().rev() {
            let (min, max, rows) = part.extent();
            if rows == 0 || max < from.nanos() || min >= to.nanos() {
                continue;
            }
            if let Place::Cold(_) = &part.place {
                if cold_rows > 0 && cold_rows + rows > COLD_ROWS_MAX {
                    too_cold += rows;
                    continue;
                }
                cold_rows += rows;
            }
            wanted.push(part);
        }
        // The first look at a file is a look at all of it.
        for chunk in parallel(&wanted, |_, part| part.chunk()) {
            match chunk {
                Ok(chunk) => found.chunks.push(chunk),
                Err(reason) => found.incomplete.push(reason),
            }
        }
        if too_cold > 0 {
            let reason = format!(
                "{too_cold} of the oldest events are in Parquet files, of which one question reads {COLD_ROWS_MAX} events: ask for a shorter time"
            );
            found.incomplete.push(reason);
        }
        found.chunks.reverse();
        found
    }

    /// Small frozen chunks become one, if nobody is at it.
    fn merge_frozen(&self) {
        let Ok(_one) = self.tending.try_lock() else { return };
        self.merge_frozen_alone();
    }

    /// The same for whoever tends already.
    pub(crate) fn merge_frozen_alone(&self) {
        let frozen: Vec<Arc<Part>> = self.listed_parts().into_iter().filter(|part| !part.is_on_disk()).collect();
        // Each time only those that together are no larger than what follows: every row is merged a few times, not each time.
        let mut from = frozen.len();
        let mut rows = 0;
        while from > 0 {
            let (.., next) = frozen[from - 1].extent();
            if frozen.len() - from >= FROZEN_MAX && next > rows {
                break;
            }
            from -= 1;
            rows += next;
        }
        if frozen.len() - from > 1 {
            if let Some(chunk) = merged(&frozen[from..]) {
                self.put_in_place(&frozen[from..], Some(Place::Memory(chunk)));
            }
        }
    }

    /// Replaces adjacent parts by one that holds the same batches, or by nothing.
    pub(crate) fn put_in_place(&self, old: &[Arc<Part>], place: Option<Place>) {
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return };
        let new = place.map(|place| Arc::new(Part { first: first.first, last: last.last, place }));
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = parts.iter().position(|part| Arc::ptr_eq(part, first)) else { return };
        parts.splice(at..at + old.len(), new);
    }

    /// Forgets what of the write-ahead log is in files and numbered below `keep_from`.
    pub(crate) fn shorten_log(&self, keep_from: u64) -> Result<(), OpenError> {
        let stored_to = self.listed_parts().iter().filter(|p| p.is_on_disk()).map(|p| p.last + 1).max().unwrap_or(0);
        // First the keys: those of batches that leave the log are known from their file alone. Later ones are in the log still.
        let path = keys_path(&self.dir);
        let keys = lock(&self.log).keys.bytes();
        self.files.replace(&path, &keys).map_err(|source| OpenError::Io { path, source })?;
        let mut log = lock(&self.log);
        log.wal.rotate()?;
        log.wal.drop_before(stored_to.min(keep_from))?;
        Ok(())
    }

    /// Reads every segment (not what is Parquet already) and names those that are damaged; answers leave them out. Slow.
    pub fn damage(&self) -> Vec<String> {
        let parts = self.listed_parts();
        let damage = parts.iter().filter_map(|part| match &part.place {
            Place::Hot(hot) if !hot.away => hot.chunk().err(),
            _ => None,
        });
        damage.collect()
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        let others: usize =
            self.others.read().unwrap_or_else(PoisonError::into_inner).parts.iter().map(|p| p.extent().2).sum();
        let listed = || self.listed_parts().iter().map(|part| part.extent().2 as u64).sum::<u64>() + others as u64;
        // Nothing is frozen while this is held, so no row is missed or counted twice.
        let filling = lock(&self.filling);
        listed() + filling.builder.len() as u64
    }
}

/// Parts as one chunk; none if a part cannot be read.
pub(crate) fn merged(parts: &[Arc<Part>]) -> Option<Arc<Chunk>> {
    let chunks: Vec<Arc<Chunk>> = parts.iter().map(|part| part.chunk()).collect::<Result<_, _>>().ok()?;
    Some(Arc::new(merge(&chunks.iter().map(|chunk| &**chunk).collect::<Vec<_>>())))
}

impl Filling {
    fn push(&mut self, number: u64, rows: &[Row]) {
        self.first.get_or_insert(number);
        self.last = number;
        rows.iter().for_each(|row| self.builder.push(row));
    }

    fn is_full(&self) -> bool {
        self.builder.len() >= self.rows_max.max(1) || self.builder.text_bytes() >= FREEZE_TEXT_BYTES
    }

    fn freeze(&mut self) -> Option<Part> {
        if self.builder.len() == 0 {
            return None;
        }
        let first = self.first.take()?;
        Some(Part { first, last: self.last, place: Place::Memory(Arc::new(self.builder.freeze())) })
    }
}

pub(crate) fn keys_path(dir: &str) -> String {
    format!("{dir}/keys")
}

/// Reads `<first>-<last>-<smallest time>-<largest time>-<rows>-<crc>` or, of the first version, `<first>-<last>`.
pub(crate) fn name(path: &str) -> Option<Name> {
    let name = path.rsplit('/').next()?;
    let stem = name.strip_suffix(".arrow").or_else(|| name.strip_suffix(".parquet"))?;
    let fields: Vec<&str> = stem.split('-').collect();
    let time = |text: &str| u64::from_str_radix(text, 16).ok().map(|bits| bits as i64);
    match fields[..] {
        [first, last] => Some(Name { first: first.parse().ok()?, last: last.parse().ok()?, extent: None, crc: None }),
        [first, last, min, max, rows, crc] => Some(Name {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            extent: Some((time(min)?, time(max)?, rows.parse().ok()?)),
            crc: Some(u32::from_str_radix(crc, 16).ok()?),
        }),
        _ => None,
    }
}

/// The path of a segment's second file.
pub(crate) fn sparse_path(path: &str) -> String {
    format!("{}.sparse.arrow", path.trim_end_matches(".arrow"))
}

/// Removes a segment with its second file, which goes last: without the first nobody asks for it.
pub(crate) fn remove(files: &dyn Files, path: &str) -> io::Result<()> {
    files.remove(path)?;
    files.remove(&sparse_path(path))
}

/// Removes second files whose first was never written or was removed, as a crash in between leaves them: those each of whose batches
/// is in another file (`parts`, sorted), from `in_log` on in the write-ahead log, or forgotten, as all before the oldest are. Any
/// other one may be waiting for its first file to come back from a copy.
fn remove_orphans(files: &dyn Files, dir: &str, parts: &[Arc<Part>], in_log: u64) -> Result<(), OpenError> {
    let orphans = paths(files, dir, |path| path.ends_with(".sparse.arrow"))?;
    let oldest = parts.first().map_or(u64::MAX, |part| part.first);
    for path in orphans {
        let main = format!("{}.arrow", path.trim_end_matches(".sparse.arrow"));
        let Some(Name { first, last, .. }) = name(&main) else { continue };
        let mut missing = first.max(oldest);
        for part in parts.iter().filter(|part| part.path() != Some(&main)) {
            if (part.first..=part.last).contains(&missing) {
                missing = part.last + 1;
            }
        }
        if (missing > last || missing >= in_log) && !exists(files, &main) {
            files.remove(&path).map_err(|source| OpenError::Io { path, source })?;
        }
    }
    Ok(())
}

/// Whether there is such a file.
pub(crate) fn exists(files: &dyn Files, path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(dir, name)| files.list(dir).is_ok_and(|names| names.iter().any(|n| n == name)))
}

/// A file, and those whose batches it holds too: they were merged into it, or it was written from them.
pub(crate) struct Covering {
    pub(crate) path: String,
    covered: Vec<String>,
}

pub(crate) fn covering(mut paths: Vec<String>) -> Vec<Covering> {
    let range = |path: &str| name(path).map_or((0, 0), |name| (name.first, name.last));
    // Parquet before Arrow of the same rows: it was written from it.
    paths.sort_by_key(|path| {
        let (first, last) = range(path);
        (first, std::cmp::Reverse(last), path.ends_with(".arrow"))
    });
    let mut all: Vec<Covering> = Vec::new();
    for path in paths {
        let (first, last) = range(&path);
        match all
            .last_mut()
            .filter(|of| (range(&of.path).0..=range(&of.path).1).contains(&first) && last <= range(&of.path).1)
        {
            Some(of) => of.covered.push(path),
            None => all.push(Covering { path, covered: Vec::new() }),
        }
    }
    all
}

pub(crate) fn segment_paths(files: &dyn Files, dir: &str) -> Result<Vec<String>, OpenError> {
    paths(files, dir, |path| name(path).is_some())
}

fn paths(files: &dyn Files, dir: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, OpenError> {
    let list = |dir: &str| files.list(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source });
    let mut paths = Vec::new();
    for day in list(dir)?.iter().filter(|name| name.len() == 10 && name.as_bytes()[4] == b'-') {
        for hour in list(&format!("{dir}/{day}"))? {
            for name in list(&format!("{dir}/{day}/{hour}"))? {
                let path = format!("{dir}/{day}/{hour}/{name}");
                if wanted(&path) {
                    paths.push(path);
                }
            }
        }
    }
    Ok(paths)
}

/// Where a chunk's file goes.
pub(crate) fn segment_path(dir: &str, chunk: &Chunk, (first, last): (u64, u64), crc: u32, ending: &str) -> String {
    let (min, max, rows) = (chunk.time_min, chunk.time_max, chunk.len());
    let text = Timestamp::from_nanos(min).to_string();
    let (day, hour) = match (text.get(..10), text.get(11..13)) {
        (Some(day), Some(hour)) if day.as_bytes()[4] == b'-' => (day, hour),
        _ => ("0000-00-00", "00"),
    };
    format!(
        "{dir}/{day}/{hour}/{first:020}-{last:020}-{:016x}-{:016x}-{rows}-{crc:08x}.{ending}",
        min as u64, max as u64
    )
}

/// Writes a chunk as a segment and maps it.
pub(crate) fn write(files: &Arc<dyn Files>, dir: &str, chunk: &Chunk, range: (u64, u64)) -> Result<Part, OpenError> {
    let at = |path: &str, source| OpenError::Io { path: path.to_owned(), source };
    let written = segment::write(chunk).map_err(|e| at(dir, io::Error::other(e)))?;
    let path = segment_path(dir, chunk, range, crc32c::crc32c(&written.main), "arrow");
    if let Some(sparse) = &written.sparse {
        files.replace(&sparse_path(&path), sparse).map_err(|e| at(&path, e))?;
    }
    files.replace(&path, &written.main).map_err(|e| at(&path, e))?;
    drop(written);
    load(files, &path).map_err(|e| at(&path, io::Error::other(e)))
}

/// Takes a segment or a Parquet file in, by its name.
pub(crate) fn load(files: &Arc<dyn Files>, path: &str) -> Result<Part, String> {
    let Name { first, last, extent, crc } = name(path).ok_or("not the name of a segment")?;
    let mut bytes = size(&**files, path)?;
    if let Some((extent, crc)) = extent.zip(crc) {
        if !path.ends_with(".parquet") {
            bytes += size(&**files, &sparse_path(path)).unwrap_or(0);
        }
        return Ok(known(files, path, bytes, false, (first, last, extent, crc)));
    }
    if path.ends_with(".parquet") {
        return Err("not the name of a Parquet file of ours".into());
    }
    // Of the first version, whose names say less.
    let files = files.clone();
    let chunk = OnceLock::new();
    let mut hot = Hot { path: path.to_owned(), bytes, away: false, files, extent: (0, 0, 0), crc, chunk };
    let chunk = hot.chunk()?;
    hot.extent = (chunk.time_min, chunk.time_max, chunk.len());
    Ok(Part { first, last, place: Place::Hot(hot) })
}

/// A file whose name says everything; nothing is read.
pub(crate) fn known(
    files: &Arc<dyn Files>,
    path: &str,
    bytes: u64,
    away: bool,
    (first, last, extent, crc): (u64, u64, (i64, i64, usize), u32),
) -> Part {
    let (files, path) = (files.clone(), path.to_owned());
    let place = match path.ends_with(".parquet") {
        true => Place::Cold(Cold { path, bytes, away, files, extent, crc, metadata: OnceLock::new() }),
        false => Place::Hot(Hot { path, bytes, away, files, extent, crc: Some(crc), chunk: OnceLock::new() }),
    };
    Part { first, last, place }
}

fn size(files: &dyn Files, path: &str) -> Result<u64, String> {
    let size = match files.on_disk(path) {
        Ok(Some(path)) => std::fs::metadata(path).map(|metadata| metadata.len()),
        Ok(None) => files.read(path).map(|bytes| bytes.len() as u64),
        Err(e) => Err(e),
    };
    size.map_err(|e| e.to_string())
}

/// Maps a file into memory, or reads it where there is no disk.
pub(crate) fn map(files: &dyn Files, path: &str) -> Result<Buffer, String> {
    let mapped = files.on_disk(path).and_then(|place| match place {
        Some(path) => std::fs::File::open(path).and_then(|file| map_file(&file)),
        None => files.read(path).map(Buffer::from),
    });
    mapped.map_err(|e| e.to_string())
}

/// The one unsafe line: a mapped file must not shrink under a reader. Segments are written once under a temporary name,
/// renamed, and never opened for writing again.
#[allow(unsafe_code)]
fn map_file(file: &std::fs::File) -> io::Result<Buffer> {
    // SAFETY: see above; the file is immutable for as long as it has this name, and removing the name keeps the pages.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Buffer::from(Bytes::from_owner(map)))
}

/// How long a batch's key is remembered: longer than clients try again.
pub(crate) const KEYS_FOR: Millis = Millis::from_secs(15 * 60);
