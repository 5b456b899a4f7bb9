//! One flag: off, prerequisites, targets, rules, fallthrough.
//!
//! Nearly always each of them has a form of its own in the dialect. Where it has not (a prerequisite that does not exist or whose
//! evaluation may end in an error, a target whose variation has no value, targets of several kinds in turn) the whole order is
//! written out as rules, which say the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::clause::Clauses;
use super::fields::{Left, Part};
use super::form::{NO, YES, all, compare, not};
use super::reference::key_of;
use super::rollout::{Serving, Variations};
use crate::{Note, Weight};

/// A flag in the file.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    /// The key that the hash is made of.
    pub(super) key: String,
    /// The flag.
    pub(super) part: Part<'a>,
    /// Where its rules are: the flag itself, or its environment.
    pub(super) setting: Part<'a>,
    pub(super) values: Vec<&'a Value>,
    /// Variant names; none where the variation has no value.
    pub(super) names: Vec<Option<String>>,
    /// Archived or deleted: for SDKs it does not exist.
    pub(super) gone: bool,
}

/// Whether evaluating a flag ends in an error that reaches those who need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Never,
    Maybe,
    Always,
}

/// All flags of a file.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    sources: BTreeMap<String, Source<'a>>,
    clauses: &'a Clauses<'a>,
    /// Whether what is not in the file does not exist.
    whole: bool,
    circular: HashSet<String>,
}

/// A flag in the dialect.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) flag: Value,
    pub(super) notes: Vec<Note>,
    /// Flags that it cannot do without.
    pub(super) needs: BTreeSet<String>,
}

/// What prerequisites come to.
#[derive(Default)]
struct Prerequisites {
    /// As the dialect has them.
    listed: Vec<Value>,
    /// The same as rules: when not, what is served.
    rules: Vec<(Value, Value)>,
    /// Whether the list does not say it all.
    as_rules: bool,
    needs: BTreeSet<String>,
}

impl<'a> Flags<'a> {
    pub(super) fn new(sources: BTreeMap<String, Source<'a>>, clauses: &'a Clauses<'a>, whole: bool) -> Flags<'a> {
        let mut flags = Flags { sources, clauses, whole, circular: HashSet::new() };
        flags.circular = flags.sources.keys().filter(|key| flags.leads_back(key)).cloned().collect();
        flags
    }

    fn leads_back(&self, key: &str) -> bool {
        let mut seen = HashSet::new();
        let mut next = vec![key];
        while let Some(here) = next.pop() {
            let Some(source) = self.sources.get(here) else { continue };
            let list = source.setting.value("prerequisites").and_then(Value::as_array);
            for named in list.into_iter().flatten().filter_map(|p| p.get("key")?.as_str()) {
                if named == key {
                    return true;
                }
                if seen.insert(named) {
                    next.push(named);
                }
            }
        }
        false
    }

    /// The flag, if it exists for SDKs.
    fn existing(&self, key: &str) -> Option<&Source<'a>> {
        self.sources.get(key).filter(|source| !source.gone)
    }

