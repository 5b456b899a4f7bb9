//! What is different about these: every attribute and value ranked by how surely its share differs.
//!
//! For each value `v` of each attribute, `p` is its share in the selection and `q` in the baseline. Values are ranked by the
//! lower confidence bound of `|p - q|` (Newcombe), and only those that Fisher's exact test tells apart, both corrected for all
//! values tried (Bonferroni), so that two samples of the same thing say "nothing differs" in at least 95 of 100 cases. An attribute is represented by its most
//! telling value. Attributes that define arm, fault, selection or outcome are listed apart: they differ by construction.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use rows::{Filter, Row, ValueRef, names};
use serde::Serialize;
use vocab::Timestamp;

use crate::builder::Builder;
use crate::chunk::Chunk;
use crate::column::{Column, Dict, Kind, value_hash};
use crate::store::Store;

/// Chance that anything at all is named where nothing differs.
const ALPHA: f64 = 0.05;
/// Values per attribute that are followed: the most frequent of the selection. Rarer ones cannot reach the top.
const VALUES_MAX: usize = 1_000;
/// A numeric attribute with more distinct values than this is cut into bins.
const BINS_FROM: usize = 32;
/// An attribute of which almost every selected row has a value of its own is an identifier: it separates nothing.
const IDENTIFIER_SHARE: f64 = 0.8;
/// What finding a value in an ordered dictionary costs beside hashing one of its values.
const PROBES: usize = 20;
/// Prefixes of attributes that differ by construction.
const APART_PREFIXES: [&str; 7] =
    ["experiment.", "fault.", "meta.", "error", "exception.", "http.response.", "feature_flag.context."];
/// Attributes that are outcomes.
const APART_NAMES: [&str; 6] =
    ["status_code", "http.status_code", "status_message", names::SUBJECT, "enduser.id", "session.id"];

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What was selected.
    pub selected: Side,
    /// What it was compared with.
    pub baseline: Side,
    /// How many attributes were compared.
    pub attributes_compared: usize,
    /// Whether anything stands out.
    pub differs: bool,
    /// For a person.
    pub summary: String,
    /// By score, highest first; only values whose score is positive, one per attribute.
    pub ranked: Vec<RankedValue>,
    /// What differs by construction.
    pub apart: Vec<ApartValue>,
}

/// One side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// What it is called.
    pub name: String,
    /// How many.
    pub n: u64,
}

/// A value that separates the two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedValue {
    /// The attribute.
    pub attribute: String,
    /// The value, as text.
    pub value: String,
    /// Its share of the selection, in `[0, 1]`.
    pub selected_share: f64,
    /// Its share of the baseline, in `[0, 1]`.
    pub baseline_share: f64,
    /// `selected_share - baseline_share`.
    pub difference: f64,
    /// The lower confidence bound of the absolute difference; above 0.
    pub score: f64,
}

/// A value that differs by construction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ApartValue {
    /// The attribute.
    pub attribute: String,
    /// The value, as text.
    pub value: String,
    /// Its share of the selection.
    pub selected_share: f64,
    /// Its share of the baseline.
    pub baseline_share: f64,
    /// Why it is not ranked.
    pub why: &'static str,
}

/// Which attributes are listed apart, besides the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct Apart<'a> {
    /// They define the selection or the outcome.
    pub attributes: Vec<&'a str>,
}

impl Apart<'_> {
    fn why(&self, name: &str) -> Option<&'static str> {
        if name.starts_with("experiment.") {
            Some("defines the arm")
        } else if name.starts_with("fault.") {
            Some("defines the fault")
        } else if self.attributes.contains(&name) {
            Some("defines the selection or the outcome")
        } else if APART_NAMES.contains(&name) || APART_PREFIXES.iter().any(|p| name.starts_with(p)) {
            Some("is an outcome or an identity")
        } else {
            None
        }
    }
}

#[derive(Clone, Debug)]
struct Counted {
    text: String,
    selected: u64,
    baseline: u64,
}

#[derive(Debug, Default)]
struct Attribute {
    /// By hash of value or bin.
    values: HashMap<u64, Counted>,
    present_selected: u64,
    present_baseline: u64,
}

/// The bin of a number, powers of two by sign: 0, or its exponent away from 0.
fn bin(x: f64) -> i32 {
    let exponent = match (x.to_bits() >> 52) as i32 & 0x7ff {
        // Too small for the usual form; log2 is slow but right.
        0 if x != 0.0 => x.abs().log2().floor() as i32,
        0 => return 0,
        exponent => exponent - 1_023,
    };
    if x > 0.0 { exponent + 5_000 } else { -exponent - 5_000 }
}

