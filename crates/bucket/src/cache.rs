//! Files of the bucket on this disk, brought when somebody asks for them and let go when there are too many.
//!
//! A question asks from a thread that may wait. What is in the file is checked where it is read; here only that it came whole.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use files::{Append, Files};
use object_store::ObjectStoreExt;
use tokio::runtime::Handle;

use crate::key;
use crate::place::Place;

/// A question waits for one file no longer than this.
const FETCH: Duration = Duration::from_secs(15);
/// After a file could not be brought others are not tried for so long: a question may need many.
const REST: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Cache {
    place: Place,
    dir: PathBuf,
    bytes_max: u64,
    runtime: Handle,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes and last use of what is on the disk, by path.
    files: HashMap<String, (u64, SystemTime)>,
    /// Who brings a file; others wait for it.
    fetching: HashMap<String, Arc<Mutex<()>>>,
    /// Until when the bucket is not asked, and why.
    resting: Option<(Instant, String)>,
    /// What was let go and may still be mapped by whoever read it.
    dropped: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// Keeps files in `dir`, at most `bytes_max` of them. Those of before are still good.
    pub(crate) fn open(place: Place, dir: PathBuf, bytes_max: u64, runtime: Handle) -> io::Result<Cache> {
        fs::create_dir_all(&dir)?;
        let mut held = Held::default();
        let mut waiting = vec![dir.clone()];
        while let Some(next) = waiting.pop() {
            for entry in fs::read_dir(&next)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    waiting.push(entry.path());
                } else if entry.path().extension().is_some_and(|ending| ending == "part") {
                    // Half a file, from before a crash.
                    fs::remove_file(entry.path())?;
                } else if let Some(path) = entry.path().strip_prefix(&dir).ok().and_then(|path| path.to_str()) {
                    held.files.insert(path.to_owned(), (metadata.len(), metadata.modified()?));
                }
            }
        }
        Ok(Cache { place, dir, bytes_max, runtime, held: Mutex::new(held) })
    }

    /// Paths that were let go since it was last asked.
    pub(crate) fn dropped(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.held).dropped)
    }

    fn is_here(&self, path: &str, now: SystemTime) -> bool {
        lock(&self.held).files.get_mut(path).map(|(_, used)| *used = now).is_some()
    }

    /// Where the file is on this disk; brings it if it is not there.
    fn fetch(&self, path: &str) -> io::Result<PathBuf> {
        let target = self.dir.join(path);
        let now = SystemTime::now();
        if self.is_here(path, now) {
            return Ok(target);
        }
        if let Some((_, reason)) = lock(&self.held).resting.as_ref().filter(|(until, _)| Instant::now() < *until) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason.clone()));
        }
        let turn = lock(&self.held).fetching.entry(path.to_owned()).or_default().clone();
        let brought = {
            let _one = lock(&turn);
            if self.is_here(path, now) { Ok(()) } else { self.bring(path, &target, now) }
        };
        lock(&self.held).fetching.remove(path);
        brought.map(|()| target)
    }

    fn bring(&self, path: &str, target: &std::path::Path, now: SystemTime) -> io::Result<()> {
        let Some((server, below)) = path.split_once('/') else { return Err(io::ErrorKind::InvalidInput.into()) };
        let location = key::file(&self.place.prefix, server, below);
        let store = self.place.store.clone();
        let got = self.runtime.block_on(async {
            let fetched = async { store.get(&location).await?.bytes().await };
            tokio::time::timeout(FETCH, fetched).await
        });
        let reason = match got {
            Ok(Ok(bytes)) => return self.keep(path, target, &bytes, now),
            Ok(Err(object_store::Error::NotFound { .. })) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "it is not in the bucket any more"));
            }
            Err(_) => "the bucket does not answer".to_owned(),
            Ok(Err(e)) => format!("the bucket: {e}"),
        };
        lock(&self.held).resting = Some((Instant::now() + REST, reason.clone()));
        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
    }

    fn keep(&self, path: &str, target: &std::path::Path, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        // Renamed when it is whole. Not synced: after a power cut the checksum tells, and it is fetched again.
        let part = target.with_extension("part");
        fs::write(&part, bytes)?;
        fs::rename(&part, target)?;
        let mut held = lock(&self.held);
        held.files.insert(path.to_owned(), (bytes.len() as u64, now));
        self.make_room(&mut held, path);
        Ok(())
    }

    /// Lets the longest unused go, but not what came just now.
    fn make_room(&self, held: &mut Held, keep: &str) {
        let mut bytes: u64 = held.files.values().map(|(bytes, _)| bytes).sum();
        while bytes > self.bytes_max {
            let oldest = held.files.iter().filter(|(path, _)| *path != keep).min_by_key(|(_, (_, used))| *used);
            let Some((path, (len, _))) = oldest.map(|(path, of)| (path.clone(), *of)) else { break };
            if fs::remove_file(self.dir.join(&path)).is_err() {
                break;
            }
            held.files.remove(&path);
            held.dropped.push(path);
            bytes -= len;
        }
    }

    /// Forgets a file that turned out to be damaged, so that it is brought anew.
    pub(crate) fn forget(&self, path: &str) {
        let mut held = lock(&self.held);
        if held.files.remove(path).is_some() {
            let _ = fs::remove_file(self.dir.join(path));
        }
    }
}

fn only_read() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "files of the bucket are only read")
}

impl Files for Cache {
    fn append(&self, _path: &str) -> io::Result<Box<dyn Append>> {
        Err(only_read())
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.fetch(path)?)
    }

    fn replace(&self, _path: &str, _bytes: &[u8]) -> io::Result<()> {
        Err(only_read())
    }

    fn truncate(&self, _path: &str, _len: u64) -> io::Result<()> {
        Err(only_read())
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        Err(only_read())
    }

    fn list(&self, _dir: &str) -> io::Result<Vec<String>> {
        Err(only_read())
    }

    fn on_disk(&self, path: &str) -> io::Result<Option<PathBuf>> {
        self.fetch(path).map(Some)
    }
}
