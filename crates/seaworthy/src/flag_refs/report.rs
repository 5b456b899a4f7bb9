//! The sum over all files, and how it is told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::scan::{How, Key, Reference};
use crate::client::table;

/// Places told of one key; the rest is counted.
pub const PLACES_MAX: usize = 20;
/// Distinct keys without a flag that are told; the rest is counted. More than this is a wrong pattern or a wrong server.
pub const UNKNOWN_MAX: usize = 1_000;

/// What became of the files that the walk met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Read and searched.
    pub read: u64,
    /// Not text.
    pub binary: u64,
    /// Larger than the bound.
    pub too_large: u64,
    /// Could not be opened or listed.
    pub unreadable: u64,
    /// Flag documents: they define flags and use none.
    pub definitions: u64,
    /// Text for people, such as Markdown.
    pub prose: u64,
    /// The walk ended at its bound of files.
    pub cut_off: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    file: String,
    line: usize,
    how: How,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Uses {
    n: u64,
    n_calls: u64,
    /// The first [`PLACES_MAX`].
    places: Vec<Place>,
}

impl Uses {
    fn add(&mut self, file: &str, line: usize, how: How) {
        self.n += 1;
        self.n_calls += u64::from(matches!(how, How::Call(_) | How::Pattern));
        if self.places.len() < PLACES_MAX {
            self.places.push(Place { file: file.to_owned(), line, how });
        }
    }

    fn json(&self, key: &str) -> Value {
        let places: Vec<Value> = self
            .places
            .iter()
            .map(|place| {
                let (how, call) = match place.how {
                    How::Call(name) => ("call", Some(name)),
                    How::Pattern => ("pattern", None),
                    How::Quoted => ("string", None),
                    How::Word => ("word", None),
                };
                json!({"file": place.file, "line": place.line, "how": how, "call": call})
            })
            .collect();
        json!({"key": key, "references": self.n, "calls": self.n_calls, "places": places})
    }

    fn rows(&self, key: &str) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = self
            .places
            .iter()
            .map(|place| {
                let how = match place.how {
                    How::Call(name) => name,
                    How::Pattern => "pattern",
                    How::Quoted => "string",
                    How::Word => "word",
                };
                vec![String::new(), String::new(), format!("{}:{}", place.file, place.line), how.to_owned()]
            })
            .collect();
        let untold = self.n - self.places.len() as u64;
        if untold > 0 {
            rows.push(vec![String::new(), String::new(), format!("and {untold} more"), String::new()]);
        }
        if let Some(first) = rows.first_mut() {
            first[0] = key.to_owned();
            first[1] = self.n.to_string();
        }
        rows
    }
}

/// Keys that flags and segments name, as prerequisites or in conditions: what stands under a key `flag` in their definitions.
pub fn needed(definitions: &Value) -> BTreeSet<String> {
    fn collect(value: &Value, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                keys.extend(map.get("flag").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| collect(inner, keys));
            }
            Value::Array(list) => list.iter().for_each(|inner| collect(inner, keys)),
            _ => {}
        }
    }
    let mut keys = BTreeSet::new();
    collect(definitions, &mut keys);
    keys
}

/// The report.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of `keys`.
    known: Vec<Uses>,
    keys: Vec<String>,
    unknown: BTreeMap<String, Uses>,
    /// References to keys beyond [`UNKNOWN_MAX`].
    n_unknown_untold: u64,
    /// Keys that other flags or segments name.
    needed: BTreeSet<String>,
    /// How flags stand, by key, as the server says it; empty for those of a document.
    stages: BTreeMap<String, String>,
    /// What was read.
    pub files: Files,
}

impl Report {
    /// Of nothing yet. `needed`: see [`needed`].
    pub fn new(keys: &[String], needed: BTreeSet<String>) -> Report {
        Report {
            known: vec![Uses::default(); keys.len()],
            keys: keys.to_vec(),
            unknown: BTreeMap::new(),
            n_unknown_untold: 0,
            needed,
            stages: BTreeMap::new(),
            files: Files::default(),
        }
    }

    /// With how flags stand: `live`, `safe-to-remove` and so on.
    #[must_use]
    pub fn with_stages(self, stages: BTreeMap<String, String>) -> Report {
        Report { stages, ..self }
    }

    /// Flags that nobody evaluates any more and that code names all the same, sorted.
    fn dead_in_code(&self) -> impl Iterator<Item = &str> {
        let named = self.keys.iter().zip(&self.known).filter(|(_, uses)| uses.n > 0).map(|(key, _)| key.as_str());
        named.filter(|key| self.stages.get(*key).is_some_and(|stage| stage == "safe-to-remove"))
    }

