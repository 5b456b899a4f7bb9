//! LaunchDarkly: the data that SDKs poll (also from a relay or an offline file), and the REST API's flags.
//!
//! SDK data is taken as the whole truth: a prerequisite or a segment that is not in it does not exist. A file from the REST API may
//! hold only some of a project, so there a flag that needs what is missing is left out. Where LaunchDarkly's SDKs differ among each
//! other, its Go SDK counts. `reference` says how an OpenFeature context maps to LaunchDarkly's kinds.

mod clause;
mod fields;
mod flag;
pub(crate) mod form;
mod reference;
mod rollout;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{Import, ImportError, Weight};
use clause::Clauses;
use fields::{Left, Part};
use flag::{Flags, Read, Source};

/// Reads `{"flags", "segments", "flagValues"}` as SDKs poll it, or the REST API's `{"items": [flag…]}` or one flag. Of several
/// environments the one that a top-level `environment` names is taken. Flags that cannot be carried over exactly are left out with a
/// note.
pub fn launchdarkly(document: &Value) -> Result<Import, ImportError> {
    let file = File::read(document)?;
    let mut import = Import::default();
    for left in &file.left {
        import.note(&left.place, Weight::LeftOut, &left.text);
    }
    for (place, text) in &file.remarks {
        import.note(place, Weight::Info, text);
    }
    let clauses = Clauses::new(file.segments, file.whole, file.kinds);
    segments(&clauses, &mut import);
    let flags = Flags::new(file.flags.clone(), &clauses, file.whole);
    let mut read: BTreeMap<&String, Result<Read, Left>> = file
        .flags
        .iter()
        .filter(|(_, source)| !source.gone)
        .map(|(key, s)| (key, flags.read(key, s).and_then(|read| taken(key, s, read))))
        .collect();
    // A flag cannot do without those it needs; what is left out may leave out more.
    loop {
        let lacks = |result: &Result<Read, Left>| {
            let needs = &result.as_ref().ok()?.needs;
            needs.iter().find(|other| !matches!(read.get(other), Some(Ok(_)))).cloned()
        };
        let found: Vec<(String, String)> =
            read.iter().filter_map(|(key, result)| Some(((*key).clone(), lacks(result)?))).collect();
        if found.is_empty() {
            break;
        }
        for (key, other) in found {
            let place = file.flags[&key].setting.at("prerequisites");
            let text = format!("needs the flag {other:?}, which is left out");
            if let Some(result) = read.get_mut(&key) {
                *result = Err(Left::new(place, text));
            }
        }
    }
    for (key, result) in read {
        match result {
            Ok(read) => {
                import.notes.extend(read.notes);
                import.flags.insert(key.clone(), read.flag);
            }
            Err(left) => import.note(left.place, Weight::LeftOut, format!("flag {key:?}: {}", left.text)),
        }
    }
    for key in file.flags.iter().filter(|(_, source)| source.gone).map(|(key, _)| key) {
        let place = &file.flags[key].part.place;
        import.note(place, Weight::Info, format!("flag {key:?} is archived or deleted: SDKs do not know it"));
    }
    Ok(import)
}

/// The flag if the dialect takes it: not if a condition is too deep, or an expression too large.
fn taken(key: &str, source: &Source<'_>, read: Read) -> Result<Read, Left> {
    match flags::Flag::compile(key, &read.flag, &Map::new(), &Map::new()) {
        Ok(_) => Ok(read),
        Err(findings) => {
            let reason = findings.first().map(ToString::to_string).unwrap_or_default();
            Err(Left::new(&source.part.place, format!("has no form here: {reason}")))
        }
    }
}

fn segments(clauses: &Clauses<'_>, import: &mut Import) {
    for key in clauses.keys() {
        match clauses.standing(key) {
            Ok(Some(content)) => {
                import.segments.insert(key.clone(), content.segment());
            }
            Ok(None) => import.note(
                format!("/segments/{}", form::escape(key)),
                Weight::Info,
                format!("segment {key:?} leads back to itself or has a broken attribute reference; it is written into the rules that use it"),
            ),
            Err(left) => import.note(left.place, Weight::LeftOut, format!("segment {key:?}: {}", left.text)),
        }
    }
}

/// A file, whichever form it has.
#[derive(Default)]
struct File<'a> {
    flags: BTreeMap<String, Source<'a>>,
    segments: BTreeMap<String, Part<'a>>,
    /// Whether what is not in the file does not exist.
    whole: bool,
    kinds: BTreeSet<String>,
    left: Vec<Left>,
    remarks: Vec<(String, String)>,
}

