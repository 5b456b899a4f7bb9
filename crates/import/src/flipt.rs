//! Flipt: an export document, or a `features.yml` of its storages; several documents (namespaces) as a list.
//!
//! A variant flag's values are the variants' keys, which is what Flipt's OpenFeature providers answer. Attachments become a second
//! flag `<key>.attachment`. A rule that matches ends the evaluation: whoever its distributions do not reach gets the default
//! variant, or the code default if there is none, and not the next rule.
//!
//! A boolean flag's rollouts stand in front of `enabled`, which is only what everybody else gets; they count while it is false too.

mod constraint;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::unleash::part::{Part, Refusal, all, any, scalar};
use crate::unleash::settle::settle;
use crate::{Import, ImportError, Weight};

/// Reads Flipt's export.
pub fn flipt(document: &Value) -> Result<Import, ImportError> {
    let wrong = |refusal: Refusal| ImportError { place: refusal.place, reason: refusal.text };
    let documents: Vec<Part<'_>> = match document {
        Value::Array(list) => list
            .iter()
            .enumerate()
            .filter(|(_, item)| !item.is_null())
            .map(|(n, item)| Part::of(item, format!("/{n}")))
            .collect::<Result<_, _>>()
            .map_err(wrong)?,
        _ => vec![Part::of(document, "").map_err(wrong)?],
    };
    if !documents.iter().any(|part| part.value("flags").is_some() || part.value("segments").is_some()) {
        return Err(ImportError { place: "/flags".into(), reason: "expected a list of flags".into() });
    }
    let mut import = Import::default();
    let mut places = BTreeMap::new();
    let alone = documents.len() == 1;
    for part in &documents {
        let namespace = namespace(part).map_err(wrong)?;
        let prefix = if alone || namespace == "default" { String::new() } else { format!("{namespace}.") };
        if namespace != "default" {
            let text = if alone {
                format!("the namespace {namespace} is not part of the keys")
            } else {
                format!("keys of the namespace {namespace} begin with {prefix}; only those of default are as they were")
            };
            import.note(part.at("namespace"), Weight::Info, text);
        }
        let scope = Scope { prefix: &prefix };
        let segments = part.list("segments").map_err(wrong)?;
        for (n, item) in segments.iter().enumerate() {
            let place = format!("{}/{n}", part.at("segments"));
            match Part::of(item, &place).and_then(|part| segment(&part, &mut import)) {
                Ok((key, segment)) => {
                    let key = scope.key(&key);
                    places.insert(format!("/segments/{key}"), place);
                    import.segments.insert(key, segment);
                }
                Err(refusal) => refusal.tell(&named("segment", item), &mut import),
            }
        }
        let flags = part.list("flags").map_err(wrong)?;
        for (n, item) in flags.iter().enumerate() {
            let place = format!("{}/{n}", part.at("flags"));
            match Part::of(item, &place).and_then(|part| scope.flags(&part, &mut import)) {
                Ok(made) => {
                    for (key, flag) in made {
                        if places.insert(format!("/flags/{key}"), place.clone()).is_some() {
                            let text = format!("the flag {key:?} is in the file twice; the later one counts");
                            import.note(&place, Weight::Differs, text);
                        }
                        import.flags.insert(key, flag);
                    }
                }
                Err(refusal) => refusal.tell(&named("flag", item), &mut import),
            }
        }
    }
    settle(&mut import, &places);
    Ok(import)
}

fn named(what: &str, item: &Value) -> String {
    format!("the {what} {:?}", item.get("key").and_then(Value::as_str).unwrap_or(""))
}

fn namespace(part: &Part<'_>) -> Result<String, Refusal> {
    let key = match part.value("namespace") {
        None => None,
        Some(Value::String(key)) => Some(key.as_str()),
        Some(_) => part.part("namespace")?.and_then(|inner| inner.value("key")).and_then(Value::as_str),
    };
    Ok(key.filter(|key| !key.is_empty()).unwrap_or("default").to_owned())
}

