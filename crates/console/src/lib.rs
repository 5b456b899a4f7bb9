//! The built web console as bytes. Its build script builds `ui/` with npm; without npm there are no files and
//! [`is_built`] says so. Who serves them, and to whom, is not known here.

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Whether the console was built into this binary.
pub fn is_built() -> bool {
    file("index.html").is_some()
}

/// The file with this path (without a leading slash) and its media type.
pub fn file(path: &str) -> Option<(&'static [u8], &'static str)> {
    let (name, bytes) = FILES.iter().find(|(name, _)| *name == path)?;
    let media = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    };
    Some((bytes, media))
}
