//! Whether what is on disk is what was written. Changes nothing, so it may look while a server runs.

use std::sync::Arc;

use files::Files;

use crate::keys::Keys;
use crate::store::{OpenError, exists, keys_path, load, name, segment_paths, unpack};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Segments and Parquet files.
    pub files: usize,
    /// Rows in those that are sound.
    pub rows: u64,
    /// Batches in the write-ahead log.
    pub batches: u64,
    /// What is damaged, each with its place.
    pub damage: Vec<String>,
}

/// Reads everything below `dir` and compares it with its checksums.
pub fn check(files: Arc<dyn Files>, dir: &str) -> Result<Checked, OpenError> {
    let mut checked = Checked::default();
    let paths = segment_paths(&*files, dir)?;
    let stored_to = paths.iter().filter_map(|path| name(path)).map(|name| name.last + 1).max().unwrap_or(0);
    for path in paths {
        let sound = load(&files, &path).and_then(|part| part.chunk()).and_then(|chunk| {
            if chunk.is_sound() { Ok(chunk.len() as u64) } else { Err("codes without a value".to_owned()) }
        });
        match sound {
            Ok(rows) => {
                checked.files += 1;
                checked.rows += rows;
            }
            // A server that runs merged it into another meanwhile, or let it go.
            Err(_) if !exists(&*files, &path) => {}
            Err(reason) => {
                checked.files += 1;
                checked.damage.push(if reason.starts_with(&path) { reason } else { format!("{path}: {reason}") });
            }
        }
    }
    let wal = format!("{dir}/wal");
    let mut unreadable = Vec::new();
    let damage = files::examine(&*files, &wal, stored_to, |number, payload| {
        checked.batches += 1;
        if unpack(payload).is_none() {
            unreadable.push(format!("{wal}: batch {number} cannot be read"));
        }
    });
    checked.damage.extend(damage.map_err(|source| OpenError::Io { path: wal.clone(), source })?);
    checked.damage.extend(unreadable);
    checked.damage.extend(Keys::read(&*files, &keys_path(dir)).err());
    Ok(checked)
}