fn key_of(part: &Part<'_>) -> Result<String, Refusal> {
    let key = part.value("key").and_then(scalar).filter(|key| !key.is_empty());
    key.ok_or_else(|| Refusal::new(part.at("key"), "expected a key"))
}

fn segment(part: &Part<'_>, import: &mut Import) -> Result<(String, Value), Refusal> {
    let key = key_of(part)?;
    let mut conditions = Vec::new();
    for part in part.parts("constraints")? {
        conditions.push(constraint::condition(&part, import)?);
    }
    // Of no constraints any is as good as all.
    let anyone = part.text("match_type")? == Some("ANY_MATCH_TYPE") && !conditions.is_empty();
    let mut segment = json!({"when": if anyone { any(conditions) } else { all(conditions) }});
    if let Some(text) = part.text("description")?.filter(|text| !text.is_empty()) {
        segment["description"] = json!(text);
    }
    Ok((key, segment))
}

/// A variant flag's variant.
struct Variant<'a> {
    key: String,
    attachment: Option<&'a Value>,
}

struct Scope<'a> {
    prefix: &'a str,
}

impl Scope<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn flags(&self, part: &Part<'_>, import: &mut Import) -> Result<Vec<(String, Value)>, Refusal> {
        let key = key_of(part)?;
        let mut flag = Map::new();
        if let Some(text) = part.text("description")?.filter(|text| !text.is_empty()) {
            flag.insert("description".into(), json!(text));
        }
        self.metadata(part, &mut flag, import)?;
        match part.text("type")?.unwrap_or("VARIANT_FLAG_TYPE") {
            "BOOLEAN_FLAG_TYPE" => {
                self.boolean(part, &key, &mut flag)?;
                Ok(vec![(self.key(&key), Value::Object(flag))])
            }
            "VARIANT_FLAG_TYPE" => self.variant(part, &key, flag, import),
            other => Err(Refusal::new(part.at("type"), format!("{other:?} is not a type of flag"))),
        }
    }

    fn metadata(&self, part: &Part<'_>, flag: &mut Map<String, Value>, import: &mut Import) -> Result<(), Refusal> {
        let Some(given) = part.part("metadata")? else { return Ok(()) };
        let kept = crate::goff::metadata(given.map, &given.place, import);
        if !kept.is_empty() {
            flag.insert("metadata".into(), Value::Object(kept));
        }
        Ok(())
    }

    fn boolean(&self, part: &Part<'_>, key: &str, flag: &mut Map<String, Value>) -> Result<(), Refusal> {
        let name = |value: bool| if value { "true" } else { "false" };
        let mut rules = Vec::new();
        for rollout in part.parts("rollouts")? {
            let label = rollout.text("description")?.unwrap_or("rollout");
            if let Some(threshold) = rollout.part("threshold")? {
                // Flipt compares in 32-bit floating point.
                let percent = f64::from(threshold.number("percentage")?.unwrap_or(0.0).min(100.0) as f32);
                let serve = name(threshold.bool("value")?.unwrap_or(false));
                rules.push(json!({"name": label, "serve": serve, "when": {"bucket":
                    {"ranges": [[0, percent]], "total": 100, "salt": key, "bucketing": "flipt-boolean"}}}));
            } else if rollout.value("segment").is_some() {
                let when = self.segments(&rollout)?;
                let value = match rollout.value("segment") {
                    Some(Value::Object(_)) => match rollout.part("segment")? {
                        Some(segment) => segment.bool("value")?.unwrap_or(false),
                        None => false,
                    },
                    _ => false,
                };
                rules.push(json!({"name": label, "when": when, "serve": name(value)}));
            }
        }
        flag.insert("variants".into(), json!({"true": true, "false": false}));
        flag.insert("on".into(), json!(true));
        flag.insert("off_variant".into(), json!("false"));
        if !rules.is_empty() {
            flag.insert("rules".into(), json!(rules));
        }
        flag.insert("fallthrough".into(), json!(name(part.bool("enabled")?.unwrap_or(false))));
        Ok(())
    }

    fn variant(
        &self,
        part: &Part<'_>,
        key: &str,
        mut flag: Map<String, Value>,
        import: &mut Import,
    ) -> Result<Vec<(String, Value)>, Refusal> {
        let mut variants: Vec<Variant<'_>> = Vec::new();
        let mut default = None;
        for item in part.parts("variants")? {
            let variant = Variant { key: key_of(&item)?, attachment: item.value("attachment") };
            if item.bool("default")?.unwrap_or(false) {
                default = Some(variant.key.clone());
            }
            variants.push(variant);
        }
        if variants.is_empty() {
            return Err(Refusal::new(part.at("variants"), "it has no variants, so Flipt never gave it a value"));
        }
        let otherwise = default.as_ref().map_or(Value::Null, |key| json!(key));
        let rules = self.rules(part, key, &variants, &otherwise, import)?;
        let values: Map<String, Value> = variants.iter().map(|v| (v.key.clone(), json!(v.key))).collect();
        flag.insert("variants".into(), Value::Object(values));
        flag.insert("on".into(), json!(part.bool("enabled")?.unwrap_or(false)));
        flag.insert("off_variant".into(), otherwise.clone());
        flag.insert("fallthrough".into(), otherwise);
        if !rules.is_empty() {
            flag.insert("rules".into(), json!(rules));
        }
        let mut made = Vec::new();
        let attached: Map<String, Value> =
            variants.iter().filter_map(|v| Some((v.key.clone(), attachment(v.attachment?)))).collect();
        if !attached.is_empty() {
            match attachments(&flag, attached) {
                Some(second) => made.push((format!("{}.attachment", self.key(key)), second)),
                None => import.note(
                    part.at("variants"),
                    Weight::LeftOut,
                    format!(
                        "the attachments of {key:?} are of different types and are left out; its variants are imported"
                    ),
                ),
            }
        }
        made.insert(0, (self.key(key), Value::Object(flag)));
        Ok(made)
    }

    fn rules(
        &self,
        part: &Part<'_>,
        key: &str,
        variants: &[Variant<'_>],
        otherwise: &Value,
        import: &mut Import,
    ) -> Result<Vec<Value>, Refusal> {
        let mut listed = part.parts("rules")?;
        let rank = |part: &Part<'_>| part.number("rank").ok().flatten();
        if listed.iter().all(|rule| rank(rule).is_some()) {
            listed.sort_by(|a, b| rank(a).unwrap_or(0.0).total_cmp(&rank(b).unwrap_or(0.0)));
        } else if listed.iter().any(|rule| rank(rule).is_some()) {
            let text = format!("only some rules of {key:?} have a rank; the order of the file counts");
            import.note(part.at("rules"), Weight::Info, text);
        }
        let mut rules = Vec::new();
        for rule in &listed {
            let when = self.segments(rule)?;
            let mut ranges = Vec::new();
            let mut end = 0_i64;
            for item in rule.parts("distributions")? {
                let variant =
                    item.value("variant").or_else(|| item.value("variantKey")).and_then(scalar).unwrap_or_default();
                if !variants.iter().any(|v| v.key == variant) {
                    return Err(Refusal::new(item.at("variant"), format!("{variant:?} is not one of the variants")));
                }
                let share = item.number("rollout")?.unwrap_or(0.0) as f32;
                if share <= 0.0 {
                    continue;
                }
                // Thousandths are cut off, in 32-bit floating point, one distribution at a time.
                let below = end + (share * 10.0_f32).min(1_000_000.0) as i64;
                ranges.push((variant, end, below));
                end = below;
            }
            match ranges.as_slice() {
                // Matched without a distribution: Flipt answers the default variant.
                [] => rules.push(json!({"when": when, "serve": otherwise})),
                [(only, 0, below)] if *below >= 1_000 => rules.push(json!({"when": when, "serve": only})),
                _ => {
                    let ranges: Vec<Value> = ranges.iter().map(|(v, from, below)| json!([v, from, below])).collect();
                    rules.push(json!({"when": when, "serve": {"split":
                        {"ranges": ranges, "total": 1000, "salt": key, "bucketing": "flipt"}}}));
                    if end < 1_000 {
                        rules.push(
                            json!({"name": "not reached by the distributions", "when": when, "serve": otherwise}),
                        );
                    }
                }
            }
        }
        Ok(rules)
    }

    /// The condition of a rule or rollout on its segments.
    fn segments(&self, part: &Part<'_>) -> Result<Value, Refusal> {
        let mut keys: Vec<String> = Vec::new();
        let mut operator = part.text("segmentOperator")?.or(part.text("operator")?);
        match part.value("segment") {
            None => {}
            Some(Value::Array(_)) => keys = part.texts("segment")?,
            Some(Value::Object(_)) => {
                if let Some(inner) = part.part("segment")? {
                    keys = inner.texts("keys")?;
                    if keys.is_empty() {
                        keys.extend(inner.value("key").and_then(scalar));
                    }
                    operator = inner.text("operator")?.or(inner.text("segmentOperator")?).or(operator);
                }
            }
            Some(other) => keys.extend(scalar(other)),
        }
        if keys.is_empty() {
            keys = part.texts("segments")?;
        }
        if keys.is_empty() {
            return Err(Refusal::new(&part.place, "expected a segment or a list of segments"));
        }
        let conditions = keys.iter().map(|key| json!({"segment": self.key(key)})).collect();
        match operator {
            None | Some("" | "OR_SEGMENT_OPERATOR") => Ok(any(conditions)),
            Some("AND_SEGMENT_OPERATOR") => Ok(all(conditions)),
            Some(other) => Err(Refusal::new(&part.place, format!("{other:?} is not a segment operator"))),
        }
    }
}

