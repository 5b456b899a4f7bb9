//! Counting one attribute on both sides, over all chunks.
//!
//! An attribute with few values is counted whole. Of one with many, the values that occur in the selection are followed, the
//! most frequent first, and looked up in the baseline. Numbers with many values are counted by bin as well.

use hashbrown::{HashMap, HashSet};
use rows::Value;

use super::cells::{self, Chosen, Counts};
use super::number::{Bin, Histogram, bin_of};
use super::side::{Part, Rows, Sizes};
use crate::column::{Column, value_hash};

/// Columns of one name: chunk by chunk.
pub(super) type Places = Vec<(usize, usize)>;

/// With no more values than this in any chunk, all are counted, also those the selection does not have.
const WHOLE_MAX: usize = 1_024;
/// Values of an attribute that are followed: the most frequent of the selection. Rarer ones cannot reach the top.
const VALUES_MAX: usize = 1_000;
/// Values of the selection that are counted to find the most frequent; when there are more, the rarest half so far is
/// forgotten. What is followed is counted again, so that its figures are exact.
const SEEN_MAX: usize = 262_144;
/// A numeric attribute with more distinct values than this is cut into ranges too.
const RANGES_FROM: usize = 32;
/// An attribute of which almost every selected row has a value of its own is an identifier: it separates nothing.
const IDENTIFIER_SHARE: f64 = 0.8;
/// Unless one value has this share of the selection: one customer among 50,000.
const NOTABLE_SHARE: f64 = 0.01;
/// What finding a value in an ordered dictionary costs beside hashing one of its values.
const PROBES: usize = 20;

/// Where a value stands.
#[derive(Clone, Copy, Debug)]
struct At {
    part: usize,
    column: usize,
    code: u32,
}

/// A value and how often each side has it.
#[derive(Clone, Debug)]
pub(super) struct Tallied {
    pub(super) value: Value,
    pub(super) hash: u64,
    pub(super) selected: f64,
    pub(super) baseline: f64,
}

/// An attribute, counted.
#[derive(Clone, Debug)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) places: Places,
    pub(super) values: Vec<Tallied>,
    /// How many different values it has at most: all of them might have stood out.
    pub(super) distinct: f64,
    /// Rows with the attribute, in weights.
    pub(super) present: (f64, f64),
    /// Empty unless it is a number with many values.
    pub(super) histogram: Histogram,
}