fn bin_text(bin: i32) -> String {
    let (low, high) = (2_f64.powi(bin.abs() - 5_000), 2_f64.powi(bin.abs() - 4_999));
    match bin {
        0 => "0".to_owned(),
        1.. => format!("{low} to {high}"),
        _ => format!("-{high} to -{low}"),
    }
}

fn bin_key(bin: i32) -> u64 {
    value_hash(ValueRef::Int(i64::from(bin))) ^ 0x5bd1_e995
}

/// Calls `each` with bin and count of a numeric column's values, a bin at a time.
fn each_bin(dict: &Dict, counts: &[u32], mut each: impl FnMut(i32, u64)) {
    let mut bins: BTreeMap<i32, u64> = BTreeMap::new();
    let (mut last, mut sum) = (0, 0_u64);
    for (code, count) in counts.iter().enumerate().skip(1).filter(|(_, n)| **n > 0) {
        let Some(x) = dict.get(code as u32).and_then(ValueRef::as_f64) else { continue };
        let bin = bin(x);
        if bin != last {
            *bins.entry(last).or_default() += std::mem::take(&mut sum);
            last = bin;
        }
        sum += u64::from(*count);
    }
    *bins.entry(last).or_default() += sum;
    bins.into_iter().filter(|(_, count)| *count > 0).for_each(|(bin, count)| each(bin, count));
}

fn compare_chunks(
    chunks: &[(&Chunk, Vec<u32>, crate::bits::Bits, Option<crate::bits::Bits>)],
) -> HashMap<Arc<str>, Attribute> {
    // First the selection alone: only its values can be over-represented in it, and it is small.
    let mut binned: HashMap<(Arc<str>, Kind), bool> = HashMap::new();
    for (chunk, ..) in chunks {
        for column in chunk.columns.iter().filter(|c| matches!(c.kind, Kind::Int | Kind::Float)) {
            *binned.entry((column.name.clone(), column.kind)).or_default() |=
                column.coded().is_none_or(|(_, dict)| dict.len() > BINS_FROM);
        }
    }
    let is_binned = |column: &Column| binned.get(&(column.name.clone(), column.kind)).copied().unwrap_or(false);
    let mut attributes: HashMap<Arc<str>, Attribute> = HashMap::new();
    for (chunk, rows, selected, _) in chunks {
        for column in &chunk.columns {
            let (codes, dict) = column.as_coded();
            let counts = codes.count_selected(dict.len(), selected, rows);
            let attribute = attributes.entry(column.name.clone()).or_default();
            attribute.present_selected += u64::from(rows.len() as u32 - counts[0]);
            let mut add = |key: u64, text: &dyn Fn() -> String, count: u64| {
                let new = || Counted { text: text(), selected: 0, baseline: 0 };
                attribute.values.entry(key).or_insert_with(new).selected += count;
            };
            if is_binned(column) {
                each_bin(&dict, &counts, |bin, count| add(bin_key(bin), &|| bin_text(bin), count));
                continue;
            }
            for (code, count) in counts.iter().enumerate().skip(1).filter(|(_, n)| **n > 0) {
                let Some(value) = dict.get(code as u32) else { continue };
                add(value_hash(value), &|| value.to_string().chars().take(200).collect(), u64::from(*count));
            }
        }
    }
    attributes.retain(|_, attribute| {
        let identifier = attribute.present_selected > 20
            && attribute.values.len() as f64 > IDENTIFIER_SHARE * attribute.present_selected as f64;
        if attribute.values.len() > VALUES_MAX {
            let mut counts: Vec<u64> = attribute.values.values().map(|v| v.selected).collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let least = counts[VALUES_MAX];
            attribute.values.retain(|_, v| v.selected > least);
        }
        !identifier
    });
    // Then the baseline, only for these values.
    for (chunk, rows, selected, baseline) in chunks {
        let baseline_rows: Option<Vec<u32>> = baseline.as_ref().map(|b| b.rows().map(|r| r as u32).collect());
        for column in &chunk.columns {
            let Some(attribute) = attributes.get_mut(&column.name) else { continue };
            let (codes, dict) = column.as_coded();
            let counts: Vec<u32> = match (&baseline_rows, baseline) {
                (Some(rows), Some(bits)) => codes.count_selected(dict.len(), bits, rows),
                _ => {
                    let all = codes.count_all(dict.len(), chunk.len());
                    let chosen = codes.count_selected(dict.len(), selected, rows);
                    all.iter().zip(chosen).map(|(a, c)| a - c).collect()
                }
            };
            let total: u64 = counts.iter().skip(1).map(|c| u64::from(*c)).sum();
            attribute.present_baseline += total;
            if is_binned(column) {
                each_bin(&dict, &counts, |bin, count| {
                    if let Some(counted) = attribute.values.get_mut(&bin_key(bin)) {
                        counted.baseline += count;
                    }
                });
            } else if dict.is_ordered() && attribute.values.len() * PROBES < dict.len() {
                // A few values of many: look them up instead of hashing all.
                for (key, counted) in &mut attribute.values {
                    counted.baseline += dict.codes_of(*key).map(|code| u64::from(counts[code as usize])).sum::<u64>();
                }
            } else {
                for (code, count) in counts.iter().enumerate().skip(1).filter(|(_, n)| **n > 0) {
                    let Some(value) = dict.get(code as u32) else { continue };
                    if let Some(counted) = attribute.values.get_mut(&value_hash(value)) {
                        counted.baseline += u64::from(*count);
                    }
                }
            }
        }
    }
    attributes
}

