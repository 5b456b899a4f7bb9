//! What a rule hashes and how: units, seeds, generations, parts of hash space; and the reading of fields.

use serde_json::{Map, Value, json};

use super::condition::attribute;
use super::feature::{Left, Reading, left};
use super::logic;
use super::ranges::Range;
use crate::Weight;
use crate::launchdarkly::form::{self, NO};

pub(super) fn list<'v>(rule: &'v Map<String, Value>, name: &str, place: &str) -> Result<&'v [Value], Left> {
    match rule.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(left(&format!("{place}/{name}"), "expected a list")),
    }
}

/// Text that is not empty.
pub(super) fn text<'v>(rule: &'v Map<String, Value>, name: &str, place: &str) -> Result<Option<&'v str>, Left> {
    match rule.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(left(&format!("{place}/{name}"), "expected text")),
    }
}

pub(super) fn range(value: &Value) -> Option<Range> {
    match value.as_array().map(Vec::as_slice) {
        Some([from, below]) => Some((from.as_f64()?, below.as_f64()?)),
        _ => None,
    }
}

pub(super) fn bucket(ranges: &[Range], by: &Value, salt: &str, bucketing: &str) -> Value {
    let ranges: Vec<Value> = ranges
        .iter()
        .map(|(from, below)| (from.max(0.0), below.min(1.0)))
        .filter(|(from, below)| from < below)
        .map(|(from, below)| json!([from, below]))
        .collect();
    if ranges.is_empty() {
        return NO;
    }
    json!({"bucket": {"ranges": ranges, "total": 1, "by": by, "salt": salt, "bucketing": bucketing}})
}

/// Attributes that name the unit. A dot in the name is a dot, not a way into an object.
fn units(name: &str) -> Vec<Value> {
    match name {
        "id" => vec![json!("id"), json!("targetingKey")],
        name if name.contains('.') => vec![json!(format!("/{}", form::escape(name)))],
        name => vec![attribute(name)],
    }
}

/// What the rule hashes, and how; none if GrowthBook knows no such hash and skips the rule.
pub(super) fn hashing(rule: &Map<String, Value>, seed: &str, reading: &mut Reading<'_>) -> Result<Option<Value>, Left> {
    let place = reading.place.clone();
    let name = text(rule, "hashAttribute", &place)?.unwrap_or("id");
    let mut by = units(name);
    let fallback = text(rule, "fallbackAttribute", &place)?
        .filter(|_| !rule.get("disableStickyBucketing").is_some_and(logic::truthy));
    if let Some(fallback) = fallback {
        by.extend(units(fallback));
        reading.note(
            Weight::Differs,
            format!("who has no {name:?} is placed by {fallback:?}, as with sticky bucketing; without it GrowthBook skips the rule for them. Stored sticky buckets do not come along"),
        );
    }
    if !seed.is_ascii() {
        reading.note(Weight::Differs, format!("the seed {seed:?} is not ASCII; GrowthBook's JavaScript SDK hashes it otherwise than its other SDKs, which count here"));
    }
    let Some(bucketing) = generation(rule.get("hashVersion"), 1) else { return Ok(None) };
    let by = if by.len() == 1 { by.remove(0) } else { Value::Array(by) };
    Ok(Some(json!({"by": by, "salt": seed, "bucketing": bucketing})))
}

fn generation(version: Option<&Value>, if_absent: u64) -> Option<&'static str> {
    let version = version.filter(|version| logic::truthy(version)).map_or(Some(if_absent as f64), Value::as_f64)?;
    if version == 1.0 {
        Some("growthbook-1")
    } else if version == 2.0 {
        Some("growthbook-2")
    } else {
        None
    }
}

pub(super) fn filter_condition(filter: &Value, place: &str, reading: &mut Reading<'_>) -> Result<Value, Left> {
    let map = filter.as_object().ok_or_else(|| left(place, "expected an object"))?;
    let seed = map.get("seed").and_then(Value::as_str).ok_or_else(|| left(place, "expected a seed"))?;
    let ranges = list(map, "ranges", place)?.iter().map(range).collect::<Option<Vec<Range>>>();
    let ranges = ranges.ok_or_else(|| left(place, "expected a list of [from, below] under ranges"))?;
    let name = text(map, "attribute", place)?.unwrap_or("id");
    if !seed.is_ascii() {
        reading.note(Weight::Differs, format!("the seed {seed:?} is not ASCII; GrowthBook's SDKs hash it differently"));
    }
    let Some(bucketing) = generation(map.get("hashVersion"), 2) else { return Ok(NO) };
    let mut by = units(name);
    let by = if by.len() == 1 { by.remove(0) } else { Value::Array(by) };
    Ok(bucket(&ranges, &by, seed, bucketing))
}