    pub(super) fn read(&self, key: &str, source: &Source<'a>) -> Result<Read, Left> {
        let setting = &source.setting;
        let mut read = Reading { notes: Vec::new(), ids: HashSet::new(), rules: Vec::new() };
        let salt = setting.text("salt")?.unwrap_or_default();
        let variations = Variations { key: &source.key, salt, names: &source.names };
        let variants = variants(source)?;

        let off = match setting.whole("offVariation")? {
            None => Value::Null,
            Some(index) => match variations.name(index) {
                Ok(name) => json!(name),
                Err(wrong) => {
                    read.note(setting.at("offVariation"), wrong);
                    Value::Null
                }
            },
        };
        let on = setting.bool("on")?;
        let prerequisites = self.prerequisites(key, setting, &off)?;
        let targets = targets(setting)?;
        let mut rules = Vec::new();
        for (n, rule) in setting.parts("rules")?.into_iter().enumerate() {
            let found = self.clauses.clauses(&rule, &[])?;
            let serving = variations.read(&rule)?;
            rules.push((n, rule, found, serving));
        }
        let fallthrough = match setting.part("fallthrough")? {
            Some(part) => variations.read(&part)?,
            None => {
                let text = "no fallthrough: clients get their code default, as with LaunchDarkly".to_owned();
                Serving { malformed: vec![(setting.at("fallthrough"), text)], ..Serving::default() }
            }
        };

        let mut flag = json!({"variants": variants, "on": on, "off_variant": off});
        describe(&source.part, &mut flag)?;
        if prerequisites.as_rules {
            for (n, (failing, serve)) in prerequisites.rules.iter().enumerate() {
                read.rule(&format!("prerequisite-{}", n + 1), None, failing.clone(), serve.clone());
            }
        } else if !prerequisites.listed.is_empty() {
            flag["prerequisites"] = Value::Array(prerequisites.listed.clone());
        }
        self.put_targets(&targets, &variations, prerequisites.as_rules, &mut flag, &mut read);
        for (n, rule, found, serving) in rules {
            let id = rule.text("id")?.or(rule.text("_id")?).filter(|id| !id.is_empty());
            let id = id.map_or_else(|| format!("rule-{}", n + 1), str::to_owned);
            if found.fails != NO {
                read.note(
                    rule.at("clauses"),
                    "a broken attribute reference, or a segment that leads back to itself: who gets there gets the code default, \
                     as with LaunchDarkly",
                );
                read.rule(&format!("{id}-malformed"), None, found.fails, Value::Null);
            }
            let name = rule.text("description")?.filter(|text| !text.is_empty());
            read.serving(&serving, &rule.place);
            for (k, (also, serve)) in serving.before.into_iter().enumerate() {
                read.rule(&format!("{id}-{}", k + 1), None, all([found.yes.clone(), also]), serve);
            }
            read.rule(&id, name, found.yes, serving.serve);
        }
        read.serving(&fallthrough, &setting.at("fallthrough"));
        for (k, (also, serve)) in fallthrough.before.into_iter().enumerate() {
            read.rule(&format!("fallthrough-{}", k + 1), None, also, serve);
        }
        if !read.rules.is_empty() {
            flag["rules"] = Value::Array(read.rules);
        }
        flag["fallthrough"] = fallthrough.serve;
        Ok(Read { flag, notes: read.notes, needs: prerequisites.needs })
    }

    fn put_targets(
        &self,
        targets: &[Target],
        variations: &Variations<'_>,
        as_rules: bool,
        flag: &mut Value,
        read: &mut Reading,
    ) {
        let mut served = Vec::new();
        let mut plain = !as_rules;
        for target in targets {
            let name = variations.name(target.variation).unwrap_or_else(|wrong| {
                read.note(&target.place, wrong);
                None
            });
            plain &= name.is_some();
            served.push(name);
        }
        // The dialect looks through the lists of one attribute together, so each attribute must come in one piece.
        let mut attributes: Vec<&Value> = targets.iter().map(|target| &target.attr).collect();
        attributes.dedup();
        let pieces = attributes.len();
        plain &= attributes.into_iter().map(Value::to_string).collect::<HashSet<_>>().len() == pieces;
        if plain {
            let list = targets.iter().zip(&served).map(|(target, name)| {
                let mut entry = json!({"variant": name, "subjects": target.subjects});
                if target.attr != json!("targetingKey") {
                    entry["attr"] = target.attr.clone();
                }
                entry
            });
            let list: Vec<Value> = list.collect();
            if !list.is_empty() {
                flag["targets"] = Value::Array(list);
            }
            return;
        }
        for (n, (target, name)) in targets.iter().zip(&served).enumerate() {
            let subjects = target.subjects.iter().map(|subject| json!(subject)).collect();
            read.rule(&format!("target-{}", n + 1), None, compare(&target.attr, "in", subjects), json!(name));
        }
    }

