//! GrowthBook: the payload that SDKs fetch (`{"features", "savedGroups", …}`), or its features alone.
//!
//! The JavaScript SDK counts, without a sticky bucket service. `id`, GrowthBook's usual unit, is the attribute `id`, or else the targeting
//! key of OpenFeature.

mod condition;
mod feature;
mod logic;
pub(crate) mod pattern;
mod ranges;
mod unit;
mod version;

#[cfg(test)]
pub(crate) mod damage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::launchdarkly::form::escape;
use crate::{Import, ImportError, Weight};
use condition::Conditions;
use feature::{Features, Left, Read, Source};

fn error(place: &str, reason: impl Into<String>) -> ImportError {
    ImportError { place: place.to_owned(), reason: reason.into() }
}

/// Reads a payload or a bare object of features. Features that cannot be carried over exactly are left out with a note.
pub fn growthbook(document: &Value) -> Result<Import, ImportError> {
    let Value::Object(map) = document else { return Err(error("", "expected an object")) };
    let mut import = Import::default();
    let (features, at, payload) = features(map)?;
    let part = |name: &str| -> Result<Option<&Map<String, Value>>, ImportError> {
        match map.get(name).filter(|value| payload && !value.is_null()) {
            None => Ok(None),
            Some(Value::Object(part)) => Ok(Some(part)),
            Some(_) => Err(error(&format!("/{name}"), "expected an object")),
        }
    };
    let conditions = Conditions::new(part("savedGroups")?);
    let bandits = part("contextualBandits")?;
    if map.get("experiments").is_some_and(|list| payload && list.as_array().is_some_and(|list| !list.is_empty())) {
        let text = "visual and redirect experiments run in browsers and have no form here";
        import.note("/experiments", Weight::LeftOut, text);
    }

    let mut sources: BTreeMap<String, Source<'_>> = BTreeMap::new();
    let leave_out = |import: &mut Import, key: &str, left: &Left| {
        import.note(&left.0, Weight::LeftOut, format!("feature {key:?}: {}", left.1));
    };
    for (key, value) in features {
        let place = format!("{at}/{}", escape(key));
        if key.is_empty() || key.len() > 256 {
            leave_out(&mut import, key, &(place, "a flag key has 1 to 256 bytes".to_owned()));
            continue;
        }
        match Source::read(value, place) {
            Ok(source) => {
                sources.insert(key.clone(), source);
            }
            Err(left) => leave_out(&mut import, key, &left),
        }
    }
    let broken: Vec<&String> = features.keys().filter(|key| !sources.contains_key(*key)).collect();
    let all = Features { sources: &sources, conditions: &conditions, bandits };
    let mut read: BTreeMap<&String, Result<Read, Left>> = BTreeMap::new();
    for (key, source) in &sources {
        if source.is_empty() {
            let text = format!("feature {key:?} has no value: clients get their code default without it too");
            import.note(&source.place, Weight::Info, text);
            continue;
        }
        let found = all.read(key, source).and_then(|found| match refusal(key, &found.flag) {
            None => Ok(found),
            Some(reason) => Err((source.place.clone(), reason)),
        });
        read.insert(key, found);
    }
    // A feature cannot do without those it needs; what is left out may leave out more.
    loop {
        let gone = |other: &String| match read.get(other) {
            Some(found) => found.is_err(),
            None => broken.contains(&other),
        };
        let found: Vec<(&String, String)> = read
            .iter()
            .filter_map(|(key, found)| {
                Some((*key, found.as_ref().ok()?.needs.iter().find(|other| gone(other))?.clone()))
            })
            .collect();
        if found.is_empty() {
            break;
        }
        for (key, other) in found {
            read.insert(
                key,
                Err((sources[key].place.clone(), format!("needs the feature {other:?}, which is left out"))),
            );
        }
    }
    for (key, found) in read {
        match found {
            Ok(found) => {
                import.notes.extend(found.notes);
                import.flags.insert(key.clone(), found.flag);
            }
            Err(left) => leave_out(&mut import, key, &left),
        }
    }
    import.segments.extend(conditions.segments.take());
    Ok(import)
}

/// Why the dialect does not take the flag, if it does not: a condition too deep, an expression too large.
fn refusal(key: &str, flag: &Value) -> Option<String> {
    let findings = flags::Flag::compile(key, flag, &Map::new(), &Map::new()).err()?;
    let finding = findings.first()?;
    Some(format!("has no form here: {}: {}", finding.place, finding.reason))
}

/// The features, where they are, and whether there is a payload around them.
fn features(map: &Map<String, Value>) -> Result<(&Map<String, Value>, &'static str, bool), ImportError> {
    let encrypted = ["encryptedFeatures", "encryptedSavedGroups"]
        .into_iter()
        .find(|name| map.get(*name).is_some_and(|v| v.is_string()));
    if let Some(name) = encrypted {
        let reason =
            "is encrypted; fetch the payload with a key of a connection without encryption, or decrypt it first";
        return Err(error(&format!("/{name}"), reason));
    }
    match map.get("features") {
        // A bare object may have a feature of that name.
        Some(Value::Object(inner)) if !inner.contains_key("defaultValue") && !inner.contains_key("rules") => {
            Ok((inner, "/features", true))
        }
        Some(Value::Object(_)) | None => {
            let is_feature = |value: &Value| {
                value
                    .as_object()
                    .is_some_and(|f| f.is_empty() || f.contains_key("defaultValue") || f.contains_key("rules"))
            };
            if !map.is_empty() && !map.values().any(is_feature) {
                return Err(error("", "neither a payload with \"features\" nor an object of features"));
            }
            Ok((map, "", false))
        }
        Some(_) => Err(error("/features", "expected an object of features by key")),
    }
}
