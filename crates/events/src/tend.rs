//! What keeps the store small and fast: frozen chunks become segments, small segments large ones, old ones Parquet, older ones nothing.
//!
//! Everything here runs on one thread at a time, beside writers and queries; each step leaves files that a restart understands.

use std::io;
use std::sync::Arc;

use vocab::{Millis, Timestamp};

use crate::cold;
use crate::store::{
    FROZEN_MAX, OpenError, Part, Place, SEGMENT_ROWS, Store, load, lock, merged, remove, segment_path, write,
};

/// Rows of a full segment, unless the store was told otherwise. Larger ones would make dictionaries hardly smaller and merging heavier.
pub const SEGMENT_ROWS_MAX: usize = SEGMENT_ROWS * FULL;
/// A full segment is so many times what is worth writing.
const FULL: usize = 8;
/// So many times that are made a segment at once: what is merged is in memory a second time meanwhile.
const AT_ONCE: usize = 4;
/// So many adjacent small segments are merged even if they do not make a full one.
const SMALL_MAX: usize = 8;

/// How long rows are kept, and in what form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Segments whose newest row is older become Parquet.
    pub cold_after: Option<Millis>,
    /// Segments and Parquet files whose newest row is older are removed.
    pub drop_after: Option<Millis>,
    /// While segments and Parquet files have more bytes than this, the oldest is removed.
    pub bytes_max: Option<u64>,
}

impl Part {
    /// Where its file is.
    pub(crate) fn path(&self) -> Option<&str> {
        match &self.place {
            Place::Memory(_) => None,
            Place::Hot(hot) => Some(&hot.path),
            Place::Cold(cold) => Some(&cold.path),
        }
    }

    /// What its file takes on this disk.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.place {
            Place::Hot(hot) if !hot.away => hot.bytes,
            Place::Cold(cold) if !cold.away => cold.bytes,
            _ => 0,
        }
    }

    fn rows(&self) -> usize {
        self.extent().2
    }
}

impl Store {
    /// Whether there are enough rows to write a segment.
    pub fn wants_flush(&self) -> bool {
        let frozen: usize = self.frozen(self.listed_parts()).iter().map(|part| part.rows()).sum();
        frozen + self.rows_filling() >= self.segment_rows()
    }

    fn frozen(&self, parts: Vec<Arc<Part>>) -> Vec<Arc<Part>> {
        parts.into_iter().filter(|part| !part.is_on_disk()).collect()
    }

    /// Writes frozen chunks as segments and removes from the write-ahead log what is in segments and numbered below
    /// `keep_from`. Slow; call it from a thread of its own. With `all`, few rows make a segment, too.
    pub fn flush(&self, keep_from: u64, all: bool) -> Result<(), OpenError> {
        let _one = lock(&self.tending);
        loop {
            let mut frozen = self.frozen(self.all_parts());
            let mut rows = 0;
            let fits = frozen.iter().take_while(|part| {
                rows += part.rows();
                rows <= self.segment_rows() * AT_ONCE
            });
            let n = fits.count().max(1);
            frozen.truncate(n);
            let rows: usize = frozen.iter().map(|part| part.rows()).sum();
            let (Some(first), Some(last)) = (frozen.first(), frozen.last()) else { break };
            if rows < self.segment_rows() && !all {
                break;
            }
            let Some(chunk) = merged(&frozen) else { break };
            let written = write(&self.files, &self.dir, &chunk, (first.first, last.last))?;
            self.put_in_place(&frozen, Some(written.place));
        }
        self.shorten_log(keep_from)
    }

    /// Removes what is too old or too much at `now`. Needs no room, so it comes before what does: it may make some.
    pub fn forget(&self, keep: &Keep, now: Timestamp) -> Result<(), OpenError> {
        let _one = lock(&self.tending);
        while self.drop_old(keep, now)? {}
        Ok(())
    }

    /// One step of merging and cooling that is due at `now`; whether there was one. Call it until there is none.
    pub fn tend(&self, keep: &Keep, now: Timestamp) -> Result<bool, OpenError> {
        let _one = lock(&self.tending);
        if self.frozen(self.listed_parts()).len() > FROZEN_MAX {
            self.merge_frozen_alone();
        }
        Ok(self.merge_small()? || self.cool(keep, now)?)
    }

    fn drop_old(&self, keep: &Keep, now: Timestamp) -> Result<bool, OpenError> {
        let on_disk: Vec<Arc<Part>> = self.listed_parts().into_iter().filter(|part| part.is_on_disk()).collect();
        let old = keep.drop_after.and_then(|after| on_disk.iter().find(|part| is_older(part, now, after)));
        let bytes: u64 = on_disk.iter().map(|part| part.bytes()).sum();
        let here = || on_disk.iter().filter(|part| !part.is_away());
        let too_much = keep.bytes_max.filter(|max| bytes > *max).and_then(|_| here().min_by_key(|p| p.extent().1));
        let Some(part) = old.or(too_much) else { return Ok(false) };
        let Some(path) = part.path().map(str::to_owned) else { return Ok(false) };
        self.put_in_place(std::slice::from_ref(part), None);
        if !part.is_away() {
            remove(&*self.files, &path).map_err(|source| OpenError::Io { path, source })?;
        }
        Ok(true)
    }

    /// Adjacent small segments become one.
    fn merge_small(&self) -> Result<bool, OpenError> {
        let full = self.segment_rows() * FULL;
        let is_small = |part: &Part| match &part.place {
            Place::Hot(hot) => !hot.away && part.rows() < full / 2 && hot.chunk().is_ok(),
            _ => false,
        };
        let parts = self.listed_parts();
        for run in parts.chunk_by(|a, b| is_small(a) && is_small(b)) {
            let mut rows = 0;
            let fits = run.iter().take_while(|part| {
                rows += part.rows();
                is_small(part) && rows <= full
            });
            let n = fits.count();
            if n < 2 || (n < SMALL_MAX && rows <= full) {
                continue;
            }
            let old = &run[..n];
            let Some(chunk) = merged(old) else { continue };
            let new = write(&self.files, &self.dir, &chunk, (old[0].first, old[n - 1].last))?;
            self.put_in_place(old, Some(new.place));
            for path in old.iter().filter_map(|part| part.path()) {
                remove(&*self.files, path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// An old segment becomes Parquet.
    fn cool(&self, keep: &Keep, now: Timestamp) -> Result<bool, OpenError> {
        let Some(after) = keep.cold_after else { return Ok(false) };
        for part in self.listed_parts() {
            let Place::Hot(hot) = &part.place else { continue };
            if hot.away {
                continue;
            }
            let Ok(chunk) = hot.chunk() else { continue };
            if !is_older(&part, now, after) {
                continue;
            }
            let at = |path: &str, source| OpenError::Io { path: path.to_owned(), source };
            let bytes = cold::write(chunk).map_err(|e| at(&hot.path, io::Error::other(e)))?;
            let crc = crc32c::crc32c(&bytes);
            let path = segment_path(&self.dir, chunk, (part.first, part.last), crc, "parquet");
            self.files.replace(&path, &bytes).map_err(|e| at(&path, e))?;
            let new = load(&self.files, &path).map_err(|e| at(&path, io::Error::other(e)))?;
            self.put_in_place(std::slice::from_ref(&part), Some(new.place));
            remove(&*self.files, &hot.path).map_err(|e| at(&hot.path, e))?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Whether the newest row of a part is older than so long.
fn is_older(part: &Part, now: Timestamp, than: Millis) -> bool {
    part.extent().1 < now.nanos().saturating_sub(than.nanos())
}
