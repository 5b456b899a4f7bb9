//! GrowthBook's conditions, in the style of MongoDB, with the meaning that GrowthBook's JavaScript SDK gives them.
//!
//! An attribute that is absent is null, and JavaScript compares null: it is less than 1, equal to 0 as a number, and its text is
//! `null`. So most operators have here a form of their own beside the plain one. Inside lists (`$elemMatch`, `$all`, `$size`) only
//! JSONLogic can look; `logic` has those.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::logic;
use super::pattern::{self, Engine, Untranslatable};
use super::version;
use crate::launchdarkly::form::{self, NO, YES, all, any, exists, not};

/// Groups with more members than this become segments; shorter ones are written into the rules.
const WRITTEN_MAX: usize = 20;
const DEPTH_MAX: usize = 30;

/// Why a condition has no form.
pub(super) type Refused = String;

/// What conditions look at.
#[derive(Debug)]
pub(super) struct Conditions<'a> {
    groups: Option<&'a Map<String, Value>>,
    /// Segments made of saved groups, by key.
    pub(super) segments: RefCell<BTreeMap<String, Value>>,
    /// Whether `id` may be the targeting key, and segments may be made.
    of_user: bool,
    /// Saved groups that are being looked into: one inside itself matches nobody.
    open: RefCell<Vec<String>>,
    /// What a person should know.
    pub(super) remarks: RefCell<Vec<String>>,
}

/// An attribute, as the dialect and as JSONLogic name it.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) attr: Value,
    pub(super) var: Value,
    /// Whether it is a way into an object. Where there is none, JSONLogic would take an attribute of the whole name.
    deep: bool,
}

impl Operand {
    /// A JSONLogic condition about it.
    pub(super) fn logic(&self, rule: Value) -> Value {
        let condition = form::logic(rule);
        if !self.deep {
            return condition;
        }
        let absent = form::holds(&condition, json!({}));
        let there = exists(&self.attr);
        any([all([there.clone(), condition]), if absent { not(there) } else { NO }])
    }
}

/// A plain attribute name, or the JSON pointer of the way into it.
pub(super) fn attribute(path: &str) -> Value {
    let plain = !path.is_empty() && !path.contains('.') && !path.starts_with(['/', '$']) && path != "targetingKey";
    if plain {
        return json!(path);
    }
    json!(path.split('.').map(|step| format!("/{}", form::escape(step))).collect::<String>())
}

impl<'a> Conditions<'a> {
    /// Conditions about a user.
    pub(super) fn new(groups: Option<&'a Map<String, Value>>) -> Conditions<'a> {
        let (segments, open, remarks) = Default::default();
        Conditions { groups, segments, of_user: true, open, remarks }
    }

    /// Conditions about the value of another feature.
    pub(super) fn of_value(&self) -> Conditions<'a> {
        Conditions { of_user: false, ..Conditions::new(self.groups) }
    }

    fn operand(&self, path: &str) -> Operand {
        if self.of_user && path == "id" {
            let var = json!({"var": ["id", {"var": "targetingKey"}]});
            return Operand { attr: json!(["id", "targetingKey"]), var, deep: false };
        }
        Operand { attr: attribute(path), var: json!({"var": path}), deep: path.contains('.') }
    }

