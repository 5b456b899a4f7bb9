//! A flag in our own dialect (docs/reference/flags.md): off, prerequisites, targets, rules, fallthrough, and changes that come
//! by themselves at a time. Read whole, with a finding for each fault.

use hashbrown::HashMap;
use serde_json::{Map, Value, json};
use vocab::Timestamp;

use crate::attribute::{Attribute, Found};
use crate::clock::Clock;
use crate::condition::{Condition, Kind, Reader, Test};
use crate::evaluate::{EvaluationError, Reason, Scene};
use crate::fields::{Fields, Findings};
use crate::split::{Ramp, Split, Variants};

/// Scheduled changes of one flag.
const SCHEDULE_MAX: usize = 100;
const RULES_MAX: usize = 10_000;
/// What a scheduled change may replace.
const CHANGEABLE: [&str; 6] = ["on", "off_variant", "prerequisites", "targets", "rules", "fallthrough"];
pub(crate) const RISKS: [&str; 4] = ["low", "medium", "high", "critical"];
pub(crate) const KINDS: [&str; 6] = ["release", "experiment", "ops", "kill-switch", "permission", "fault"];

/// What is served from when on. The first holds from the beginning of time.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) periods: Vec<(Timestamp, Body)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// Where on, prerequisites, targets, rules and fallthrough are written.
    written: [Box<str>; 5],
    pub(crate) on: bool,
    pub(crate) off_variant: Option<usize>,
    pub(crate) prerequisites: Vec<(Box<str>, Vec<Box<str>>)>,
    pub(crate) targets: Vec<Targets>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) fallthrough: Serve,
}

/// Single subjects, by one attribute.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    pub(crate) attribute: Attribute,
    pub(crate) variants: HashMap<Box<str>, usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) when: Condition,
    pub(crate) serve: Serve,
}

#[derive(Clone, Debug)]
pub(crate) enum Serve {
    Variant(usize),
    CodeDefault,
    Split(Box<Split>),
    Ramp(Box<Ramp>),
}

/// What was decided: a variant's place, or the code default.
pub(crate) type Decision = (Option<usize>, Reason);

impl Model {
    /// Reads a definition whose variants are known.
    pub(crate) fn read(
        definition: &Value,
        key: &str,
        variants: Variants<'_>,
        findings: &mut Findings,
    ) -> Option<Model> {
        let mut fields = Fields::of(definition, "", findings)?;
        for name in ["variants", "metadata", "on", "off_variant", "prerequisites", "targets", "rules", "fallthrough"] {
            fields.value(name);
        }
        fields.text("description", findings);
        fields.text("owner", findings);
        fields.texts("tags", findings);
        fields.time("expires", findings);
        if fields.text("kind", findings).is_some_and(|kind| !KINDS.contains(&kind)) {
            findings.add("/kind", format!("expected one of {}", KINDS.join(", ")));
        }
        if fields.text("risk", findings).is_some_and(|risk| !RISKS.contains(&risk)) {
            findings.add("/risk", format!("expected one of {}", RISKS.join(", ")));
        }
        let schedule = fields.list("schedule", findings);
        fields.finish(findings);

        // What holds, and where it is written.
        let mut present: Map<String, Value> = Map::new();
        let mut places: HashMap<&str, String> = CHANGEABLE.iter().map(|name| (*name, format!("/{name}"))).collect();
        for name in CHANGEABLE {
            if let Some(value) = definition.get(name) {
                present.insert(name.to_owned(), value.clone());
            }
        }
        let first = Body::read(&present, &places, key, variants, findings);
        let mut periods = vec![(Timestamp::from_nanos(i64::MIN), first)];
        if schedule.len() > SCHEDULE_MAX {
            findings.add("/schedule", format!("more than {SCHEDULE_MAX} changes"));
        }
        for (n, item) in schedule.iter().enumerate().take(SCHEDULE_MAX) {
            let here = format!("/schedule/{n}");
            let Some(mut fields) = Fields::of(item, &here, findings) else { continue };
            let at = fields.time("at", findings);
            let change = fields.value("change").and_then(Value::as_object);
            fields.finish(findings);
            let (Some(at), Some(change)) = (at, change) else {
                findings.add(here, "expected at, a time, and change, an object");
                continue;
            };
            if periods.last().is_some_and(|(before, _)| *before >= at) {
                findings.add(&here, "is not later than the change before it");
            }
            for (name, value) in change {
                if let Some(known) = CHANGEABLE.iter().find(|known| *known == name) {
                    present.insert(name.clone(), value.clone());
                    places.insert(known, format!("{here}/change/{name}"));
                } else {
                    findings.add(
                        format!("{here}/change/{name}"),
                        format!("cannot be changed by schedule; expected {}", CHANGEABLE.join(", ")),
                    );
                }
            }
            // What did not change was read, and found fault with, before.
            let mut again = Findings::default();
            let body = Body::read(&present, &places, key, variants, &mut again);
            again.0.into_iter().filter(|f| f.place.starts_with(&here)).for_each(|f| findings.add(f.place, f.reason));
            periods.push((at, body));
        }
        Some(Model { periods })
    }

