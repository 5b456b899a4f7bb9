//! Incidents with a known cause: does the comparison name it first, and nothing where nothing was planted?
//!
//! Each incident is 6,000 requests with some forty attributes of all cardinalities that have nothing to do with it; those that are slow
//! are compared with the rest. In each a part of the slow ones is slow for no reason, as everywhere.

use std::sync::Arc;

use files::{Crashing, Files};
use rows::{Filter, Row};
use vocab::Timestamp;

use crate::tests::Rng;
use crate::{Batch, Comparison, Store};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    OneAttribute,
    TwoTogether,
    RareValue,
    OneOfManyCustomers,
    Threshold,
    Confounded,
    Missing,
    Nothing,
}

const CAUSES: [Cause; 8] = [
    Cause::OneAttribute,
    Cause::TwoTogether,
    Cause::RareValue,
    Cause::OneOfManyCustomers,
    Cause::Threshold,
    Cause::Confounded,
    Cause::Missing,
    Cause::Nothing,
];
const SEEDS: u64 = 8;
const ROWS: u64 = 6_000;

impl Cause {
    /// The attributes that must be named, sorted.
    fn attributes(self) -> Vec<&'static str> {
        match self {
            Cause::OneAttribute | Cause::Confounded => vec!["build"],
            Cause::TwoTogether => vec!["build", "region"],
            Cause::RareValue => vec!["client"],
            Cause::OneOfManyCustomers => vec!["customer"],
            Cause::Threshold => vec!["payload_bytes"],
            Cause::Missing => vec!["cache.node"],
            Cause::Nothing => Vec::new(),
        }
    }
}

fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.below(100) < percent
}

fn incident(cause: Cause, rng: &mut Rng) -> Vec<Row> {
    let request = |n: u64| {
        let mut row =
            Row { time: Timestamp::from_nanos(1_764_000_000_000_000_000 + n as i64 * 1_000_000), ..Row::default() };
        for k in 0..30 {
            row.set(&format!("noise.{k}"), format!("v{}", rng.below(2 + k * k)));
        }
        for k in 0..5 {
            row.set(&format!("number.{k}"), rng.below(10_u64.pow(k + 1)) as i64);
        }
        row.set("request.id", format!("{:x}", rng.below(u64::MAX)));
        let build = rng.below(20);
        row.set("build", format!("b{build}"));
        // Which image runs follows from the build but for one in ten, where a confounder is wanted.
        let image = if cause == Cause::Confounded && !chance(rng, 10) { build } else { rng.below(20) };
        row.set("image", format!("i{image}"));
        let region = ["eu", "us", "asia", "africa"][rng.below(4) as usize];
        row.set("region", region);
        let rare = rng.below(250) == 0;
        row.set("client", if rare { "tv-2014".to_owned() } else { format!("client-{}", rng.below(8)) });
        // One customer of many has many requests, as one always has.
        let customer = if chance(rng, 2) { 7 } else { rng.below(50_000) };
        row.set("customer", format!("c{customer}"));
        let payload = 10_f64.powf(rng.below(6_000) as f64 / 1_000.0);
        row.set("payload_bytes", payload);
        let missing = chance(rng, 6);
        if !missing {
            row.set("cache.node", format!("n{}", rng.below(6)));
        }
        let hit = match cause {
            Cause::OneAttribute | Cause::Confounded => build == 7,
            Cause::TwoTogether => build == 7 && region == "eu",
            Cause::RareValue => rare,
            Cause::OneOfManyCustomers => customer == 7,
            Cause::Threshold => payload > 500_000.0,
            Cause::Missing => missing,
            Cause::Nothing => false,
        };
        let slow = if hit { chance(rng, 75) } else { rng.below(1_000) < if cause == Cause::Nothing { 20 } else { 5 } };
        let ms = if slow { 1_001 + rng.below(2_000) } else { rng.below(900) };
        row.duration_nanos = Some(ms as i64 * 1_000_000);
        row
    };
    (0..ROWS).map(request).collect()
}

fn compare(rows: Vec<Row>) -> Comparison {
    let store = Store::open(Arc::new(Crashing::new()) as Arc<dyn Files>, "events", |_, _, _| ()).unwrap();
    store.append(Timestamp::from_nanos(0), &[Batch::from(rows)]).unwrap();
    let slow = Filter::parse("duration_ms > 1000").unwrap();
    store.compare(&slow, None, Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX)).unwrap()
}

/// What is named, in order: causes, then single attributes.
fn named(comparison: &Comparison) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    let causes = comparison.causes.iter().map(|cause| cause.conditions.iter().map(|c| c.attribute.clone()).collect());
    let ranked = comparison.ranked.iter().map(|ranked| vec![ranked.attribute.clone()]);
    for mut one in causes.chain(ranked) {
        one.sort();
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// Guarantees: the planted cause is named first in at least 90 % of 56 incidents, among the first three in 97 %, and nothing is named
/// in at least 95 % of those without a cause.
#[test]
fn planted_causes_are_named_first() {
    let (mut first, mut third, mut incidents, mut quiet) = (0, 0, 0, 0);
    for cause in CAUSES {
        let (mut firsts, mut thirds) = (0, 0);
        // A quiet world is cheap to misjudge, so it is looked at more often.
        let seeds = if cause == Cause::Nothing { 5 * SEEDS } else { SEEDS };
        for seed in 0..seeds {
            let comparison = compare(incident(cause, &mut Rng(seed * 1_000 + cause as u64)));
            let named = named(&comparison);
            if cause == Cause::Nothing {
                quiet += usize::from(!comparison.differs);
                continue;
            }
            let wanted: Vec<String> = cause.attributes().iter().map(|name| (*name).to_owned()).collect();
            let place = named.iter().position(|one| *one == wanted);
            if place != Some(0) {
                println!("{cause:?}, seed {seed}: {:?}: {}", &named[..named.len().min(4)], comparison.summary);
            }
            firsts += usize::from(place == Some(0));
            thirds += usize::from(place.is_some_and(|place| place < 3));
            incidents += 1;
        }
        println!("{cause:?}: first in {firsts}, in the first three in {thirds} of {seeds}");
        first += firsts;
        third += thirds;
    }
    println!("first in {first}, in the first three in {third} of {incidents}; quiet in {quiet} of {}", 5 * SEEDS);
    assert!(first * 100 >= incidents * 90, "first in {first} of {incidents}");
    assert!(third * 100 >= incidents * 97, "in the first three in {third} of {incidents}");
    assert!(quiet as u64 * 100 >= 5 * SEEDS * 95, "quiet in {quiet} of {}", 5 * SEEDS);
}
