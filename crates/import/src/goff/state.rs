//! A flag of GO Feature Flag over time: what its scheduled steps and its experimentation make of it.
//!
//! A step changes the rules that bear a name it mentions, and these changes add up. A rule that it adds holds until the next step
//! only: each step starts from the rules of the file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use vocab::Timestamp;

use super::after;
use crate::unleash::part::{Part, Refusal, scalar};
use crate::{Import, Weight};

#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) place: String,
    pub(super) name: Option<String>,
    pub(super) query: Option<String>,
    pub(super) variation: Option<String>,
    pub(super) percentages: Option<BTreeMap<String, f64>>,
    pub(super) progress: Option<Progress>,
    pub(super) disable: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) initial: Option<End>,
    pub(super) end: Option<End>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct End {
    pub(super) variation: Option<String>,
    pub(super) percentage: Option<f64>,
    pub(super) date: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
struct Step {
    at: Option<Timestamp>,
    rules: Vec<Rule>,
    default: Option<Rule>,
    disable: Option<bool>,
    /// Values that this step gives to variations, under the names they have here.
    renamed: BTreeMap<String, String>,
    variations: Vec<(String, Value)>,
    begin: Option<Timestamp>,
    end: Option<Timestamp>,
}

/// A flag as the file has it.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) bucketing_key: Option<String>,
    variations: Vec<(String, Value)>,
    rules: Vec<Rule>,
    default: Rule,
    disable: bool,
    steps: Vec<Step>,
    begin: Option<Timestamp>,
    end: Option<Timestamp>,
}

/// What holds at a time.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) on: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) default: Rule,
    /// Names of variations here, where a step has changed a value.
    pub(super) renamed: BTreeMap<String, String>,
}

impl Rule {
    fn read(part: &Part<'_>) -> Result<Rule, Refusal> {
        let percentages = match part.part("percentage")? {
            None => None,
            Some(given) => {
                let mut read = BTreeMap::new();
                for name in given.map.keys() {
                    read.insert(name.clone(), given.number(name)?.unwrap_or(0.0));
                }
                Some(read)
            }
        };
        let progress = match part.part("progressiveRollout")? {
            None => None,
            Some(given) => {
                let end = |name: &str| given.part(name)?.map(|part| End::read(&part)).transpose();
                Some(Progress { initial: end("initial")?, end: end("end")? })
            }
        };
        Ok(Rule {
            place: part.place.clone(),
            name: part.value("name").and_then(scalar),
            query: part.text("query")?.map(str::to_owned),
            variation: part.value("variation").and_then(scalar),
            percentages,
            progress,
            disable: part.bool("disable")?,
        })
    }

    pub(super) fn needs_key(&self) -> bool {
        self.progress.is_some() || self.percentages.as_ref().is_some_and(|listed| !listed.is_empty())
    }

    /// Takes over what `other` says.
    fn merge(&mut self, other: &Rule) {
        if other.disable.is_some() {
            self.disable = other.disable;
        }
        if other.query.is_some() {
            self.query.clone_from(&other.query);
        }
        if other.variation.is_some() {
            self.variation.clone_from(&other.variation);
        }
        if let Some(progress) = &other.progress {
            let own = self
                .progress
                .get_or_insert_with(|| Progress { initial: Some(End::default()), end: Some(End::default()) });
            for (own, other) in [(&mut own.initial, &progress.initial), (&mut own.end, &progress.end)] {
                let (Some(own), Some(other)) = (own, other) else { continue };
                if other.variation.is_some() {
                    own.variation.clone_from(&other.variation);
                }
                own.date = other.date.or(own.date);
                own.percentage = other.percentage.or(own.percentage);
            }
        }
        if let Some(percentages) = &other.percentages {
            let own = self.percentages.get_or_insert_with(BTreeMap::new);
            for (name, share) in percentages {
                // A negative one takes the variation out.
                if *share < 0.0 {
                    own.remove(name);
                } else {
                    own.insert(name.clone(), *share);
                }
            }
        }
    }
}

impl End {
    fn read(part: &Part<'_>) -> Result<End, Refusal> {
        Ok(End {
            variation: part.value("variation").and_then(scalar),
            percentage: part.number("percentage")?,
            date: time(part, "date")?,
        })
    }
}

fn time(part: &Part<'_>, name: &str) -> Result<Option<Timestamp>, Refusal> {
    let Some(text) = part.text(name)? else { return Ok(None) };
    let at = || Refusal::new(part.at(name), format!("{text:?} is not a time; expected one like 2026-12-01T00:00:00Z"));
    Timestamp::parse(text).map(Some).map_err(|_| at())
}

fn variations(part: &Part<'_>) -> Result<Vec<(String, Value)>, Refusal> {
    let given = part.part("variations")?;
    Ok(given.map(|given| given.map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()).unwrap_or_default())
}

fn period(part: &Part<'_>) -> Result<(Option<Timestamp>, Option<Timestamp>), Refusal> {
    match part.part("experimentation")? {
        None => Ok((None, None)),
        Some(given) => Ok((time(&given, "start")?, time(&given, "end")?)),
    }
}

fn rules(part: &Part<'_>) -> Result<Vec<Rule>, Refusal> {
    part.parts("targeting")?.iter().map(Rule::read).collect()
}

