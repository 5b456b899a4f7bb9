//! The Merkle tree of RFC 6962 section 2.1: leaf = SHA-256(0x00 ‖ entry), node = SHA-256(0x01 ‖ left ‖ right).
//!
//! All complete nodes are kept in memory, 64 bytes an entry: a control plane writes some hundred entries a day.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The hash of an entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

pub(crate) fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// A growing tree. `levels[l][n]` is the root of the complete subtree of leaves `n·2^l .. (n+1)·2^l`.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// How many leaves.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut level = 0;
        loop {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(hash);
            if nodes.len() % 2 == 1 {
                return;
            }
            hash = node_hash(&nodes[nodes.len() - 2], &nodes[nodes.len() - 1]);
            level += 1;
        }
    }

    /// The complete node `n` of `level`; none if its subtree is not complete.
    pub fn node(&self, level: usize, n: u64) -> Option<&Hash> {
        self.levels.get(level)?.get(usize::try_from(n).ok()?)
    }

    /// The root of the leaves `from..to`; SHA-256 of nothing if empty. `to` ≤ size, and `from` a multiple of the largest
    /// power of two below `to - from`, as in all ranges that RFC 6962 splits into.
    fn range(&self, from: u64, to: u64) -> Hash {
        let n = to - from;
        if n == 0 {
            return Sha256::digest([]).into();
        }
        if n.is_power_of_two() {
            let level = n.trailing_zeros() as usize;
            return *self.node(level, from >> level).expect("complete: it ends within the tree");
        }
        let split = 1 << (63 - n.leading_zeros());
        node_hash(&self.range(from, from + split), &self.range(from + split, to))
    }

    /// The root of the first `size` leaves; none beyond the tree.
    pub fn root(&self, size: u64) -> Option<Hash> {
        (size <= self.size()).then(|| self.range(0, size))
    }

    /// The inclusion proof of leaf `index` in the tree of `size` leaves, leaf to root; none if out of range.
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut from, mut to) = (0, size);
        let mut proof = Vec::new();
        while to - from > 1 {
            let split = from + largest_power_below(to - from);
            if index < split {
                proof.push(self.range(split, to));
                to = split;
            } else {
                proof.push(self.range(from, split));
                from = split;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// The proof that the tree of `old` leaves is a prefix of that of `new`; none if out of range.
    pub fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        if old > new || new > self.size() {
            return None;
        }
        let mut proof = Vec::new();
        if old == 0 || old == new {
            return Some(proof);
        }
        let (mut from, mut to) = (0, new);
        let mut whole = true;
        while to != old {
            let split = from + largest_power_below(to - from);
            if old <= split {
                proof.push(self.range(split, to));
                to = split;
            } else {
                proof.push(self.range(from, split));
                from = split;
                whole = false;
            }
        }
        if !whole {
            proof.push(self.range(from, to));
        }
        proof.reverse();
        Some(proof)
    }
}

/// The largest power of two below `n`, for `n` ≥ 2.
fn largest_power_below(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}
