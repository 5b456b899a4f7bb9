//! Durable files: the one small trait under audit log and events, and the write-ahead log both are built on.
//!
//! [`Files`] says exactly what the stores need from a disk and, above all, what survives a crash: bytes appended are safe
//! after [`Append::sync`], a file written by [`Files::replace`] is there wholly or not at all. [`Disk`] is a directory;
//! [`Crashing`] is memory that forgets everything not synced when told to crash, so that tests can ask the real question
//! (kill -9 alone never loses the page cache).
//!
//! This crate knows nothing of what is in the files.

mod crashing;
mod disk;
mod wal;

use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

pub use crashing::Crashing;
pub use disk::{Disk, LockError};
pub use wal::{RECORD_BYTES_MAX, Salvaged, Wal, WalError, examine};

/// A tree of files below one root. Paths are relative, with `/`.
pub trait Files: Debug + Send + Sync {
    /// Opens for appending, making the file and its directories if need be; these exist after the first sync.
    fn append(&self, path: &str) -> io::Result<Box<dyn Append>>;
    /// Everything in a file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
    /// Puts `bytes` in place of the file at once and durably: after a crash the file is the old one or the new one.
    fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file to `len` bytes, durably.
    fn truncate(&self, path: &str, len: u64) -> io::Result<()>;
    /// Removes a file, durably, so that files removed one after the other come back in no other order; fine if it is not there.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Names of the files and directories in `dir`, sorted; empty if it is not there.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Where the file is on a disk, for memory mapping, brought there first if it is elsewhere; none if there is no disk.
    fn on_disk(&self, path: &str) -> io::Result<Option<PathBuf>>;
}

/// A file that only grows.
pub trait Append: Debug + Send {
    /// Adds bytes at the end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once everything written is durable.
    fn sync(&mut self) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
