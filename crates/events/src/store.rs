//! The store: write-ahead log, the chunk being filled, sealed chunks, segments.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arrow_buffer::Buffer;
use bytes::Bytes;
use files::{Files, Wal, WalError};
use rows::{Row, codec};
use vocab::Timestamp;

use crate::chunk::{Builder, Chunk};
use crate::segment;

/// Rows that make a chunk full. Large enough for short loops over long columns, small enough to seal in a fraction of a
/// second.
pub const SEGMENT_ROWS: usize = 131_072;

/// An event store below `events/`.
#[derive(Debug)]
pub struct Store {
    files: Arc<dyn Files>,
    wal: Mutex<Wal>,
    active: RwLock<Active>,
    sealed: RwLock<Vec<Arc<Sealed>>>,
    findings: Vec<String>,
}

#[derive(Debug, Default)]
struct Active {
    builder: Builder,
    /// Number of its first batch in the write-ahead log, once it has rows.
    first: Option<u64>,
    last: u64,
}

#[derive(Debug)]
struct Sealed {
    chunk: Chunk,
    first: u64,
    last: u64,
    on_disk: bool,
}

/// Why a store cannot be opened.
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens or makes the store. Each batch that is still in the write-ahead log is handed to `replay` in order, with its
    /// number and time of receipt, whether or not it is in a segment already: for whoever keeps running totals. A segment
    /// that cannot be read is named in [`Store::findings`] and left alone.
    pub fn open(files: Arc<dyn Files>, mut replay: impl FnMut(u64, Timestamp, &[Row])) -> Result<Store, OpenError> {
        let mut findings = Vec::new();
        let mut sealed = Vec::new();
        for path in segment_paths(&*files)? {
            match load(&*files, &path) {
                Ok(chunk) => {
                    let (first, last) = numbers(&path).unwrap_or_default();
                    sealed.push(Arc::new(Sealed { chunk, first, last, on_disk: true }));
                }
                Err(reason) => findings.push(format!("{path}: {reason}")),
            }
        }
        sealed.sort_by_key(|s| s.first);
        let stored_to = sealed.iter().map(|s| s.last + 1).max().unwrap_or(0);
        let mut active = Active::default();
        let mut full = Vec::new();
        let wal = Wal::open(files.clone(), "events/wal", |number, bytes| {
            let batch = bytes.split_first_chunk::<8>().and_then(|(received, rest)| {
                let rows = codec::decode(rest).ok()?;
                Some((Timestamp::from_nanos(i64::from_le_bytes(*received)), rows))
            });
            let Some((received, rows)) = batch else {
                findings.push(format!("events/wal: batch {number} cannot be read"));
                return;
            };
            replay(number, received, &rows);
            if number >= stored_to {
                active.push(number, &rows);
                if active.builder.chunk().len() >= SEGMENT_ROWS {
                    full.push(active.seal());
                }
            }
        })?;
        sealed.extend(full.into_iter().flatten().map(Arc::new));
        Ok(Store { files, wal: Mutex::new(wal), active: RwLock::new(active), sealed: RwLock::new(sealed), findings })
    }

    /// What could not be read on opening, with its place.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Makes batches durable as one commit and visible; returns the number of the first. Empty batches are fine.
    pub fn append(&self, received: Timestamp, batches: &[Vec<Row>]) -> Result<u64, AppendError> {
        let payloads: Vec<Vec<u8>> = batches
            .iter()
            .map(|rows| {
                let mut bytes = received.nanos().to_le_bytes().to_vec();
                bytes.extend(codec::encode(rows));
                bytes
            })
            .collect();
        // The log stays locked until the rows are visible, so that chunks hold batches in log order.
        let mut wal = lock(&self.wal);
        let first = wal
            .commit(payloads.iter().map(Vec::as_slice))
            .map_err(|e| if e.is_full() { AppendError::Full(e) } else { AppendError::Wal(e) })?;
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        for (number, rows) in (first..).zip(batches) {
            active.push(number, rows);
        }
        if active.builder.chunk().len() >= SEGMENT_ROWS {
            if let Some(sealed) = active.seal() {
                self.sealed.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(sealed));
            }
        }
        Ok(first)
    }

    /// The number the next batch will get.
    pub fn next_batch(&self) -> u64 {
        lock(&self.wal).next()
    }

    /// Writes sealed chunks as segments and removes from the write-ahead log what is in segments and numbered below
    /// `keep_from`. Slow; call it from a thread of its own. With `all`, the chunk being filled is sealed first.
    pub fn flush(&self, keep_from: u64, all: bool) -> Result<(), OpenError> {
        if all {
            let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(sealed) = active.seal() {
                self.sealed.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(sealed));
            }
        }
        for waiting in self.chunks().iter().filter(|s| !s.on_disk) {
            let path = segment_path(waiting);
            let io = |source| OpenError::Io { path: path.clone(), source };
            let bytes = segment::write(&waiting.chunk).map_err(|e| io(io::Error::other(e)))?;
            self.files.replace(&path, &bytes).map_err(io)?;
            let chunk = load(&*self.files, &path).map_err(|e| io(io::Error::other(e)))?;
            let written = Arc::new(Sealed { chunk, first: waiting.first, last: waiting.last, on_disk: true });
            let mut sealed = self.sealed.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = sealed.iter().position(|s| s.first == waiting.first) {
                sealed[place] = written;
            }
        }
        let stored_to = self.chunks().iter().filter(|s| s.on_disk).map(|s| s.last + 1).max().unwrap_or(0);
        let mut wal = lock(&self.wal);
        wal.rotate()?;
        wal.drop_before(stored_to.min(keep_from))?;
        Ok(())
    }

    /// Whether a flush has something to do.
    pub fn wants_flush(&self) -> bool {
        self.chunks().iter().any(|s| !s.on_disk)
    }

    fn chunks(&self) -> Vec<Arc<Sealed>> {
        self.sealed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        let mut total = 0;
        self.each_chunk(|chunk| total += chunk.len() as u64);
        total
    }

    /// All chunks as they are now, oldest first; the last one cannot grow meanwhile.
    pub(crate) fn snapshot<T>(&self, act: impl FnOnce(&[&Chunk]) -> T) -> T {
        // The active one is locked first: a chunk that is sealed in between must not be missed or seen twice.
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.chunks();
        let mut chunks: Vec<&Chunk> = sealed.iter().map(|s| &s.chunk).collect();
        if active.builder.chunk().len() > 0 {
            chunks.push(active.builder.chunk());
        }
        act(&chunks)
    }

    pub(crate) fn each_chunk(&self, each: impl FnMut(&Chunk)) {
        self.snapshot(|chunks| chunks.iter().copied().for_each(each));
    }
}

