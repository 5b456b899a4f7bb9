//! Spans in flight: how long the matching spans were under way within a time bucket, divided by the bucket's length. 3.0 for a
//! bucket of a minute is 180 seconds of spans. A span counts in each bucket it touches, also if it began up to an hour before
//! the time range. It counts as often as its `meta.sample_rate` says.

use hashbrown::HashMap;
use rows::Value;
use vocab::Timestamp;

use super::RELATED;
use super::budget::{Budget, share_out};
use super::group::{Slots, WEIGHT};
use super::lane::{Interner, Lane, Numbers, Source};
use super::select::{Check, select};
use crate::chunk::Chunk;

/// Time in flight by series.
#[derive(Debug)]
pub(crate) struct Flights {
    interners: Vec<Interner>,
    series: HashMap<Box<[u32]>, Time>,
    bounds: Bounds,
}

/// Nanoseconds in flight by bucket: parts of it, and how many spans fill it and all later ones until they end.
#[derive(Clone, Debug)]
struct Time {
    parts: Vec<f64>,
    fill: Vec<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    slots: Option<Slots>,
    from: i64,
    to: i64,
}

impl Bounds {
    fn count(self) -> usize {
        self.slots.map_or(1, |s| s.count as usize)
    }

    /// Where a bucket begins and ends within the time range.
    fn of(self, slot: usize) -> (i64, i64) {
        let Some(slots) = self.slots else { return (self.from, self.to) };
        let begins = |n: usize| slots.begins(n as u32).nanos().saturating_sub(slots.shift);
        (begins(slot).max(self.from), begins(slot + 1).min(self.to))
    }

    fn slot(self, time: i64) -> usize {
        let Some(slots) = self.slots else { return 0 };
        let slot = time.saturating_add(slots.shift).div_euclid(slots.width) - slots.first;
        slot.clamp(0, i64::from(slots.count) - 1) as usize
    }
}

impl Time {
    fn new(n: usize) -> Time {
        Time { parts: vec![0.0; n], fill: vec![0.0; n + 1] }
    }

    fn add(&mut self, bounds: Bounds, from: i64, to: i64, weight: f64) {
        let (from, to) = (from.max(bounds.from), to.min(bounds.to));
        if from >= to {
            return;
        }
        let (first, last) = (bounds.slot(from), bounds.slot(to - 1));
        if first == last {
            self.parts[first] += (to - from) as f64 * weight;
            return;
        }
        self.parts[first] += (bounds.of(first).1 - from) as f64 * weight;
        self.parts[last] += (to - bounds.of(last).0) as f64 * weight;
        self.fill[first + 1] += weight;
        self.fill[last] -= weight;
    }
}

/// Flights of all series.
pub(crate) fn flights(
    chunks: &[&Chunk],
    check: &Check,
    fields: &[Source],
    slots: Option<Slots>,
    (from, to): (Timestamp, Timestamp),
    budget: &Budget,
) -> Flights {
    let bounds = Bounds { slots, from: from.nanos(), to: to.nanos() };
    let make =
        || Flights { interners: fields.iter().map(|_| Interner::default()).collect(), series: HashMap::new(), bounds };
    let weight_source = Source::Attribute(WEIGHT.to_owned());
    let parts = share_out(chunks, make, |found: &mut Flights, _, chunk| {
        let lanes: Vec<Lane<'_>> = fields.iter().map(|field| Lane::of(chunk, field)).collect();
        let weight_lane = Lane::of(chunk, &weight_source);
        let weights = Numbers::of(&weight_lane);
        let mut weighed = Vec::new();
        select(chunk, check, from - RELATED, to).blocks(|rows| {
            budget.check()?;
            weights.read(rows, &mut weighed);
            for (row, weight) in rows.iter().zip(&weighed) {
                let row = *row as usize;
                if chunk.duration[row] <= 0 || chunk.time[row].saturating_add(chunk.duration[row]) <= bounds.from {
                    continue;
                }
                let key: Vec<u32> = lanes
                    .iter()
                    .zip(&mut found.interners)
                    .map(|(lane, interner)| {
                        let (number, bytes) = interner.intern(lane.value(row).as_ref().map(|v| v.as_ref()));
                        budget.take(bytes);
                        number
                    })
                    .collect();
                if !found.series.contains_key(&key[..]) {
                    if found.series.len() >= budget.groups_max() {
                        budget.leave_out_groups();
                        continue;
                    }
                    budget.take(bounds.count() * 16 + 64);
                    found.series.insert(key.clone().into(), Time::new(bounds.count()));
                }
                let weight = if *weight > 0.0 && weight.is_finite() { *weight } else { 1.0 };
                let end = chunk.time[row].saturating_add(chunk.duration[row]);
                if let Some(time) = found.series.get_mut(&key[..]) {
                    time.add(bounds, chunk.time[row], end, weight);
                }
            }
            Ok(())
        })
    });
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_else(make);
    for part in parts {
        for (key, time) in &part.series {
            let key: Box<[u32]> = key
                .iter()
                .zip(&part.interners)
                .zip(&mut all.interners)
                .map(|((n, theirs), ours)| ours.intern(theirs.value(*n).map(Value::as_ref)).0)
                .collect();
            let ours = all.series.entry(key).or_insert_with(|| Time::new(bounds.count()));
            ours.parts.iter_mut().zip(&time.parts).for_each(|(a, b)| *a += b);
            ours.fill.iter_mut().zip(&time.fill).for_each(|(a, b)| *a += b);
        }
    }
    // From how many begin and end to how many there are.
    for time in all.series.values_mut() {
        let mut filling = 0.0;
        for (slot, n) in time.fill.iter().take(bounds.count()).enumerate() {
            filling += n;
            let (from, to) = bounds.of(slot);
            time.parts[slot] += filling * (to - from).max(0) as f64;
        }
    }
    all
}

impl Flights {
    /// Spans in flight on average in a bucket, or over the whole time.
    pub(crate) fn average(&self, keys: &[Option<Value>], slot: Option<u32>) -> f64 {
        let key: Option<Vec<u32>> =
            keys.iter().zip(&self.interners).map(|(v, i)| i.find(v.as_ref().map(Value::as_ref))).collect();
        let Some(time) = key.and_then(|key| self.series.get(&key[..])) else { return 0.0 };
        let (nanos, (from, to)) = match slot {
            Some(slot) => (time.parts[slot as usize], self.bounds.of(slot as usize)),
            None => (time.parts.iter().sum(), (self.bounds.from, self.bounds.to)),
        };
        if to > from { nanos / (to - from) as f64 } else { 0.0 }
    }

    /// The values of each series.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Vec<Option<Value>>> {
        self.series.keys().map(|key| key.iter().zip(&self.interners).map(|(n, i)| i.value(*n).cloned()).collect())
    }
}
