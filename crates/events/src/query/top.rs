//! The most frequent values of one attribute with very many: counted by code in each chunk, then merged in partitions.
//!
//! Dictionaries are ordered by the hash of the value, so a range of hashes is a range of codes in each chunk, and the values
//! of one partition fit the cache while they are counted together. No row is hashed.

use hashbrown::HashTable;
use rows::{Value, ValueRef};
use vocab::Timestamp;

use super::budget::{Budget, Stop, share_out};
use super::group::WEIGHT;
use super::lane::{Lane, Numbers, Source};
use super::select::{Check, select};
use crate::chunk::Chunk;
use crate::column::{Dict, value_hash};

/// Values of a partition, about.
const PARTITION: usize = 32_768;

/// How often each code occurs in one chunk.
struct Counted<'a> {
    dict: Option<&'a Dict>,
    counts: Counts,
    /// Hash and code in order, where the dictionary has none.
    order: Option<Vec<(u64, u32)>>,
    rows: u64,
    matched: u64,
}

enum Counts {
    Rows(Vec<u32>),
    Weights(Vec<f64>),
}

impl Counts {
    fn of(&self, code: usize) -> f64 {
        match self {
            Counts::Rows(v) => f64::from(v[code]),
            Counts::Weights(v) => v[code],
        }
    }

    fn len(&self) -> usize {
        match self {
            Counts::Rows(v) => v.len(),
            Counts::Weights(v) => v.len(),
        }
    }
}

/// The answer: the wanted number of values, most frequent first, ties by value.
pub(crate) struct Top {
    pub(crate) values: Vec<(Option<Value>, f64)>,
    pub(crate) groups: u64,
    pub(crate) rows_scanned: u64,
    pub(crate) rows_matched: u64,
}

/// How many values the field's dictionaries have, if it is an attribute that this can count: of text alone.
pub(crate) fn values_of(chunks: &[&Chunk], field: &Source) -> Option<usize> {
    let Source::Attribute(name) = field else { return None };
    let mut total = 0;
    for chunk in chunks {
        let mut columns = chunk.named(name);
        if let Some(column) = columns.next() {
            let (_, dict) = column.coded()?;
            if columns.next().is_some() || !matches!(dict.get(1), Some(ValueRef::Str(_)) | None) {
                return None;
            }
            total += dict.len();
        }
    }
    Some(total)
}

fn count<'a>(
    chunk: &'a Chunk,
    field: &'a Source,
    check: &Check,
    (from, to): (Timestamp, Timestamp),
    budget: &Budget,
) -> Result<Counted<'a>, Stop> {
    let lane = Lane::of(chunk, field);
    let dict = lane.dict();
    let n = dict.map_or(0, Dict::len) + 1;
    let weight_source = Source::Attribute(WEIGHT.to_owned());
    let weight_lane = Lane::of(chunk, &weight_source);
    let weights = (!matches!(weight_lane, Lane::Absent)).then(|| Numbers::of(&weight_lane));
    budget.take(n * if weights.is_some() { 8 } else { 4 });
    let mut counts = if weights.is_some() { Counts::Weights(vec![0.0; n]) } else { Counts::Rows(vec![0; n]) };
    let (mut codes, mut weighed, mut matched) = (Vec::new(), Vec::new(), 0);
    select(chunk, check, from, to).blocks(|rows| {
        budget.check()?;
        matched += rows.len() as u64;
        lane.codes(rows, &mut codes);
        match (&mut counts, &weights) {
            (Counts::Weights(counts), Some(weights)) => {
                weights.read(rows, &mut weighed);
                for (code, weight) in codes.iter().zip(&weighed) {
                    counts[*code as usize] += if *weight > 0.0 && weight.is_finite() { *weight } else { 1.0 };
                }
            }
            (Counts::Rows(counts), _) => codes.iter().for_each(|code| counts[*code as usize] += 1),
            _ => {}
        }
        Ok(())
    })?;
    let order = dict.filter(|dict| !dict.is_ordered()).map(|dict| {
        budget.take(n * 16);
        let mut order: Vec<(u64, u32)> =
            (1..n as u32).map(|code| (dict.get(code).map_or(0, value_hash), code)).collect();
        order.sort_unstable();
        order
    });
    Ok(Counted { dict, counts, order, rows: chunk.len() as u64, matched })
}