    /// A whole condition: everything in it holds.
    pub(super) fn condition(&self, condition: &Map<String, Value>, depth: usize) -> Result<Value, Refused> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        let mut found = Vec::new();
        for (key, value) in condition {
            found.push(match key.as_str() {
                "$or" | "$nor" => {
                    let inner = self.listed(key, value, depth)?;
                    // GrowthBook takes an empty "or" for true.
                    let holds = if inner.is_empty() { YES } else { any(inner) };
                    if key == "$or" { holds } else { not(holds) }
                }
                "$and" => all(self.listed(key, value, depth)?),
                "$not" => not(self.condition(object(key, value)?, depth + 1)?),
                "$savedGroup" => self.saved_group(value, depth)?,
                path => self.value(value, &self.operand(path), depth + 1)?,
            });
        }
        Ok(all(found))
    }

    fn listed(&self, key: &str, value: &Value, depth: usize) -> Result<Vec<Value>, Refused> {
        let items = value.as_array().ok_or_else(|| format!("{key}: expected a list"))?;
        items.iter().map(|item| self.condition(object(key, item)?, depth + 1)).collect()
    }

    fn saved_group(&self, value: &Value, depth: usize) -> Result<Value, Refused> {
        let entry = || {
            let id = value.get("id")?.as_str()?;
            Some((id, self.groups?.get(id)?.as_object()?))
        };
        let other = value.get("attributeKey");
        let Some((id, entry)) = entry().filter(|_| other.is_none_or(Value::is_string)) else { return Ok(NO) };
        if self.open.borrow().iter().any(|open| open == id) {
            return Ok(NO);
        }
        match entry.get("type").and_then(Value::as_str) {
            Some("list") => {
                let path = other.or(entry.get("attributeKey")).and_then(Value::as_str);
                let (Some(path), Some(Value::Array(values))) = (path, entry.get("values")) else { return Ok(NO) };
                Ok(self.group(id, path, &self.operand(path), values))
            }
            Some("condition") => match entry.get("condition").and_then(Value::as_object) {
                Some(condition) => {
                    self.open.borrow_mut().push(id.to_owned());
                    let found = self.condition(condition, depth + 1);
                    self.open.borrow_mut().pop();
                    found
                }
                None => Ok(NO),
            },
            _ => Ok(NO),
        }
    }

    /// Membership in a list that is kept apart.
    fn group(&self, id: &str, path: &str, operand: &Operand, values: &[Value]) -> Value {
        let holds = is_in(operand, values, false);
        if values.len() <= WRITTEN_MAX || !self.of_user {
            return holds;
        }
        let mut segments = self.segments.borrow_mut();
        let segment = json!({"description": format!("GrowthBook's saved group {id}, by {path}"), "when": holds});
        let mut key = id.to_owned();
        if segments.get(&key).is_some_and(|other| *other != segment) {
            key = format!("{id}:{path}");
        }
        segments.insert(key.clone(), segment);
        json!({ "segment": key })
    }

    /// The members of a group for `$inGroup`; none if the group is broken.
    pub(super) fn members(&self, id: &Value) -> Option<&'a [Value]> {
        match self.groups.and_then(|groups| groups.get(id.as_str()?)) {
            None => Some(&[]),
            Some(Value::Array(values)) => Some(values),
            Some(Value::Object(entry)) if entry.get("type").and_then(Value::as_str) == Some("list") => {
                entry.get("values").and_then(Value::as_array).map(Vec::as_slice)
            }
            Some(_) => None,
        }
    }

    /// What is asked of one attribute.
    fn value(&self, condition: &Value, operand: &Operand, depth: usize) -> Result<Value, Refused> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        let attr = &operand.attr;
        let equals = |values: Vec<Value>| json!({"attr": attr, "op": "equals", "values": values});
        match condition {
            Value::String(text) => Ok(self.text(text, operand)),
            Value::Number(number) => {
                let equal = operand.logic(json!({"==": [operand.var, number]}));
                Ok(if number.as_f64() == Some(0.0) { any([equal, not(exists(attr))]) } else { equal })
            }
            Value::Bool(true) => Ok(all([exists(attr), not(equals(vec![json!(false), json!(0), json!("")]))])),
            Value::Bool(false) => Ok(equals(vec![json!(false), json!(0), json!("")])),
            Value::Null => Ok(not(exists(attr))),
            Value::Object(operators) if is_operators(operators) => {
                let operators = operators.iter().map(|(op, expected)| self.operator(op, expected, operand, depth));
                Ok(all(operators.collect::<Result<Vec<Value>, Refused>>()?))
            }
            whole => {
                if has_order(whole) {
                    self.remarks.borrow_mut().push(
                        "compares an object; GrowthBook also asks for the same order of its keys, here the order does not matter".to_owned(),
                    );
                }
                Ok(equals(vec![whole.clone()]))
            }
        }
    }

    /// The attribute's text, as JavaScript makes it, is this.
    fn text(&self, text: &str, operand: &Operand) -> Value {
        let null = if text == "null" { not(exists(&operand.attr)) } else { NO };
        // Lists of several and objects have texts too.
        if text.contains(',') || text == "[object Object]" {
            return any([null, operand.logic(json!({"===": [{"cat": [operand.var]}, text]}))]);
        }
        let mut same = vec![json!(text)];
        if let Ok(number) = text.parse::<f64>() {
            if logic::number_text(number).as_deref() == Some(text) {
                same.push(json!(number));
            }
        }
        if let Ok(truth) = text.parse::<bool>() {
            same.push(json!(truth));
        }
        let mut values = same.clone();
        values.extend(same.into_iter().map(|value| json!([value])));
        if text.is_empty() {
            values.extend([json!([]), json!([null])]);
        }
        any([null, json!({"attr": operand.attr, "op": "equals", "values": values})])
    }

    fn operator(&self, op: &str, expected: &Value, operand: &Operand, depth: usize) -> Result<Value, Refused> {
        let attr = &operand.attr;
        let by_logic = || Ok(operand.logic(logic::operator(self, op, expected, &operand.var, depth)?));
        let list = expected.as_array();
        Ok(match op {
            "$eq" | "$ne" => {
                let equal = match expected {
                    Value::Null => not(exists(attr)),
                    // Two lists or objects are never the same one.
                    Value::Array(_) | Value::Object(_) => NO,
                    scalar => json!({"attr": attr, "op": "equals", "values": [scalar]}),
                };
                if op == "$eq" { equal } else { not(equal) }
            }
            "$exists" => {
                let there = exists(attr);
                if logic::truthy(expected) { there } else { not(there) }
            }
            "$in" => list.map_or(NO, |values| is_in(operand, values, false)),
            "$nin" => list.map_or(NO, |values| not(is_in(operand, values, false))),
            "$ini" => list.map_or(NO, |values| is_in(operand, values, true)),
            "$nini" => list.map_or(NO, |values| not(is_in(operand, values, true))),
            "$inGroup" | "$notInGroup" => {
                let Some(values) = self.members(expected) else { return Ok(NO) };
                let path = attr.as_str().map_or("id", |name| name.trim_start_matches('/'));
                let inside = self.group(expected.as_str().unwrap_or_default(), path, operand, values);
                if op == "$inGroup" { inside } else { not(inside) }
            }
            "$not" => not(self.value(expected, operand, depth + 1)?),
            "$regex" | "$regexi" => self.regex(expected, op == "$regexi", operand)?,
            "$veq" | "$vne" | "$vlt" | "$vlte" | "$vgt" | "$vgte" => version::compare(operand, op, expected)
                .ok_or_else(|| format!("{op}: the version {expected} has signs that are not provided for"))?,
            "$type" => match expected.as_str() {
                Some("null") => not(exists(attr)),
                Some("boolean") => json!({"attr": attr, "op": "equals", "values": [true, false]}),
                _ => return by_logic(),
            },
            "$alli" => {
                let Some(values) = list else { return Ok(NO) };
                let mut found = vec![operand.logic(logic::is_list(&operand.var))];
                for value in values {
                    found.push(match value {
                        Value::String(text) => {
                            json!({"attr": attr, "op": "in", "as": "text", "ignore_case": true, "values": [text]})
                        }
                        other => operand.logic(logic::operator(self, "$all", &json!([other]), &operand.var, depth)?),
                    });
                }
                all(found)
            }
            "$lt" | "$lte" | "$gt" | "$gte" | "$size" | "$elemMatch" | "$all" => return by_logic(),
            // GrowthBook says so on the console, and that it does not match.
            _ => NO,
        })
    }

    fn regex(&self, expected: &Value, ignore_case: bool, operand: &Operand) -> Result<Value, Refused> {
        let Some(text) = expected.as_str() else { return Ok(NO) };
        let expression = match pattern::translate(text, Engine::JavaScript, ignore_case) {
            Ok(expression) => expression,
            Err(Untranslatable::Broken) => return Ok(NO),
            Err(Untranslatable::Unsupported) => {
                return Err(format!("the regular expression {text:?} has no form here"));
            }
        };
        let matches = |attr: &Value| json!({"attr": attr, "op": "matches", "as": "text", "values": [expression]});
        // The text of what is absent is "null".
        let null = form::holds(&matches(&json!("text")), json!({"text": "null"}));
        Ok(any([matches(&operand.attr), if null { not(exists(&operand.attr)) } else { NO }]))
    }
}

