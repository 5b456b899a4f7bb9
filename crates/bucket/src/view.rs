//! What to show of what was listed. Pure.

use std::collections::BTreeMap;

use events::LocalFile;

use crate::key::Key;

/// What a server has in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its files by path, with their bytes.
    pub(crate) files: BTreeMap<String, u64>,
    /// First and last batch of its tail's objects.
    pub(crate) tail: Vec<(u64, u64)>,
}

/// What of it is to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Files by path, with the bytes of both their parts.
    pub(crate) files: Vec<(String, u64)>,
    /// Objects of the tail, each with the first of its batches that is in no file.
    pub(crate) tail: Vec<((u64, u64), u64)>,
}

/// Sorts what was listed by server.
pub(crate) fn by_server(keys: impl Iterator<Item = (Key, u64)>) -> BTreeMap<String, Listed> {
    let mut servers: BTreeMap<String, Listed> = BTreeMap::new();
    for (key, bytes) in keys {
        match key {
            Key::Tail { server, first, last } => servers.entry(server).or_default().tail.push((first, last)),
            Key::File { server, path } => {
                servers.entry(server).or_default().files.insert(path, bytes);
            }
        }
    }
    servers
}

/// Of files that were merged only the newest; of batches those that are in no file and in no earlier object of the tail.
pub(crate) fn wanted(listed: &Listed) -> Wanted {
    let files = events::newest(listed.files.keys().filter(|path| LocalFile::of(path).is_some()).cloned().collect());
    let stored_to =
        files.iter().filter_map(|path| LocalFile::of(path)).map(|file| file.batches.1 + 1).max().unwrap_or(0);
    let bytes = |path: &String| {
        let second = format!("{}.sparse.arrow", path.trim_end_matches(".arrow"));
        listed.files.get(path).copied().unwrap_or(0) + listed.files.get(&second).copied().unwrap_or(0)
    };
    let files = files.into_iter().map(|path| (path.clone(), bytes(&path))).collect();
    let mut objects = listed.tail.clone();
    objects.sort_unstable();
    let mut next = stored_to;
    let mut tail = Vec::new();
    for (first, last) in objects {
        if last >= next {
            tail.push(((first, last), first.max(next)));
            next = last + 1;
        }
    }
    Wanted { files, tail }
}

/// Files in the bucket that may go: they lie within a file of this server's that is there, too, and are not among them any more.
pub(crate) fn superseded<'a>(listed: &'a Listed, server: &str, local: &[LocalFile]) -> Vec<&'a str> {
    let there = |file: &&LocalFile| listed.files.contains_key(&format!("{server}/{}", below_events(&file.path)));
    let present: Vec<&LocalFile> = local.iter().filter(there).collect();
    let is_local = |path: &str| local.iter().any(|file| path.ends_with(below_events(&file.path)));
    let within =
        |file: &LocalFile| present.iter().any(|of| of.batches.0 <= file.batches.0 && file.batches.1 <= of.batches.1);
    let gone = |path: &&str| LocalFile::of(path).is_some_and(|file| !is_local(path) && within(&file));
    listed.files.keys().map(String::as_str).filter(gone).collect()
}

/// The path without the store's directory and the server: it begins with the day.
pub(crate) fn below_events(path: &str) -> &str {
    path.split_once('/').map_or(path, |(_, rest)| rest)
}
