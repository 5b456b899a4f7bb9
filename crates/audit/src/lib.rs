//! The audit log: bytes in a Merkle tree, in the C2SP tlog-tiles layout, that anyone can verify.
//!
//! | path below `audit/` | content | mutable |
//! |---|---|---|
//! | `wal/…` | entries not yet in full bundles (see the `files` crate) | grows, then removed |
//! | `tile/<L>/<N>[.p/<W>]` | tiles of hashes (C2SP tlog-tiles) | no |
//! | `tile/entries/<N>[.p/<W>]` | bundles of entries, each with a big-endian u16 length | no |
//! | `checkpoint` | signed note: origin, size, root | replaced, only ever larger |
//! | `vkey` | the public key, as in C2SP signed-note | no |
//! | `key` | the private key; readable by the owner only | no |
//! | `reserve` | 4 MiB that are given back when the disk is full and something must be made safer | once |
//!
//! An entry is durable, and has its index, when [`Log::append`] returns; [`Log::publish`] then writes tiles and checkpoint.
//! What an entry means is not known here: the state of the control plane is a fold over the entries, done elsewhere.

mod log;
mod note;
mod proof;
mod tile;
mod tree;
mod verify;

pub use log::{AppendError, ENTRY_BYTES_MAX, Log, OpenError};
pub use note::{Checkpoint, NoteError, SigningKey, VerifyingKey};
pub use proof::{ProofError, check_consistency, check_inclusion};
pub use tree::{Hash, Tree, leaf_hash};
pub use verify::{Report, VerifyError, verify};

#[cfg(test)]
mod tests;