fn rank(
    attributes: HashMap<Arc<str>, Attribute>,
    (selected, n_selected): (&str, u64),
    (baseline, n_baseline): (&str, u64),
    apart: &Apart<'_>,
) -> Comparison {
    let (s, b) = (n_selected as f64, n_baseline as f64);
    let mut compared: Vec<(&Arc<str>, &Attribute)> =
        attributes.iter().filter(|(name, _)| apart.why(name).is_none()).collect();
    compared.sort_by_key(|(name, _)| (*name).clone());
    // Every value and every "(absent)" that was tried counts.
    let tried: usize = compared.iter().map(|(_, a)| a.values.len() + 1).sum();
    let z = -stats::normal_quantile(ALPHA / 2.0 / tried.max(1) as f64);
    let row = |name: &str, text: &str, x: u64, y: u64| RankedValue {
        attribute: name.to_owned(),
        value: text.to_owned(),
        selected_share: if s > 0.0 { x as f64 / s } else { 0.0 },
        baseline_share: if b > 0.0 { y as f64 / b } else { 0.0 },
        difference: if s > 0.0 && b > 0.0 { x as f64 / s - y as f64 / b } else { 0.0 },
        // The interval is good for ranking, the exact test for deciding: with a dozen cases and hundreds of values tried,
        // normal quantiles promise too much.
        score: match stats::share::fisher_p(x, n_selected, y, n_baseline) * tried as f64 {
            p if p <= ALPHA => stats::share::difference_lower_bound(x as f64, s, y as f64, b, z).max(f64::MIN_POSITIVE),
            _ => 0.0,
        },
    };
    let best = |name: &str, attribute: &Attribute| -> Option<RankedValue> {
        let absent = row(
            name,
            "(absent)",
            n_selected.saturating_sub(attribute.present_selected),
            n_baseline.saturating_sub(attribute.present_baseline),
        );
        attribute
            .values
            .values()
            .map(|v| row(name, &v.text, v.selected, v.baseline))
            .chain(std::iter::once(absent))
            // Of two equally telling values the one that the selection has more of reads better.
            .max_by(|a, b| {
                let order = |r: &RankedValue| (r.score * 1e9).round() as i64;
                order(a).cmp(&order(b)).then(a.difference.total_cmp(&b.difference)).then_with(|| b.value.cmp(&a.value))
            })
    };
    let mut ranked: Vec<RankedValue> =
        compared.iter().filter_map(|(name, a)| best(name, a)).filter(|r| r.score > 0.0).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.attribute.cmp(&b.attribute)));
    let mut listed: Vec<ApartValue> = attributes
        .iter()
        .filter_map(|(name, attribute)| {
            let why = apart.why(name)?;
            // By construction: its most frequent value says what it is.
            let common = attribute.values.values().max_by_key(|v| (v.selected, std::cmp::Reverse(v.text.clone())))?;
            let best = row(name, &common.text, common.selected, common.baseline);
            (best.difference.abs() > 0.01 || why.starts_with("defines")).then_some(ApartValue {
                attribute: best.attribute,
                value: best.value,
                selected_share: best.selected_share,
                baseline_share: best.baseline_share,
                why,
            })
        })
        .collect();
    listed.sort_by(|a, b| a.attribute.cmp(&b.attribute));
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let summary = match ranked.first() {
        None => format!("nothing stands out between {n_selected} {selected} and {n_baseline} {baseline}"),
        Some(_) => {
            let top: Vec<String> = ranked
                .iter()
                .take(2)
                .map(|r| {
                    let shares = format!("{} beside {}", percent(r.selected_share), percent(r.baseline_share));
                    format!("{} = {} ({shares})", r.attribute, r.value)
                })
                .collect();
            format!("{selected} differ from {baseline} in {}", top.join(" and "))
        }
    };
    Comparison {
        selected: Side { name: selected.to_owned(), n: n_selected },
        baseline: Side { name: baseline.to_owned(), n: n_baseline },
        attributes_compared: compared.len(),
        differs: !ranked.is_empty(),
        summary,
        ranked,
        apart: listed,
    }
}