    /// What holds at a time.
    #[inline]
    pub(crate) fn body(&self, now: Timestamp) -> &Body {
        let passed = self.periods.partition_point(|(at, _)| *at <= now);
        &self.periods[passed.saturating_sub(1)].1
    }

    /// Whether everybody gets the same, for ever.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = |body: &Body| {
            body.prerequisites.is_empty()
                && body.targets.is_empty()
                && body.rules.is_empty()
                && matches!(body.fallthrough, Serve::Variant(_) | Serve::CodeDefault)
        };
        self.periods.len() == 1 && plain(&self.periods[0].1)
    }

    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.periods.iter().flat_map(|(_, body)| body.rules.iter().map(|rule| &rule.when))
    }

    /// Keys of flags and segments that decide along.
    pub(crate) fn needs(&self) -> (Vec<Box<str>>, Vec<Box<str>>) {
        let (mut flags, mut segments) = (Vec::new(), Vec::new());
        for (_, body) in &self.periods {
            flags.extend(body.prerequisites.iter().map(|(key, _)| key.clone()));
        }
        self.conditions().for_each(|condition| needs(condition, &mut flags, &mut segments));
        for list in [&mut flags, &mut segments] {
            list.sort_unstable();
            list.dedup();
        }
        (flags, segments)
    }

    /// When its answers may change by themselves.
    pub(crate) fn clock(&self, clock: &mut Clock) {
        for (at, body) in &self.periods {
            clock.turns_at(*at);
            for serve in body.rules.iter().map(|rule| &rule.serve).chain([&body.fallthrough]) {
                let Serve::Ramp(ramp) = serve else { continue };
                ramp.steps.iter().for_each(|(at, _)| clock.turns_at(*at));
                if ramp.linear {
                    ramp.steps.windows(2).for_each(|pair| clock.line(pair[0].0, pair[1].0));
                }
            }
        }
        self.conditions().for_each(|condition| read_clock(condition, clock));
    }
}

/// Collects what a condition refers to.
pub(crate) fn needs(condition: &Condition, flags: &mut Vec<Box<str>>, segments: &mut Vec<Box<str>>) {
    condition.walk(&mut |condition| match &condition.kind {
        Kind::Segment(key) => segments.push(key.clone()),
        Kind::Flag(key, _) => flags.push(key.clone()),
        _ => {}
    });
}

/// When a condition's answer may change by itself.
pub(crate) fn read_clock(condition: &Condition, clock: &mut Clock) {
    condition.walk(&mut |condition| match &condition.kind {
        Kind::Attribute(comparison) if comparison.attributes.contains(&Attribute::Now) => match &comparison.test {
            Test::Time { values, .. } => values.iter().for_each(|at| clock.turns_at(*at)),
            _ => clock.always(),
        },
        Kind::Logic(expr) => clock.read(expr),
        _ => {}
    });
}