    fn prerequisites(&self, key: &str, setting: &Part<'_>, off: &Value) -> Result<Prerequisites, Left> {
        let mut found = Prerequisites::default();
        for item in setting.parts("prerequisites")? {
            let other = item.text("key")?.unwrap_or_default();
            let index = item.whole("variation")?.unwrap_or_default();
            let missing = self.existing(other).is_none();
            if missing && !self.whole && !self.sources.contains_key(other) {
                return Err(Left::new(item.at("key"), format!("needs the flag {other:?}, which is not in the file")));
            }
            let Some(source) = self.existing(other).filter(|source| is_on(source)) else {
                found.rules.push((YES, off.clone()));
                found.as_rules = true;
                break;
            };
            let fails = self.fails(other, &mut vec![key.to_owned()], &mut 0).ok_or_else(|| {
                Left::new(item.at("key"), "prerequisites that lead back to themselves make it too long")
            })?;
            if fails == Fails::Always {
                found.rules.push((YES, Value::Null));
                found.as_rules = true;
                break;
            }
            if self.circular.contains(key) && self.circular.contains(other) && self.reaches(other, key) {
                return Err(Left::new(item.at("key"), "prerequisites lead back to this flag, but not for everybody"));
            }
            let wanted = usize::try_from(index).ok().and_then(|index| source.names.get(index));
            let Some(wanted) = wanted else {
                found.rules.push((YES, off.clone()));
                found.as_rules = true;
                break;
            };
            let Some(wanted) = wanted else {
                return Err(Left::new(item.at("variation"), format!("needs a variation of {other:?} without a value")));
            };
            found.needs.insert(other.to_owned());
            let gives = |variants: Vec<&String>| json!({"flag": other, "variants": variants});
            if fails == Fails::Maybe {
                found.rules.push((not(gives(source.names.iter().flatten().collect())), Value::Null));
                found.as_rules = true;
            }
            found.rules.push((not(gives(vec![wanted])), off.clone()));
            found.listed.push(gives(vec![wanted]));
        }
        Ok(found)
    }

    fn reaches(&self, from: &str, to: &str) -> bool {
        let mut seen = HashSet::new();
        let mut next = vec![from];
        while let Some(here) = next.pop() {
            if here == to {
                return true;
            }
            let list = self.sources.get(here).and_then(|s| s.setting.value("prerequisites")?.as_array());
            for named in list.into_iter().flatten().filter_map(|p| p.get("key")?.as_str()) {
                if seen.insert(named) {
                    next.push(named);
                }
            }
        }
        false
    }

    /// Whether evaluating the flag, asked for by those in `chain`, ends in an error; none if it takes too long to tell.
    fn fails(&self, key: &str, chain: &mut Vec<String>, steps: &mut usize) -> Option<Fails> {
        *steps += 1;
        if *steps > 10_000 {
            return None;
        }
        let Some(source) = self.existing(key).filter(|source| is_on(source)) else { return Some(Fails::Never) };
        if chain.iter().any(|other| other == key) {
            return Some(Fails::Always);
        }
        let mut found = Fails::Never;
        let list = source.setting.value("prerequisites").and_then(Value::as_array);
        for (n, item) in list.into_iter().flatten().enumerate() {
            let other = item.get("key").and_then(Value::as_str).unwrap_or_default();
            if self.existing(other).is_none_or(|other| !is_on(other)) {
                return Some(found);
            }
            chain.push(key.to_owned());
            let inner = self.fails(other, chain, steps);
            chain.pop();
            match inner? {
                Fails::Never => {}
                // Whoever stumbles over one before it gets the off variation instead.
                Fails::Always if n == 0 => return Some(Fails::Always),
                Fails::Always | Fails::Maybe => found = Fails::Maybe,
            }
        }
        let rules = source.setting.parts("rules").unwrap_or_default();
        let broken = |rule: &Part<'_>| self.clauses.clauses(rule, &[]).is_ok_and(|found| found.fails != NO);
        if rules.iter().any(broken) {
            found = Fails::Maybe;
        }
        Some(found)
    }
}

fn is_on(source: &Source<'_>) -> bool {
    source.setting.value("on").and_then(Value::as_bool).unwrap_or(false)
}

/// Rules and remarks as they come up.
struct Reading {
    notes: Vec<Note>,
    ids: HashSet<String>,
    rules: Vec<Value>,
}

impl Reading {
    fn note(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.notes.push(Note { place: place.into(), weight: Weight::Info, text: text.into() });
    }

    fn serving(&mut self, serving: &Serving, place: &str) {
        for (place, text) in &serving.malformed {
            self.note(place, text);
        }
        if serving.experiment {
            self.note(place, "an experiment: who gets which variant stays; its metrics, and who is left out of its analysis, do not come along");
        }
    }

