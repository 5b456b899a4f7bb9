//! Queries of GO Feature Flag in JSONLogic.
//!
//! The context there has the targeting key as `key`, and `anonymous` is false if it is not said.

use serde_json::{Value, json};

/// The query as a condition.
pub(super) fn condition(text: &str) -> Result<Value, String> {
    let rule: Value = serde_json::from_str(text).map_err(|error| format!("the query is not JSON: {error}"))?;
    Ok(json!({"logic": rewritten(rule, 0)?}))
}

fn rewritten(rule: Value, depth: usize) -> Result<Value, String> {
    if depth > 60 {
        return Err("the query is nested too deeply".into());
    }
    Ok(match rule {
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| rewritten(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Value::Object(map) if map.len() == 1 => {
            let Some((name, arguments)) = map.into_iter().next() else { return Ok(Value::Null) };
            match name.as_str() {
                "var" => variable(arguments),
                // Inside, names are those of an element.
                "map" | "filter" | "all" | "none" | "some" | "reduce" => {
                    let Value::Array(mut arguments) = arguments else { return Ok(json!({name: arguments})) };
                    for n in [0, 2] {
                        if let Some(slot) = arguments.get_mut(n) {
                            *slot = rewritten(std::mem::take(slot), depth + 1)?;
                        }
                    }
                    json!({name: arguments})
                }
                "missing" | "missing_some" => json!({name: renamed(arguments)}),
                _ => json!({name: rewritten(arguments, depth + 1)?}),
            }
        }
        other => other,
    })
}

fn variable(arguments: Value) -> Value {
    let (name, default) = match &arguments {
        Value::Array(items) => (items.first().and_then(Value::as_str), items.get(1).cloned()),
        other => (other.as_str(), None),
    };
    match name {
        Some("key") => match default {
            Some(default) => json!({"var": ["targetingKey", default]}),
            None => json!({"var": "targetingKey"}),
        },
        Some("anonymous") => json!({"var": ["anonymous", false]}),
        _ => json!({"var": arguments}),
    }
}

fn renamed(names: Value) -> Value {
    match names {
        Value::String(name) if name == "key" => json!("targetingKey"),
        Value::Array(items) => Value::Array(items.into_iter().map(renamed).collect()),
        other => other,
    }
}