impl Active {
    fn push(&mut self, number: u64, rows: &[Row]) {
        self.first.get_or_insert(number);
        self.last = number;
        rows.iter().for_each(|row| self.builder.push(row));
    }

    fn seal(&mut self) -> Option<Sealed> {
        let first = self.first.take()?;
        if self.builder.chunk().len() == 0 {
            return None;
        }
        Some(Sealed { chunk: self.builder.seal(), first, last: self.last, on_disk: false })
    }
}

fn segment_path(sealed: &Sealed) -> String {
    let start = sealed.chunk.time.iter().copied().min().unwrap_or(0);
    let text = Timestamp::from_nanos(start).to_string();
    let (day, hour) = (text.get(..10).unwrap_or("0000-00-00"), text.get(11..13).unwrap_or("00"));
    format!("events/{day}/{hour}/{:020}-{:020}.arrow", sealed.first, sealed.last)
}

fn numbers(path: &str) -> Option<(u64, u64)> {
    let (first, last) = path.rsplit('/').next()?.strip_suffix(".arrow")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn segment_paths(files: &dyn Files) -> Result<Vec<String>, OpenError> {
    let list = |dir: &str| files.list(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source });
    let mut paths = Vec::new();
    for day in list("events")?.iter().filter(|d| d.len() == 10) {
        for hour in list(&format!("events/{day}"))? {
            for name in list(&format!("events/{day}/{hour}"))? {
                let path = format!("events/{day}/{hour}/{name}");
                if numbers(&path).is_some() {
                    paths.push(path);
                }
            }
        }
    }
    Ok(paths)
}

/// Maps a segment into memory, or reads it where there is no disk.
fn load(files: &dyn Files, path: &str) -> Result<Chunk, String> {
    let buffer = match files.on_disk(path) {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
            map(&file).map_err(|e| e.to_string())?
        }
        None => Buffer::from(files.read(path).map_err(|e| e.to_string())?),
    };
    segment::read(buffer).map_err(|e| e.to_string())
}

/// The one unsafe line: a mapped file must not shrink under a reader. Segments are written once under a temporary name,
/// renamed, and never opened for writing again.
#[allow(unsafe_code)]
fn map(file: &std::fs::File) -> io::Result<Buffer> {
    // SAFETY: see above; the file is immutable for as long as it has this name, and removing the name keeps the pages.
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(Buffer::from(Bytes::from_owner(map)))
}
