//! GO Feature Flag: its flag file, flags by key.
//!
//! Targeting rules become rules, the default rule becomes the fallthrough. A percentage becomes a split with the bucketing `goff`:
//! ranges in the order of the names from Z to A, over thousandths of the percentages' sum. A progressive rollout becomes a ramp.
//! Scheduled steps and the begin and end of an experimentation become scheduled changes, each with the whole of what holds from
//! then on. A flag that needs a bucketing key gives the code default to whoever lacks one, as GO Feature Flag does.

mod logic;
mod query;
mod rule;
mod state;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use vocab::Timestamp;

use crate::unleash::part::{Part, Refusal, escaped, scalar};
use crate::unleash::settle::settle;
use crate::{Import, ImportError, Weight};
use state::{Definition, State};

/// Reads a flag file.
pub fn goff(document: &Value) -> Result<Import, ImportError> {
    let Value::Object(flags) = document else {
        return Err(ImportError { place: String::new(), reason: "expected an object of flags by key".into() });
    };
    let mut import = Import::default();
    let mut places = BTreeMap::new();
    for (key, definition) in flags {
        let place = format!("/{}", escaped(key));
        match Part::of(definition, &place).and_then(|part| flag(key, &part, &mut import)) {
            Ok(made) => {
                places.insert(format!("/flags/{key}"), place);
                import.flags.insert(key.clone(), made);
            }
            Err(refusal) => refusal.tell(&format!("the flag {key:?}"), &mut import),
        }
    }
    // States of a flag that share a rule share what is said of it.
    let mut told: Vec<crate::Note> = Vec::new();
    import.notes.retain(|note| !told.contains(note) && (told.push(note.clone()), true).1);
    settle(&mut import, &places);
    Ok(import)
}

fn flag(key: &str, part: &Part<'_>, import: &mut Import) -> Result<Value, Refusal> {
    let definition = Definition::read(part)?;
    let variants = definition.variants(part, import)?;
    let mut flag = Map::new();
    flag.insert("variants".into(), Value::Object(variants));
    let start = definition.state(None);
    let mut before = body(&start, &definition, key, import)?;
    flag.extend(before.clone());
    flag.insert("off_variant".into(), Value::Null);
    let mut schedule = Vec::new();
    for at in definition.turns() {
        let now = body(&definition.state(Some(at)), &definition, key, import)?;
        let change: Map<String, Value> = now
            .iter()
            .filter(|(name, value)| before.get(*name) != Some(value))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if !change.is_empty() {
            schedule.push(json!({"at": at.to_string(), "change": change}));
        }
        before = now;
    }
    if !schedule.is_empty() {
        flag.insert("schedule".into(), json!(schedule));
    }
    if definition.appends_early() {
        let text = format!(
            "a scheduled step of {key:?} adds a rule before the last step; GO Feature Flag forgets such a rule at the next step, and \
             so does the import"
        );
        import.note(part.at("scheduledRollout"), Weight::Info, text);
    }
    if definition.uses_progress() {
        let text = format!(
            "progressive rollouts of {key:?} move once a second in GO Feature Flag and evenly here: some users get the end \
             variation up to a second earlier"
        );
        import.note(&part.place, Weight::Info, text);
    }
    let mut kept = match part.part("metadata")? {
        Some(given) => metadata(given.map, &given.place, import),
        None => Map::new(),
    };
    if let Some(version) = part.value("version").and_then(scalar) {
        kept.insert("version".into(), json!(version));
    }
    if let Some(Value::String(text)) = kept.get("description") {
        flag.insert("description".into(), json!(text));
    }
    if !kept.is_empty() {
        flag.insert("metadata".into(), Value::Object(kept));
    }
    if part.bool("trackEvents")? == Some(false) {
        let text = format!("trackEvents is off for {key:?}; Seaworthy exports no events of evaluations unless told to");
        import.note(part.at("trackEvents"), Weight::Info, text);
    }
    Ok(Value::Object(flag))
}

/// What holds in one state: `on`, `rules`, `fallthrough`.
fn body(state: &State, definition: &Definition, key: &str, import: &mut Import) -> Result<Map<String, Value>, Refusal> {
    let by = definition.bucketing_key.as_deref().unwrap_or("targetingKey");
    let scope = rule::Scope { key, by, definition, state };
    let mut rules = Vec::new();
    if let Some(without) = scope.without_key() {
        rules.push(without);
    }
    for rule in state.rules.iter().filter(|rule| rule.disable != Some(true)) {
        rules.extend(scope.rule(rule, import)?);
    }
    let fallthrough = scope.serve(&state.default, import)?.serve;
    let mut body = Map::new();
    body.insert("on".into(), json!(state.on));
    body.insert("rules".into(), json!(rules));
    body.insert("fallthrough".into(), fallthrough);
    Ok(body)
}

/// Metadata that can go out with evaluations: text, numbers and truth values.
pub(crate) fn metadata(given: &Map<String, Value>, place: &str, import: &mut Import) -> Map<String, Value> {
    let mut kept = Map::new();
    let mut gone = Vec::new();
    for (name, value) in given {
        let plain = !value.is_array() && !value.is_object() && !value.is_null();
        // `bucketing` is a word of ours.
        if plain && name != "bucketing" {
            kept.insert(name.clone(), value.clone());
        } else {
            gone.push(name.as_str());
        }
    }
    if !gone.is_empty() {
        import.note(place, Weight::Info, format!("metadata that is not plain is not imported: {}", gone.join(", ")));
    }
    kept
}

/// One nanosecond later: the first moment at which a time is past.
fn after(time: Timestamp) -> Timestamp {
    Timestamp::from_nanos(time.nanos().saturating_add(1))
}

#[cfg(test)]
mod tests;
