//! Reading parts of LaunchDarkly's data: null counts as absent, and a part of the wrong kind leaves the flag out.

use serde_json::{Map, Value};

/// Why a flag or a segment cannot be carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) place: String,
    pub(super) text: String,
}

impl Left {
    pub(super) fn new(place: impl Into<String>, text: impl Into<String>) -> Left {
        Left { place: place.into(), text: text.into() }
    }
}

/// An object and where it stands in the file.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) place: String,
}

impl<'a> Part<'a> {
    pub(super) fn of(value: &'a Value, place: impl Into<String>) -> Result<Part<'a>, Left> {
        let place = place.into();
        match value {
            Value::Object(map) => Ok(Part { map, place }),
            _ => Err(Left::new(place, "expected an object")),
        }
    }

    pub(super) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Left> {
        self.read(name, "text", Value::as_str)
    }

    pub(super) fn bool(&self, name: &str) -> Result<bool, Left> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A whole number; one written with a point counts too.
    pub(super) fn whole(&self, name: &str) -> Result<Option<i64>, Left> {
        self.read(name, "a whole number", |value| {
            value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9e15).map(|n| n as i64))
        })
    }

    pub(super) fn part(&self, name: &str) -> Result<Option<Part<'a>>, Left> {
        self.value(name).map(|value| Part::of(value, self.at(name))).transpose()
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], Left> {
        Ok(self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))?.unwrap_or_default())
    }

    pub(super) fn parts(&self, name: &str) -> Result<Vec<Part<'a>>, Left> {
        let at = self.at(name);
        self.list(name)?.iter().enumerate().map(|(n, item)| Part::of(item, format!("{at}/{n}"))).collect()
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<&'a str>, Left> {
        let at = self.at(name);
        let text = |(n, item): (usize, &'a Value)| {
            item.as_str().ok_or_else(|| Left::new(format!("{at}/{n}"), "expected text"))
        };
        self.list(name)?.iter().enumerate().map(text).collect()
    }

    fn read<T>(&self, name: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Left> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(found) => Ok(Some(found)),
                None => Err(Left::new(self.at(name), format!("expected {wanted}"))),
            },
        }
    }
}
