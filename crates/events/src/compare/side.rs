//! Which rows are compared, and what each of them counts.
//!
//! A row counts once, or by its weight `meta.sample_rate` where it stands for several. Where several rows come of one trace or
//! one subject they are no independent evidence: each trace or subject then counts once, shared out over its rows, so that ten
//! thousand retries of one user weigh as much as one request of another. With weights the sums are scaled to the effective
//! number of units, (sum w)² / sum w² (Kish 1965), so that all that follows may take them for counts.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::{HashMap, HashSet};
use rows::{Value, ValueRef, names};
use serde::{Deserialize, Serialize};

use super::cells;
use crate::chunk::Chunk;
use crate::column::value_hash;
use crate::mask::Mask;
use crate::parallel::parallel;

/// What counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Each event.
    #[default]
    Event,
    /// Each trace; an event without one counts by itself.
    Trace,
    /// Each subject (`user.id`); an event without one counts with its trace or by itself.
    Subject,
}

impl Unit {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Event => "event",
            Unit::Trace => "trace",
            Unit::Subject => "subject",
        }
    }
}

/// How many events the row stands for; absent is 1.
pub(super) const SAMPLE_RATE: &str = "meta.sample_rate";
/// A row stands for at most so many: a wrong weight must not drown all others.
const WEIGHT_MAX: f64 = 1e6;
/// From so many rows a unit on, on average, they are not taken for independent.
const SEVERAL: f64 = 1.25;
/// With this many times as many units in the baseline as rows in the selection its dependence does not matter.
const BASELINE_LARGE: f64 = 10.0;
/// Rows of a side whose units are told apart. A larger side is thinned to a sample of whole units, which bounds time and
/// memory; the bound against chance is that of the sample.
const UNIT_ROWS_MAX: usize = 4_000_000;
/// One trace in so many is looked at to see how many rows a trace has.
const TRACES_LOOKED_AT: u64 = 64;

/// The rows of a chunk on one side.
#[derive(Debug)]
pub(super) enum Rows {
    /// All that are not selected.
    Rest,
    Listed {
        rows: Vec<u32>,
        weights: Option<Vec<f32>>,
    },
}

/// A chunk and its rows on both sides.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) chunk: &'a Chunk,
    pub(super) selected: Rows,
    pub(super) baseline: Rows,
}

impl Rows {
    pub(super) fn listed(&self) -> (&[u32], Option<&[f32]>) {
        match self {
            Rows::Rest => (&[], None),
            Rows::Listed { rows, weights } => (rows, weights.as_deref()),
        }
    }
}

impl Part<'_> {
    fn len(&self, selected: bool) -> usize {
        match if selected { &self.selected } else { &self.baseline } {
            Rows::Rest => self.chunk.len() - self.selected.listed().0.len(),
            Rows::Listed { rows, .. } => rows.len(),
        }
    }

    /// What the lists of rows take.
    pub(super) fn bytes(&self) -> usize {
        let of = |side: &Rows| {
            let (rows, weights) = side.listed();
            size_of_val(rows) + weights.map_or(0, size_of_val)
        };
        of(&self.selected) + of(&self.baseline)
    }

    /// The rows of the baseline, listed even if they are the rest.
    pub(super) fn baseline_rows(&self) -> Vec<u32> {
        match &self.baseline {
            Rows::Listed { rows, .. } => rows.clone(),
            Rows::Rest => {
                let mut selected = Mask::none(self.chunk.len());
                self.selected.listed().0.iter().for_each(|r| selected.set(*r as usize));
                selected.not().rows()
            }
        }
    }
}

/// What the sides come to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sizes {
    pub(super) unit: Unit,
    pub(super) unit_why: &'static str,
    pub(super) weighted: bool,
    /// Rows: selection, baseline.
    pub(super) rows: (u64, u64),
    /// What the shares' denominators are: rows, or units.
    pub(super) n: (f64, f64),
    /// Of so many units one was looked at: selection, baseline.
    pub(super) thinned: (u64, u64),
}

/// Ids of units are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

type ById<T> = HashMap<u64, T, BuildHasherDefault<AsItIs>>;
type Ids = HashSet<u64, BuildHasherDefault<AsItIs>>;

fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// The unit of each of `rows`, as a hash.
fn unit_ids(chunk: &Chunk, number: usize, rows: &[u32], unit: Unit) -> Vec<u64> {
    let mut ids: Vec<u64> = rows
        .iter()
        .map(|row| match chunk.trace(*row as usize) {
            0 => mixed((number as u64) << 32 | u64::from(*row)),
            id => mixed((id >> 64) as u64 ^ id as u64),
        })
        .collect();
    if unit == Unit::Subject {
        for column in chunk.named(names::SUBJECT) {
            // Rows of a subject often stand together.
            let mut last = (0, 0);
            cells::gather(column, rows, |place, code| {
                if last.0 != code {
                    last = (code, cells::value(column, code).map_or(0, |v| mixed(value_hash(v))));
                }
                ids[place] = last.1;
            });
        }
    }
    ids
}

