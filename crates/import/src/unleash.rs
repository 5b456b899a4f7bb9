//! Unleash: the document that its SDKs fetch, or the administration's export of one environment.
//!
//! A toggle asks two questions. `isEnabled` becomes a boolean flag with the toggle's key. If the toggle or one of its strategies
//! has variants, `getVariant` becomes a second flag `<key>.variant`, whose values are the payloads; where Unleash answers the
//! `disabled` variant, it gives the code default.
//!
//! A strategy becomes a rule: its constraints and segments are the condition, its rollout is a split with the bucketing
//! `unleash`. Parents that must be enabled become prerequisites. Unleash's `userId` is the attribute `userId`, and the targeting
//! key where that is absent.
//!
//! Where SDKs of Unleash differ among each other, those count that share one evaluator (Yggdrasil).

pub(crate) mod address;
pub(crate) mod condition;
pub(crate) mod part;
pub(crate) mod settle;
mod source;
mod variants;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{Import, ImportError, Weight};
use condition::{Compiled, Gate};
use part::Refusal;
use source::{Source, Toggle};

/// Reads Unleash's client features document or its export.
pub fn unleash(document: &Value) -> Result<Import, ImportError> {
    let mut import = Import::default();
    let source = Source::read(document, &mut import)?;
    let mut places = BTreeMap::new();
    let segments = segments(&source, &mut import, &mut places);
    let mut drawn = BTreeSet::new();
    for toggle in &source.toggles {
        match flags(toggle, &source, &segments, &mut import, &mut drawn) {
            Ok(made) => {
                for (key, flag) in made {
                    if places.contains_key(&format!("/flags/{key}")) || collides(&key, toggle, &source) {
                        let text = format!("the flag {key:?} is left out: a toggle of that name is in the file too");
                        import.note(&toggle.place, Weight::LeftOut, text);
                        continue;
                    }
                    places.insert(format!("/flags/{key}"), toggle.place.clone());
                    import.flags.insert(key, flag);
                }
            }
            Err(refusal) => refusal.tell(&format!("the toggle {:?}", toggle.name), &mut import),
        }
    }
    if !drawn.is_empty() {
        let names: Vec<&str> = drawn.into_iter().collect();
        let text = format!(
            "a call without userId and sessionId was decided by lot, each call anew; here it does not pass the rollout, and of \
             variants gets the first. This concerns {}",
            names.join(", ")
        );
        import.note("/features", Weight::Differs, text);
    }
    settle::settle(&mut import, &places);
    Ok(import)
}

fn collides(key: &str, toggle: &Toggle<'_>, source: &Source<'_>) -> bool {
    key != toggle.name && source.toggles.iter().any(|other| other.name == key)
}

/// Imports segments; the answer has their keys by their ids.
fn segments(
    source: &Source<'_>,
    import: &mut Import,
    places: &mut BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let mut keys = BTreeMap::new();
    for (id, segment) in &source.segments {
        let named = segment.name.clone().filter(|name| !name.is_empty());
        let key = match named {
            Some(name) if !import.segments.contains_key(&name) => name,
            _ => format!("segment-{id}"),
        };
        let compiled = segment.constraints.as_ref().map(|parts| condition::constraints(parts, import));
        let key = match compiled {
            None => None,
            Some(Ok(when)) => {
                places.insert(format!("/segments/{key}"), segment.place.clone());
                import.segments.insert(key.clone(), json!({"when": when}));
                Some(key)
            }
            Some(Err(refusal)) => {
                refusal.tell(&format!("the segment {key:?}"), import);
                None
            }
        };
        keys.insert(id.clone(), key);
    }
    keys
}

/// What a toggle becomes.
fn flags<'a>(
    toggle: &'a Toggle<'_>,
    source: &Source<'_>,
    segments: &BTreeMap<String, Option<String>>,
    import: &mut Import,
    drawn: &mut BTreeSet<&'a str>,
) -> Result<Vec<(String, Value)>, Refusal> {
    let mut compiled = Vec::new();
    for strategy in &toggle.strategies {
        let made = condition::strategy(strategy, &toggle.name, segments, import)?;
        if matches!(&made.gate, Gate::Share { by, .. } if by.as_array().is_some_and(|names| names.len() == 3)) {
            drawn.insert(&toggle.name);
        }
        compiled.push(made);
    }
    let mut flag = Map::new();
    about(toggle, &mut flag);
    flag.insert("variants".into(), json!({"on": true, "off": false}));
    flag.insert("off_variant".into(), json!("off"));
    let mut rules = Vec::new();
    let mut prerequisites = Vec::new();
    // Without a parent in the file a toggle is off, whatever its switch says.
    let parents = parents(toggle, source, &mut prerequisites, &mut rules, import);
    flag.insert("on".into(), json!(toggle.enabled && parents));
    for (strategy, made) in toggle.strategies.iter().zip(&compiled) {
        rules.extend(rule(&strategy.name, made));
    }
    flag.insert("fallthrough".into(), json!(if toggle.strategies.is_empty() { "on" } else { "off" }));
    if !prerequisites.is_empty() {
        flag.insert("prerequisites".into(), json!(prerequisites));
    }
    if !rules.is_empty() {
        flag.insert("rules".into(), json!(rules));
    }
    let mut made = vec![(toggle.name.clone(), Value::Object(flag))];
    let mut second = Map::new();
    about(toggle, &mut second);
    if let Some(lottery) = variants::flag(toggle, &compiled, &mut second, import) {
        second.insert("on".into(), json!(toggle.enabled && parents));
        second.insert("off_variant".into(), Value::Null);
        second.insert("prerequisites".into(), json!([{"flag": toggle.name, "variants": ["on"]}]));
        made.push((variants::key(&toggle.name), Value::Object(second)));
        if lottery {
            drawn.insert(&toggle.name);
        }
    }
    Ok(made)
}

