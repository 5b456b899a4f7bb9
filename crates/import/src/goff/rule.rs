//! Rules of GO Feature Flag: who is meant, and what is served.

use serde_json::{Value, json};
use vocab::Timestamp;

use super::state::{Definition, Progress, Rule, State};
use super::{logic, query};
use crate::unleash::part::{Refusal, not};
use crate::{Import, Weight};

/// Percentages count in thousandths.
const THOUSANDTHS: f64 = 1_000.0;
/// The hash space of progressive rollouts.
const WHOLE: f64 = 100.0 * THOUSANDTHS;
/// A ramp reaches a place when its share exceeds it by this; GO Feature Flag cuts off fractions of places first.
const EDGE: f64 = 1e-6;

pub(super) struct Scope<'a> {
    pub(super) key: &'a str,
    pub(super) by: &'a str,
    pub(super) definition: &'a Definition,
    pub(super) state: &'a State,
}

pub(super) struct Served {
    pub(super) serve: Value,
    /// Whether some subject may fall out of it, who then gets the code default.
    gaps: bool,
}

impl Scope<'_> {
    /// Whoever lacks a bucketing key that is needed gets the code default, in front of all rules.
    pub(super) fn without_key(&self) -> Option<Value> {
        let needed = self.definition.needs_key(self.state);
        let there = if self.definition.bucketing_key.is_some() {
            // It must be text, and not empty where something is hashed.
            let pattern = if needed { "(?s)." } else { "" };
            json!({"attr": self.by, "op": "matches", "values": [pattern]})
        } else if needed {
            json!({"attr": self.by, "op": "exists"})
        } else {
            return None;
        };
        Some(json!({"name": "no bucketing key", "when": not(there), "serve": null}))
    }

    /// A targeting rule; two if subjects may fall out of it.
    pub(super) fn rule(&self, rule: &Rule, import: &mut Import) -> Result<Vec<Value>, Refusal> {
        let text = rule.query.as_deref().unwrap_or("").trim();
        let refuse = |text: String| Refusal::new(format!("{}/query", rule.place), text);
        let when = if text.is_empty() {
            Value::Bool(true)
        } else if text.starts_with('{') && text.ends_with('}') {
            logic::condition(text).map_err(refuse)?
        } else {
            query::condition(text).map_err(refuse)?
        };
        let served = self.serve(rule, import)?;
        let mut rules = vec![json!({"when": when, "serve": served.serve})];
        if let Some(name) = &rule.name {
            rules[0]["name"] = json!(name);
        }
        if served.gaps {
            rules.push(json!({"name": "not reached by the percentages", "when": when, "serve": null}));
        }
        Ok(rules)
    }

    fn variant(&self, name: &str, rule: &Rule, import: &mut Import) -> Option<String> {
        if !self.definition.has_variation(name) {
            let text = format!("{name:?} is not one of the variations; whom it meets gets the code default, as before");
            import.note(&rule.place, Weight::Info, text);
            return None;
        }
        Some(self.state.renamed.get(name).map_or(name, String::as_str).to_owned())
    }

    /// What a rule gives: a progressive rollout before percentages before a variation.
    pub(super) fn serve(&self, rule: &Rule, import: &mut Import) -> Result<Served, Refusal> {
        let sure = |serve: Value| Ok(Served { serve, gaps: false });
        if let Some(progress) = &rule.progress {
            return sure(self.ramp(progress, rule, import));
        }
        if let Some(percentages) = rule.percentages.as_ref().filter(|listed| !listed.is_empty()) {
            if percentages.values().any(|share| *share < 0.0) {
                return Err(Refusal::new(format!("{}/percentage", rule.place), "expected percentages of at least 0"));
            }
            let total = (percentages.values().sum::<f64>() * THOUSANDTHS).floor();
            if total < 1.0 || total > f64::from(i32::MAX) {
                return Err(Refusal::new(
                    format!("{}/percentage", rule.place),
                    "expected percentages that add up to 100",
                ));
            }
            let mut ranges = Vec::new();
            let mut end = 0.0_f64;
            let mut gaps = false;
            for (name, share) in percentages.iter().rev() {
                let from = end;
                end += share * THOUSANDTHS;
                match self.variant(name, rule, import) {
                    Some(variant) => ranges.push(json!([variant, from.floor() as u64, end.floor() as u64])),
                    None => gaps |= *share > 0.0,
                }
            }
            if ranges.is_empty() {
                return sure(Value::Null);
            }
            gaps |= end.floor() < total;
            let split =
                json!({"ranges": ranges, "total": total as u64, "by": self.by, "salt": self.key, "bucketing": "goff"});
            return Ok(Served { serve: json!({"split": split}), gaps });
        }
        match &rule.variation {
            Some(name) => sure(self.variant(name, rule, import).map_or(Value::Null, Value::String)),
            None => {
                let text = "the rule names no variation; whom it meets gets the code default, as before";
                import.note(&rule.place, Weight::Info, text);
                sure(Value::Null)
            }
        }
    }

    fn ramp(&self, progress: &Progress, rule: &Rule, import: &mut Import) -> Value {
        let broken = |import: &mut Import| {
            let text = "the progressive rollout lacks a variation or a date, or ends before it begins; whom it meets gets the code \
                        default, as before";
            import.note(&rule.place, Weight::Info, text);
            Value::Null
        };
        let (Some(initial), Some(end)) = (&progress.initial, &progress.end) else { return broken(import) };
        let (Some(began), Some(ends)) = (initial.date, end.date) else { return broken(import) };
        let (Some(from), Some(to)) = (&initial.variation, &end.variation) else { return broken(import) };
        if ends <= began {
            return broken(import);
        }
        let (Some(from), Some(to)) = (self.variant(from, rule, import), self.variant(to, rule, import)) else {
            return Value::Null;
        };
        let first = initial.percentage.unwrap_or(0.0) * THOUSANDTHS;
        let last = match end.percentage.unwrap_or(0.0) {
            0.0 => WHOLE,
            percent if percent > 100.0 => WHOLE,
            percent => percent * THOUSANDTHS,
        };
        json!({"ramp": {"from": from, "to": to, "steps": steps(began, ends, first, last), "linear": true, "by": self.by,
            "salt": self.key, "bucketing": "goff", "total": WHOLE as u64}})
    }
}

