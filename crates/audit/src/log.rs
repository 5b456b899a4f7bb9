//! The log itself: append durably, publish tiles and checkpoint, recover.
//!
//! Recovery reads the bundles that the checkpoint covers and then the write-ahead log; the two may overlap. A log that does
//! not lead to its own checkpoint is refused: it was altered, or restored from an older copy.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use files::{Files, Wal, WalError};

use crate::note::{Checkpoint, NoteError, SigningKey, VerifyingKey};
use crate::tile::{WIDTH, bundle_bytes, bundle_entries, bundle_path, tile_bytes, tile_path, tiles};
use crate::tree::{Tree, leaf_hash};

/// The longest entry: its length is a u16 in the bundle. Larger bodies go elsewhere, by hash.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// Given back when the disk is full: room for some ten thousand stops, or for one checkpoint over them.
const RESERVE_BYTES: usize = 4 << 20;
/// The write-ahead log starts a new file beyond this, so that what is in bundles can be removed.
const WAL_FILE_BYTES: u64 = 4 << 20;

/// An open log; one per directory.
#[derive(Debug)]
pub struct Log {
    files: Arc<dyn Files>,
    wal: Wal,
    tree: Tree,
    /// Entries from the first one that is not in a full bundle.
    tail: Vec<Vec<u8>>,
    published: u64,
    key: SigningKey,
    reserve: bool,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk said no.
    #[error("audit log file {path}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The write-ahead log cannot be read.
    #[error("audit log")]
    Wal(#[from] WalError),
    /// The checkpoint is not ours.
    #[error("audit/checkpoint")]
    Note(#[from] NoteError),
    /// Bundles, write-ahead log and checkpoint contradict each other.
    #[error(
        "the audit log does not lead to its own checkpoint ({detail}): it was altered or restored from an older copy"
    )]
    Contradiction {
        /// What was found.
        detail: String,
    },
}

