//! One feature: rules in order, each with its prerequisites, filters, condition and share, and a default value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::condition::Conditions;
use super::logic;
use super::ranges::{self, Range};
use super::unit::{bucket, filter_condition, hashing, list, range, text};
use crate::launchdarkly::form::{self, NO, YES, all, any, not};
use crate::{Note, Weight};

/// For whom, and the weights.
type Weighted = (Value, Option<Vec<f64>>);

/// Why a feature cannot be carried over: the place inside it, and the reason.
pub(super) type Left = (String, String);

pub(super) fn left(place: &str, reason: impl Into<String>) -> Left {
    (place.to_owned(), reason.into())
}

/// A feature in the file, and its variants.
#[derive(Debug)]
pub(super) struct Source<'a> {
    map: &'a Map<String, Value>,
    pub(super) place: String,
    rules: Vec<&'a Map<String, Value>>,
    /// Name and value, in the order of the file, without nulls and without values of another type.
    variants: Vec<(String, Value)>,
    /// Whether some values are of another type than the rest.
    mixed: bool,
}

/// A feature in the dialect.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) flag: Value,
    pub(super) notes: Vec<Note>,
    pub(super) needs: BTreeSet<String>,
}

/// Whether evaluating a feature ends in a circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Circle {
    Never,
    Maybe,
    Always,
}

fn type_of(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    }
}

/// JavaScript has one kind of number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

impl<'a> Source<'a> {
    pub(super) fn read(value: &'a Value, place: String) -> Result<Source<'a>, Left> {
        let map = value.as_object().ok_or_else(|| left(&place, "expected an object"))?;
        let mut rules = Vec::new();
        match map.get("rules") {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) => {
                for (n, item) in items.iter().enumerate() {
                    let at = format!("{place}/rules/{n}");
                    rules.push(item.as_object().ok_or_else(|| left(&at, "expected an object"))?);
                }
            }
            Some(_) => return Err(left(&format!("{place}/rules"), "expected a list")),
        }
        let mut values: Vec<&Value> = map.get("defaultValue").into_iter().collect();
        for rule in &rules {
            match rule.get("force") {
                Some(value) => values.push(value),
                None => values.extend(variations(rule).into_iter().flatten()),
            }
        }
        values.retain(|value| !value.is_null());
        let kind = values.first().map_or(0, |value| type_of(value));
        let mixed = values.iter().any(|value| type_of(value) != kind);
        let mut variants: Vec<(String, Value)> = Vec::new();
        for value in values.into_iter().filter(|value| type_of(value) == kind) {
            if variants.iter().any(|(_, other)| same(other, value)) {
                continue;
            }
            let mut name = name(value).unwrap_or_else(|| format!("v{}", variants.len()));
            while variants.iter().any(|(other, _)| *other == name) {
                name.push('_');
            }
            variants.push((name, value.clone()));
        }
        Ok(Source { map, place, rules, variants, mixed })
    }

    /// Whether it can only ever give the code default.
    pub(super) fn is_empty(&self) -> bool {
        self.variants.is_empty()
    }

    fn name(&self, value: &Value) -> Option<&str> {
        self.variants.iter().find(|(_, other)| same(other, value)).map(|(name, _)| name.as_str())
    }
}

fn variations(rule: &Map<String, Value>) -> Option<&Vec<Value>> {
    // Contextual bandits have theirs apart, so that older SDKs skip them.
    let bandit = rule.get("contextualVariations").filter(|value| !value.is_null());
    bandit.or(rule.get("variations")).and_then(Value::as_array)
}

/// A value that is short enough is its own name.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => number.as_f64().and_then(logic::number_text),
        Value::String(text) if (1..=40).contains(&text.len()) && !text.chars().any(char::is_control) => {
            Some(text.clone())
        }
        _ => None,
    }
}

/// All features of a file.
#[derive(Debug)]
pub(super) struct Features<'a> {
    pub(super) sources: &'a BTreeMap<String, Source<'a>>,
    pub(super) conditions: &'a Conditions<'a>,
    pub(super) bandits: Option<&'a Map<String, Value>>,
}

/// One feature while it is read.
pub(super) struct Reading<'a> {
    source: &'a Source<'a>,
    key: &'a str,
    pub(super) place: String,
    rules: Vec<Value>,
    notes: Vec<Note>,
    needs: BTreeSet<String>,
}

