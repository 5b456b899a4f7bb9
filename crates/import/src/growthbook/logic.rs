//! GrowthBook's conditions as JSONLogic: for elements of lists and lengths of lists, where the dialect's own conditions do not look,
//! and for comparisons that JavaScript makes of values of different types.

use serde_json::{Value, json};

use super::condition::{Conditions, Refused, is_operators};

const DEPTH_MAX: usize = 30;

/// JavaScript's truth.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// JavaScript's text of a number; none where it would write an exponent.
pub(super) fn number_text(number: f64) -> Option<String> {
    let plain = number == 0.0 || (1e-6..1e21).contains(&number.abs());
    (plain && !(number == 0.0 && number.is_sign_negative())).then(|| number.to_string())
}

fn element() -> Value {
    json!({"var": ""})
}

/// It is a list. Only a list of something makes `map` give something, and only an empty one has an empty text without being it.
pub(super) fn is_list(v: &Value) -> Value {
    let empty = json!({"and": [{"===": [{"cat": [v]}, ""]}, {"!==": [v, ""]}]});
    json!({"or": [{"!!": [{"map": [v, true]}]}, empty]})
}

fn present(v: &Value) -> Value {
    json!({"!==": [v, null]})
}

fn is_text(v: &Value) -> Value {
    json!({"===": [v, {"cat": [v]}]})
}

fn is_number(v: &Value) -> Value {
    json!({"and": [present(v), {"===": [v, {"+": [v]}]}]})
}

/// It is text or a number.
pub(super) fn is_text_or_number(v: &Value) -> Value {
    json!({"or": [is_text(v), is_number(v)]})
}

fn negate(rule: Value) -> Value {
    json!({ "!": [rule] })
}

/// What is asked of a value.
fn value(of: &Conditions<'_>, condition: &Value, v: &Value, depth: usize) -> Result<Value, Refused> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX} levels"));
    }
    let falsy = || json!({"in": [v, ["", 0, false]]});
    Ok(match condition {
        Value::String(text) => json!({"===": [{"cat": [v]}, text]}),
        Value::Number(number) if number.as_f64() == Some(0.0) => {
            json!({"or": [{"==": [v, 0]}, {"===": [v, null]}]})
        }
        Value::Number(number) => json!({"==": [v, number]}),
        Value::Bool(true) => json!({"and": [present(v), negate(falsy())]}),
        Value::Bool(false) => falsy(),
        Value::Null => json!({"===": [v, null]}),
        Value::Object(operators) if is_operators(operators) => {
            let rules: Result<Vec<Value>, Refused> =
                operators.iter().map(|(op, expected)| operator(of, op, expected, v, depth + 1)).collect();
            json!({ "and": rules? })
        }
        _ => return Err("compares whole lists or objects inside a list".to_owned()),
    })
}

/// A whole condition about an element.
fn condition(of: &Conditions<'_>, asked: &Value, depth: usize) -> Result<Value, Refused> {
    let Some(asked) = asked.as_object().filter(|_| depth <= DEPTH_MAX) else {
        return Err("expected a condition, not too deeply nested".to_owned());
    };
    let mut rules = vec![json!(true)];
    for (key, inner) in asked {
        let listed = || -> Result<Vec<Value>, Refused> {
            let items = inner.as_array().ok_or_else(|| format!("{key}: expected a list"))?;
            items.iter().map(|item| condition(of, item, depth + 1)).collect()
        };
        rules.push(match key.as_str() {
            "$or" | "$nor" => {
                let inner = listed()?;
                let holds = if inner.is_empty() { json!(true) } else { json!({ "or": inner }) };
                if key == "$or" { holds } else { negate(holds) }
            }
            "$and" => json!({"and": listed()?.into_iter().chain([json!(true)]).collect::<Vec<_>>()}),
            "$not" => negate(condition(of, inner, depth + 1)?),
            "$savedGroup" => return Err("$savedGroup inside a list".to_owned()),
            path => value(of, inner, &json!({ "var": path }), depth + 1)?,
        });
    }
    Ok(json!({ "and": rules }))
}

fn is_in(values: &[Value], v: &Value) -> Value {
    let scalars: Vec<&Value> = values.iter().filter(|value| !value.is_array() && !value.is_object()).collect();
    json!({"or": [{"in": [v, scalars]}, {"some": [v, {"in": [element(), scalars]}]}]})
}

/// One operator, of a value that JSONLogic names.
pub(super) fn operator(
    of: &Conditions<'_>,
    op: &str,
    expected: &Value,
    v: &Value,
    depth: usize,
) -> Result<Value, Refused> {
    let scalar = !expected.is_array() && !expected.is_object();
    let list = expected.as_array();
    Ok(match op {
        "$eq" => {
            if scalar {
                json!({"===": [v, expected]})
            } else {
                json!(false)
            }
        }
        "$ne" => {
            if scalar {
                json!({"!==": [v, expected]})
            } else {
                json!(true)
            }
        }
        "$lt" | "$lte" | "$gt" | "$gte" => {
            if !scalar {
                return Err(format!("{op} with a list or an object"));
            }
            let sign = match op {
                "$lt" => "<",
                "$lte" => "<=",
                "$gt" => ">",
                _ => ">=",
            };
            json!({ sign: [v, expected] })
        }
        "$exists" => {
            if truthy(expected) {
                present(v)
            } else {
                negate(present(v))
            }
        }
        "$in" => list.map_or(json!(false), |values| is_in(values, v)),
        "$nin" => list.map_or(json!(false), |values| negate(is_in(values, v))),
        "$inGroup" => of.members(expected).map_or(json!(false), |values| is_in(values, v)),
        "$notInGroup" => of.members(expected).map_or(json!(false), |values| negate(is_in(values, v))),
        "$not" => negate(value(of, expected, v, depth + 1)?),
        "$size" => {
            let length = json!({"reduce": [v, {"+": [{"var": "accumulator"}, 1]}, 0]});
            json!({"and": [is_list(v), value(of, expected, &length, depth + 1)?]})
        }
        "$elemMatch" => {
            let inner = match expected.as_object().filter(|operators| is_operators(operators)) {
                Some(_) => value(of, expected, &element(), depth + 1)?,
                None => condition(of, expected, depth + 1)?,
            };
            json!({"some": [v, {"and": [present(&element()), inner]}]})
        }
        "$all" => {
            let Some(values) = list else { return Ok(json!(false)) };
            let mut rules = vec![is_list(v)];
            for asked in values {
                rules.push(json!({"some": [v, value(of, asked, &element(), depth + 1)?]}));
            }
            json!({ "and": rules })
        }
        "$type" => match expected.as_str() {
            Some("null") => negate(present(v)),
            Some("array") => is_list(v),
            Some("string") => is_text(v),
            Some("number") => is_number(v),
            Some("boolean") => json!({"in": [v, [true, false]]}),
            Some("object") => {
                let others = [is_list(v), is_text(v), is_number(v), json!({"in": [v, [true, false]]})];
                json!({"and": [present(v), negate(json!({ "or": others }))]})
            }
            _ => json!(false),
        },
        "$ini" | "$nini" | "$alli" | "$regex" | "$regexi" | "$veq" | "$vne" | "$vlt" | "$vlte" | "$vgt" | "$vgte" => {
            return Err(format!("{op} inside a list"));
        }
        _ => json!(false),
    })
}
