//! A write-ahead log: records appended in order, durable after a sync, read back after a crash.
//!
//! | file | content | mutable |
//! |---|---|---|
//! | `<dir>/<number of its first record, 20 digits>.wal` | records, one after the other | grows; removed when no longer needed |
//!
//! | record field | bytes |
//! |---|---|
//! | length of the payload | 4, little-endian |
//! | CRC-32C of the length and the payload | 4, little-endian |
//! | payload | length |
//!
//! A crash may leave half a record at the end of the newest file: it was never acknowledged, so it is cut off on opening.
//! A bad record anywhere else is damage and is named. [`Wal::open`] then refuses, for logs that are worth nothing with a hole in them;
//! [`Wal::salvage`] goes on behind it, keeps a copy `<file>.damaged`, and says what is missing. After a failed sync the kernel may have
//! dropped the pages, so the log refuses all further appends until it is opened again; after a failed write (disk full)
//! the half-written bytes are cut off and the log goes on.

use std::io;
use std::sync::Arc;

use crate::{Append, Files};

/// The longest record: bounds what a damaged length can make us allocate.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
const HEADER: usize = 8;
/// Bytes that are summed up in search of the next good record behind damage; beyond it the rest of the file counts as damaged.
const SEARCH_BYTES_MAX: usize = 1 << 30;

/// An open log.
#[derive(Debug)]
pub struct Wal {
    files: Arc<dyn Files>,
    dir: String,
    current: Box<dyn Append>,
    current_path: String,
    /// Length of the current file up to the last good record.
    len: u64,
    next: u64,
    /// First record numbers of all files, ascending; the last is the current one.
    starts: Vec<u64>,
    broken: bool,
    buffer: Vec<u8>,
}

/// A log that was opened in spite of damage.
#[derive(Debug)]
pub struct Salvaged {
    /// The log.
    pub wal: Wal,
    /// What is missing of it, by file and byte; empty if nothing is.
    pub damage: Vec<String>,
}

/// Why a log cannot be opened or appended to.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk said no.
    #[error("write-ahead log {path}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A record is damaged and more follow: not a crash, but lost or altered bytes.
    #[error("{path} is damaged at byte {offset}: restore it from a copy, or move it away to go on without its records")]
    Damaged {
        /// The file.
        path: String,
        /// Where the bad record begins.
        offset: u64,
    },
    /// An earlier sync failed.
    #[error("an earlier sync of {path} failed, so nothing more is accepted until a restart")]
    Broken {
        /// The file.
        path: String,
    },
    /// The payload is longer than [`RECORD_BYTES_MAX`].
    #[error("a record of {len} bytes is too long")]
    TooLong {
        /// Its length.
        len: usize,
    },
}

impl WalError {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, WalError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull
            || source.kind() == io::ErrorKind::QuotaExceeded)
    }
}

fn file_name(dir: &str, start: u64) -> String {
    format!("{dir}/{start:020}.wal")
}

/// First record numbers of the files in `dir`, ascending; never empty.
fn starts(files: &dyn Files, dir: &str) -> io::Result<Vec<u64>> {
    let names = files.list(dir)?;
    let numbers = names.iter().filter_map(|name| name.strip_suffix(".wal").and_then(|digits| digits.parse().ok()));
    let mut starts: Vec<u64> = numbers.collect();
    starts.sort_unstable();
    if starts.is_empty() {
        starts.push(0);
    }
    Ok(starts)
}

/// What is in a file; the newest may not be there yet.
fn content(files: &dyn Files, path: &str, newest: bool) -> Result<Vec<u8>, WalError> {
    match files.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && newest => Ok(Vec::new()),
        read => read.map_err(|source| WalError::Io { path: path.to_owned(), source }),
    }
}

impl Wal {
    /// Opens or makes the log in `dir` and hands each surviving record, in order, to `replay` with its number.
    pub fn open(files: Arc<dyn Files>, dir: &str, mut replay: impl FnMut(u64, &[u8])) -> Result<Wal, WalError> {
        let starts = starts(&*files, dir).map_err(|source| WalError::Io { path: dir.to_owned(), source })?;
        let mut next = starts[0];
        let mut len = 0;
        for (place, &start) in starts.iter().enumerate() {
            let path = file_name(dir, start);
            let newest = place + 1 == starts.len();
            if start != next {
                return Err(WalError::Damaged { path, offset: 0 });
            }
            let bytes = content(&*files, &path, newest)?;
            let mut at = 0;
            while let Some(payload) = record(&bytes[at..]) {
                replay(next, payload);
                next += 1;
                at += HEADER + payload.len();
            }
            if at < bytes.len() {
                if !newest || a_record_follows(&bytes[at..]) {
                    return Err(WalError::Damaged { path, offset: at as u64 });
                }
                files.truncate(&path, at as u64).map_err(|source| WalError::Io { path, source })?;
            }
            len = at as u64;
        }
        Wal::at_the_end(files, dir, starts, next, len)
    }