impl Reading<'_> {
    pub(super) fn note(&mut self, weight: Weight, text: impl Into<String>) {
        self.notes.push(Note { place: self.place.clone(), weight, text: text.into() });
    }

    fn rule(&mut self, when: Value, serve: Value) {
        if when != NO {
            let id = format!("rule-{}", self.rules.len() + 1);
            self.rules.push(json!({"id": id, "when": when, "serve": serve}));
        }
    }

    /// The variant; null for null, and for what is of another type.
    fn variant(&mut self, value: &Value) -> Value {
        let name = self.source.name(value).map(str::to_owned);
        if name.is_none() && !value.is_null() {
            let text = format!(
                "feature {:?}: {value} is of another type than the rest; who had it gets the code default, as typed clients do",
                self.key
            );
            self.note(Weight::Differs, text);
        }
        json!(name)
    }
}

impl<'a> Features<'a> {
    pub(super) fn read(&self, key: &str, source: &Source<'a>) -> Result<Read, Left> {
        let mut reading = Reading {
            source,
            key,
            place: source.place.clone(),
            rules: Vec::new(),
            notes: Vec::new(),
            needs: BTreeSet::new(),
        };
        for (n, rule) in source.rules.iter().enumerate() {
            reading.place = format!("{}/rules/{n}", source.place);
            if !self.rule(rule, &mut reading)? {
                break;
            }
        }
        reading.place = format!("{}/defaultValue", source.place);
        let fallthrough = reading.variant(source.map.get("defaultValue").unwrap_or(&Value::Null));
        let variants: Map<String, Value> = source.variants.iter().cloned().collect();
        let mut flag = json!({"variants": variants, "on": true, "fallthrough": fallthrough});
        if !reading.rules.is_empty() {
            flag["rules"] = Value::Array(reading.rules);
        }
        Ok(Read { flag, notes: reading.notes, needs: reading.needs })
    }

    /// Reads a rule; false if nobody gets past it.
    fn rule(&self, rule: &Map<String, Value>, reading: &mut Reading<'_>) -> Result<bool, Left> {
        let place = reading.place.clone();
        let at = |name: &str| format!("{place}/{name}");
        let mut when = Vec::new();
        for (n, parent) in list(rule, "parentConditions", &place)?.iter().enumerate() {
            let here = format!("{place}/parentConditions/{n}");
            let id =
                parent.get("id").and_then(Value::as_str).ok_or_else(|| left(&here, "expected the id of a feature"))?;
            match self.circle(id, &mut vec![reading.key.to_owned()], &mut 0) {
                Some(Circle::Never) => {}
                Some(Circle::Always) => {
                    reading.note(
                        Weight::Info,
                        "prerequisites that lead back: who gets here gets the code default, as with GrowthBook",
                    );
                    let reached = all(when);
                    let everybody = reached == YES;
                    reading.rule(reached, Value::Null);
                    return Ok(!everybody);
                }
                _ => return Err(left(&here, "prerequisites lead back to this feature, but not for everybody")),
            }
            let holds = self.parent(id, parent, &here, reading)?;
            if parent.get("gate").is_some_and(logic::truthy) {
                let mut blocked = when.clone();
                blocked.push(not(holds.clone()));
                reading.rule(all(blocked), Value::Null);
            }
            when.push(holds);
        }
        let filters = list(rule, "filters", &place)?;
        for (n, filter) in filters.iter().enumerate() {
            when.push(filter_condition(filter, &format!("{place}/filters/{n}"), reading)?);
        }
        match rule.get("condition") {
            None | Some(Value::Null) => {}
            Some(Value::Object(condition)) => {
                when.push(self.conditions.condition(condition, 0).map_err(|reason| left(&at("condition"), reason))?);
            }
            Some(_) => return Err(left(&at("condition"), "expected an object")),
        }
        for remark in self.conditions.remarks.take() {
            reading.note(Weight::Differs, remark);
        }
        if rule.contains_key("force") {
            self.force(rule, all(when), reading)?;
            return Ok(true);
        }
        let Some(variations) = variations(rule).filter(|variations| variations.len() >= 2) else { return Ok(true) };
        self.experiment(rule, variations, when, filters.is_empty(), reading)?;
        Ok(true)
    }

    fn force(&self, rule: &Map<String, Value>, when: Value, reading: &mut Reading<'_>) -> Result<(), Left> {
        let place = reading.place.clone();
        let serve = reading.variant(&rule["force"]);
        let range = match rule.get("range").filter(|range| !range.is_null()) {
            Some(value) => range(value).ok_or_else(|| left(&format!("{place}/range"), "expected [from, below]"))?,
            None => match rule.get("coverage") {
                None => {
                    reading.rule(when, serve);
                    return Ok(());
                }
                // JavaScript takes null for 0, but does not stop at it.
                Some(Value::Null) => ranges::of_coverage(0.0),
                Some(value) => match value.as_f64() {
                    Some(0.0) => return Ok(()),
                    Some(coverage) => ranges::of_coverage(coverage),
                    None => return Err(left(&format!("{place}/coverage"), "expected a number")),
                },
            },
        };
        let seed = text(rule, "seed", &place)?.unwrap_or(reading.key).to_owned();
        let Some(hashing) = hashing(rule, &seed, reading)? else { return Ok(()) };
        self.shares(&[(serve, range)], when, &hashing, reading);
        Ok(())
    }

