//! Memory that behaves like a disk in a power cut: what was not synced is gone, wholly or in part.
//!
//! A crash keeps of each file its synced length and then, drawn from the seed, some prefix of the unsynced rest: a disk may
//! have written any of it. It can also refuse writes after a number of bytes, as a full disk does, and everything after a number of
//! changes, so that a test can cut the power in the midst of whatever is under way.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Append, Files};

/// Files in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Crashing {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Content>,
    /// Bytes that still fit; none is no limit.
    room: Option<usize>,
    /// Changes until the power goes; none is never.
    changes_left: Option<usize>,
    /// Whether it is gone.
    is_dark: bool,
    /// Raised by a crash: handles from before it are dead.
    generation: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
}

impl Crashing {
    /// An empty disk.
    pub fn new() -> Crashing {
        Crashing::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After so many more writes, syncs, replacements and removals the power goes: every further one fails until [`Crashing::crash`].
    pub fn cut_after(&self, changes: usize) {
        self.state().changes_left = Some(changes);
    }

    /// Cuts the power: of the unsynced bytes of each file a prefix chosen by `seed` survives. Open handles are dead.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state();
        state.generation += 1;
        (state.changes_left, state.is_dark) = (None, false);
        let mut draw = seed;
        for content in state.files.values_mut() {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unsynced = content.bytes.len() - content.synced;
            let kept = if unsynced == 0 { 0 } else { (draw >> 33) as usize % (unsynced + 1) };
            content.bytes.truncate(content.synced + kept);
            content.synced = content.bytes.len();
        }
    }

    /// From now on only `bytes` more fit; none lifts the limit.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.state().room = bytes;
    }

    /// Flips one bit of a file, as bad hardware does.
    pub fn flip(&self, path: &str, byte: usize) {
        if let Some(content) = self.state().files.get_mut(path) {
            if let Some(byte) = content.bytes.get_mut(byte) {
                *byte ^= 1;
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}

impl State {
    /// Counts a change: whether it happens wholly; of the one in which the power goes some may happen, after it nothing.
    fn change(&mut self) -> io::Result<bool> {
        match &mut self.changes_left {
            None => Ok(true),
            Some(left) if *left > 0 => {
                *left -= 1;
                Ok(true)
            }
            Some(_) if self.is_dark => Err(gone()),
            Some(_) => {
                self.is_dark = true;
                Ok(false)
            }
        }
    }

    /// The same for what cannot happen in part.
    fn whole_change(&mut self) -> io::Result<()> {
        if self.change()? { Ok(()) } else { Err(gone()) }
    }

    fn take_room(&mut self, len: usize) -> io::Result<()> {
        let Some(room) = &mut self.room else { return Ok(()) };
        if *room < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *room -= len;
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    disk: Crashing,
    path: String,
    generation: u64,
}

impl Handle {
    fn with(&self, act: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.generation != self.generation {
            return Err(io::Error::other("the machine crashed under this handle"));
        }
        act(&mut state)
    }
}

impl Append for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.with(|state| {
            if !state.change()? {
                let half = &bytes[..bytes.len() / 2];
                state.files.entry(self.path.clone()).or_default().bytes.extend_from_slice(half);
                return Err(gone());
            }
            state.take_room(bytes.len())?;
            state.files.entry(self.path.clone()).or_default().bytes.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|state| {
            state.whole_change()?;
            let content = state.files.entry(self.path.clone()).or_default();
            content.synced = content.bytes.len();
            Ok(())
        })
    }
}

impl Files for Crashing {
    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        let mut state = self.state();
        state.files.entry(path.to_owned()).or_default();
        Ok(Box::new(Handle { disk: self.clone(), path: path.to_owned(), generation: state.generation }))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.state().files.get(path).map(|c| c.bytes.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if !state.change()? {
            // As a directory does it: a file under another name first.
            let half = Content { bytes: bytes[..bytes.len() / 2].to_vec(), synced: 0 };
            state.files.insert(format!("{path}.tmp0"), half);
            return Err(gone());
        }
        state.take_room(bytes.len())?;
        state.files.insert(path.to_owned(), Content { bytes: bytes.to_vec(), synced: bytes.len() });
        Ok(())
    }

    fn truncate(&self, path: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.whole_change()?;
        let content = state.files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        content.bytes.truncate(len as usize);
        content.synced = content.bytes.len();
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_change()?;
        if let (Some(content), Some(_)) = (state.files.remove(path), state.room) {
            state.room = state.room.map(|room| room + content.bytes.len());
        }
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let state = self.state();
        let mut names: Vec<String> = state
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn on_disk(&self, _path: &str) -> io::Result<Option<PathBuf>> {
        Ok(None)
    }
}