impl Body {
    /// Reads what holds in one period; `places` says where each part is written.
    fn read(
        map: &Map<String, Value>,
        places: &HashMap<&str, String>,
        key: &str,
        variants: Variants<'_>,
        findings: &mut Findings,
    ) -> Body {
        let at = |name: &str| places.get(name).map(String::as_str).unwrap_or_default();
        let part = |name: &str| map.get(name).filter(|value| !value.is_null());
        let on = part("on").and_then(Value::as_bool);
        if on.is_none() {
            findings.add(at("on"), "expected true or false");
        }
        let off_variant = part("off_variant");
        let off_place = off_variant.and_then(Value::as_str).and_then(variants);
        if let (Some(name), None) = (off_variant, off_place) {
            findings.add(at("off_variant"), format!("{name} is not the name of one of the variants"));
        }
        let mut list = |name: &str| match part(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => items.clone(),
            Some(_) => {
                findings.add(at(name), "expected a list");
                Vec::new()
            }
        };
        let (prerequisites_listed, targets_listed, rules_listed) =
            (list("prerequisites"), list("targets"), list("rules"));
        let mut prerequisites = Vec::new();
        for (n, item) in prerequisites_listed.iter().enumerate() {
            let here = format!("{}/{n}", at("prerequisites"));
            let Some(mut fields) = Fields::of(item, &here, findings) else { continue };
            let flag = fields.text("flag", findings).unwrap_or_default();
            let wanted = fields.texts("variants", findings);
            if flag.is_empty() || wanted.is_empty() {
                findings.add(&here, "expected flag, a key, and variants, a list of names");
            }
            fields.finish(findings);
            prerequisites.push((flag.into(), wanted.into_iter().map(Into::into).collect()));
        }
        let mut targets: Vec<Targets> = Vec::new();
        for (n, item) in targets_listed.iter().enumerate() {
            let here = format!("{}/{n}", at("targets"));
            let Some(mut fields) = Fields::of(item, &here, findings) else { continue };
            let attribute = Attribute::parse(fields.text("attr", findings).unwrap_or("targetingKey"));
            let variant = fields.text("variant", findings).and_then(variants);
            let subjects = fields.texts("subjects", findings);
            if variant.is_none() {
                findings.add(fields.at("variant"), "expected the name of a variant");
            }
            fields.finish(findings);
            let place = match targets.iter().position(|t| t.attribute == attribute) {
                Some(place) => place,
                None => {
                    targets.push(Targets { attribute, variants: HashMap::new() });
                    targets.len() - 1
                }
            };
            for subject in subjects {
                // The first that names a subject counts.
                targets[place].variants.entry(subject.into()).or_insert(variant.unwrap_or_default());
            }
        }
        let mut rules = Vec::new();
        if rules_listed.len() > RULES_MAX {
            findings.add(at("rules"), format!("more than {RULES_MAX} rules"));
        }
        let mut nodes = 0;
        for (n, item) in rules_listed.iter().enumerate().take(RULES_MAX) {
            let here = format!("{}/{n}", at("rules"));
            let Some(mut fields) = Fields::of(item, &here, findings) else { continue };
            fields.text("id", findings);
            fields.text("name", findings);
            let when = match fields.value("when") {
                Some(value) => {
                    let mut reader = Reader { flag_key: key, findings, nodes };
                    let when = reader.read(value, &format!("{here}/when"), 0);
                    nodes = reader.nodes;
                    when
                }
                None => {
                    findings.add(fields.at("when"), "expected a condition; true matches everybody");
                    Condition { place: "".into(), kind: Kind::Constant(false) }
                }
            };
            let serve = fields.value("serve");
            if serve.is_none() && item.get("serve").is_none() {
                findings.add(fields.at("serve"), "expected what the rule serves; null is the code default");
            }
            fields.finish(findings);
            let serve = Serve::read(serve, &format!("{here}/serve"), key, variants, findings);
            rules.push(Rule { when, serve });
        }
        let fallthrough = Serve::read(part("fallthrough"), at("fallthrough"), key, variants, findings);
        let written = ["on", "prerequisites", "targets", "rules", "fallthrough"].map(|name| at(name).into());
        Body { written, on: on.unwrap_or(false), off_variant: off_place, prerequisites, targets, rules, fallthrough }
    }