impl Counted<'_> {
    fn hash(&self, place: usize) -> u64 {
        match &self.order {
            Some(order) => order[place - 1].0,
            None => self.dict.and_then(|dict| dict.get(place as u32)).map_or(0, value_hash),
        }
    }

    /// The first place (from 1) whose hash is not below `hash`.
    fn place(&self, hash: u64) -> usize {
        let (mut low, mut high) = (1, self.counts.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.hash(middle) < hash { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// The top bits of a hash are the same in a whole partition; they go to the middle, where a hash table does not look.
fn spread(hash: u64) -> u64 {
    hash.rotate_left(40)
}

/// Counts and picks.
pub(crate) fn top(
    chunks: &[&Chunk],
    field: &Source,
    check: &Check,
    within: (Timestamp, Timestamp),
    wanted: usize,
    budget: &Budget,
) -> Top {
    let counted = share_out(chunks, Vec::new, |counted, _, chunk| {
        counted.push(count(chunk, field, check, within, budget)?);
        Ok(())
    });
    let counted: Vec<Counted<'_>> = counted.into_iter().flatten().collect();
    let total: usize = counted.iter().map(|c| c.counts.len() - 1).sum();
    let bits = (total / PARTITION).max(1).next_power_of_two().trailing_zeros().max(1);
    let partitions: Vec<u64> = (0..1_u64 << bits).collect();
    let absent: f64 = counted.iter().map(|c| c.counts.of(0)).sum();
    type Found<'v> = (Vec<(Option<&'v str>, f64)>, u64);
    let found: Vec<Found<'_>> = share_out(
        &partitions,
        || (Vec::new(), 0),
        |found: &mut Found<'_>, _, partition| {
            budget.check()?;
            let mut table: HashTable<(u64, &str, f64)> = HashTable::with_capacity(PARTITION);
            for chunk in &counted {
                let from = if *partition == 0 { 1 } else { chunk.place(partition << (64 - bits)) };
                let last = *partition + 1 == 1 << bits;
                let to = if last { chunk.counts.len() } else { chunk.place((partition + 1) << (64 - bits)) };
                for place in from..to {
                    let code = chunk.order.as_ref().map_or(place as u32, |order| order[place - 1].1);
                    let n = chunk.counts.of(code as usize);
                    if n == 0.0 {
                        continue;
                    }
                    let Some(ValueRef::Str(text)) = chunk.dict.and_then(|dict| dict.get(code)) else { continue };
                    let hash = chunk
                        .order
                        .as_ref()
                        .map_or_else(|| value_hash(ValueRef::Str(text)), |order| order[place - 1].0);
                    match table.find_mut(spread(hash), |(h, t, _)| *h == hash && *t == text) {
                        Some((_, _, total)) => *total += n,
                        None => _ = table.insert_unique(spread(hash), (hash, text, n), |(h, _, _)| spread(*h)),
                    }
                }
            }
            found.1 += table.len() as u64;
            found.0.extend(table.iter().map(|(_, text, n)| (Some(*text), *n)));
            pick(&mut found.0, wanted);
            Ok(())
        },
    );
    let groups = found.iter().map(|f| f.1).sum::<u64>() + u64::from(absent > 0.0);
    let mut all: Vec<(Option<&str>, f64)> = found.into_iter().flat_map(|f| f.0).collect();
    if absent > 0.0 {
        all.push((None, absent));
    }
    pick(&mut all, wanted);
    let values = all.into_iter().map(|(text, n)| (text.map(Value::from), n)).collect();
    let (rows_scanned, rows_matched) = counted.iter().fold((0, 0), |(a, b), c| (a + c.rows, b + c.matched));
    budget.give_back(total * 4);
    Top { values, groups, rows_scanned, rows_matched }
}

/// Keeps the most frequent; ties by value, the absent one last.
fn pick(values: &mut Vec<(Option<&str>, f64)>, wanted: usize) {
    let order = |a: &(Option<&str>, f64), b: &(Option<&str>, f64)| {
        b.1.total_cmp(&a.1).then_with(|| (a.0.is_none(), a.0).cmp(&(b.0.is_none(), b.0)))
    };
    if values.len() > wanted && wanted > 0 {
        values.select_nth_unstable_by(wanted - 1, order);
        values.truncate(wanted);
    }
    values.sort_unstable_by(order);
    values.truncate(wanted);
}