/// An attachment; text that is JSON was stored as text by old versions.
fn attachment(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            serde_json::from_str(text).ok().filter(|v: &Value| !v.is_null()).unwrap_or_else(|| value.clone())
        }
        other => other.clone(),
    }
}

/// The flag with attachments for values: a variant without one gives the code default. None if they are of different types.
fn attachments(flag: &Map<String, Value>, values: Map<String, Value>) -> Option<Value> {
    let kind = |value: &Value| match value {
        Value::Bool(_) => 0,
        Value::Number(_) => 1,
        Value::String(_) => 2,
        _ => 3,
    };
    let mut kinds = values.values().map(kind);
    let first = kinds.next()?;
    if kinds.any(|kind| kind != first) {
        return None;
    }
    let mut second = flag.clone();
    let known = |name: &Value| name.as_str().is_some_and(|name| values.contains_key(name));
    for name in ["off_variant", "fallthrough"] {
        if let Some(slot) = second.get_mut(name).filter(|slot| !known(slot)) {
            *slot = Value::Null;
        }
    }
    let mut rules = Vec::new();
    for mut rule in second.get("rules").and_then(Value::as_array).cloned().unwrap_or_default() {
        let ranges = rule.pointer("/serve/split/ranges").and_then(Value::as_array).cloned();
        let Some(ranges) = ranges else {
            if !known(&rule["serve"]) {
                rule["serve"] = Value::Null;
            }
            rules.push(rule);
            continue;
        };
        let kept: Vec<Value> = ranges.iter().filter(|range| known(&range[0])).cloned().collect();
        let gaps = kept.len() < ranges.len();
        let when = rule["when"].clone();
        if !kept.is_empty() {
            rule["serve"]["split"]["ranges"] = json!(kept);
            rules.push(rule.clone());
        }
        if gaps {
            // The places of variants without an attachment; what no distribution reaches goes on to the next rule.
            let gone: Vec<Value> =
                ranges.iter().filter(|range| !known(&range[0])).map(|range| json!([range[1], range[2]])).collect();
            let split = &rule["serve"]["split"];
            let bucket =
                json!({"bucket": {"ranges": gone, "total": 1000, "salt": split["salt"], "bucketing": "flipt"}});
            rules.push(
                json!({"name": "variants without an attachment", "when": all(vec![when, bucket]), "serve": null}),
            );
        }
    }
    if !rules.is_empty() {
        second.insert("rules".into(), json!(rules));
    }
    second.insert("variants".into(), Value::Object(values));
    Some(Value::Object(second))
}

#[cfg(test)]
mod tests;
