//! The last step of an import: what the evaluator refuses is taken out, with a note, so that the rest can be used.

use std::collections::BTreeMap;
use std::sync::Arc;

use flags::{Flag, FlagSet, Segment};
use serde_json::Map;

use crate::{Import, Weight};

/// Takes out each flag and segment that does not compile, that refers to what is not there, or that stands in a circle.
/// `places` says where flags and segments stand in the file, by `/flags/<key>` and `/segments/<key>`.
pub(crate) fn settle(import: &mut Import, places: &BTreeMap<String, String>) {
    let mut segments = BTreeMap::new();
    let mut flags = BTreeMap::new();
    let mut refused: Vec<(String, String)> = Vec::new();
    for (key, definition) in &import.segments {
        match Segment::compile(definition) {
            Ok(segment) => {
                segments.insert(key.clone(), Arc::new(segment));
            }
            Err(findings) => refused.push((format!("/segments/{key}"), first(&findings))),
        }
    }
    for (key, definition) in &import.flags {
        match Flag::compile(key, definition, &Map::new(), &Map::new()) {
            Ok(flag) => {
                flags.insert(key.clone(), Arc::new(flag));
            }
            Err(findings) => refused.push((format!("/flags/{key}"), first(&findings))),
        }
    }
    loop {
        for (name, reason) in refused.drain(..) {
            let place = places.get(&name).map_or("", String::as_str);
            if let Some(key) = name.strip_prefix("/flags/") {
                flags.remove(key);
                import.flags.remove(key);
                import.note(place, Weight::LeftOut, format!("the flag {key:?} is left out: {reason}"));
            } else if let Some(key) = name.strip_prefix("/segments/") {
                segments.remove(key);
                import.segments.remove(key);
                import.note(place, Weight::LeftOut, format!("the segment {key:?} is left out: {reason}"));
            }
        }
        let set = FlagSet::of(flags.values().cloned(), Map::new());
        let set = set.with_segments(segments.iter().map(|(key, segment)| (key.clone(), Arc::clone(segment))));
        for finding in set.tangles() {
            if !refused.iter().any(|(name, _)| *name == finding.place) {
                refused.push((finding.place, finding.reason));
            }
        }
        refused.retain(|(name, _)| {
            name.strip_prefix("/flags/").is_some_and(|key| flags.contains_key(key))
                || name.strip_prefix("/segments/").is_some_and(|key| segments.contains_key(key))
        });
        if refused.is_empty() {
            return;
        }
    }
}

fn first(findings: &[flags::Finding]) -> String {
    findings.first().map_or_else(String::new, |finding| format!("at {}, {}", finding.place, finding.reason))
}