    /// Takes what one file holds.
    pub fn add(&mut self, file: &str, references: &[Reference<'_>]) {
        for &Reference { key, line, how } in references {
            match key {
                Key::Known(n) => self.known[n].add(file, line, how),
                Key::Unknown(key) if self.unknown.contains_key(key) || self.unknown.len() < UNKNOWN_MAX => {
                    self.unknown.entry(key.to_owned()).or_default().add(file, line, how);
                }
                Key::Unknown(_) => self.n_unknown_untold += 1,
            }
        }
    }

    /// Whether code evaluates a flag that does not exist.
    pub fn has_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Keys that no code names, sorted.
    fn unreferenced(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().zip(&self.known).filter(|(_, uses)| uses.n == 0).map(|(key, _)| key.as_str())
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let one = |(key, uses): (&String, &Uses)| {
            let mut flag = uses.json(key);
            if let Some(stage) = self.stages.get(key) {
                flag["lifecycle"] = json!(stage);
            }
            flag
        };
        let flags: Vec<Value> = self.keys.iter().zip(&self.known).map(one).collect();
        let unknown: Vec<Value> = self.unknown.iter().map(|(key, uses)| uses.json(key)).collect();
        let files = json!({
            "read": self.files.read, "binary": self.files.binary, "too_large": self.files.too_large,
            "unreadable": self.files.unreadable, "flag_documents": self.files.definitions, "prose": self.files.prose,
        });
        json!({
            "flags": flags, "unknown": unknown, "unknown_references_left_out": self.n_unknown_untold,
            "unreferenced": self.unreferenced().collect::<Vec<_>>(),
            "unreferenced_but_needed": self.unreferenced().filter(|key| self.needed.contains(*key)).collect::<Vec<_>>(),
            "safe_to_remove_but_referenced": self.dead_in_code().collect::<Vec<_>>(),
            "files": files, "complete": !self.files.cut_off,
        })
    }

    /// For people. `place` says where the flags come from: "on the server", "in flags.json".
    pub fn text(&self, place: &str) -> String {
        let mut text = String::new();
        let rows: Vec<Vec<String>> = self.keys.iter().zip(&self.known).flat_map(|(key, uses)| uses.rows(key)).collect();
        if !rows.is_empty() {
            text.push_str(&table(&["flag", "references", "where", "how"], &rows));
            text.push('\n');
        }
        let rows: Vec<Vec<String>> = self.unknown.iter().flat_map(|(key, uses)| uses.rows(key)).collect();
        if !rows.is_empty() {
            text.push_str(&format!("In code, but not {place}: everybody gets the default of the code.\n"));
            text.push_str(&table(&["key", "calls", "where", "how"], &rows));
            if self.n_unknown_untold > 0 {
                text.push_str(&format!("and {} calls with further keys\n", self.n_unknown_untold));
            }
            text.push('\n');
        }
        let idle: Vec<&str> = self.unreferenced().collect();
        if !idle.is_empty() {
            text.push_str("No code names it: safe to archive once nobody evaluates it.\n");
            for key in idle {
                let needed =
                    if self.needed.contains(key) { " (not before the flags and segments that name it)" } else { "" };
                let stage = self.stages.get(key).map_or(String::new(), |stage| format!(": {stage}"));
                text.push_str(&format!("  {key}{stage}{needed}\n"));
            }
            text.push('\n');
        }
        let dead: Vec<&str> = self.dead_in_code().collect();
        if !dead.is_empty() {
            text.push_str(
                "Nobody evaluates it any more, but code names it: take it out of the code, then remove it.\n",
            );
            dead.iter().for_each(|key| text.push_str(&format!("  {key}\n")));
            text.push('\n');
        }
        text.push_str(&self.sum());
        text
    }

    fn sum(&self) -> String {
        let files = &self.files;
        let n_idle = self.unreferenced().count();
        let mut text = format!(
            "Files read: {}. Flags in code: {} of {}. Keys in code without a flag: {}.\n",
            files.read,
            self.keys.len() - n_idle,
            self.keys.len(),
            self.unknown.len()
        );
        let skipped: Vec<String> = [
            (files.binary, "binary"),
            (files.too_large, "over 2 MiB"),
            (files.unreadable, "unreadable"),
            (files.definitions, "flag documents"),
            (files.prose, "text for people"),
        ]
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{what} {n}"))
        .collect();
        if !skipped.is_empty() {
            text.push_str(&format!("Not searched: {}.\n", skipped.join(", ")));
        }
        if files.cut_off {
            text.push_str(&format!(
                "It stopped after {} files: a flag may be in code that was not read. Search a smaller directory.\n",
                super::walk::FILES_MAX
            ));
        }
        text
    }
}