fn rates(chunk: &Chunk, rows: &[u32]) -> Option<Vec<f32>> {
    let mut rates = None;
    for column in chunk.named(SAMPLE_RATE) {
        let rates = rates.get_or_insert_with(|| vec![1.0; rows.len()]);
        cells::gather(column, rows, |place, code| {
            let rate = cells::value(column, code).and_then(ValueRef::as_f64).unwrap_or(1.0);
            if rate.is_finite() && rate > 0.0 {
                rates[place] = rate.min(WEIGHT_MAX) as f32;
            }
        });
    }
    rates
}

/// Which unit fits, and why, for a person.
fn fitting(parts: &[Part<'_>]) -> (Unit, &'static str) {
    let rows = |selected| parts.iter().map(|p| p.len(selected)).sum::<usize>() as f64;
    let (n_selected, n_baseline) = (rows(true), rows(false));
    if n_selected == 0.0 {
        return (Unit::Event, "nothing was selected");
    }
    let found = parallel(parts, |_, part| {
        let (rows, _) = part.selected.listed();
        let (mut subjects, mut named) = (Ids::default(), 0_usize);
        let (mut known, mut at_most) = (0_usize, 0_usize);
        for column in part.chunk.named(names::SUBJECT) {
            let counts = cells::count(column, cells::Chosen::Listed(rows, None));
            counts.each(|code, n| {
                named += n as usize;
                subjects.insert(cells::value(column, code).map_or(0, value_hash));
            });
            known += column.present(part.chunk.len());
            at_most += cells::distinct(column);
        }
        let mut traces = Ids::default();
        let mut traced = 0_usize;
        for row in rows {
            let id = part.chunk.trace(*row as usize);
            if id != 0 {
                traced += 1;
                traces.insert(mixed((id >> 64) as u64 ^ id as u64));
            }
        }
        let (mut sampled, mut sample) = (0_usize, Ids::default());
        for halves in part.chunk.trace.chunks_exact(2) {
            let id = mixed(halves[0] ^ halves[1]);
            if id.is_multiple_of(TRACES_LOOKED_AT) && (halves[0] | halves[1]) != 0 {
                sampled += 1;
                sample.insert(id);
            }
        }
        (subjects, named, known, at_most, traces, traced, sampled, sample)
    });
    let (mut subjects, mut traces, mut sample) = (Ids::default(), Ids::default(), Ids::default());
    let (mut named, mut known, mut at_most, mut traced, mut sampled) = (0, 0, 0, 0, 0);
    for one in found {
        subjects.extend(one.0);
        named += one.1;
        known += one.2;
        at_most = at_most.max(one.3);
        traces.extend(one.4);
        traced += one.5;
        sampled += one.6;
        sample.extend(one.7);
    }
    let several = |rows: usize, units: usize| rows as f64 > SEVERAL * units.max(1) as f64;
    let small = |units: f64| units < BASELINE_LARGE * n_selected;
    if named as f64 > n_selected / 2.0 {
        if several(named, subjects.len()) {
            return (Unit::Subject, "several selected events come of one subject, so each subject counts once");
        }
        if n_baseline > 0.0 && several(known, at_most) && small(at_most as f64) {
            return (Unit::Subject, "several events of the baseline come of one subject, so each subject counts once");
        }
    }
    if traced as f64 > n_selected / 2.0 {
        if several(traced, traces.len()) {
            return (Unit::Trace, "several selected events come of one trace, so each trace counts once");
        }
        if several(sampled, sample.len()) && small((sample.len() as u64 * TRACES_LOOKED_AT) as f64) {
            return (Unit::Trace, "several events of the baseline come of one trace, so each trace counts once");
        }
    }
    (Unit::Event, "the events come of different subjects and traces, so each event counts once")
}

/// Weighs the rows of both sides by `unit`, or by the one that fits.
pub(super) fn weigh(parts: &mut [Part<'_>], unit: Option<Unit>) -> Sizes {
    let (unit, unit_why) = match unit {
        Some(unit) => (unit, "as asked for"),
        None => fitting(parts),
    };
    let rows = |parts: &[Part<'_>], selected| parts.iter().map(|p| p.len(selected) as u64).sum::<u64>();
    let counts = (rows(parts, true), rows(parts, false));
    let sampled = parts.iter().any(|p| p.chunk.named(SAMPLE_RATE).next().is_some());
    let mut sizes = Sizes {
        unit,
        unit_why,
        weighted: sampled,
        rows: counts,
        n: (counts.0 as f64, counts.1 as f64),
        thinned: (1, 1),
    };
    if unit != Unit::Event || sampled {
        (sizes.n.0, sizes.thinned.0) = weigh_side(parts, true, unit, counts.0);
        (sizes.n.1, sizes.thinned.1) = weigh_side(parts, false, unit, counts.1);
    }
    sizes
}

/// Gives the rows of a side weights whose sum is the effective number of units; returns it, and of how many units one is kept.
fn weigh_side(parts: &mut [Part<'_>], selected: bool, unit: Unit, n_rows: u64) -> (f64, u64) {
    let mut thinned = 1_u64;
    while unit != Unit::Event && n_rows / thinned > UNIT_ROWS_MAX as u64 {
        thinned *= 2;
    }
    // Rows, their rates and their units, chunk by chunk.
    let mut listed = parallel(parts, |number, part| {
        let mut rows = if selected { part.selected.listed().0.to_vec() } else { part.baseline_rows() };
        let mut ids = Vec::new();
        if unit != Unit::Event {
            ids = unit_ids(part.chunk, number, &rows, unit);
            if thinned > 1 {
                // By the upper bits: the lower ones choose places in tables.
                let kept: Vec<bool> = ids.iter().map(|id| (id >> 40) & (thinned - 1) == 0).collect();
                let mut keep = kept.iter();
                rows.retain(|_| keep.next().copied().unwrap_or(false));
                let mut keep = kept.iter();
                ids.retain(|_| keep.next().copied().unwrap_or(false));
            }
        }
        let rates = rates(part.chunk, &rows);
        (rows, ids, rates)
    });
    let mut units: ById<(f32, u32)> = ById::default();
    let (mut sum, mut squares) = (0.0_f64, 0.0_f64);
    for (rows, ids, rates) in &listed {
        let rate = |place: usize| rates.as_ref().map_or(1.0, |r| r[place]);
        if unit == Unit::Event {
            for place in 0..rows.len() {
                let w = f64::from(rate(place));
                (sum, squares) = (sum + w, squares + w * w);
            }
        }
        for (place, id) in ids.iter().enumerate() {
            let (weight, n) = units.entry(*id).or_insert((0.0, 0));
            *weight += rate(place);
            *n += 1;
        }
    }
    for (weight, n) in units.values() {
        // A unit stands for as many units as its rows do on average.
        let w = f64::from(*weight) / f64::from(*n);
        (sum, squares) = (sum + w, squares + w * w);
    }
    let effective = if squares > 0.0 { sum * sum / squares } else { 0.0 };
    let scale = if sum > 0.0 { effective / sum } else { 0.0 };
    for (part, (rows, ids, rates)) in parts.iter_mut().zip(&mut listed) {
        let rate = |place: usize| rates.as_ref().map_or(1.0, |r| r[place]);
        let weights: Vec<f32> = if unit == Unit::Event {
            (0..rows.len()).map(|place| (f64::from(rate(place)) * scale) as f32).collect()
        } else {
            ids.iter()
                .enumerate()
                .map(|(place, id)| {
                    let (_, n) = units.get(id).copied().unwrap_or((1.0, 1));
                    (f64::from(rate(place)) / f64::from(n) * scale) as f32
                })
                .collect()
        };
        let side = Rows::Listed { rows: std::mem::take(rows), weights: Some(weights) };
        if selected {
            part.selected = side;
        } else {
            part.baseline = side;
        }
    }
    (effective, thinned)
}

/// Rows of these traces and subjects; all if neither is asked for.
pub(super) fn members(
    chunk: &Chunk,
    traces: &std::collections::HashSet<u128>,
    subjects: &std::collections::HashSet<String>,
) -> Mask {
    if traces.is_empty() && subjects.is_empty() {
        return Mask::all(chunk.len());
    }
    let mut mask = Mask::none(chunk.len());
    if !traces.is_empty() {
        (0..chunk.len()).filter(|row| traces.contains(&chunk.trace(*row))).for_each(|row| mask.set(row));
    }
    for column in chunk.named(names::SUBJECT) {
        let mut wanted = vec![false; cells::distinct(column) + 1];
        for subject in subjects {
            let value = Value::Str(subject.clone());
            let hash = value_hash(value.as_ref());
            cells::codes_of(column, &value, hash).into_iter().for_each(|code| wanted[code as usize] = true);
        }
        cells::each(column, |row, code| {
            if wanted[code as usize] {
                mask.set(row);
            }
        });
    }
    mask
}
