//! Conditions and rules of Seaworthy's dialect as JSON, put together so that what is certain disappears: an `all` that
//! holds `false` is `false`, an `any` of one is that one. Knows no vendor.

use flags::{Context, FlagSet};
use serde_json::{Map, Value, json};
use vocab::Timestamp;

/// Certainly true.
pub(crate) const YES: Value = Value::Bool(true);
/// Certainly false.
pub(crate) const NO: Value = Value::Bool(false);

/// All of them; of none: true.
pub(crate) fn all(conditions: impl IntoIterator<Item = Value>) -> Value {
    join("all", conditions, YES, NO)
}

/// At least one of them; of none: false.
pub(crate) fn any(conditions: impl IntoIterator<Item = Value>) -> Value {
    join("any", conditions, NO, YES)
}

fn join(word: &str, conditions: impl IntoIterator<Item = Value>, neutral: Value, final_: Value) -> Value {
    let mut kept = Vec::new();
    for condition in conditions {
        if condition == neutral {
            continue;
        }
        if condition == final_ {
            return final_;
        }
        match nested(&condition, word) {
            Some(inner) => kept.extend(inner.iter().cloned()),
            None => kept.push(condition),
        }
    }
    match kept.len() {
        0 => neutral,
        1 => kept.remove(0),
        _ => json!({ word: kept }),
    }
}

fn nested<'a>(condition: &'a Value, word: &str) -> Option<&'a Vec<Value>> {
    condition.as_object().filter(|object| object.len() == 1)?.get(word)?.as_array()
}

/// The opposite.
pub(crate) fn not(condition: Value) -> Value {
    if let Value::Bool(certain) = condition {
        return Value::Bool(!certain);
    }
    let inner = condition.as_object().filter(|object| object.len() == 1).and_then(|object| object.get("not"));
    match inner {
        Some(inner) => inner.clone(),
        None => json!({ "not": condition }),
    }
}

/// The attribute is there and not null.
pub(crate) fn exists(attr: &Value) -> Value {
    json!({"attr": attr, "op": "exists"})
}

/// The attribute compares so with one of the values; with no values: false.
pub(crate) fn compare(attr: &Value, op: &str, values: Vec<Value>) -> Value {
    if values.is_empty() { NO } else { json!({"attr": attr, "op": op, "values": values}) }
}

/// A JSONLogic condition.
pub(crate) fn logic(rule: Value) -> Value {
    match rule {
        Value::Bool(_) => rule,
        rule => json!({ "logic": rule }),
    }
}

/// One step of a JSON pointer.
pub(crate) fn escape(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

fn alone(condition: &Value) -> Result<FlagSet, String> {
    let document = json!({"flags": {"probe": {
        "variants": {"true": true, "false": false}, "on": true,
        "rules": [{"id": "probe", "when": condition, "serve": "true"}], "fallthrough": "false",
    }}});
    FlagSet::parse(&document.to_string())
        .map_err(|findings| findings.into_iter().map(|finding| finding.reason).collect::<Vec<_>>().join("; "))
}

/// Why the dialect refuses a condition that names no segment and no flag, if it does.
pub(crate) fn refusal(condition: &Value) -> Option<String> {
    alone(condition).err()
}

/// Whether a condition that names no segment and no flag holds for these attributes; not if the dialect refuses it.
pub(crate) fn holds(condition: &Value, attributes: Value) -> bool {
    let attributes: Map<String, Value> = match attributes {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let Ok(set) = alone(condition) else { return false };
    let answer = set.evaluate("probe", &Context::new(attributes), Timestamp::from_nanos(0));
    answer.is_ok_and(|answer| answer.variant == Some("true"))
}