impl Definition {
    pub(super) fn read(part: &Part<'_>) -> Result<Definition, Refusal> {
        let default = part.part("defaultRule")?;
        let default = default.ok_or_else(|| Refusal::new(part.at("defaultRule"), "expected a default rule"))?;
        let variations = self::variations(part)?;
        if variations.is_empty() {
            return Err(Refusal::new(part.at("variations"), "expected at least one variation"));
        }
        let mut steps = Vec::new();
        for (n, part) in part.parts("scheduledRollout")?.iter().enumerate() {
            let (begin, end) = period(part)?;
            let changed = self::variations(part)?;
            let mut renamed = BTreeMap::new();
            for (name, value) in &changed {
                if let Some((_, before)) = variations.iter().find(|(known, _)| known == name) {
                    let new = if before == value { name.clone() } else { format!("{name} (step {})", n + 1) };
                    renamed.insert(name.clone(), new);
                }
            }
            steps.push(Step {
                at: time(part, "date")?,
                rules: rules(part)?,
                default: part.part("defaultRule")?.map(|part| Rule::read(&part)).transpose()?,
                disable: part.bool("disable")?,
                renamed,
                variations: changed,
                begin,
                end,
            });
        }
        let (begin, end) = period(part)?;
        Ok(Definition {
            bucketing_key: part.text("bucketingKey")?.filter(|key| !key.is_empty()).map(str::to_owned),
            variations,
            rules: rules(part)?,
            default: Rule::read(&default)?,
            disable: part.bool("disable")?.unwrap_or(false),
            steps,
            begin,
            end,
        })
    }

    /// All variations that ever are, by their names here.
    pub(super) fn variants(&self, part: &Part<'_>, import: &mut Import) -> Result<Map<String, Value>, Refusal> {
        let mut variants: Map<String, Value> = self.variations.iter().cloned().collect();
        for (n, step) in self.steps.iter().enumerate() {
            for (name, value) in &step.variations {
                let ours = step.renamed.get(name).unwrap_or(name);
                if ours != name {
                    let text = format!(
                        "a step gives the variation {name:?} another value; from then on it is called {ours:?} here"
                    );
                    import.note(format!("{}/{n}/variations", part.at("scheduledRollout")), Weight::Differs, text);
                }
                variants.insert(ours.clone(), value.clone());
            }
        }
        match variants.iter().find(|(_, value)| value.is_null()) {
            None => Ok(variants),
            Some((name, _)) => Err(Refusal::new(part.at("variations"), format!("the variation {name:?} has no value"))),
        }
    }

    /// What holds at a time; none is the beginning of time.
    pub(super) fn state(&self, now: Option<Timestamp>) -> State {
        let mut basis = self.rules.clone();
        let mut added: Vec<Rule> = Vec::new();
        let mut state = State { on: true, rules: Vec::new(), default: self.default.clone(), renamed: BTreeMap::new() };
        let (mut disable, mut begin, mut end) = (self.disable, self.begin, self.end);
        for step in self.steps.iter().filter(|step| step.at.is_some_and(|at| now.is_some_and(|now| at <= now))) {
            // Of two updates with one name the last counts.
            for rule in &mut basis {
                let update = step.rules.iter().rev().find(|update| update.name.is_some() && update.name == rule.name);
                if let Some(update) = update {
                    rule.merge(update);
                }
            }
            let known = |rule: &Rule| rule.name.is_some() && basis.iter().any(|other| other.name == rule.name);
            added = step.rules.iter().filter(|rule| !known(rule)).cloned().collect();
            if let Some(default) = &step.default {
                state.default.merge(default);
            }
            disable = step.disable.unwrap_or(disable);
            begin = step.begin.or(begin);
            end = step.end.or(end);
            state.renamed.extend(step.renamed.clone());
        }
        let early = begin.is_some_and(|begin| now.is_none_or(|now| now < begin));
        let late = end.is_some_and(|end| now.is_some_and(|now| now > end));
        state.on = !disable && !early && !late;
        state.rules = basis;
        state.rules.append(&mut added);
        state
    }

    /// When something changes by itself, in order.
    pub(super) fn turns(&self) -> Vec<Timestamp> {
        let mut turns: BTreeSet<Timestamp> = self.steps.iter().filter_map(|step| step.at).collect();
        let begins = self.steps.iter().filter_map(|step| step.begin).chain(self.begin);
        let ends = self.steps.iter().filter_map(|step| step.end).chain(self.end);
        turns.extend(begins.chain(ends.map(after)));
        turns.into_iter().collect()
    }

    /// Whether a bucketing key is needed, now or at any step.
    pub(super) fn needs_key(&self, state: &State) -> bool {
        let of_steps = self.steps.iter().flat_map(|step| &step.rules);
        state.default.needs_key() || state.rules.iter().chain(of_steps).any(Rule::needs_key)
    }

    pub(super) fn has_variation(&self, name: &str) -> bool {
        self.variations
            .iter()
            .chain(self.steps.iter().flat_map(|step| &step.variations))
            .any(|(known, _)| known == name)
    }

    /// Whether a step before the last one adds a rule.
    pub(super) fn appends_early(&self) -> bool {
        let known = |rule: &Rule| rule.name.is_some() && self.rules.iter().any(|other| other.name == rule.name);
        let early = self.steps.split_last().map_or(&[][..], |(_, early)| early);
        early.iter().any(|step| step.rules.iter().any(|rule| !known(rule)))
    }

    pub(super) fn uses_progress(&self) -> bool {
        let steps = self.steps.iter().flat_map(|step| step.rules.iter().chain(&step.default));
        self.rules.iter().chain([&self.default]).chain(steps).any(|rule| rule.progress.is_some())
    }
}