/// Compares two sets of whole rows, one row a subject.
pub fn compare_rows(selected: (&str, &[Row]), baseline: (&str, &[Row]), apart: &Apart<'_>) -> Comparison {
    let mut builder = Builder::default();
    selected.1.iter().chain(baseline.1).for_each(|row| builder.push(row));
    let chunk = &builder.freeze();
    let mut bits = crate::bits::Bits::none(chunk.len());
    (0..selected.1.len()).for_each(|row| bits.set(row));
    let rows: Vec<u32> = (0..selected.1.len() as u32).collect();
    let attributes = compare_chunks(&[(chunk, rows, bits, None)]);
    rank(attributes, (selected.0, selected.1.len() as u64), (baseline.0, baseline.1.len() as u64), apart)
}

impl Store {
    /// Compares the rows that satisfy `selection` with those that satisfy `baseline`, or with all other rows of the time.
    pub fn compare(&self, selection: &Filter, baseline: Option<&Filter>, from: Timestamp, to: Timestamp) -> Comparison {
        let mut apart = Apart { attributes: selection.fields() };
        apart.attributes.extend(baseline.map(Filter::fields).unwrap_or_default());
        {
            let parts = self.parts();
            let chunks = &parts.chunks;
            let everything = from == Timestamp::from_nanos(i64::MIN) && to == Timestamp::from_nanos(i64::MAX);
            let (mut n_selected, mut n_baseline) = (0, 0);
            let prepared: Vec<_> = chunks
                .iter()
                .map(|chunk| {
                    let selected = chunk.select(selection, from, to);
                    let rows: Vec<u32> = selected.rows().map(|r| r as u32).collect();
                    let other = match baseline {
                        None if everything => None,
                        None => Some(chunk.select(&Filter::all(), from, to).and(selected.clone().not())),
                        Some(filter) => Some(chunk.select(filter, from, to).and(selected.clone().not())),
                    };
                    n_selected += rows.len() as u64;
                    n_baseline += other.as_ref().map_or(chunk.len() - rows.len(), crate::bits::Bits::count) as u64;
                    (&**chunk, rows, selected, other)
                })
                .collect();
            let name = if baseline.is_some() { "baseline events" } else { "other events" };
            rank(compare_chunks(&prepared), ("selected events", n_selected), (name, n_baseline), &apart)
        }
    }

    /// One row for each subject of `subjects` (64 bits of the pseudonym, as `hash_of` gives them for the value of
    /// `user.id`), with the first value of each attribute seen in time order within `[from, to)`. With `only`, from events
    /// that satisfy it: what is known from before an outcome says who the subject was, the rest says what happened to it; of
    /// the rest arm and fault are kept, to be listed apart.
    pub fn subject_rows(
        &self,
        subjects: &std::collections::HashSet<u64>,
        hash_of: &dyn Fn(&str) -> Option<u64>,
        (from, to): (Timestamp, Timestamp),
        only: Option<&Filter>,
    ) -> std::collections::HashMap<u64, Row> {
        let mut merged: std::collections::HashMap<u64, Row> = Default::default();
        {
            for chunk in &self.parts().chunks {
                let in_time = chunk.select(&Filter::all(), from, to);
                let before = only.map(|filter| chunk.select(filter, from, to));
                for column in chunk.named(names::SUBJECT).filter(|c| c.kind == Kind::Str) {
                    let (codes, dict) = column.as_coded();
                    let wanted: Vec<Option<u64>> = (0..=dict.len() as u32)
                        .map(|code| match dict.get(code) {
                            Some(ValueRef::Str(text)) => hash_of(text).filter(|hash| subjects.contains(hash)),
                            _ => None,
                        })
                        .collect();
                    let mut rows: Vec<(u32, u64)> = Vec::new();
                    codes.for_each(|row, code| {
                        if let Some(hash) = wanted[code as usize] {
                            if in_time.has(row) {
                                rows.push((row as u32, hash));
                            }
                        }
                    });
                    let numbers: Vec<u32> = rows.iter().map(|(row, _)| *row).collect();
                    let mut whole: Vec<(u64, Row)> =
                        rows.iter().map(|(_, hash)| *hash).zip(chunk.rows(&numbers)).collect();
                    if let Some(before) = &before {
                        for (number, (_, row)) in numbers.iter().zip(&mut whole) {
                            if !before.has(*number as usize) {
                                row.attributes
                                    .retain(|(name, _)| name.starts_with("experiment.") || name.starts_with("fault."));
                            }
                        }
                    }
                    whole.sort_by_key(|(_, row)| row.time);
                    for (hash, row) in whole {
                        let into = merged.entry(hash).or_insert_with(|| Row { time: row.time, ..Row::default() });
                        for (name, value) in row.attributes {
                            if into.get(&name).is_none() {
                                into.attributes.push((name, value));
                            }
                        }
                    }
                }
            }
        }
        merged
    }
}