fn error(place: &str, reason: impl Into<String>) -> ImportError {
    ImportError { place: place.to_owned(), reason: reason.into() }
}

impl<'a> File<'a> {
    fn read(document: &'a Value) -> Result<File<'a>, ImportError> {
        let Value::Object(map) = document else { return Err(error("", "expected an object")) };
        let mut file = File::default();
        file.kinds.insert("user".to_owned());
        collect_kinds(document, &mut file.kinds, 0);
        let flags: Vec<(Option<&str>, String, &Value)> = match (map.get("flags"), map.get("items")) {
            (Some(Value::Object(flags)), _) => flags
                .iter()
                .map(|(key, flag)| (Some(key.as_str()), format!("/flags/{}", form::escape(key)), flag))
                .collect(),
            (Some(_), _) => return Err(error("/flags", "expected an object of flags by key")),
            (None, Some(Value::Array(items))) => {
                items.iter().enumerate().map(|(n, flag)| (None, format!("/items/{n}"), flag)).collect()
            }
            (None, Some(_)) => return Err(error("/items", "expected a list of flags")),
            (None, None) if map.contains_key("environments") || map.contains_key("variations") => {
                vec![(None, String::new(), document)]
            }
            (None, None) if map.contains_key("flagValues") || map.contains_key("segments") => Vec::new(),
            (None, None) => {
                return Err(error(
                    "",
                    "neither SDK data (\"flags\", \"segments\", \"flagValues\") nor flags of the REST API",
                ));
            }
        };
        file.read_segments(map)?;
        let environment = environment(map, &flags)?;
        file.whole = environment.is_none();
        for (key, place, value) in flags {
            if let Err(left) = file.read_flag(key, place, value, environment) {
                file.left.push(left);
            }
        }
        match map.get("flagValues") {
            None | Some(Value::Null) => {}
            Some(Value::Object(values)) => values.iter().for_each(|(key, value)| file.read_value(key, value)),
            Some(_) => return Err(error("/flagValues", "expected an object of values by flag key")),
        }
        Ok(file)
    }

    fn read_segments(&mut self, map: &'a Map<String, Value>) -> Result<(), ImportError> {
        let listed: Vec<(Option<&str>, String, &Value)> = match map.get("segments") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(list)) if list.get("items").is_some_and(Value::is_array) => {
                let items = list["items"].as_array().into_iter().flatten().enumerate();
                items.map(|(n, item)| (None, format!("/segments/items/{n}"), item)).collect()
            }
            Some(Value::Object(map)) => {
                map.iter().map(|(k, v)| (Some(k.as_str()), format!("/segments/{}", form::escape(k)), v)).collect()
            }
            Some(Value::Array(items)) => {
                items.iter().enumerate().map(|(n, item)| (None, format!("/segments/{n}"), item)).collect()
            }
            Some(_) => return Err(error("/segments", "expected an object of segments by key")),
        };
        for (key, place, value) in listed {
            let read = Part::of(value, place).and_then(|part| {
                let own = part.text("key")?;
                let key = key.or(own).ok_or_else(|| Left::new(part.at("key"), "a segment without a key"))?;
                Ok((key.to_owned(), part.bool("deleted")?, part))
            });
            match read {
                Ok((_, true, _)) => {}
                Ok((key, false, part)) => {
                    self.segments.insert(key, part);
                }
                Err(left) => self.left.push(left),
            }
        }
        Ok(())
    }

    fn read_flag(
        &mut self,
        key: Option<&'a str>,
        place: String,
        value: &'a Value,
        environment: Option<&str>,
    ) -> Result<(), Left> {
        let part = Part::of(value, place)?;
        let own = part.text("key")?;
        let Some(known) = key.or(own) else { return Err(Left::new(part.at("key"), "a flag without a key")) };
        if let Some(own) = own.filter(|own| *own != known) {
            let text = format!(
                "the flag {known:?} calls itself {own:?}; its splits are salted with the latter, as with LaunchDarkly"
            );
            self.remarks.push((part.at("key"), text));
        }
        if known.is_empty() || known.len() > 256 {
            return Err(Left::new(part.at("key"), "a flag key has 1 to 256 bytes"));
        }
        let mut gone = part.bool("deleted")? || part.bool("archived")?;
        let setting = match (part.part("environments")?, environment) {
            (Some(environments), Some(name)) => match environments.part(name)? {
                Some(setting) => {
                    gone |= setting.bool("archived")?;
                    setting
                }
                None => {
                    let text = format!("flag {known:?} has no environment {name:?}");
                    return Err(Left::new(environments.place, text));
                }
            },
            _ => part.clone(),
        };
        let (mut values, mut given) = (Vec::new(), Vec::new());
        for variation in part.list("variations")? {
            // The REST API wraps each value.
            match variation.as_object().filter(|_| environment.is_some()) {
                Some(wrapped) => {
                    values.push(wrapped.get("value").unwrap_or(&Value::Null));
                    given.push(wrapped.get("name").and_then(Value::as_str));
                }
                None => {
                    values.push(variation);
                    given.push(None);
                }
            }
        }
        for (n, _) in values.iter().enumerate().filter(|(_, value)| value.is_null()) {
            let text = "a variation without a value: who gets it gets the code default, as OpenFeature clients of LaunchDarkly do";
            self.remarks.push((format!("{}/{n}", part.at("variations")), text.to_owned()));
        }
        let names = flag::names(&values, &given);
        let source = Source { key: own.unwrap_or(known).to_owned(), part, setting, values, names, gone };
        if self.flags.insert(known.to_owned(), source).is_some() {
            self.remarks.push((String::new(), format!("the flag {known:?} is there twice; the later counts")));
        }
        Ok(())
    }

    /// A flag that gives everybody one value.
    fn read_value(&mut self, key: &str, value: &'a Value) {
        let place = format!("/flagValues/{}", form::escape(key));
        if self.flags.contains_key(key) {
            self.remarks.push((place, format!("{key:?} is under flags too; that counts")));
            return;
        }
        if value.is_null() || key.is_empty() || key.len() > 256 {
            self.left.push(Left::new(place, "has no value, or a key that is not 1 to 256 bytes long"));
            return;
        }
        let fixed: &'static Map<String, Value> = fixed();
        let part = Part { map: fixed, place };
        let names = flag::names(&[value], &[None]);
        let source =
            Source { key: key.to_owned(), setting: part.clone(), part, values: vec![value], names, gone: false };
        self.flags.insert(key.to_owned(), source);
    }
}

