//! Values while a rule is evaluated, with JavaScript's conversions and comparisons: JSONLogic is defined by them.

use std::borrow::Cow;

use serde_json::{Number, Value};

/// A value while evaluating: borrowed wherever possible.
#[derive(Clone, Debug)]
pub(crate) enum V<'a> {
    Null,
    Bool(bool),
    Num(f64),
    Str(Cow<'a, str>),
    Json(Cow<'a, Value>),
}

impl<'a> From<&'a Value> for V<'a> {
    fn from(value: &'a Value) -> V<'a> {
        match value {
            Value::Null => V::Null,
            Value::Bool(b) => V::Bool(*b),
            Value::Number(n) => V::Num(n.as_f64().unwrap_or(f64::NAN)),
            Value::String(s) => V::Str(Cow::Borrowed(s)),
            other => V::Json(Cow::Borrowed(other)),
        }
    }
}

fn number(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 9e15 {
        return Value::Number(Number::from(n as i64));
    }
    Number::from_f64(n).map_or(Value::Null, Value::Number)
}

impl V<'_> {
    pub(crate) fn into_value(self) -> Value {
        match self {
            V::Null => Value::Null,
            V::Bool(b) => Value::Bool(b),
            V::Num(n) => number(n),
            V::Str(s) => Value::String(s.into_owned()),
            V::Json(v) => v.into_owned(),
        }
    }

    pub(crate) fn truthy(&self) -> bool {
        match self {
            V::Null => false,
            V::Bool(b) => *b,
            V::Num(n) => *n != 0.0 && !n.is_nan(),
            V::Str(s) => !s.is_empty(),
            V::Json(v) => v.as_array().is_none_or(|items| !items.is_empty()),
        }
    }

    /// JavaScript's `Number(x)`.
    pub(crate) fn to_number(&self) -> f64 {
        match self {
            V::Null => 0.0,
            V::Bool(b) => f64::from(u8::from(*b)),
            V::Num(n) => *n,
            V::Str(s) => string_to_number(s),
            V::Json(_) => string_to_number(&self.to_text()),
        }
    }

    /// JavaScript's `parseFloat(x)`, for `+` and `*`.
    pub(crate) fn parse_float(&self) -> f64 {
        match self {
            V::Num(n) => *n,
            other => {
                let text = other.to_text();
                let text = text.trim_start();
                let mut seen = (false, false);
                let end = text
                    .char_indices()
                    .find(|(n, c)| match c {
                        '0'..='9' => false,
                        '-' | '+' => *n > 0 && !text[..*n].ends_with(['e', 'E']),
                        '.' => std::mem::replace(&mut seen.0, true) || seen.1,
                        'e' | 'E' => *n == 0 || std::mem::replace(&mut seen.1, true),
                        _ => true,
                    })
                    .map_or(text.len(), |(n, _)| n);
                text[..end].trim_end_matches(['e', 'E', '+', '-']).parse().unwrap_or(f64::NAN)
            }
        }
    }

    /// JavaScript's `String(x)`.
    pub(crate) fn to_text(&self) -> Cow<'_, str> {
        match self {
            V::Null => Cow::Borrowed("null"),
            V::Bool(b) => Cow::Borrowed(if *b { "true" } else { "false" }),
            V::Num(n) if n.is_nan() => Cow::Borrowed("NaN"),
            V::Num(n) if n.fract() == 0.0 && n.abs() < 1e21 => Cow::Owned(format!("{n:.0}")),
            V::Num(n) => Cow::Owned(n.to_string()),
            V::Str(s) => Cow::Borrowed(s),
            V::Json(v) => match v.as_ref() {
                Value::Array(items) => Cow::Owned(
                    items
                        .iter()
                        .map(|item| if item.is_null() { String::new() } else { V::from(item).to_text().into_owned() })
                        .collect::<Vec<_>>()
                        .join(","),
                ),
                _ => Cow::Borrowed("[object Object]"),
            },
        }
    }

    pub(crate) fn loosely_equals(&self, other: &V<'_>) -> bool {
        match (self, other) {
            (V::Null, V::Null) => true,
            (V::Null, _) | (_, V::Null) => false,
            (V::Str(a), V::Str(b)) => a == b,
            (V::Json(a), V::Json(b)) => std::ptr::eq(a.as_ref(), b.as_ref()),
            (V::Json(_), V::Str(text)) => self.to_text() == *text,
            (V::Str(text), V::Json(_)) => other.to_text() == *text,
            (a, b) => a.to_number() == b.to_number(),
        }
    }

    pub(crate) fn strictly_equals(&self, other: &V<'_>) -> bool {
        match (self, other) {
            (V::Null, V::Null) => true,
            (V::Bool(a), V::Bool(b)) => a == b,
            (V::Num(a), V::Num(b)) => a == b,
            (V::Str(a), V::Str(b)) => a == b,
            (V::Json(a), V::Json(b)) => std::ptr::eq(a.as_ref(), b.as_ref()),
            _ => false,
        }
    }
}

fn string_to_number(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    // Rust reads "inf" and "nan" as numbers; JavaScript does not.
    if text.bytes().any(|b| b.is_ascii_alphabetic() && !matches!(b, b'e' | b'E')) {
        return f64::NAN;
    }
    text.parse().unwrap_or(f64::NAN)
}

/// Cuts the tie to a temporary element.
pub(crate) fn own(value: V<'_>) -> V<'static> {
    match value {
        V::Null => V::Null,
        V::Bool(b) => V::Bool(b),
        V::Num(n) => V::Num(n),
        V::Str(s) => V::Str(Cow::Owned(s.into_owned())),
        V::Json(v) => V::Json(Cow::Owned(v.into_owned())),
    }
}

impl V<'_> {
    /// Scalars out of their JSON wrapping, so that comparisons see them.
    pub(crate) fn flat(self) -> V<'static> {
        match self {
            V::Json(value) => match value.into_owned() {
                Value::Null => V::Null,
                Value::Bool(b) => V::Bool(b),
                Value::Number(n) => V::Num(n.as_f64().unwrap_or(f64::NAN)),
                Value::String(s) => V::Str(Cow::Owned(s)),
                other => V::Json(Cow::Owned(other)),
            },
            other => own(other),
        }
    }
}
