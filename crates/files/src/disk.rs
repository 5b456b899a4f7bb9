//! A directory on a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Append, Files};

/// Files below a directory.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    temporary: AtomicU64,
    /// Held until drop; the lock goes with the file descriptor, so also with a killed process.
    _lock: Option<File>,
}

/// Why a data directory cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{path} is in use by another process{holder}; stop that one or choose another directory with --data")]
    Taken {
        /// The directory.
        path: PathBuf,
        /// ` (pid N)` where known.
        holder: String,
    },
    /// The disk said no.
    #[error("cannot use {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Disk {
    /// Files below `root`, which is made if need be. Does not lock: for readers.
    pub fn open(root: &Path) -> io::Result<Disk> {
        fs::create_dir_all(root)?;
        Ok(Disk { root: root.to_owned(), temporary: AtomicU64::new(0), _lock: None })
    }

    /// Files below `root`, for this process alone: a second one is refused.
    pub fn lock(root: &Path) -> Result<Disk, LockError> {
        let io = |source| LockError::Io { path: root.to_owned(), source };
        let mut disk = Disk::open(root).map_err(io)?;
        let path = root.join("lock");
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let holder = if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
            return Err(LockError::Taken { path: root.to_owned(), holder });
        }
        // Nobody else writes here now: what a killed process was writing is nobody's.
        remove_temporary(root).map_err(io)?;
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        disk._lock = Some(file);
        Ok(disk)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn make_parent(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if parent.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(parent)?;
        // The names of new directories must outlive a crash too.
        let mut dir = parent;
        while dir.starts_with(&self.root) {
            File::open(dir)?.sync_all()?;
            match dir.parent() {
                Some(up) => dir = up,
                None => break,
            }
        }
        Ok(())
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// How a file is called until it is whole: the ending says `tmp` and a number.
fn is_temporary(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).and_then(|ending| ending.strip_prefix("tmp"));
    ending.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Removes temporary files below `dir`. Links are not followed.
fn remove_temporary(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            remove_temporary(&path)?;
        } else if kind.is_file() && is_temporary(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct DiskAppend {
    file: File,
    path: PathBuf,
    new: bool,
}

impl Append for DiskAppend {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.new {
            sync_parent(&self.path)?;
            self.new = false;
        }
        Ok(())
    }
}

impl Files for Disk {
    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        let path = self.path(path);
        self.make_parent(&path)?;
        let new = !path.exists();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Box::new(DiskAppend { file, path, new }))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(path))
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(path);
        self.make_parent(&path)?;
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("tmp{number}"));
        let written = (|| {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_parent(&path)
        })();
        if written.is_err() {
            // Half a temporary file on a full disk would keep it full.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn truncate(&self, path: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(path))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.path(path);
        match fs::remove_file(&path) {
            Ok(()) => sync_parent(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn on_disk(&self, path: &str) -> io::Result<Option<PathBuf>> {
        Ok(Some(self.path(path)))
    }
}
