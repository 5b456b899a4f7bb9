//! Names of attributes: how many there may be, and what is told when there are too many.
//!
//! A program that makes names of values (`cart.4711.price`) makes columns without end, and everybody's questions slow. So a server takes
//! a bounded number of different names; attributes with further ones are left out of their rows, counted, and told to the sender, in the
//! log once, and by `/api/v1/fields`. Names that the platform itself writes are always taken.
//!
//! What is known is in memory and in [`PATH`], a JSON list, written before rows leave the write-ahead log; names of rows that are still in
//! the log are learnt from it. Without the file counting begins anew. A name whose rows are all gone still counts.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use files::Files;
use rows::{Row, names};
use serde_json::{Value, json};

use crate::app::lock;

/// Where the names are kept.
pub(crate) const PATH: &str = "events/names";
/// Refused names that are told.
const EXAMPLES: usize = 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct KnownNames {
    max: usize,
    names: RwLock<HashSet<Box<str>>>,
    is_changed: AtomicBool,
    /// Attributes that were left out.
    refused: AtomicU64,
    examples: Mutex<BTreeSet<String>>,
}

impl KnownNames {
    /// With what was kept; a file that cannot be read is a finding.
    pub(crate) fn open(files: &dyn Files, max: usize, findings: &mut Vec<String>) -> KnownNames {
        let mut names = HashSet::new();
        if let Ok(bytes) = files.read(PATH) {
            match serde_json::from_slice(&bytes) {
                Ok(known) => names = known,
                Err(error) => {
                    findings.push(format!("{PATH} cannot be read: {error}; names of attributes are counted anew"));
                }
            }
        }
        KnownNames {
            max,
            names: RwLock::new(names),
            is_changed: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            examples: Mutex::default(),
        }
    }

    /// Takes the names of rows that are stored already.
    pub(crate) fn learn(&self, rows: &[Row]) {
        let unknown = self.unknown(rows);
        if !unknown.is_empty() {
            let mut known = self.names.write().unwrap_or_else(PoisonError::into_inner);
            known.extend(unknown.into_iter().map(String::into_boxed_str));
            self.is_changed.store(true, Ordering::Relaxed);
        }
    }

    /// Leaves out attributes whose names are too many; says what to tell the sender.
    pub(crate) fn admit(&self, rows: &mut [Row]) -> Option<String> {
        let unknown = self.unknown(rows);
        if unknown.is_empty() {
            return None;
        }
        let mut surplus = HashSet::new();
        {
            let mut known = self.names.write().unwrap_or_else(PoisonError::into_inner);
            for name in unknown {
                if known.len() < self.max || names::OWN.contains(&name.as_str()) {
                    known.insert(name.into_boxed_str());
                } else if !known.contains(name.as_str()) {
                    surplus.insert(name);
                }
            }
            self.is_changed.store(true, Ordering::Relaxed);
        }
        let example = surplus.iter().min()?.clone();
        let mut left_out = 0;
        for row in rows {
            let before = row.attributes.len();
            row.attributes.retain(|(name, _)| !surplus.contains(name));
            left_out += (before - row.attributes.len()) as u64;
        }
        let max = self.max;
        if self.refused.fetch_add(left_out, Ordering::Relaxed) == 0 {
            tracing::warn!(
                name = example,
                max,
                "attributes are left out: there are too many names of attributes (--events-names-max)"
            );
        }
        {
            let mut examples = lock(&self.examples);
            let room = EXAMPLES.saturating_sub(examples.len());
            examples.extend(surplus.into_iter().take(room));
        }
        Some(format!(
            "{left_out} attributes were left out, such as {example:?}: this server takes at most {max} names of attributes"
        ))
    }

    /// Names that are not known, each once, in the order in which they come.
    fn unknown(&self, rows: &[Row]) -> Vec<String> {
        let known = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let mut unknown = Vec::new();
        let mut seen = HashSet::new();
        let mut before: &[(String, rows::Value)] = &[];
        for row in rows {
            for (place, (name, _)) in row.attributes.iter().enumerate() {
                // Rows of one source look alike: what stands in the same place of the row before has been looked at.
                if before.get(place).is_some_and(|(other, _)| other == name) || known.contains(name.as_str()) {
                    continue;
                }
                if seen.insert(name.as_str()) {
                    unknown.push(name.clone());
                }
            }
            before = &row.attributes;
        }
        unknown
    }

    /// Writes the names, if there are new ones.
    pub(crate) fn save(&self, files: &dyn Files) -> std::io::Result<()> {
        if !self.is_changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = {
            let known = self.names.read().unwrap_or_else(PoisonError::into_inner);
            let mut sorted: Vec<&str> = known.iter().map(|name| &**name).collect();
            sorted.sort_unstable();
            serde_json::to_vec(&sorted)?
        };
        files.replace(PATH, &bytes).inspect_err(|_| self.is_changed.store(true, Ordering::Relaxed))
    }

    /// For the API.
    pub(crate) fn refused(&self) -> Value {
        let known = self.names.read().unwrap_or_else(PoisonError::into_inner).len();
        json!({"count": self.refused.load(Ordering::Relaxed), "examples": *lock(&self.examples), "known": known,
            "max": self.max})
    }
}

#[cfg(test)]
mod tests;
