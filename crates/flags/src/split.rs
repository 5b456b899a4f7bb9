//! Splits by a unit's place in hash space, ramps whose share moves with the time, and the condition that looks at a place.

use serde_json::{Value, json};
use vocab::{Timestamp, subject_key_fits};

use crate::attribute::{self, Attribute};
use crate::bucket::{BucketKey, Bucketing};
use crate::evaluate::Scene;
use crate::fields::{Fields, Findings};

/// Beyond this, places are no longer exact.
const TOTAL_MAX: f64 = 2_147_483_647.0;
const RANGES_MAX: usize = 1_000;

/// How a unit finds its place.
#[derive(Clone, Debug)]
pub(crate) struct Hashing {
    bucketing: Bucketing,
    by: Vec<Attribute>,
    salt: Box<str>,
    /// Without a salt of its own `flagd-v3` hashes another form.
    own_salt: bool,
    key: BucketKey,
    total: f64,
    first_if_missing: bool,
}

/// A variant's part of hash space: `from ≤ place < below`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) from: f64,
    pub(crate) below: f64,
    pub(crate) variant: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Split {
    pub(crate) hashing: Hashing,
    pub(crate) ranges: Vec<Range>,
    place: Box<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Ramp {
    pub(crate) hashing: Hashing,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) steps: Vec<(Timestamp, f64)>,
    pub(crate) linear: bool,
    /// Whether the grown part begins at the low end.
    pub(crate) low: bool,
    place: Box<str>,
}

/// The condition: the place is in one of the ranges.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) hashing: Hashing,
    pub(crate) ranges: Vec<(f64, f64)>,
}

/// Which variant a name is.
pub(crate) type Variants<'a> = &'a dyn Fn(&str) -> Option<usize>;

impl Hashing {
    fn read(fields: &mut Fields<'_>, flag_key: &str, total: f64, findings: &mut Findings) -> Hashing {
        let bucketing = match fields.text("bucketing", findings) {
            None => Bucketing::Native1,
            Some(name) => Bucketing::parse(name).unwrap_or_else(|| {
                findings.add(fields.at("bucketing"), format!("expected one of {}", Bucketing::NAMES.join(", ")));
                Bucketing::Native1
            }),
        };
        let by = attributes(fields, "by", findings);
        let salt = fields.text("salt", findings);
        let total = match fields.value("total") {
            None => total,
            Some(value) => match value.as_f64().filter(|n| *n > 0.0 && *n <= TOTAL_MAX) {
                Some(n) => n,
                None => {
                    findings.add(fields.at("total"), format!("expected a number above 0, at most {TOTAL_MAX}"));
                    1.0
                }
            },
        };
        let first_if_missing = match fields.text("missing", findings) {
            None => bucketing == Bucketing::LaunchDarkly,
            Some("next") => false,
            Some("first") => true,
            Some(_) => {
                findings.add(fields.at("missing"), "expected next or first");
                false
            }
        };
        if bucketing.counts() && total.fract() != 0.0 {
            findings.add(fields.at("total"), format!("{} needs a whole number", bucketing.as_str()));
        }
        Hashing {
            bucketing,
            by: if by.is_empty() { vec![Attribute::TargetingKey] } else { by },
            own_salt: salt.is_some(),
            salt: salt.unwrap_or(flag_key).into(),
            key: BucketKey::new(salt.unwrap_or(flag_key)),
            total,
            first_if_missing,
        }
    }

    /// The unit's place in `[0, total]`; none without a unit.
    #[inline]
    pub(crate) fn place(&self, scene: &Scene<'_>) -> Option<f64> {
        let unit = attribute::unit(&self.by, scene.context, scene.now);
        match unit.filter(|unit| subject_key_fits(unit)) {
            Some(unit) => {
                let salt = if self.own_salt || self.bucketing != Bucketing::FlagdV3 { Some(&*self.salt) } else { None };
                let place = self.bucketing.place(&self.key, salt, scene.flag_key, &unit, self.total);
                scene.trace(|| {
                    json!({"unit": unit, "bucketing": self.bucketing.as_str(), "salt": self.salt, "place": place, "of": self.bucketing.bound(self.total, self.total)})
                });
                Some(place)
            }
            None => {
                scene.trace(|| json!({"note": "the context has no unit to place"}));
                self.first_if_missing.then_some(0.0)
            }
        }
    }