    fn rule(&mut self, id: &str, name: Option<&str>, when: Value, serve: Value) {
        if when == NO {
            return;
        }
        let mut unique = id.to_owned();
        for n in 2.. {
            if self.ids.insert(unique.clone()) {
                break;
            }
            unique = format!("{id}-{n}");
        }
        let mut rule = json!({"id": unique, "when": when, "serve": serve});
        if let Some(name) = name {
            rule["name"] = json!(name);
        }
        self.rules.push(rule);
    }
}

/// Single subjects.
struct Target {
    attr: Value,
    subjects: Vec<String>,
    variation: i64,
    place: String,
}

fn targets(setting: &Part<'_>) -> Result<Vec<Target>, Left> {
    let read = |part: &Part<'_>| -> Result<Target, Left> {
        let kind = part.text("contextKind")?.filter(|kind| !kind.is_empty()).unwrap_or("user");
        let subjects = part.texts("values")?.into_iter().map(str::to_owned).collect();
        let variation = part.whole("variation")?.unwrap_or_default();
        Ok(Target { attr: key_of(kind), subjects, variation, place: part.place.clone() })
    };
    let users = setting.parts("targets")?.iter().map(read).collect::<Result<Vec<Target>, Left>>()?;
    let contexts = setting.parts("contextTargets")?;
    if contexts.is_empty() {
        return Ok(users.into_iter().filter(|target| !target.subjects.is_empty()).collect());
    }
    let mut found = Vec::new();
    for part in &contexts {
        let mut target = read(part)?;
        if target.attr == key_of("user") && target.subjects.is_empty() {
            // It only says when the users' targets have their turn.
            let users = users.iter().find(|user| user.variation == target.variation);
            target.subjects = users.map(|user| user.subjects.clone()).unwrap_or_default();
        }
        if !target.subjects.is_empty() {
            found.push(target);
        }
    }
    Ok(found)
}

/// The variants by name. A value that no rule serves does not count against the type.
fn variants(source: &Source<'_>) -> Result<Map<String, Value>, Left> {
    let place = source.part.at("variations");
    let kind = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    let named: Vec<(&String, &Value)> =
        source.names.iter().zip(&source.values).filter_map(|(name, value)| Some((name.as_ref()?, *value))).collect();
    let Some((_, first)) = named.first() else {
        return Err(Left::new(place, "no variation has a value: clients get their code default without the flag too"));
    };
    if named.iter().any(|(_, value)| kind(value) != kind(first)) {
        return Err(Left::new(place, "variations of different types; give them one type"));
    }
    Ok(named.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// What the REST API says for people.
fn describe(part: &Part<'_>, flag: &mut Value) -> Result<(), Left> {
    let text = |name: &str| Ok::<_, Left>(part.text(name)?.filter(|text| !text.is_empty()));
    let description = match (text("name")?, text("description")?) {
        (Some(name), Some(description)) if name != description => Some(format!("{name}: {description}")),
        (name, description) => name.or(description).map(str::to_owned),
    };
    if let Some(description) = description {
        flag["description"] = json!(description);
    }
    let tags = part.texts("tags")?;
    if !tags.is_empty() {
        flag["tags"] = json!(tags);
    }
    Ok(())
}

/// Variant names: the given ones if they are all there and all different, else `true` and `false` for truth values, else v0, v1 …
/// A null has no name, for it is no value.
pub(super) fn names(values: &[&Value], given: &[Option<&str>]) -> Vec<Option<String>> {
    let wanted: Vec<String> = values
        .iter()
        .zip(given)
        .enumerate()
        .map(|(n, (value, given))| match (given.filter(|name| !name.is_empty()), value) {
            (Some(name), _) => name.to_owned(),
            (None, Value::Bool(b)) => b.to_string(),
            (None, _) => format!("v{n}"),
        })
        .collect();
    let different: HashMap<&str, ()> = wanted.iter().map(|name| (name.as_str(), ())).collect();
    let unique = different.len() == wanted.len();
    let name = |(n, value): (usize, &&Value)| {
        (!value.is_null()).then(|| if unique { wanted[n].clone() } else { format!("v{n}") })
    };
    values.iter().enumerate().map(name).collect()
}
