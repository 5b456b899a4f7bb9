//! Offline verification: does a directory hold exactly what its checkpoint signs?

use std::io;

use files::Files;

use crate::log::bundles;
use crate::note::{Checkpoint, NoteError, VerifyingKey};
use crate::tile::{bundle_entries, bundle_path, tile_bytes, tile_path, tiles};
use crate::tree::{Hash, Tree, leaf_hash};

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which log.
    pub origin: String,
    /// Entries that the checkpoint covers.
    pub size: u64,
    /// The root it signs.
    pub root: Hash,
    /// Tiles that were compared.
    pub tiles: u64,
}

/// Why a log is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Key or checkpoint is refused.
    #[error("{path}")]
    Note {
        /// The file.
        path: String,
        /// Why.
        source: NoteError,
    },
    /// A bundle does not hold the entries its name promises.
    #[error("{path} does not hold {width} whole entries")]
    Bundle {
        /// The file.
        path: String,
        /// How many it should hold.
        width: u64,
    },
    /// The entries do not lead to the signed root.
    #[error("the {size} entries do not lead to the signed root: an entry was altered, added or removed")]
    Root {
        /// How many the checkpoint covers.
        size: u64,
    },
    /// A tile differs from the one computed from the entries.
    #[error("{path} differs from the tile computed from the entries")]
    Tile {
        /// The file.
        path: String,
    },
}

/// Verifies the log below `dir` (normally `audit`) against `key`, or the `vkey` file beside it. Each entry is handed to
/// `each` after the root was checked.
pub fn verify(
    files: &dyn Files,
    dir: &str,
    key: Option<&VerifyingKey>,
    mut each: impl FnMut(u64, &[u8]),
) -> Result<Report, VerifyError> {
    let path = |rest: &str| if dir.is_empty() { rest.to_owned() } else { format!("{dir}/{rest}") };
    let read = |rest: &str| {
        let path = path(rest);
        files.read(&path).map_err(|source| VerifyError::Io { path, source })
    };
    let note = |rest: &str| {
        let path = path(rest);
        move |source| VerifyError::Note { path, source }
    };
    let stored;
    let key = match key {
        Some(key) => key,
        None => {
            stored = VerifyingKey::parse(&String::from_utf8_lossy(&read("vkey")?)).map_err(note("vkey"))?;
            &stored
        }
    };
    let checkpoint =
        Checkpoint::open(&String::from_utf8_lossy(&read("checkpoint")?), key).map_err(note("checkpoint"))?;
    let size = checkpoint.size;
    let mut tree = Tree::default();
    let mut bundle_bytes = Vec::new();
    for (n, width) in bundles(size) {
        let name = bundle_path(n, width);
        let bytes = read(&name)?;
        let entries = bundle_entries(&bytes).filter(|e| e.len() as u64 == width);
        let entries = entries.ok_or_else(|| VerifyError::Bundle { path: path(&name), width })?;
        entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
        bundle_bytes.push(bytes);
    }
    if tree.root(size) != Some(checkpoint.root) {
        return Err(VerifyError::Root { size });
    }
    let mut compared = 0;
    for (level, n, width) in tiles(size) {
        let name = tile_path(level, n, width);
        if read(&name)? != tile_bytes(&tree, level, n, width) {
            return Err(VerifyError::Tile { path: path(&name) });
        }
        compared += 1;
    }
    let mut index = 0;
    for bytes in &bundle_bytes {
        for entry in bundle_entries(bytes).unwrap_or_default() {
            each(index, entry);
            index += 1;
        }
    }
    Ok(Report { origin: checkpoint.origin, size, root: checkpoint.root, tiles: compared })
}
