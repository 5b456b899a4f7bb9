//! The walk over a source tree, as ripgrep does it: what `.gitignore` and `.ignore` name, hidden files, binary files and
//! links are left out. Flag documents and text for people are left out too: they name flags without using them.

use std::io::Read;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use serde_json::Value;

use super::report::Report;
use super::scan::Scanner;

/// Larger files are not written by people; they are counted and not read.
pub const FILE_BYTES_MAX: u64 = 2 << 20;
/// Files looked at. The largest repositories known have about this many; then the walk ends and the report says so.
pub const FILES_MAX: u64 = 200_000;
/// Endings of text for people. `.txt` is not among them: it is also build files.
const PROSE: &[&str] = &["md", "mdx", "markdown", "rst", "adoc"];
/// Endings that flag documents have.
const DOCUMENTS: &[&str] = &["json", "yaml", "yml"];

/// Searches all files below `dir`, in the order of their paths. `document` is left out whatever its ending.
pub fn walk(dir: &Path, document: Option<&Path>, scanner: &Scanner, mut report: Report) -> Report {
    let document = document.and_then(|path| path.canonicalize().ok());
    let entries = WalkBuilder::new(dir).require_git(false).sort_by_file_path(Path::cmp).build();
    let mut seen = 0;
    for entry in entries {
        let Ok(entry) = entry else {
            report.files.unreadable += 1;
            continue;
        };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        if seen == FILES_MAX {
            report.files.cut_off = true;
            break;
        }
        seen += 1;
        file(entry.path(), document.as_ref(), scanner, &mut report);
    }
    report
}

fn file(path: &Path, document: Option<&PathBuf>, scanner: &Scanner, report: &mut Report) {
    let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if PROSE.contains(&ending.as_str()) {
        report.files.prose += 1;
        return;
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    if opened.is_err() {
        report.files.unreadable += 1;
        return;
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        report.files.too_large += 1;
        return;
    }
    if bytes.contains(&0) {
        report.files.binary += 1;
        return;
    }
    let text = String::from_utf8_lossy(&bytes);
    let is_the_document =
        document.is_some_and(|d| d.file_name() == path.file_name() && path.canonicalize().ok().as_ref() == Some(d));
    if is_the_document || (DOCUMENTS.contains(&ending.as_str()) && defines_flags(&text)) {
        report.files.definitions += 1;
        return;
    }
    report.files.read += 1;
    let references = scanner.scan(&text);
    if !references.is_empty() {
        report.add(&name(path), &references);
    }
}

/// Whether this is a flag document: `flags`, of which at least one has `variants`.
pub fn defines_flags(text: &str) -> bool {
    // Most files are told apart without being parsed.
    if !text.contains("flags") || !text.contains("variants") {
        return false;
    }
    let Ok(document) = serde_saphyr::from_str::<Value>(text) else { return false };
    let has_variants = |flag: &Value| flag.get("variants").is_some();
    match document.get("flags") {
        Some(Value::Object(flags)) => flags.values().any(has_variants),
        Some(Value::Array(flags)) => flags.iter().any(has_variants),
        _ => false,
    }
}

/// As it is told: without `./`, and on one line.
fn name(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path);
    path.to_string_lossy().replace(char::is_control, "?")
}
