//! Names of objects; see the table in `lib.rs`.

use object_store::path::Path;

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Batches, by the numbers of the first and the last.
    Tail { server: String, first: u64, last: u64 },
    /// A segment or a Parquet file: the path below `events/files/`, which begins with the server, and the path in that server's
    /// directory.
    File { server: String, path: String },
}

/// Where batches of a server go.
pub(crate) fn tail(prefix: &Path, server: &str, (first, last): (u64, u64)) -> Path {
    tails(prefix).join(server).join(format!("{first:020}-{last:020}"))
}

/// Below this are the batches of all.
pub(crate) fn tails(prefix: &Path) -> Path {
    prefix.clone().join("events").join("tail")
}

/// Below this are the files of all.
pub(crate) fn files(prefix: &Path) -> Path {
    prefix.clone().join("events").join("files")
}

/// Where a file of a server is; `path` begins with the day.
pub(crate) fn file(prefix: &Path, server: &str, path: &str) -> Path {
    path.split('/').fold(files(prefix).join(server), Path::join)
}

/// Reads a name; nothing for what others may have put there.
pub(crate) fn parse(prefix: &Path, location: &Path) -> Option<Key> {
    let parts: Vec<String> = location.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts[..] {
        ["events", "tail", server, name] => {
            let (first, last) = name.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then(|| Key::Tail { server: server.to_owned(), first, last })
        }
        ["events", "files", server, day, hour, name] => {
            Some(Key::File { server: server.to_owned(), path: format!("{server}/{day}/{hour}/{name}") })
        }
        _ => None,
    }
}