    pub(crate) fn bucketing(&self) -> Bucketing {
        self.bucketing
    }

    /// Whether a subject without a unit is at place 0.
    pub(crate) fn first_if_missing(&self) -> bool {
        self.first_if_missing
    }

    pub(crate) fn total(&self) -> f64 {
        self.total
    }

    /// The salt if it was given.
    pub(crate) fn salt(&self) -> Option<&str> {
        self.own_salt.then_some(&*self.salt)
    }

    pub(crate) fn by(&self) -> &[Attribute] {
        &self.by
    }
}

/// One name or a list of names.
pub(crate) fn attributes(fields: &mut Fields<'_>, name: &'static str, findings: &mut Findings) -> Vec<Attribute> {
    match fields.value(name) {
        None => Vec::new(),
        Some(Value::String(one)) => vec![Attribute::parse(one)],
        Some(_) => fields.texts(name, findings).into_iter().map(Attribute::parse).collect(),
    }
}

impl Split {
    pub(crate) fn read(
        value: &Value,
        place: &str,
        flag_key: &str,
        variants: Variants<'_>,
        findings: &mut Findings,
    ) -> Option<Split> {
        let mut fields = Fields::of(value, place, findings)?;
        let weights = fields.list("weights", findings);
        let listed = fields.list("ranges", findings);
        if weights.is_empty() == listed.is_empty() {
            findings.add(place, "expected either weights or ranges");
        }
        if weights.len() + listed.len() > RANGES_MAX {
            findings.add(place, format!("more than {RANGES_MAX} parts"));
            return None;
        }
        let variant = |item: Option<&Value>| item.and_then(Value::as_str).and_then(variants);
        let mut ranges = Vec::new();
        let mut sum = 0_u64;
        let mut pairs = Vec::new();
        for (n, item) in weights.iter().enumerate() {
            match (variant(item.get(0)), item.get(1).and_then(Value::as_u64), item.get(2)) {
                (Some(variant), Some(weight), None) if weight <= TOTAL_MAX as u64 => {
                    pairs.push((variant, weight));
                    sum += weight;
                }
                _ => findings.add(
                    format!("{place}/weights/{n}"),
                    "expected [variant, weight]: the name of a variant and a whole number",
                ),
            }
        }
        if !weights.is_empty() && (sum == 0 || sum > TOTAL_MAX as u64) {
            findings.add(format!("{place}/weights"), format!("the sum of the weights must be 1 to {TOTAL_MAX}"));
        }
        for (n, item) in listed.iter().enumerate() {
            match (variant(item.get(0)), item.get(1).and_then(Value::as_f64), item.get(2).and_then(Value::as_f64)) {
                (Some(variant), Some(from), Some(below)) if from <= below => {
                    ranges.push(Range { from, below, variant });
                }
                _ => findings.add(format!("{place}/ranges/{n}"), "expected [variant, from, below]"),
            }
        }
        let hashing =
            Hashing::read(&mut fields, flag_key, if listed.is_empty() { sum.max(1) as f64 } else { 1.0 }, findings);
        fields.finish(findings);
        let bound = |value| hashing.bucketing.bound(value, hashing.total);
        ranges.iter_mut().for_each(|range| (range.from, range.below) = (bound(range.from), bound(range.below)));
        let bounds = hashing.bucketing.bounds(&pairs, hashing.total);
        ranges.extend(bounds.into_iter().map(|(variant, from, below)| Range { from, below, variant }));
        Some(Split { hashing, ranges, place: place.into() })
    }

    /// The variant of the subject; none if its place is in no range, or if it has none.
    #[inline]
    pub(crate) fn choose(&self, scene: &Scene<'_>) -> Option<usize> {
        let place = self.hashing.place(scene)?;
        let found = self.ranges.iter().find(|range| place >= range.from && place < range.below);
        scene.trace(|| json!({"at": &*self.place, "range": found.map(|r| json!([r.from, r.below]))}));
        found.map(|range| range.variant)
    }
}