/// The line from `first` to `last` places as steps of a ramp. GO Feature Flag serves places below the whole part of the line; a
/// ramp serves those below its share, so the share stays one place behind. It is 0 until the line reaches the first place.
fn steps(began: Timestamp, ends: Timestamp, first: f64, last: f64) -> Vec<Value> {
    const SECOND: i64 = 1_000_000_000;
    let share = |places: f64| ((places - 1.0 + EDGE) / WHOLE).clamp(0.0, 1.0);
    let step = |at: i64, places: f64| json!({"at": Timestamp::from_nanos(at).to_string(), "share": share(places)});
    // The line is drawn between whole seconds, but nothing is served before the very moment it begins.
    let (from, to) = (began.nanos().div_euclid(SECOND) * SECOND, ends.nanos().div_euclid(SECOND) * SECOND);
    let length = (to - from) as f64;
    if length <= 0.0 {
        return vec![step(ends.nanos(), last)];
    }
    let line = |at: i64| first + (last - first) * ((at - from) as f64 / length);
    let mut steps = Vec::new();
    let (low, high) = (first.min(last), first.max(last));
    if low < 1.0 && high > 1.0 {
        // Where the line passes the first place the share has a bend.
        let bend = from + ((1.0 - EDGE - first) / (last - first) * length) as i64;
        if last > first {
            if bend > began.nanos() {
                steps.push(json!({"at": Timestamp::from_nanos(bend).to_string(), "share": 0.0}));
            } else {
                steps.push(step(began.nanos(), line(began.nanos())));
            }
            steps.push(step(to, last));
        } else {
            steps.push(step(began.nanos(), line(began.nanos())));
            if bend > began.nanos() && bend < to {
                steps.push(json!({"at": Timestamp::from_nanos(bend).to_string(), "share": 0.0}));
            }
            steps.push(step(to, last));
        }
    } else {
        steps.push(step(began.nanos(), line(began.nanos())));
        if to > began.nanos() {
            steps.push(step(to, last));
        }
    }
    steps
}
