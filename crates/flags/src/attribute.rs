//! Attributes of a context by name, dotted name or JSON pointer, and the subject and the time as if they were attributes.

use std::borrow::Cow;

use serde_json::Value;
use vocab::Timestamp;

use crate::context::Context;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    TargetingKey,
    Now,
    Name(Box<str>),
    /// Into objects by the parts, then flat by the whole.
    Deep(Vec<Box<str>>, Box<str>),
    Pointer(Vec<Box<str>>),
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    Text(&'a str),
    Json(&'a Value),
    Time(Timestamp),
}

impl Attribute {
    pub(crate) fn parse(name: &str) -> Attribute {
        match name {
            "targetingKey" => Attribute::TargetingKey,
            "$now" => Attribute::Now,
            _ if name.starts_with('/') => {
                let unescaped = |part: &str| part.replace("~1", "/").replace("~0", "~").into();
                Attribute::Pointer(name[1..].split('/').map(unescaped).collect())
            }
            _ if name.contains('.') => Attribute::Deep(name.split('.').map(Into::into).collect(), name.into()),
            _ => Attribute::Name(name.into()),
        }
    }

    /// The value; null counts as absent.
    #[inline]
    pub(crate) fn find<'a>(&self, context: &'a Context, now: Timestamp) -> Option<Found<'a>> {
        let map = || context.attributes();
        let walk = |parts: &[Box<str>]| {
            let (first, rest) = parts.split_first()?;
            rest.iter().try_fold(map().get(&**first)?, |value, name| match value {
                Value::Object(map) => map.get(&**name),
                Value::Array(items) => items.get(name.parse::<usize>().ok()?),
                _ => None,
            })
        };
        let value = match self {
            Attribute::TargetingKey => return context.targeting_key().map(Found::Text),
            Attribute::Now => return Some(Found::Time(now)),
            Attribute::Name(name) => map().get(&**name),
            Attribute::Deep(parts, whole) => walk(parts).or_else(|| map().get(&**whole)),
            Attribute::Pointer(parts) => walk(parts),
        };
        value.filter(|value| !value.is_null()).map(Found::Json)
    }
}

/// The first that is present.
#[inline]
pub(crate) fn first<'a>(attributes: &[Attribute], context: &'a Context, now: Timestamp) -> Option<Found<'a>> {
    attributes.iter().find_map(|attribute| attribute.find(context, now))
}

/// A unit of bucketing: the first attribute that is text, a number or a truth value, and not empty.
#[inline]
pub(crate) fn unit<'a>(attributes: &[Attribute], context: &'a Context, now: Timestamp) -> Option<Cow<'a, str>> {
    attributes.iter().find_map(|attribute| match attribute.find(context, now)? {
        Found::Text(text) => Some(Cow::Borrowed(text)),
        Found::Json(Value::String(text)) if text.is_empty() => None,
        Found::Json(value) => text(value),
        Found::Time(_) => None,
    })
}

/// A scalar as text; whole numbers without a point.
pub(crate) fn text(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(b) => Cow::Borrowed(if *b { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64() {
            Some(n) if n.fract() == 0.0 && n.abs() < 9e15 => Cow::Owned(format!("{n:.0}")),
            _ => Cow::Owned(number.to_string()),
        },
        _ => return None,
    })
}