fn object<'v>(key: &str, value: &'v Value) -> Result<&'v Map<String, Value>, Refused> {
    value.as_object().ok_or_else(|| format!("{key}: expected a condition"))
}

/// Whether an object holds operators, and nothing else.
pub(super) fn is_operators(object: &Map<String, Value>) -> bool {
    !object.is_empty() && object.keys().all(|key| key.starts_with('$'))
}

/// Whether GrowthBook would ask for an order of keys.
fn has_order(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.len() > 1 || map.values().any(has_order),
        Value::Array(items) => items.iter().any(has_order),
        _ => false,
    }
}

/// One of the values is the attribute, or an element of it if it is a list.
fn is_in(operand: &Operand, values: &[Value], ignore_case: bool) -> Value {
    let attr = &operand.attr;
    let (texts, others): (Vec<Value>, Vec<Value>) =
        values.iter().filter(|v| !v.is_array() && !v.is_object() && !v.is_null()).cloned().partition(Value::is_string);
    let null = if values.iter().any(Value::is_null) {
        let element = json!({"some": [operand.var, {"===": [{"var": ""}, null]}]});
        any([not(exists(attr)), operand.logic(element)])
    } else {
        NO
    };
    if ignore_case {
        let texts = match texts.is_empty() {
            true => NO,
            false => json!({"attr": attr, "op": "in", "ignore_case": true, "values": texts}),
        };
        return any([texts, form::compare(attr, "in", others), null]);
    }
    any([form::compare(attr, "in", texts.into_iter().chain(others).collect()), null])
}