    fn experiment(
        &self,
        rule: &Map<String, Value>,
        variations: &[Value],
        mut when: Vec<Value>,
        by_namespace: bool,
        reading: &mut Reading<'_>,
    ) -> Result<(), Left> {
        let place = reading.place.clone();
        let at = |name: &str| format!("{place}/{name}");
        let key = text(rule, "key", &place)?.unwrap_or(reading.key).to_owned();
        let seed = text(rule, "seed", &place)?.unwrap_or(&key).to_owned();
        let Some(hashing) = hashing(rule, &seed, reading)? else { return Ok(()) };
        let namespace = rule.get("namespace").filter(|namespace| !namespace.is_null());
        if let (Some(namespace), true) = (namespace, by_namespace) {
            let parts = namespace.as_array().map(Vec::as_slice);
            let Some([Value::String(id), from, below]) = parts else {
                return Err(left(&at("namespace"), "expected [id, from, below]"));
            };
            let Some(range) = range(&json!([from, below])) else {
                return Err(left(&at("namespace"), "expected [id, from, below]"));
            };
            when.push(bucket(&[range], &hashing["by"], &format!("__{id}"), "growthbook-1"));
        }
        let coverage = match rule.get("coverage") {
            None => 1.0,
            Some(Value::Null) => 0.0,
            Some(value) => value.as_f64().ok_or_else(|| left(&at("coverage"), "expected a number"))?,
        };
        let numbers = |value: &Value| value.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
        let weights = match rule.get("weights").filter(|weights| logic::truthy(weights)) {
            None => None,
            Some(value) => Some(numbers(value).ok_or_else(|| left(&at("weights"), "expected a list of numbers"))?),
        };
        let given = match rule.get("ranges").filter(|ranges| logic::truthy(ranges)) {
            None => None,
            Some(value) => {
                let ranges =
                    value.as_array().and_then(|ranges| ranges.iter().map(range).collect::<Option<Vec<Range>>>());
                Some(ranges.ok_or_else(|| left(&at("ranges"), "expected a list of [from, below]"))?)
            }
        };
        reading.note(
            Weight::Info,
            format!("experiment {key:?}: who gets which value stays; its tracking key, its metrics and its results do not come along"),
        );
        let min_version = rule.get("minBucketVersion").and_then(Value::as_f64).unwrap_or(0.0);
        if min_version > 0.0 {
            reading.note(
                Weight::Differs,
                format!("experiment {key:?} shuts out who was assigned before bucket version {min_version}; sticky buckets do not come along, so they are assigned anew"),
            );
        }
        let empty = Vec::new();
        let meta = rule.get("meta").and_then(Value::as_array).unwrap_or(&empty);
        let passes = |n: usize| meta.get(n).and_then(|m| m.get("passthrough")).is_some_and(logic::truthy);
        let values: Vec<Value> = variations.iter().map(|value| reading.variant(value)).collect();
        for (also, weights) in self.bandit(rule, weights, reading)? {
            let ranges = match &given {
                Some(ranges) => ranges.clone(),
                None => ranges::of_weights(variations.len(), coverage, weights.as_deref()),
            };
            // Who passes through, and who has a place that belongs to no variation, is as if the rule had not been.
            let parts = ranges::apart(&ranges)
                .into_iter()
                .filter(|(n, _)| *n < variations.len() && !passes(*n))
                .map(|(n, range)| (values[n].clone(), range));
            let parts: Vec<(Value, Range)> = parts.collect();
            let when = all(when.iter().cloned().chain([also]));
            self.shares(&parts, when, &hashing, reading);
        }
        Ok(())
    }