fn about(toggle: &Toggle<'_>, flag: &mut Map<String, Value>) {
    let kind = match toggle.kind.as_deref() {
        Some("experiment") => "experiment",
        Some("operational") => "ops",
        Some("kill-switch") => "kill-switch",
        Some("permission") => "permission",
        _ => "release",
    };
    flag.insert("kind".into(), json!(kind));
    if let Some(description) = toggle.description.as_ref().filter(|text| !text.is_empty()) {
        flag.insert("description".into(), json!(description));
    }
}

fn rule(name: &str, made: &Compiled) -> Option<Value> {
    let serve = match &made.gate {
        Gate::Nobody => return None,
        Gate::Everybody => json!("on"),
        Gate::Share { by, salt, percent } => json!({"split":
            {"weights": [["on", percent]], "total": 100, "by": by, "salt": salt, "bucketing": "unleash"}}),
    };
    (made.when != Value::Bool(false)).then(|| json!({"name": name, "when": made.when, "serve": serve}))
}

/// Parents that must be enabled are prerequisites, one that must not be is a rule in front. False: they can never be satisfied.
fn parents(
    toggle: &Toggle<'_>,
    source: &Source<'_>,
    prerequisites: &mut Vec<Value>,
    rules: &mut Vec<Value>,
    import: &mut Import,
) -> bool {
    let mut satisfiable = true;
    for dependency in &toggle.dependencies {
        let parent = source.toggles.iter().find(|other| other.name == dependency.feature);
        let Some(parent) = parent.filter(|parent| parent.dependencies.is_empty()) else {
            let why = if parent.is_some() { "depends on toggles itself" } else { "is not in the file" };
            let text = format!(
                "the parent {:?} {why}; the toggle {:?} is off, as in Unleash",
                dependency.feature, toggle.name
            );
            import.note(&dependency.place, Weight::Info, text);
            satisfiable = false;
            continue;
        };
        if !dependency.enabled {
            rules.push(json!({"name": format!("off while {} is on", parent.name),
                "when": {"flag": parent.name, "variants": ["on"]}, "serve": "off"}));
            continue;
        }
        if dependency.variants.is_empty() {
            prerequisites.push(json!({"flag": parent.name, "variants": ["on"]}));
            continue;
        }
        let names = variants::names(parent);
        let wanted: Vec<&String> =
            names.iter().filter(|(_, name)| dependency.variants.contains(name)).map(|(ours, _)| ours).collect();
        if names.is_empty() {
            let text = format!(
                "the parent {:?} has no variants though {} are asked for; SDKs differ here, and its being enabled counts",
                parent.name,
                dependency.variants.join(", ")
            );
            import.note(&dependency.place, Weight::Differs, text);
            prerequisites.push(json!({"flag": parent.name, "variants": ["on"]}));
        } else if dependency.variants.iter().any(|name| name == "disabled") {
            // Enabled without a variant counts too.
            let all: Vec<&String> = names.keys().collect();
            let second = variants::key(&parent.name);
            prerequisites.push(json!({"flag": parent.name, "variants": ["on"]}));
            let other: Vec<&&String> = all.iter().filter(|name| !wanted.contains(*name)).collect();
            if !other.is_empty() {
                rules.push(json!({"name": format!("off with other variants of {}", parent.name),
                    "when": {"flag": second, "variants": other}, "serve": "off"}));
            }
        } else if wanted.is_empty() {
            satisfiable = false;
            let text = format!("the parent {:?} has none of the variants asked for; the toggle is off", parent.name);
            import.note(&dependency.place, Weight::Info, text);
        } else {
            prerequisites.push(json!({"flag": variants::key(&parent.name), "variants": wanted}));
        }
    }
    satisfiable
}

#[cfg(test)]
pub(crate) mod tests;
