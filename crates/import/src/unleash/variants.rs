//! Variants of a toggle and of its strategies: the flag `<key>.variant`.
//!
//! The first strategy that lets a subject pass and has variants decides among them; else the toggle's own variants do. Overrides
//! stand in front of the split.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::condition::{Compiled, attribute, unit};
use super::part::{all, any};
use super::source::{Toggle, Variant};
use crate::{Import, Weight};

/// The key of the flag that answers `getVariant`.
pub(super) fn key(toggle: &str) -> String {
    format!("{toggle}.variant")
}

/// Names here to names in Unleash. Two variants of one name and different payloads get two names here.
pub(super) fn names(toggle: &Toggle<'_>) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for variant in every(toggle) {
        names.insert(Naming::of(toggle).name(variant), variant.name.clone());
    }
    names
}

fn every<'a>(toggle: &'a Toggle<'_>) -> impl Iterator<Item = &'a Variant> {
    let of_strategies = toggle.strategies.iter().filter_map(|strategy| strategy.variants.as_ref());
    toggle.variants.iter().chain(of_strategies.flatten())
}

/// How variants are called here.
struct Naming<'a> {
    /// For each name the different payloads, in the order of the file.
    payloads: BTreeMap<&'a str, Vec<&'a Option<(String, String)>>>,
}

impl<'a> Naming<'a> {
    fn of(toggle: &'a Toggle<'_>) -> Naming<'a> {
        let mut payloads: BTreeMap<&str, Vec<&Option<(String, String)>>> = BTreeMap::new();
        for variant in every(toggle) {
            let seen = payloads.entry(&variant.name).or_default();
            if !seen.contains(&&variant.payload) {
                seen.push(&variant.payload);
            }
        }
        Naming { payloads }
    }

    fn name(&self, variant: &Variant) -> String {
        let place = self.payloads.get(variant.name.as_str());
        match place.and_then(|seen| seen.iter().position(|payload| **payload == variant.payload)).unwrap_or(0) {
            0 => variant.name.clone(),
            n => format!("{} ({})", variant.name, n + 1),
        }
    }
}

/// Writes the flag's variants, rules and fallthrough; none if there are no variants. True if somebody without a unit gets the
/// first variant where Unleash draws by lot.
pub(super) fn flag(
    toggle: &Toggle<'_>,
    compiled: &[Compiled],
    flag: &mut Map<String, Value>,
    import: &mut Import,
) -> Option<bool> {
    every(toggle).next()?;
    let naming = Naming::of(toggle);
    flag.insert("variants".into(), Value::Object(values(toggle, &naming, import)));
    let mut rules = Vec::new();
    let mut lottery = false;
    for (strategy, made) in toggle.strategies.iter().zip(compiled) {
        let Some(variants) = &strategy.variants else { continue };
        let when = made.condition();
        if when == Value::Bool(false) {
            continue;
        }
        let (group, stickiness) = (strategy.parameters.get("groupId"), strategy.parameters.get("stickiness"));
        let own = variants.first().and_then(|variant| variant.stickiness.as_ref());
        if let (Some(a), Some(b)) = (stickiness, own) {
            if a != b {
                let text =
                    format!("the strategy is sticky on {a}, its variants on {b}; SDKs differ here, and {a} counts");
                import.note(&strategy.place, Weight::Differs, text);
            }
        }
        let (variants, group, stickiness) = if variants.is_empty() {
            let own = toggle.variants.first().and_then(|variant| variant.stickiness.as_deref());
            (&toggle.variants, &toggle.name, own)
        } else {
            let stickiness = stickiness.or(own).map(String::as_str);
            (variants, group.unwrap_or(&toggle.name), stickiness)
        };
        let overridden = std::ptr::eq(variants, &toggle.variants);
        if overridden {
            rules.extend(overrides(variants, &when, &naming));
        }
        let serve =
            choice(variants, group, stickiness.unwrap_or("default"), &strategy.place, &naming, import, &mut lottery);
        rules.push(json!({"name": strategy.name, "when": when, "serve": serve}));
    }
    rules.extend(overrides(&toggle.variants, &Value::Bool(true), &naming));
    if !rules.is_empty() {
        flag.insert("rules".into(), json!(rules));
    }
    let stickiness = toggle.variants.first().and_then(|variant| variant.stickiness.as_deref()).unwrap_or("default");
    // A flag of which some strategy decides first would tell of the lottery though nobody comes here.
    let serve = choice(&toggle.variants, &toggle.name, stickiness, &toggle.place, &naming, import, &mut lottery);
    flag.insert("fallthrough".into(), serve);
    Some(lottery)
}