impl Ramp {
    pub(crate) fn read(
        value: &Value,
        place: &str,
        flag_key: &str,
        variants: Variants<'_>,
        findings: &mut Findings,
    ) -> Option<Ramp> {
        let mut fields = Fields::of(value, place, findings)?;
        let mut variant = |name: &'static str, fields: &mut Fields<'_>| {
            let found = fields.text(name, findings).and_then(variants);
            if found.is_none() {
                findings.add(fields.at(name), "expected the name of a variant");
            }
            found.unwrap_or_default()
        };
        let (from, to) = (variant("from", &mut fields), variant("to", &mut fields));
        let listed = fields.list("steps", findings);
        if listed.is_empty() || listed.len() > RANGES_MAX {
            findings.add(fields.at("steps"), format!("expected 1 to {RANGES_MAX} steps"));
        }
        let mut steps: Vec<(Timestamp, f64)> = Vec::new();
        for (n, step) in listed.iter().enumerate().take(RANGES_MAX) {
            let here = format!("{place}/steps/{n}");
            let Some(mut fields) = Fields::of(step, &here, findings) else { continue };
            let at = fields.time("at", findings);
            let share = fields.value("share").and_then(Value::as_f64).filter(|share| (0.0..=1.0).contains(share));
            match (at, share) {
                (Some(at), Some(share)) if steps.last().is_none_or(|(before, _)| *before < at) => {
                    steps.push((at, share))
                }
                (Some(_), Some(_)) => findings.add(&here, "is not later than the step before it"),
                _ => findings.add(&here, "expected at, a time, and share, a number from 0 to 1"),
            }
            fields.finish(findings);
        }
        let linear = fields.bool("linear", findings).unwrap_or(false);
        let low = match fields.text("side", findings) {
            None | Some("low") => true,
            Some("high") => false,
            Some(_) => {
                findings.add(fields.at("side"), "expected low or high");
                true
            }
        };
        let hashing = Hashing::read(&mut fields, flag_key, 1_000_000.0, findings);
        fields.finish(findings);
        Some(Ramp { hashing, from, to, steps, linear, low, place: place.into() })
    }

    /// The share of `to` at a time.
    pub(crate) fn share(&self, now: Timestamp) -> f64 {
        let passed = self.steps.partition_point(|(at, _)| *at <= now);
        let Some((began, share)) = passed.checked_sub(1).map(|n| self.steps[n]) else { return 0.0 };
        match self.steps.get(passed) {
            Some((ends, next)) if self.linear => {
                share + (next - share) * (now.secs_since(began) / ends.secs_since(began))
            }
            _ => share,
        }
    }

    pub(crate) fn choose(&self, scene: &Scene<'_>) -> Option<usize> {
        let place = self.hashing.place(scene)?;
        let share = self.share(scene.now);
        let bound = |share: f64| self.hashing.bucketing.bound(share * self.hashing.total, self.hashing.total);
        let reached = if self.low { place < bound(share) } else { place >= bound(1.0 - share) };
        scene.trace(|| json!({"at": &*self.place, "share": share, "reached": reached}));
        Some(if reached { self.to } else { self.from })
    }
}

impl Bucket {
    pub(crate) fn read(value: &Value, place: &str, flag_key: &str, findings: &mut Findings) -> Option<Bucket> {
        let mut fields = Fields::of(value, place, findings)?;
        let mut ranges = Vec::new();
        let listed = fields.list("ranges", findings);
        if listed.len() > RANGES_MAX {
            findings.add(fields.at("ranges"), format!("more than {RANGES_MAX} ranges"));
        }
        for (n, item) in listed.iter().enumerate().take(RANGES_MAX) {
            match (item.get(0).and_then(Value::as_f64), item.get(1).and_then(Value::as_f64), item.get(2)) {
                (Some(from), Some(below), None) => ranges.push((from, below)),
                _ => findings.add(format!("{place}/ranges/{n}"), "expected [from, below]"),
            }
        }
        let hashing = Hashing::read(&mut fields, flag_key, 1.0, findings);
        if fields.value("total").is_none() && hashing.bucketing.counts() {
            findings.add(place, "expected total, the length of hash space");
        }
        fields.finish(findings);
        let bound = |value| hashing.bucketing.bound(value, hashing.total);
        ranges.iter_mut().for_each(|(from, below)| (*from, *below) = (bound(*from), bound(*below)));
        Some(Bucket { hashing, ranges })
    }

    pub(crate) fn holds(&self, scene: &Scene<'_>) -> bool {
        let place = self.hashing.place(scene);
        place.is_some_and(|place| self.ranges.iter().any(|(from, below)| place >= *from && place < *below))
    }
}