    /// The weights, and for whom. A contextual bandit has some for each group of users; they are those of the moment of export.
    fn bandit(
        &self,
        rule: &Map<String, Value>,
        weights: Option<Vec<f64>>,
        reading: &mut Reading<'_>,
    ) -> Result<Vec<Weighted>, Left> {
        let Some(name) = rule.get("contextualBanditRef").and_then(Value::as_str) else {
            return Ok(vec![(YES, weights)]);
        };
        reading.note(
            Weight::Differs,
            format!("contextual bandit {name:?}: the weights stay what they were at the export; GrowthBook goes on changing them"),
        );
        let leaves = self.bandits.and_then(|bandits| bandits.get(name)?.get("contexts")?.as_array());
        let mut found = Vec::new();
        let mut before = Vec::new();
        for leaf in leaves.into_iter().flatten() {
            let empty = Map::new();
            let condition = leaf.get("condition").and_then(Value::as_object).unwrap_or(&empty);
            let holds = self.conditions.condition(condition, 0).map_err(|reason| left(&reading.place, reason))?;
            let own = leaf.get("weights").and_then(Value::as_array);
            let own = own.map(|own| own.iter().filter_map(Value::as_f64).collect::<Vec<f64>>());
            found.push((all([not(any(before.clone())), holds.clone()]), own));
            before.push(holds);
        }
        found.push((not(any(before)), weights));
        Ok(found)
    }

    /// Rules for parts of hash space, each with what it gets: a variant or null.
    fn shares(&self, parts: &[(Value, Range)], when: Value, hashing: &Value, reading: &mut Reading<'_>) {
        let (salt, bucketing) = (hashing["salt"].as_str().unwrap_or_default(), &hashing["bucketing"]);
        let bucketing = bucketing.as_str().unwrap_or_default();
        let inside = |range: &Range| (range.0.max(0.0), range.1.min(1.0));
        let whole = |(from, below): Range| from < below;
        let nothing: Vec<Range> =
            parts.iter().filter(|(value, _)| value.is_null()).map(|(_, r)| inside(r)).filter(|r| whole(*r)).collect();
        if !nothing.is_empty() {
            let also = bucket(&nothing, &hashing["by"], salt, bucketing);
            reading.rule(all([when.clone(), also]), Value::Null);
        }
        let ranges: Vec<Value> = parts
            .iter()
            .filter(|(value, range)| !value.is_null() && whole(inside(range)))
            .map(|(value, range)| json!([value, inside(range).0, inside(range).1]))
            .collect();
        if ranges.is_empty() {
            return;
        }
        let mut split = hashing.clone();
        split["ranges"] = Value::Array(ranges);
        reading.rule(when, json!({ "split": split }));
    }

    /// The condition about another feature's value, asked of each value that it can have.
    fn parent(&self, id: &str, parent: &Value, place: &str, reading: &mut Reading<'_>) -> Result<Value, Left> {
        let empty = Map::new();
        let asked = match parent.get("condition") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(condition)) => condition,
            Some(_) => return Err(left(place, "expected an object under condition")),
        };
        let condition = self.conditions.of_value().condition(asked, 0).map_err(|reason| left(place, reason))?;
        let with_null = form::holds(&condition, json!({}));
        let Some(source) = self.sources.get(id).filter(|source| !source.is_empty()) else {
            return Ok(Value::Bool(with_null));
        };
        if source.mixed {
            return Err(left(place, format!("needs the feature {id:?}, whose values are of different types")));
        }
        reading.needs.insert(id.to_owned());
        let passing: Vec<&String> = source
            .variants
            .iter()
            .filter(|(_, value)| form::holds(&condition, json!({ "value": value })))
            .map(|(name, _)| name)
            .collect();
        let gives =
            |variants: Vec<&String>| if variants.is_empty() { NO } else { json!({"flag": id, "variants": variants}) };
        if !with_null {
            return Ok(gives(passing));
        }
        let failing = source.variants.iter().map(|(name, _)| name).filter(|name| !passing.contains(name)).collect();
        Ok(not(gives(failing)))
    }

    /// Whether evaluating the feature, asked for by those in `chain`, ends in a circle; none if it takes too long to tell.
    fn circle(&self, id: &str, chain: &mut Vec<String>, steps: &mut usize) -> Option<Circle> {
        *steps += 1;
        if *steps > 10_000 {
            return None;
        }
        if chain.iter().any(|other| other == id) {
            return Some(Circle::Always);
        }
        let Some(source) = self.sources.get(id) else { return Some(Circle::Never) };
        let mut found = Circle::Never;
        for (n, rule) in source.rules.iter().enumerate() {
            let parents = rule.get("parentConditions").and_then(Value::as_array).into_iter().flatten().enumerate();
            for (m, parent) in parents {
                let Some(other) = parent.get("id").and_then(Value::as_str) else { continue };
                chain.push(id.to_owned());
                let inner = self.circle(other, chain, steps);
                chain.pop();
                match inner? {
                    Circle::Never => {}
                    Circle::Always if n == 0 && m == 0 => return Some(Circle::Always),
                    _ => found = Circle::Maybe,
                }
            }
        }
        Some(found)
    }
}
