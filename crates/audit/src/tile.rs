//! Tile paths and entry bundles (C2SP tlog-tiles).

use crate::tree::{Hash, Tree};

/// Hashes in a full tile, entries in a full bundle.
pub(crate) const WIDTH: u64 = 256;

/// `N` in groups of three digits, all but the last with an `x`: 1234067 is `x001/x234/067`.
fn number(n: u64) -> String {
    let mut path = format!("{:03}", n % 1_000);
    let mut rest = n / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    path
}

fn with_width(path: String, width: u64) -> String {
    if width == WIDTH { path } else { format!("{path}.p/{width}") }
}

/// The path of tile `n` of level `level` holding `width` hashes.
pub(crate) fn tile_path(level: u32, n: u64, width: u64) -> String {
    with_width(format!("tile/{level}/{}", number(n)), width)
}

/// The path of bundle `n` holding `width` entries.
pub(crate) fn bundle_path(n: u64, width: u64) -> String {
    with_width(format!("tile/entries/{}", number(n)), width)
}

/// The tiles that the tree of `size` leaves has: (level, number, width), without empty ones.
pub(crate) fn tiles(size: u64) -> impl Iterator<Item = (u32, u64, u64)> {
    (0..8_u32)
        .map(move |level| (level, size.checked_shr(8 * level).unwrap_or(0)))
        .take_while(|(_, nodes)| *nodes > 0)
        .flat_map(|(level, nodes)| {
            let partial = nodes % WIDTH;
            (0..nodes / WIDTH).map(move |n| (level, n, WIDTH)).chain((partial > 0).then_some((
                level,
                nodes / WIDTH,
                partial,
            )))
        })
}

/// The bytes of a tile: its hashes, one after the other.
pub(crate) fn tile_bytes(tree: &Tree, level: u32, n: u64, width: u64) -> Vec<u8> {
    (0..width)
        .filter_map(|place| tree.node(8 * level as usize, n * WIDTH + place))
        .flat_map(|hash: &Hash| hash.iter().copied())
        .collect()
}

/// The bytes of a bundle: each entry behind its length.
pub(crate) fn bundle_bytes<'a>(entries: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(&(entry.len() as u16).to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    bytes
}

/// The entries of a bundle; none if the bytes are cut short.
pub(crate) fn bundle_entries(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        entries.push(entry);
        bytes = rest;
    }
    Some(entries)
}