/// Why entries are not in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Longer than [`ENTRY_BYTES_MAX`].
    #[error("an entry of {len} bytes is longer than {ENTRY_BYTES_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The disk is full.
    #[error("the disk under the audit log is full")]
    Full(#[source] WalError),
    /// The write-ahead log refused.
    #[error("audit log")]
    Wal(#[source] WalError),
}

fn io_error(path: &str) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

impl Log {
    /// Opens or makes the log below `audit/`; every entry is handed to `replay` in order. On the first start the key made
    /// from `secret` is stored; later the stored one is used. `origin` names the log (a schema-less URL).
    pub fn open(
        files: Arc<dyn Files>,
        origin: &str,
        secret: [u8; 32],
        mut replay: impl FnMut(u64, &[u8]),
    ) -> Result<Log, OpenError> {
        let key = load_key(&*files, origin, secret)?;
        let checkpoint = match files.read("audit/checkpoint") {
            Ok(bytes) => Some(Checkpoint::open(&String::from_utf8_lossy(&bytes), key.verifying())?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(OpenError::Io { path: "audit/checkpoint".into(), source }),
        };
        let published = checkpoint.as_ref().map_or(0, |c| c.size);
        let mut tree = Tree::default();
        let mut tail: Vec<Vec<u8>> = Vec::new();
        for (n, width) in bundles(published) {
            let path = format!("audit/{}", bundle_path(n, width));
            let bytes = files.read(&path).map_err(io_error(&path))?;
            let entries = bundle_entries(&bytes).filter(|e| e.len() as u64 == width);
            let entries = entries.ok_or_else(|| OpenError::Contradiction { detail: format!("{path} is cut short") })?;
            tail.clear();
            for entry in entries {
                replay(tree.size(), entry);
                tree.push(leaf_hash(entry));
                if width < WIDTH {
                    tail.push(entry.to_vec());
                }
            }
        }
        if let Some(checkpoint) = &checkpoint {
            if tree.root(published) != Some(checkpoint.root) {
                return Err(OpenError::Contradiction { detail: format!("the root of size {published} differs") });
            }
        }
        let mut gap = None;
        let wal = Wal::open(files.clone(), "audit/wal", |number, entry| {
            let size = tree.size();
            if number > size {
                gap.get_or_insert((size, number));
            }
            if number < size || gap.is_some() {
                return;
            }
            replay(size, entry);
            tree.push(leaf_hash(entry));
            tail.push(entry.to_vec());
        })?;
        if let Some((from, to)) = gap {
            return Err(OpenError::Contradiction { detail: format!("entries {from} to {to} are missing") });
        }
        if wal.next() < tree.size() {
            let detail = format!("its write-ahead log ends at {} of {}", wal.next(), tree.size());
            return Err(OpenError::Contradiction { detail });
        }
        let reserve = match files.read("audit/reserve") {
            Ok(_) => true,
            // A disk that is full at start has no reserve to give; that must not keep the control plane from starting.
            Err(_) => files.replace("audit/reserve", &vec![0; RESERVE_BYTES]).is_ok(),
        };
        Ok(Log { files, wal, tree, tail, published, key, reserve })
    }

    /// Appends entries as one durable commit; returns the index of the first. With `urgent`, a full disk gives back the
    /// reserve: for what makes things safer.
    pub fn append(&mut self, entries: &[Vec<u8>], urgent: bool) -> Result<u64, AppendError> {
        if let Some(entry) = entries.iter().find(|e| e.len() > ENTRY_BYTES_MAX) {
            return Err(AppendError::TooLong { len: entry.len() });
        }
        let mut first = self.wal.commit(entries.iter().map(Vec::as_slice));
        if urgent && self.reserve && first.as_ref().is_err_and(WalError::is_full) {
            self.reserve = false;
            let _ = self.files.remove("audit/reserve");
            first = self.wal.commit(entries.iter().map(Vec::as_slice));
        }
        let first = first.map_err(|e| if e.is_full() { AppendError::Full(e) } else { AppendError::Wal(e) })?;
        for entry in entries {
            self.tree.push(leaf_hash(entry));
            self.tail.push(entry.clone());
        }
        Ok(first)
    }

    /// Writes tiles, bundles and a checkpoint that cover all entries; nothing if they already do.
    pub fn publish(&mut self) -> Result<(), OpenError> {
        let size = self.tree.size();
        if size == self.published {
            return Ok(());
        }
        let old = self.published;
        for (level, n, width) in tiles(size) {
            // A tile that was full at the old size is there already.
            let old_nodes = old.checked_shr(8 * level).unwrap_or(0);
            if (n + 1) * WIDTH <= old_nodes {
                continue;
            }
            let path = format!("audit/{}", tile_path(level, n, width));
            self.files.replace(&path, &tile_bytes(&self.tree, level, n, width)).map_err(io_error(&path))?;
        }
        let tail_start = size - self.tail.len() as u64;
        for (n, width) in bundles(size) {
            if (n + 1) * WIDTH <= tail_start {
                continue;
            }
            let from = (n * WIDTH - tail_start) as usize;
            let bytes = bundle_bytes(self.tail[from..from + width as usize].iter().map(Vec::as_slice));
            let path = format!("audit/{}", bundle_path(n, width));
            self.files.replace(&path, &bytes).map_err(io_error(&path))?;
        }
        let checkpoint = self.checkpoint(size);
        self.files
            .replace("audit/checkpoint", checkpoint.sign(&self.key).as_bytes())
            .map_err(io_error("audit/checkpoint"))?;
        self.published = size;
        self.remove_superseded(old);
        let full = size / WIDTH * WIDTH;
        self.tail.drain(..(full.saturating_sub(tail_start)) as usize);
        if self.wal.len() > WAL_FILE_BYTES {
            self.wal.rotate()?;
        }
        self.wal.drop_before(size)?;
        Ok(())
    }

    /// Partial tiles and bundles of the old size are not needed once the new checkpoint stands; leaving one behind is harmless.
    fn remove_superseded(&self, old: u64) {
        let size = self.published;
        let gone = tiles(old)
            .filter(|tile| tile.2 < WIDTH && !tiles(size).any(|t| t == *tile))
            .map(|(level, n, width)| tile_path(level, n, width))
            .chain(
                bundles(old).filter(|b| b.1 < WIDTH && !bundles(size).any(|c| c == *b)).map(|(n, w)| bundle_path(n, w)),
            );
        for path in gone {
            let _ = self.files.remove(&format!("audit/{path}"));
        }
    }

    fn checkpoint(&self, size: u64) -> Checkpoint {
        let root = self.tree.root(size).expect("within the tree");
        Checkpoint { origin: self.key.verifying().name().to_owned(), size, root }
    }

    /// How many entries are durable.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// How many entries the checkpoint on disk covers.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Entry `index`; none beyond the log.
    pub fn entry(&self, index: u64) -> Result<Option<Vec<u8>>, OpenError> {
        let size = self.tree.size();
        let tail_start = size - self.tail.len() as u64;
        if index >= size {
            return Ok(None);
        }
        if index >= tail_start {
            return Ok(Some(self.tail[(index - tail_start) as usize].clone()));
        }
        let path = format!("audit/{}", bundle_path(index / WIDTH, WIDTH));
        let bytes = self.files.read(&path).map_err(io_error(&path))?;
        Ok(bundle_entries(&bytes).and_then(|e| e.get((index % WIDTH) as usize).map(|e| e.to_vec())))
    }

    /// The entries from `index` to the end of its bundle, or those after the last full bundle: for reading many in order. Empty
    /// behind the end.
    pub fn entries_from(&self, index: u64) -> Result<Vec<Vec<u8>>, OpenError> {
        let size = self.tree.size();
        let tail_start = size - self.tail.len() as u64;
        if index >= tail_start {
            return Ok(self.tail.get((index - tail_start) as usize..).unwrap_or_default().to_vec());
        }
        let path = format!("audit/{}", bundle_path(index / WIDTH, WIDTH));
        let bytes = self.files.read(&path).map_err(io_error(&path))?;
        let entries = bundle_entries(&bytes).unwrap_or_default();
        Ok(entries.into_iter().skip((index % WIDTH) as usize).map(<[u8]>::to_vec).collect())
    }

    /// The signed checkpoint over all entries that are published; none before the first.
    pub fn signed_checkpoint(&self) -> Option<String> {
        (self.published > 0).then(|| self.checkpoint(self.published).sign(&self.key))
    }

    /// A C2SP tlog-proof that entry `index` is in the log; none if no checkpoint covers it yet.
    pub fn proof(&self, index: u64) -> Option<String> {
        let hashes = self.tree.inclusion(index, self.published)?;
        let mut text = format!("c2sp.org/tlog-proof@v1\nindex {index}\n");
        for hash in hashes {
            text.push_str(&BASE64.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.signed_checkpoint()?);
        Some(text)
    }

    /// The key that checkpoints are verified with.
    pub fn verifying_key(&self) -> &VerifyingKey {
        self.key.verifying()
    }
}

/// The bundles of a log of `size` entries: (number, width).
pub(crate) fn bundles(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let partial = size % WIDTH;
    (0..size / WIDTH).map(|n| (n, WIDTH)).chain((partial > 0).then_some((size / WIDTH, partial)))
}

fn load_key(files: &dyn Files, origin: &str, secret: [u8; 32]) -> Result<SigningKey, OpenError> {
    let key = match files.read("audit/key") {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let (name, encoded) = text.trim().split_once(' ').ok_or(NoteError::Key("audit/key is not ours"))?;
            let secret: Option<[u8; 32]> = BASE64.decode(encoded).ok().and_then(|b| b.try_into().ok());
            SigningKey::new(name, &secret.ok_or(NoteError::Key("audit/key is not ours"))?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{origin} {}\n", BASE64.encode(secret));
            files.replace("audit/key", text.as_bytes()).map_err(io_error("audit/key"))?;
            SigningKey::new(origin, &secret)
        }
        Err(source) => return Err(OpenError::Io { path: "audit/key".into(), source }),
    };
    let vkey = format!("{}\n", key.verifying());
    if files.read("audit/vkey").is_ok_and(|bytes| bytes == vkey.as_bytes()) {
        return Ok(key);
    }
    files.replace("audit/vkey", vkey.as_bytes()).map_err(io_error("audit/vkey"))?;
    Ok(key)
}
