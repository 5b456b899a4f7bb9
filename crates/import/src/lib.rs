//! Other flag systems' exports, read into Seaworthy's dialect so that every user keeps the variant he had.
//!
//! One module for each vendor: its JSON (or YAML, read as JSON) in, a document (`{"flags", "segments"}`, see docs/reference/flags.md) and notes out. What cannot
//! be carried over exactly is named in a note and never guessed: the flag is left out, or the note says what differs. The vendor's
//! hash is pinned in each split. Pure; reading files and committing flags is the caller's.

mod flipt;
mod goff;
mod growthbook;
mod launchdarkly;
mod unleash;

pub use flipt::flipt;
pub use goff::goff;
pub use growthbook::growthbook;
pub use launchdarkly::launchdarkly;
pub use unleash::unleash;

use serde_json::{Map, Value, json};

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Flags by key, in Seaworthy's dialect.
    pub flags: Map<String, Value>,
    /// Segments by key.
    pub segments: Map<String, Value>,
    /// What a person should know, in the order of the file.
    pub notes: Vec<Note>,
}

/// Something that could not be carried over as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// JSON pointer into the file (for YAML as if it were JSON).
    pub place: String,
    /// How bad it is.
    pub weight: Weight,
    /// What, why, and what to do.
    pub text: String,
}

/// How bad a note is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing that decides a variant was lost: a description, a metric.
    Info,
    /// Some users may see another variant than before; the text says which.
    Differs,
    /// The flag, or part of it, was left out.
    LeftOut,
}

impl Weight {
    /// For lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Weight::Info => "info",
            Weight::Differs => "differs",
            Weight::LeftOut => "left out",
        }
    }
}

/// Why a file could not be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ImportError {
    /// Line and column, or a JSON pointer.
    pub place: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl Import {
    fn note(&mut self, place: impl Into<String>, weight: Weight, text: impl Into<String>) {
        self.notes.push(Note { place: place.into(), weight, text: text.into() });
    }

    /// As one document.
    pub fn document(&self) -> Value {
        json!({"flags": self.flags, "segments": self.segments})
    }
}