    /// The same for a log that is worth something with a hole in it. Records numbered below `stored_to` are kept elsewhere, too: no
    /// new record gets such a number, even if the files that held them are gone.
    pub fn salvage(
        files: Arc<dyn Files>,
        dir: &str,
        stored_to: u64,
        mut replay: impl FnMut(u64, &[u8]),
    ) -> Result<Salvaged, WalError> {
        let mut starts = starts(&*files, dir).map_err(|source| WalError::Io { path: dir.to_owned(), source })?;
        let mut next = starts[0];
        let mut len = 0;
        let mut damage = Vec::new();
        let mut ends_well = true;
        for (place, &start) in starts.iter().enumerate() {
            let path = file_name(dir, start);
            let following = starts.get(place + 1).copied();
            damage.extend(gap(&path, next.max(stored_to), start));
            let bytes = content(&*files, &path, following.is_none())?;
            let found = look_through(&bytes, start, following, |number, payload| replay(number, payload));
            if !found.holes.is_empty() {
                let copy = format!("{path}.damaged");
                let kept = match files.replace(&copy, &bytes) {
                    Ok(()) => format!("a copy is kept as {copy}"),
                    Err(error) => format!("no copy could be made: {error}"),
                };
                damage.extend(found.holes.iter().map(|at| format!("{path}: damaged at byte {at}; {kept}")));
            }
            next = found.next;
            len = found.end as u64;
            ends_well = found.holes.is_empty();
            if ends_well && found.end < bytes.len() {
                files.truncate(&path, len).map_err(|source| WalError::Io { path, source })?;
            }
        }
        if next < stored_to || !ends_well {
            // Nothing is written behind damage, nor under a number that is taken.
            if let Some(empty) = starts.pop_if(|_| ends_well && len == 0) {
                let path = file_name(dir, empty);
                files.remove(&path).map_err(|source| WalError::Io { path, source })?;
            }
            (next, len) = (next.max(stored_to), 0);
            starts.push(next);
        }
        Ok(Salvaged { wal: Wal::at_the_end(files, dir, starts, next, len)?, damage })
    }

    fn at_the_end(files: Arc<dyn Files>, dir: &str, starts: Vec<u64>, next: u64, len: u64) -> Result<Wal, WalError> {
        let current_path = file_name(dir, starts.last().copied().unwrap_or(next));
        let current =
            files.append(&current_path).map_err(|source| WalError::Io { path: current_path.clone(), source })?;
        let (dir, buffer) = (dir.to_owned(), Vec::new());
        Ok(Wal { files, dir, current, current_path, len, next, starts, broken: false, buffer })
    }

    /// Appends and syncs `payloads` as one commit; returns the number of the first. All or none are acknowledged.
    pub fn commit<'a>(&mut self, payloads: impl IntoIterator<Item = &'a [u8]>) -> Result<u64, WalError> {
        if self.broken {
            return Err(WalError::Broken { path: self.current_path.clone() });
        }
        self.buffer.clear();
        let mut count = 0;
        for payload in payloads {
            if payload.len() > RECORD_BYTES_MAX {
                return Err(WalError::TooLong { len: payload.len() });
            }
            let length = (payload.len() as u32).to_le_bytes();
            let crc = crc32c::crc32c_append(crc32c::crc32c(&length), payload);
            self.buffer.extend_from_slice(&length);
            self.buffer.extend_from_slice(&crc.to_le_bytes());
            self.buffer.extend_from_slice(payload);
            count += 1;
        }
        let io = |source| WalError::Io { path: self.current_path.clone(), source };
        if let Err(source) = self.current.write(&self.buffer) {
            let error = io(source);
            // Half a commit may be in the file; without it the log can go on when there is room again.
            self.broken = self.files.truncate(&self.current_path, self.len).is_err();
            return Err(error);
        }
        if let Err(source) = self.current.sync() {
            self.broken = true;
            return Err(io(source));
        }
        self.len += self.buffer.len() as u64;
        let first = self.next;
        self.next += count;
        Ok(first)
    }

    /// The number of the first record of the oldest file.
    pub fn first(&self) -> u64 {
        self.starts.first().copied().unwrap_or(self.next)
    }

    /// The number the next record will get.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes in the current file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the current file holds no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Starts a new file; later records go there.
    pub fn rotate(&mut self) -> Result<(), WalError> {
        if self.len == 0 {
            return Ok(());
        }
        let path = file_name(&self.dir, self.next);
        let io = |source| WalError::Io { path: path.clone(), source };
        let mut current = self.files.append(&path).map_err(io)?;
        current.sync().map_err(io)?;
        self.current = current;
        self.current_path = path;
        self.len = 0;
        self.starts.push(self.next);
        Ok(())
    }

    /// Removes files all of whose records are numbered below `number`; the current file stays.
    pub fn drop_before(&mut self, number: u64) -> Result<(), WalError> {
        while self.starts.len() > 1 && self.starts[1] <= number {
            let path = file_name(&self.dir, self.starts[0]);
            self.files.remove(&path).map_err(|source| WalError::Io { path, source })?;
            self.starts.remove(0);
        }
        Ok(())
    }
}