/// Rules for overrides: the first variant one of whose overrides matches.
fn overrides(variants: &[Variant], when: &Value, naming: &Naming<'_>) -> Vec<Value> {
    let mut rules = Vec::new();
    for variant in variants {
        let listed = variant.overrides.iter().map(|(name, values)| {
            // An override on the time asks for what was sent, not for the clock.
            let attr = if name == "currentTime" { json!("currentTime") } else { attribute(name) };
            json!({"attr": attr, "op": "in", "values": values, "as": "text"})
        });
        let condition = any(listed.collect());
        if condition != Value::Bool(false) {
            let name = format!("override: {}", variant.name);
            rules
                .push(json!({"name": name, "when": all(vec![when.clone(), condition]), "serve": naming.name(variant)}));
        }
    }
    rules
}

/// The split among variants.
fn choice(
    variants: &[Variant],
    group: &str,
    stickiness: &str,
    place: &str,
    naming: &Naming<'_>,
    import: &mut Import,
    lottery: &mut bool,
) -> Value {
    let weighed: Vec<&Variant> = variants.iter().filter(|variant| variant.weight > 0).collect();
    match (weighed.as_slice(), unit(stickiness)) {
        ([], _) => Value::Null,
        ([only], _) => json!(naming.name(only)),
        (_, None) => {
            let text = "variants with random stickiness are drawn at each call anew, which cannot be carried over; everybody \
                        gets the code default here. Give them a stickiness in Unleash first";
            import.note(place, Weight::LeftOut, text);
            Value::Null
        }
        (weighed, Some(by)) => {
            if matches!(stickiness, "default" | "") {
                *lottery = true;
            } else {
                let text = format!(
                    "a call without {stickiness} was given a variant by lot, each call anew; here it gets the first one"
                );
                import.note(place, Weight::Differs, text);
            }
            let weights: Vec<Value> = weighed.iter().map(|v| json!([naming.name(v), v.weight])).collect();
            json!({"split": {"weights": weights, "by": by, "salt": group, "bucketing": "unleash-variant", "missing": "first"}})
        }
    }
}

/// Values by name: payloads, all of one type; a variant without one has its name.
fn values(toggle: &Toggle<'_>, naming: &Naming<'_>, import: &mut Import) -> Map<String, Value> {
    let mut typed: Map<String, Value> = Map::new();
    let mut texts: Map<String, Value> = Map::new();
    for variant in every(toggle) {
        let name = naming.name(variant);
        let text = variant.payload.as_ref().map_or(&variant.name, |(_, value)| value);
        let value = match variant.payload.as_ref() {
            Some((kind, value)) if kind == "number" => {
                value.trim().parse::<f64>().ok().map(|number| number_of(value, number))
            }
            Some((kind, value)) if kind == "json" => {
                serde_json::from_str(value).ok().filter(|v: &Value| v.is_object() || v.is_array())
            }
            _ => Some(json!(text)),
        };
        if name != variant.name && !typed.contains_key(&name) {
            let text = format!(
                "there are variants {:?} with different payloads; this one is called {name:?} here",
                variant.name
            );
            import.note(&variant.place, Weight::Differs, text);
        }
        typed.insert(name.clone(), value.unwrap_or_else(|| json!(text)));
        texts.insert(name, json!(text));
    }
    let kind = |value: &Value| match value {
        Value::String(_) => 0,
        Value::Number(_) => 1,
        _ => 2,
    };
    let mut kinds = typed.values().map(kind);
    let first = kinds.next();
    if kinds.all(|kind| Some(kind) == first) {
        return typed;
    }
    let text = format!(
        "the payloads of {:?} are of different types; all are given as text, as Unleash sends them",
        toggle.name
    );
    import.note(&toggle.place, Weight::Info, text);
    texts
}

fn number_of(text: &str, number: f64) -> Value {
    match text.trim().parse::<i64>() {
        Ok(whole) => json!(whole),
        Err(_) => json!(number),
    }
}
