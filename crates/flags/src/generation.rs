//! By which generations a flag places its subjects, and what a client would give that places them by another one.
//!
//! An in-process client of flagd has one generation, that of its library, and uses it for every split whatever the flag is pinned to.
//! [`FlagSet::hashed_as`] is the flag as such a client sees it. Splits of other systems' hashes and of `native-1` in our dialect stay
//! as they are: no such client gets them.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::bucket::Bucketing;
use crate::condition::{Condition, Kind};
use crate::document::{Flag, FlagSet, Rules};
use crate::fields::Findings;
use crate::logic::Expr;
use crate::model::Serve;
use crate::segment::Segment;

/// flagd's generations, the newest first.
pub const FLAGD: [Bucketing; 3] = [Bucketing::FlagdV3, Bucketing::FlagdV2, Bucketing::FlagdV1];

/// The names of the generations that these rules hash with, joined by commas; none if they hash nobody.
pub(crate) fn names(rules: &Rules, pinned: Bucketing) -> Option<Box<str>> {
    let mut found = Vec::new();
    match rules {
        Rules::None => {}
        Rules::Logic(rule) => found.extend(hashes(rule).then_some(pinned)),
        Rules::Ours(model) => {
            for (_, body) in &model.periods {
                for serve in body.rules.iter().map(|rule| &rule.serve).chain([&body.fallthrough]) {
                    match serve {
                        Serve::Split(split) => found.push(split.hashing.bucketing()),
                        Serve::Ramp(ramp) => found.push(ramp.hashing.bucketing()),
                        Serve::Variant(_) | Serve::CodeDefault => {}
                    }
                }
            }
            model.conditions().for_each(|condition| of_condition(condition, pinned, &mut found));
        }
    }
    let mut names: Vec<&str> = found.into_iter().map(Bucketing::as_str).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.join(",").into())
}

fn of_condition(condition: &Condition, pinned: Bucketing, found: &mut Vec<Bucketing>) {
    condition.walk(&mut |condition| match &condition.kind {
        Kind::Bucket(bucket) => found.push(bucket.hashing.bucketing()),
        Kind::Logic(rule) => found.extend(hashes(rule).then_some(pinned)),
        _ => {}
    });
}

/// Whether a rule has a `fractional` in it.
fn hashes(rule: &Expr) -> bool {
    match rule {
        Expr::Split(_) | Expr::Fractional { .. } => true,
        Expr::Call(_, inner) | Expr::List(inner) => inner.iter().any(hashes),
        Expr::Var { default, .. } => default.as_deref().is_some_and(hashes),
        Expr::VarOf { name, default } => hashes(name) || default.as_deref().is_some_and(hashes),
        Expr::Literal(_) | Expr::InTexts(..) | Expr::Broken(_) => false,
    }
}

impl FlagSet {
    /// Keys of this flag and of all flags and segments that decide along: (flags, segments).
    pub(crate) fn closure(&self, key: &str) -> (Vec<String>, Vec<String>) {
        let (mut flags, mut segments) = (Vec::new(), Vec::new());
        let mut open = vec![(true, key)];
        while let Some((is_flag, key)) = open.pop() {
            let seen = if is_flag { &mut flags } else { &mut segments };
            if seen.iter().any(|one: &String| one == key) {
                continue;
            }
            seen.push(key.to_owned());
            open.extend(self.children((is_flag, key), &mut Findings::default()));
        }
        (flags, segments)
    }

    /// Whether this flag, or one that it needs, hashes anybody.
    pub fn hashes_somebody(&self, key: &str) -> bool {
        if self.flag(key).is_some_and(|flag| flag.hashed_by().is_some()) {
            return true;
        }
        let (flags, segments) = self.closure(key);
        let by_segment = |segment: &Arc<Segment>| {
            let mut found = Vec::new();
            segment.when.iter().for_each(|when| of_condition(when, Bucketing::default(), &mut found));
            !found.is_empty()
        };
        flags.iter().any(|key| self.any_flag(key).is_some_and(|flag| flag.hashed_by().is_some()))
            || segments.iter().any(|key| self.segment(key).is_some_and(by_segment))
    }

    /// This flag and all that it needs, as a client sees it that hashes by `generation` of flagd; without experiments. None if there is
    /// no such flag, or if no part of it can be hashed so.
    pub fn hashed_as(&self, key: &str, generation: Bucketing) -> Option<FlagSet> {
        self.flag(key)?;
        let (flags, segments) = self.closure(key);
        let mut changed = 0;
        let mut set = FlagSet::of([], Map::new());
        for key in flags {
            let flag = self.any_flag(&key)?;
            let mut definition = flag.definition().clone();
            repin(&mut definition, generation, &mut changed);
            if matches!(&flag.rules, Rules::Logic(rule) if hashes(rule)) {
                changed += 1;
            }
            let mut metadata = flag.metadata().clone();
            metadata.insert("bucketing".to_owned(), generation.as_str().into());
            definition.as_object_mut()?.insert("metadata".to_owned(), metadata.into());
            set.insert(Arc::new(Flag::compile(&key, &definition, self.evaluators(), &Map::new()).ok()?));
        }
        for key in segments {
            let mut definition = self.segment(&key)?.definition().clone();
            repin(&mut definition, generation, &mut changed);
            set.set_segment(&key, Some(Arc::new(Segment::compile(&definition).ok()?)));
        }
        (changed > 0).then_some(set)
    }
}

/// Pins every split, ramp and bucket of our dialect that has one of flagd's generations to another one, and counts them.
fn repin(definition: &mut Value, generation: Bucketing, changed: &mut usize) {
    match definition {
        Value::Object(map) => {
            for (name, inner) in map {
                let pinned = inner.get("bucketing").and_then(Value::as_str).and_then(Bucketing::parse);
                if matches!(name.as_str(), "split" | "ramp" | "bucket") && pinned.is_some_and(|b| FLAGD.contains(&b)) {
                    inner["bucketing"] = generation.as_str().into();
                    *changed += 1;
                }
                repin(inner, generation, changed);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| repin(item, generation, changed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