fn gap(path: &str, next: u64, start: u64) -> Option<String> {
    (start > next).then(|| format!("{path}: records {next} to {} are missing before it", start - 1))
}

/// What a log in `dir` holds, without opening it or changing anything: `each` gets every good record with its number, the answer names
/// the damage, by file and byte. Half a record at the end of the newest file is what a crash leaves, and no damage.
/// Records numbered below `stored_to` are kept elsewhere and not missed.
pub fn examine(
    files: &dyn Files,
    dir: &str,
    stored_to: u64,
    mut each: impl FnMut(u64, &[u8]),
) -> io::Result<Vec<String>> {
    let starts = starts(files, dir)?;
    let mut damage = Vec::new();
    let mut next = starts[0];
    for (place, &start) in starts.iter().enumerate() {
        let path = file_name(dir, start);
        damage.extend(gap(&path, next.max(stored_to), start));
        let bytes = match files.read(&path) {
            Ok(bytes) => bytes,
            // A server that runs removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                next = starts.get(place + 1).copied().unwrap_or(next);
                continue;
            }
            Err(error) => return Err(error),
        };
        let found = look_through(&bytes, start, starts.get(place + 1).copied(), &mut each);
        damage.extend(found.holes.iter().map(|at| format!("{path}: the record at byte {at} is damaged")));
        next = found.next;
    }
    Ok(damage)
}

/// The payload of the record that `bytes` begin with; none if it is cut short or does not match its checksum.
fn record(bytes: &[u8]) -> Option<&[u8]> {
    let length: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let crc: [u8; 4] = bytes.get(4..HEADER)?.try_into().ok()?;
    let size = u32::from_le_bytes(length) as usize;
    if size > RECORD_BYTES_MAX {
        return None;
    }
    let payload = bytes.get(HEADER..HEADER + size)?;
    let expected = crc32c::crc32c_append(crc32c::crc32c(&length), payload);
    (u32::from_le_bytes(crc) == expected).then_some(payload)
}

/// Whether a whole record stands right behind the bad one, so that the bad one is no torn tail.
fn a_record_follows(bytes: &[u8]) -> bool {
    let Some(length) = bytes.get(..4).and_then(|b| <[u8; 4]>::try_from(b).ok()) else { return false };
    let size = u32::from_le_bytes(length) as usize;
    bytes.get(HEADER + size..).is_some_and(|rest| !rest.is_empty() && record(rest).is_some())
}

/// What is in one file.
struct Found {
    /// The number after its last record.
    next: u64,
    /// Where the last good record ends.
    end: usize,
    /// Where damaged bytes begin that are no torn tail.
    holes: Vec<usize>,
}

/// Hands each good record to `each` with its number. How many records a hole swallowed is known from the number that the following
/// file begins with; without one, or if there are several holes, it is taken for one each, as a flipped bit does it.
fn look_through(bytes: &[u8], start: u64, following: Option<u64>, mut each: impl FnMut(u64, &[u8])) -> Found {
    let (mut good, mut holes) = (Vec::new(), Vec::new());
    let (mut at, mut end) = (0, 0);
    // A search costs what the checksums of all lengths cost that look possible.
    let mut effort = SEARCH_BYTES_MAX;
    while at < bytes.len() {
        if let Some(payload) = record(&bytes[at..]) {
            good.push((holes.len(), payload));
            at += HEADER + payload.len();
            end = at;
            continue;
        }
        let next = (at + 1..bytes.len()).find(|from| {
            let size = bytes[*from..].first_chunk::<4>().map_or(usize::MAX, |size| u32::from_le_bytes(*size) as usize);
            if size > bytes.len() - from || effort < size {
                return false;
            }
            effort -= size;
            record(&bytes[*from..]).is_some()
        });
        match next {
            Some(next) => {
                holes.push(at);
                at = next;
            }
            // Half a record at the end of the newest file is what a crash leaves.
            None if following.is_none() => break,
            None => {
                holes.push(at);
                break;
            }
        }
    }
    let room = following.map_or(0, |following| following.saturating_sub(start));
    let lost = room.saturating_sub(good.len() as u64).max(holes.len() as u64);
    let last_hole = holes.len();
    let number = |place: usize, before: usize| {
        let lost = if before > 0 && before == last_hole { lost } else { before as u64 };
        start + place as u64 + lost
    };
    for (place, (before, payload)) in good.iter().enumerate() {
        each(number(place, *before), payload);
    }
    Found { next: number(good.len(), last_hole), end, holes }
}