    /// Why this flag is off for everybody or for this subject, if it is.
    #[inline]
    pub(crate) fn off(&self, scene: &Scene<'_>) -> Result<Option<Decision>, EvaluationError> {
        if !self.on {
            scene.trace(|| json!({"at": &*self.written[0], "holds": false}));
            return Ok(Some((self.off_variant, Reason::Disabled)));
        }
        for (n, (key, variants)) in self.prerequisites.iter().enumerate() {
            let holds = scene.flag_gives(key, variants)?;
            scene.trace(|| json!({"at": format!("{}/{n}", self.written[1]), "flag": &**key, "holds": holds}));
            if !holds {
                return Ok(Some((self.off_variant, Reason::Default)));
            }
        }
        Ok(None)
    }

    /// Targets, rules, fallthrough.
    #[inline]
    pub(crate) fn decide(&self, scene: &Scene<'_>) -> Result<Decision, EvaluationError> {
        for targets in &self.targets {
            let found = match targets.attribute.find(scene.context, scene.now) {
                Some(Found::Text(text)) => targets.variants.get(text),
                Some(Found::Json(value)) => crate::attribute::text(value).and_then(|text| targets.variants.get(&*text)),
                _ => None,
            };
            if let Some(variant) = found {
                scene.trace(|| json!({"at": &*self.written[2], "holds": true}));
                return Ok((Some(*variant), Reason::TargetingMatch));
            }
        }
        for (n, rule) in self.rules.iter().enumerate() {
            let holds = rule.when.holds(scene)?;
            scene.trace(|| json!({"at": format!("{}/{n}", self.written[3]), "holds": holds}));
            if !holds {
                continue;
            }
            let decided = match &rule.serve {
                Serve::Variant(variant) => Some((Some(*variant), Reason::TargetingMatch)),
                Serve::CodeDefault => Some((None, Reason::TargetingMatch)),
                Serve::Split(split) => split.choose(scene).map(|variant| (Some(variant), Reason::Split)),
                Serve::Ramp(ramp) => ramp.choose(scene).map(|variant| (Some(variant), Reason::Split)),
            };
            if let Some(decided) = decided {
                return Ok(decided);
            }
        }
        scene.trace(|| json!({"at": &*self.written[4], "holds": true}));
        let alone = self.rules.is_empty() && self.targets.is_empty() && self.prerequisites.is_empty();
        Ok(match &self.fallthrough {
            Serve::Variant(variant) => (Some(*variant), if alone { Reason::Static } else { Reason::Default }),
            Serve::CodeDefault => (None, Reason::Default),
            Serve::Split(split) => split.choose(scene).map_or((None, Reason::Default), |v| (Some(v), Reason::Split)),
            Serve::Ramp(ramp) => ramp.choose(scene).map_or((None, Reason::Default), |v| (Some(v), Reason::Split)),
        })
    }
}

impl Serve {
    fn read(value: Option<&Value>, place: &str, key: &str, variants: Variants<'_>, findings: &mut Findings) -> Serve {
        let map = match value {
            None => return Serve::CodeDefault,
            Some(Value::String(name)) => match variants(name) {
                Some(variant) => return Serve::Variant(variant),
                None => {
                    findings.add(place, format!("{name:?} is not one of the variants"));
                    return Serve::CodeDefault;
                }
            },
            Some(Value::Object(map)) => map,
            Some(_) => {
                findings.add(place, "expected the name of a variant, null, or an object with split or ramp");
                return Serve::CodeDefault;
            }
        };
        let read = match (map.iter().next(), map.len()) {
            (Some((name, inner)), 1) if name == "split" => {
                let place = format!("{place}/split");
                Split::read(inner, &place, key, variants, findings).map(|split| Serve::Split(Box::new(split)))
            }
            (Some((name, inner)), 1) if name == "ramp" => {
                let place = format!("{place}/ramp");
                Ramp::read(inner, &place, key, variants, findings).map(|ramp| Serve::Ramp(Box::new(ramp)))
            }
            _ => {
                findings.add(place, "expected split or ramp");
                None
            }
        };
        read.unwrap_or(Serve::CodeDefault)
    }
}
