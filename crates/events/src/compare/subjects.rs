//! Subjects as whole rows, for comparisons in which one row is one subject.

use rows::{Filter, Row, ValueRef, names};
use vocab::Timestamp;

use crate::column::Kind;
use crate::store::Store;

impl Store {
    /// One row for each subject of `subjects` (64 bits of the pseudonym, as `hash_of` gives them for the value of
    /// `user.id`), with the first value of each attribute seen in time order within `[from, to)`. With `only`, from events
    /// that satisfy it: what is known from before an outcome says who the subject was, the rest says what happened to it; of
    /// the rest arm and fault are kept, to be listed apart.
    pub fn subject_rows(
        &self,
        subjects: &std::collections::HashSet<u64>,
        hash_of: &dyn Fn(&str) -> Option<u64>,
        (from, to): (Timestamp, Timestamp),
        only: Option<&Filter>,
    ) -> std::collections::HashMap<u64, Row> {
        let mut merged: std::collections::HashMap<u64, Row> = Default::default();
        let within = from.nanos()..to.nanos();
        for chunk in &self.parts_in(from, to).chunks {
            for column in chunk.named(names::SUBJECT).filter(|c| c.kind == Kind::Str) {
                let (codes, dict) = column.as_coded();
                let wanted: Vec<Option<u64>> = (0..=dict.len() as u32)
                    .map(|code| match dict.get(code) {
                        Some(ValueRef::Str(text)) => hash_of(text).filter(|hash| subjects.contains(hash)),
                        _ => None,
                    })
                    .collect();
                let mut rows: Vec<(u32, u64)> = Vec::new();
                codes.for_each(|row, code| {
                    if let Some(hash) = wanted[code as usize].filter(|_| within.contains(&chunk.time[row])) {
                        rows.push((row as u32, hash));
                    }
                });
                let numbers: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
                let mut whole: Vec<(u64, Row)> = rows.iter().map(|(_, hash)| *hash).zip(chunk.rows(&numbers)).collect();
                for (_, row) in whole.iter_mut().filter(|(_, row)| only.is_some_and(|only| !only.matches(row))) {
                    row.attributes.retain(|(name, _)| name.starts_with("experiment.") || name.starts_with("fault."));
                }
                whole.sort_by_key(|(_, row)| row.time);
                for (hash, row) in whole {
                    let into = merged.entry(hash).or_insert_with(|| Row { time: row.time, ..Row::default() });
                    for (name, value) in row.attributes {
                        if into.get(&name).is_none() {
                            into.attributes.push((name, value));
                        }
                    }
                }
            }
        }
        merged
    }
}
