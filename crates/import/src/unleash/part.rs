//! Reading foreign documents: each part knows its place, null counts as absent, and a part of the wrong kind is a refusal that
//! leaves out what needs it, never the whole file.

use serde_json::{Map, Value};

use crate::{Import, Weight};

/// Why something cannot be carried over, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) place: String,
    pub(crate) text: String,
}

impl Refusal {
    pub(crate) fn new(place: impl Into<String>, text: impl Into<String>) -> Refusal {
        Refusal { place: place.into(), text: text.into() }
    }

    /// Says that `what` is left out because of this.
    pub(crate) fn tell(&self, what: &str, import: &mut Import) {
        import.note(&self.place, Weight::LeftOut, format!("{what} is left out: {}", self.text));
    }
}

/// An object and its JSON pointer.
#[derive(Clone, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) map: &'a Map<String, Value>,
    pub(crate) place: String,
}

impl<'a> Part<'a> {
    pub(crate) fn of(value: &'a Value, place: impl Into<String>) -> Result<Part<'a>, Refusal> {
        let place = place.into();
        match value {
            Value::Object(map) => Ok(Part { map, place }),
            _ => Err(Refusal::new(place, "expected an object")),
        }
    }

    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/{}", self.place, escaped(name))
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.read(name, "text", Value::as_str)
    }

    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        self.read(name, "a number", |value| value.as_f64().filter(|n| n.is_finite()))
    }

    pub(crate) fn part(&self, name: &str) -> Result<Option<Part<'a>>, Refusal> {
        self.value(name).map(|value| Part::of(value, self.at(name))).transpose()
    }

    pub(crate) fn list(&self, name: &str) -> Result<&'a [Value], Refusal> {
        Ok(self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))?.unwrap_or_default())
    }

    pub(crate) fn parts(&self, name: &str) -> Result<Vec<Part<'a>>, Refusal> {
        let at = self.at(name);
        self.list(name)?.iter().enumerate().map(|(n, item)| Part::of(item, format!("{at}/{n}"))).collect()
    }

    /// A list of scalars, as text.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let at = self.at(name);
        let text =
            |(n, item): (usize, &Value)| scalar(item).ok_or_else(|| Refusal::new(format!("{at}/{n}"), "expected text"));
        self.list(name)?.iter().enumerate().map(text).collect()
    }

    fn read<T>(&self, name: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Refusal> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(found) => Ok(Some(found)),
                None => Err(Refusal::new(self.at(name), format!("expected {wanted}"))),
            },
        }
    }
}

/// Text, numbers and truth values as text.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// One step of a JSON pointer (RFC 6901).
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The name of a flat attribute as our dialect wants it: a dot or a leading slash in it must not lead elsewhere.
pub(crate) fn flat_attribute(name: &str) -> String {
    if name.contains('.') || name.starts_with('/') || name.starts_with('$') {
        format!("/{}", escaped(name))
    } else {
        name.to_owned()
    }
}

/// All of these; one stands alone.
pub(crate) fn all(mut conditions: Vec<Value>) -> Value {
    conditions.retain(|condition| *condition != Value::Bool(true));
    if conditions.contains(&Value::Bool(false)) {
        return Value::Bool(false);
    }
    match conditions.len() {
        0 => Value::Bool(true),
        1 => conditions.remove(0),
        _ => serde_json::json!({"all": conditions}),
    }
}

/// At least one of these; one stands alone.
pub(crate) fn any(mut conditions: Vec<Value>) -> Value {
    conditions.retain(|condition| *condition != Value::Bool(false));
    if conditions.contains(&Value::Bool(true)) {
        return Value::Bool(true);
    }
    match conditions.len() {
        0 => Value::Bool(false),
        1 => conditions.remove(0),
        _ => serde_json::json!({"any": conditions}),
    }
}

/// Not this.
pub(crate) fn not(condition: Value) -> Value {
    match condition {
        Value::Bool(constant) => Value::Bool(!constant),
        other => serde_json::json!({"not": other}),
    }
}

/// Texts that Semantic Versioning 2.0.0 takes for a version: three numbers, nothing in front.
pub(crate) const STRICT_VERSION: &str = "^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)\
    (-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)([.](0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?\
    ([+][0-9a-zA-Z-]+([.][0-9a-zA-Z-]+)*)?$";

/// Text as a regular expression that matches just it.
pub(crate) fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        // An escaped `<` or `>` would be the edge of a word.
        if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