/// The rules of a flag under `flagValues`.
fn fixed() -> &'static Map<String, Value> {
    static FIXED: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(|| {
        let mut map = Map::new();
        map.insert("on".to_owned(), json!(true));
        map.insert("fallthrough".to_owned(), json!({"variation": 0}));
        map
    });
    &FIXED
}

/// Which environment of the REST API's flags; none if the file is SDK data.
fn environment<'a>(
    map: &'a Map<String, Value>,
    flags: &[(Option<&str>, String, &'a Value)],
) -> Result<Option<&'a str>, ImportError> {
    let of_flag = |flag: &'a Value| flag.get("environments").and_then(Value::as_object);
    let names: BTreeSet<&str> =
        flags.iter().filter_map(|(_, _, flag)| of_flag(flag)).flat_map(|map| map.keys()).map(String::as_str).collect();
    if !flags.iter().any(|(_, _, flag)| of_flag(flag).is_some()) {
        return Ok(None);
    }
    let list = || names.iter().copied().collect::<Vec<_>>().join(", ");
    match map.get("environment") {
        None | Some(Value::Null) => match names.len() {
            1 => Ok(names.first().copied()),
            _ => Err(error("/environment", format!("name one environment of: {}", list()))),
        },
        Some(Value::String(name)) if names.contains(name.as_str()) => Ok(Some(name)),
        Some(Value::String(name)) => {
            Err(error("/environment", format!("there is no environment {name:?}; name one of: {}", list())))
        }
        Some(_) => Err(error("/environment", "expected the name of an environment")),
    }
}

/// Kinds of contexts that the file speaks of.
fn collect_kinds(value: &Value, kinds: &mut BTreeSet<String>, depth: usize) {
    match value {
        // Kinds stand high up; values of variations may be nested without end.
        _ if depth > 12 => {}
        Value::Array(items) => items.iter().for_each(|item| collect_kinds(item, kinds, depth + 1)),
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(kind) if matches!(name.as_str(), "contextKind" | "rolloutContextKind") => {
                        if !kind.is_empty() {
                            kinds.insert(kind.clone());
                        }
                    }
                    value => collect_kinds(value, kinds, depth + 1),
                }
            }
            if map.get("attribute").and_then(Value::as_str) == Some("kind") {
                let values = map.get("values").and_then(Value::as_array);
                kinds.extend(values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            }
        }
        _ => {}
    }
}