fn column<'a>(parts: &'a [Part<'_>], place: &(usize, usize)) -> &'a Column {
    &parts[place.0].chunk.columns[place.1]
}

/// Counts of the baseline: directly, or of everything with the selection to be taken off.
fn baseline_counts<'a>(part: &Part<'_>, column: &Column, selected: &'a Counts) -> (Counts, Option<&'a Counts>) {
    match &part.baseline {
        Rows::Rest => (cells::count(column, Chosen::All(part.chunk.len())), Some(selected)),
        Rows::Listed { rows, weights } => (cells::count(column, Chosen::Listed(rows, weights.as_deref())), None),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    selected: f64,
    baseline: f64,
}

/// Counts an attribute whose columns are at `places`.
pub(super) fn tally(parts: &[Part<'_>], name: &str, places: &Places, sizes: &Sizes) -> Attribute {
    let most = places.iter().map(|p| cells::distinct(column(parts, p))).max().unwrap_or(0);
    let whole = most <= WHOLE_MAX;
    let mut values: HashMap<u64, (At, Pair)> = HashMap::new();
    let mut attribute = Attribute {
        name: name.to_owned(),
        places: places.clone(),
        values: Vec::new(),
        distinct: 0.0,
        present: (0.0, 0.0),
        histogram: Vec::new(),
    };
    // The selection first: it is small, and only its values can be over-represented in it.
    let mut selected_counts = Vec::with_capacity(places.len());
    for place in places {
        let (column, part) = (column(parts, place), &parts[place.0]);
        let (rows, weights) = part.selected.listed();
        let counts = cells::count(column, Chosen::Listed(rows, weights));
        attribute.present.0 += counts.present();
        if !whole {
            counts.each(|code, n| {
                if let Some(value) = cells::value(column, code) {
                    let at = At { part: place.0, column: place.1, code };
                    values.entry(value_hash(value)).or_insert((at, Pair::default())).1.selected += n;
                }
            });
            if values.len() > SEEN_MAX {
                let mut seen: Vec<f64> = values.values().map(|(_, n)| n.selected).collect();
                let (_, middle, _) = seen.select_nth_unstable_by(SEEN_MAX / 2, f64::total_cmp);
                let middle = *middle;
                values.retain(|_, (_, n)| n.selected > middle);
            }
        }
        selected_counts.push(counts);
    }
    if !whole {
        keep_frequent(&mut values, attribute.present.0, sizes.n.0);
    }
    let is_numeric = numeric(parts, places);
    // By bin; pages that no value falls into are never touched.
    let mut bins = vec![Pair::default(); if is_numeric { usize::from(Bin::MAX) + 1 } else { 0 }];
    for (place, selected) in places.iter().zip(&selected_counts) {
        let (column, part) = (column(parts, place), &parts[place.0]);
        let (counts, taken_off) = baseline_counts(part, column, selected);
        attribute.present.1 += counts.present() - taken_off.map_or(0.0, Counts::present);
        let baseline_of = |code: u32| counts.of(code) - taken_off.map_or(0.0, |s| s.of(code));
        let n_codes = cells::distinct(column);
        if whole {
            for code in 1..=n_codes as u32 {
                if let Some(value) = cells::value(column, code) {
                    let at = At { part: place.0, column: place.1, code };
                    let pair = &mut values.entry(value_hash(value)).or_insert((at, Pair::default())).1;
                    pair.selected += selected.of(code);
                    pair.baseline += baseline_of(code);
                }
            }
        } else if cells::is_ordered(column) && values.len() * PROBES < n_codes {
            // A few values of many: looked up instead of hashing all.
            for (hash, (_, pair)) in &mut values {
                for code in cells::codes_with(column, *hash) {
                    pair.selected += selected.of(code);
                    pair.baseline += baseline_of(code);
                }
            }
        } else if !values.is_empty() {
            for code in 1..=n_codes as u32 {
                let Some(value) = cells::value(column, code) else { continue };
                if let Some((_, pair)) = values.get_mut(&value_hash(value)) {
                    pair.selected += selected.of(code);
                    pair.baseline += baseline_of(code);
                }
            }
        }
        if is_numeric && cells::is_number(column) {
            counts.each(|code, n| {
                if let Some(bin) = bin_of(cells::value(column, code)) {
                    bins[usize::from(bin)].baseline += n;
                }
            });
            selected.each(|code, n| {
                if let Some(bin) = bin_of(cells::value(column, code)) {
                    let pair = &mut bins[usize::from(bin)];
                    pair.selected += n;
                    pair.baseline -= if taken_off.is_some() { n } else { 0.0 };
                }
            });
        }
    }
    attribute.distinct = if whole {
        values.len() as f64
    } else {
        places.iter().map(|p| cells::distinct(column(parts, p))).sum::<usize>() as f64
    };
    attribute.values = values
        .into_iter()
        .filter_map(|(hash, (at, pair))| {
            let value = cells::value(column(parts, &(at.part, at.column)), at.code)?.to_value();
            Some(Tallied { value, hash, selected: pair.selected, baseline: pair.baseline })
        })
        .collect();
    attribute.values.sort_by(|a, b| b.selected.total_cmp(&a.selected).then(a.hash.cmp(&b.hash)));
    // Weights are sums of fractions: what is taken off again may leave a trace of one.
    let occurs = |pair: &Pair| pair.selected > 0.0 || pair.baseline > 1e-9;
    let filled = bins.iter().enumerate().filter(|(_, pair)| occurs(pair));
    attribute.histogram = filled.map(|(bin, pair)| (bin as Bin, pair.selected, pair.baseline.max(0.0))).collect();
    attribute
}

/// Keeps the values worth following, with counts at 0 for the exact pass.
fn keep_frequent(values: &mut HashMap<u64, (At, Pair)>, present: f64, n_selected: f64) {
    if present > 20.0 && values.len() as f64 > IDENTIFIER_SHARE * present {
        let least = (NOTABLE_SHARE * n_selected).max(3.0);
        values.retain(|_, (_, n)| n.selected >= least);
    }
    if values.len() > VALUES_MAX {
        let mut counts: Vec<f64> = values.values().map(|(_, n)| n.selected).collect();
        let place = counts.len() - VALUES_MAX - 1;
        let (_, least, _) = counts.select_nth_unstable_by(place, f64::total_cmp);
        let least = *least;
        values.retain(|_, (_, n)| n.selected > least);
    }
    values.values_mut().for_each(|(_, pair)| *pair = Pair::default());
}

/// Whether ranges make sense: a number with more than a few values.
fn numeric(parts: &[Part<'_>], places: &Places) -> bool {
    let mut seen: HashSet<u64> = HashSet::new();
    for place in places {
        let column = column(parts, place);
        if !cells::is_number(column) {
            continue;
        }
        if cells::distinct(column) > RANGES_FROM {
            return true;
        }
        seen.extend((1..=cells::distinct(column) as u32).filter_map(|code| cells::value(column, code)).map(value_hash));
        if seen.len() > RANGES_FROM {
            return true;
        }
    }
    false
}
