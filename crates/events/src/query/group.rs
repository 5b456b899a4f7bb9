//! One pass over all chunks that puts rows into groups and adds them to states.
//!
//! Within a chunk a group is a number made of the codes of its fields, so a row is put into its group by arithmetic and one
//! look into a table (an array if there are few combinations, else a hash table of numbers). Only when a combination is met
//! for the first time in a chunk are its values looked at. Each thread has groups of its own; they are merged by value.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use rows::Value;
use vocab::Timestamp;

use super::budget::{Budget, Stop, share_out};
use super::lane::{Interner, Lane, Numbers, Source, mixed_hash};
use super::select::{Check, select};
use super::state::{Kind, NO_GROUP, Rows, State};
use crate::chunk::Chunk;
use crate::column::{Dict, value_hash};
use crate::mask::Mask;

/// Combinations of codes in one chunk that are looked up in an array.
const DENSE_MAX: u64 = 1 << 20;
/// Codes of a chunk's dictionary are searched for known values if there are fewer of these by this factor.
const SEARCH_FROM: usize = 16;
/// Not looked at yet.
const UNSEEN: u32 = u32::MAX - 1;

/// The attribute whose number is how many events one event stands for.
pub(crate) const WEIGHT: &str = "meta.sample_rate";

/// What a pass does.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) check: &'a Check,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) fields: &'a [Source],
    /// Width of time buckets in nanoseconds, and the number of the first one and how many there are.
    pub(crate) slots: Option<Slots>,
    pub(crate) states: &'a [(Kind, Option<Source>)],
    /// Only these groups.
    pub(crate) only: Option<&'a [Vec<Option<Value>>]>,
    pub(crate) budget: &'a Budget,
}

/// Time buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) width: i64,
    pub(crate) first: i64,
    pub(crate) count: u32,
    /// Added to each time before it is put in a bucket: puts an earlier window over the present one.
    pub(crate) shift: i64,
}

impl Slots {
    fn of(self, time: i64) -> u32 {
        let slot = time.saturating_add(self.shift).div_euclid(self.width) - self.first;
        slot.clamp(0, i64::from(self.count) - 1) as u32
    }

    /// When a bucket begins.
    pub(crate) fn begins(self, slot: u32) -> Timestamp {
        Timestamp::from_nanos((self.first + i64::from(slot)).saturating_mul(self.width))
    }
}

/// Groups with their keys and states.
#[derive(Debug)]
pub(crate) struct Table {
    interners: Vec<Interner>,
    hasher: DefaultHashBuilder,
    places: HashTable<u32>,
    /// Slot, then a number of each field's interner; `width` of them a group.
    keys: Vec<u32>,
    width: usize,
    pub(crate) states: Vec<State>,
    /// Keys without slot that are wanted.
    wanted: Option<hashbrown::HashSet<Box<[u32]>>>,
}

impl Table {
    fn new(pass: &Pass<'_>) -> Table {
        let mut interners: Vec<Interner> = pass.fields.iter().map(|_| Interner::default()).collect();
        let wanted = pass.only.map(|keys| {
            let number = |key: &Vec<Option<Value>>| {
                key.iter().zip(&mut interners).map(|(v, i)| i.intern(v.as_ref().map(Value::as_ref)).0).collect()
            };
            keys.iter().map(number).collect()
        });
        Table {
            interners,
            hasher: DefaultHashBuilder::default(),
            places: HashTable::new(),
            keys: Vec::new(),
            width: pass.fields.len() + 1,
            states: pass.states.iter().map(|(kind, _)| State::new(*kind)).collect(),
            wanted,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len() / self.width
    }

    /// Slot and values of a group.
    pub(crate) fn key(&self, group: usize) -> (u32, Vec<Option<Value>>) {
        let key = &self.keys[group * self.width..(group + 1) * self.width];
        (key[0], key[1..].iter().zip(&self.interners).map(|(n, i)| i.value(*n).cloned()).collect())
    }

    /// The numbers of a group's values: equal for the same series.
    pub(crate) fn series(&self, group: usize) -> &[u32] {
        &self.keys[group * self.width + 1..(group + 1) * self.width]
    }

    fn group(&mut self, key: &[u32], budget: &Budget) -> u32 {
        let (width, keys) = (self.width, &self.keys);
        let at = |n: u32| &keys[n as usize * width..(n as usize + 1) * width];
        let hash = self.hasher.hash_one(key);
        if let Some(found) = self.places.find(hash, |n| at(*n) == key) {
            return *found;
        }
        if self.wanted.as_ref().is_some_and(|wanted| !wanted.contains(&key[1..])) {
            return NO_GROUP;
        }
        if self.len() >= budget.groups_max() {
            budget.leave_out_groups();
            return NO_GROUP;
        }
        let number = self.len() as u32;
        let hasher = &self.hasher;
        self.places.insert_unique(hash, number, |n| hasher.hash_one(at(*n)));
        self.keys.extend_from_slice(key);
        self.states.iter_mut().for_each(|state| state.grow(number as usize + 1));
        budget.take(width * 4 + 6 + self.states.iter().map(State::group_bytes).sum::<usize>());
        number
    }

    /// Adds another thread's groups.
    fn merge(&mut self, other: &Table, budget: &Budget) {
        let mut maps: Vec<Vec<u32>> = Vec::new();
        for (ours, theirs) in self.interners.iter_mut().zip(&other.interners) {
            maps.push(theirs.values().iter().map(|v| ours.intern(v.as_ref().map(Value::as_ref)).0).collect());
        }
        let mut key = vec![0; self.width];
        for group in 0..other.len() {
            let theirs = &other.keys[group * self.width..(group + 1) * self.width];
            key[0] = theirs[0];
            key[1..].iter_mut().zip(&theirs[1..]).zip(&maps).for_each(|((k, t), map)| *k = map[*t as usize]);
            let ours = self.group(&key, budget);
            if ours != NO_GROUP {
                for (a, b) in self.states.iter_mut().zip(&other.states) {
                    budget.take(a.merge(ours as usize, b, group));
                }
            }
        }
    }
}

/// A field to group by in one chunk: codes, and numbers of the table's interner by code.
struct KeyLane<'a> {
    lane: Lane<'a>,
    /// Codes of the selected rows in order, where the column has none of its own, and the values by such a code.
    made: Option<(Vec<u32>, Interner)>,
    map: Vec<u32>,
    codes: Vec<u32>,
}

impl<'a> KeyLane<'a> {
    fn new(
        chunk: &'a Chunk,
        source: &'a Source,
        mask: &Mask,
        table: &Interner,
        closed: bool,
        budget: &Budget,
    ) -> Result<KeyLane<'a>, Stop> {
        let lane = Lane::of(chunk, source);
        if let Some(dict) = lane.dict() {
            let map = match closed && dict.is_ordered() && table.values().len() * SEARCH_FROM < dict.len() {
                true => known_codes(dict, table),
                false => vec![UNSEEN; dict.len() + 1],
            };
            return Ok(KeyLane { lane, made: None, map, codes: Vec::new() });
        }
        let (mut codes, mut values) = (Vec::new(), Interner::default());
        if !matches!(lane, Lane::Absent) {
            codes.reserve(mask.count());
            budget.take(mask.count() * 4);
            mask.blocks(|rows| {
                budget.check()?;
                codes.extend(rows.iter().map(|row| {
                    let value = lane.value(*row as usize);
                    values.intern(value.as_ref().map(|v| v.as_ref())).0
                }));
                Ok(())
            })?;
            budget.give_back(mask.count() * 4);
        }
        let map = vec![UNSEEN; values.values().len()];
        Ok(KeyLane { lane, made: Some((codes, values)), map, codes: Vec::new() })
    }

    fn read(&mut self, rows: &[u32], position: usize) {
        match &self.made {
            None => self.lane.codes(rows, &mut self.codes),
            Some((codes, _)) => {
                self.codes.clear();
                match codes.get(position..position + rows.len()) {
                    Some(part) => self.codes.extend_from_slice(part),
                    None => self.codes.resize(rows.len(), 0),
                }
            }
        }
    }

    /// The interner's number of a code; none if the value is not wanted.
    fn number(&mut self, code: u32, interner: &mut Interner, closed: bool, budget: &Budget) -> Option<u32> {
        let known = self.map[code as usize];
        if known != UNSEEN {
            return (known != NO_GROUP).then_some(known);
        }
        let value = match &self.made {
            None => self.lane.dict().and_then(|dict| dict.get(code)),
            Some((_, values)) => values.value(code).map(Value::as_ref),
        };
        let number = if closed {
            interner.find(value).unwrap_or(NO_GROUP)
        } else {
            let (number, bytes) = interner.intern(value);
            budget.take(bytes);
            number
        };
        self.map[code as usize] = number;
        (number != NO_GROUP).then_some(number)
    }
}

/// Numbers by code for a dictionary in order, of which only values of the interner are wanted.
fn known_codes(dict: &Dict, table: &Interner) -> Vec<u32> {
    let mut map = vec![NO_GROUP; dict.len() + 1];
    map[0] = 0;
    for (number, value) in table.values().iter().enumerate() {
        let Some(value) = value.as_ref().map(Value::as_ref) else { continue };
        let alike = match value {
            // A whole number may stand in the dictionary as another number of the same value.
            rows::ValueRef::Int(n) => vec![value, rows::ValueRef::Float(n as f64)],
            other => vec![other],
        };
        for value in alike {
            for code in dict.codes_of(value_hash(value)) {
                if dict.get(code) == Some(value) {
                    map[code as usize] = number as u32;
                }
            }
        }
    }
    map
}

enum Cache {
    Array(Vec<u32>),
    Hashed(HashMap<u64, u32>),
}

/// What a state reads from a chunk.
enum Input<'a> {
    Nothing,
    Numbers(usize),
    Hashes(Vec<u64>),
    HashesByRow(&'a Lane<'a>),
}

struct Worker<'a> {
    pass: &'a Pass<'a>,
    table: Table,
    rows_matched: u64,
    rows_scanned: u64,
}

/// The groups of all chunks, rows looked at and rows that matched.
pub(crate) struct Grouped {
    pub(crate) table: Table,
    pub(crate) rows_scanned: u64,
    pub(crate) rows_matched: u64,
}

/// Runs the pass.
pub(crate) fn group(chunks: &[&Chunk], pass: &Pass<'_>) -> Grouped {
    let make = || Worker { pass, table: Table::new(pass), rows_matched: 0, rows_scanned: 0 };
    let mut workers = share_out(chunks, make, |worker, _, chunk| worker.chunk(chunk)).into_iter();
    let mut all = workers.next().unwrap_or_else(make);
    for worker in workers {
        all.table.merge(&worker.table, pass.budget);
        all.rows_matched += worker.rows_matched;
        all.rows_scanned += worker.rows_scanned;
    }
    Grouped { table: all.table, rows_scanned: all.rows_scanned, rows_matched: all.rows_matched }
}

impl Worker<'_> {
    fn chunk(&mut self, chunk: &Chunk) -> Result<(), Stop> {
        let pass = self.pass;
        let budget = pass.budget;
        budget.check()?;
        let mask = select(chunk, pass.check, pass.from, pass.to);
        self.rows_scanned += chunk.len() as u64;
        let n_selected = mask.count();
        self.rows_matched += n_selected as u64;
        if n_selected == 0 {
            return Ok(());
        }
        let closed = pass.only.is_some();
        let mut keys = Vec::new();
        for (source, interner) in pass.fields.iter().zip(&self.table.interners) {
            keys.push(KeyLane::new(chunk, source, &mask, interner, closed, budget)?);
        }
        let lanes: Vec<Lane<'_>> = pass
            .states
            .iter()
            .map(|(_, source)| source.as_ref().map_or(Lane::Absent, |source| Lane::of(chunk, source)))
            .collect();
        let (numbers, inputs) = inputs(pass.states, &lanes);
        let weight_source = Source::Attribute(WEIGHT.to_owned());
        let weight_lane = Lane::of(chunk, &weight_source);
        let weights = (!matches!(weight_lane, Lane::Absent)).then(|| Numbers::of(&weight_lane));

        let n_slots = pass.slots.map_or(1, |s| u64::from(s.count));
        // Combinations of slot and codes, if they fit a number; else those so far are numbered before the next field.
        let product = keys.iter().try_fold(n_slots, |product, key| product.checked_mul(key.map.len() as u64));
        let mut cache = match product {
            Some(product) if product <= DENSE_MAX => Cache::Array(vec![UNSEEN; product as usize]),
            _ => Cache::Hashed(HashMap::new()),
        };
        let mut pairs: Vec<HashMap<(u64, u32), u64>> = keys.iter().map(|_| HashMap::new()).collect();

        let (mut combined, mut groups) = (Vec::<u64>::new(), Vec::<u32>::new());
        let (mut weighed, mut read) = (Vec::new(), vec![Vec::new(); numbers.len()]);
        let (mut codes, mut hashes) = (Vec::new(), Vec::new());
        let mut bucket = SlotOfTime::new(pass.slots);
        let mut position = 0;
        mask.blocks(|rows| {
            budget.check()?;
            combined.clear();
            match pass.slots {
                Some(_) => combined.extend(rows.iter().map(|r| u64::from(bucket.of(chunk.time[*r as usize])))),
                None => combined.resize(rows.len(), 0),
            }
            for (key, pairs) in keys.iter_mut().zip(&mut pairs) {
                key.read(rows, position);
                if product.is_some() {
                    let n = key.map.len() as u64;
                    combined.iter_mut().zip(&key.codes).for_each(|(c, code)| *c = *c * n + u64::from(*code));
                } else {
                    for (c, code) in combined.iter_mut().zip(&key.codes) {
                        let next = pairs.len() as u64;
                        *c = *pairs.entry((*c, *code)).or_insert(next);
                    }
                }
            }
            position += rows.len();
            groups.clear();
            let table = &mut self.table;
            for (n, combined) in combined.iter().enumerate() {
                let known = match &mut cache {
                    Cache::Array(groups) => &mut groups[*combined as usize],
                    Cache::Hashed(groups) => groups.entry(*combined).or_insert(UNSEEN),
                };
                if *known == UNSEEN {
                    let slot = if pass.slots.is_some() { bucket.of(chunk.time[rows[n] as usize]) } else { 0 };
                    *known = resolve(table, &mut keys, n, slot, closed, budget);
                }
                groups.push(*known);
            }
            if let Some(weights) = &weights {
                weights.read(rows, &mut weighed);
                // What is no sensible weight counts as one event.
                weighed.iter_mut().filter(|w| !(**w > 0.0 && w.is_finite())).for_each(|w| *w = 1.0);
            }
            let block = Rows { groups: &groups, weights: weights.is_some().then_some(&weighed[..]) };
            for (numbers, read) in numbers.iter().zip(&mut read) {
                numbers.read(rows, read);
            }
            for (state, (input, lane)) in table.states.iter_mut().zip(inputs.iter().zip(&lanes)) {
                match input {
                    Input::Nothing => state.count_rows(block),
                    Input::Numbers(place) => state.add_numbers(block, &read[*place], budget),
                    Input::Hashes(by_code) => {
                        lane.codes(rows, &mut codes);
                        hashes.clear();
                        hashes.extend(codes.iter().map(|code| by_code[*code as usize]));
                        state.add_hashes(block, &hashes, budget);
                    }
                    Input::HashesByRow(lane) => {
                        hashes.clear();
                        hashes.extend(rows.iter().map(|r| hash_at(lane, *r as usize)));
                        state.add_hashes(block, &hashes, budget);
                    }
                }
            }
            Ok(())
        })
    }
}

/// 0 is kept for what is absent.
fn hash_at(lane: &Lane<'_>, row: usize) -> u64 {
    match lane {
        Lane::Span(ids) => match ids[row] {
            0 => 0,
            id => mixed_hash(rows::ValueRef::Int(id as i64)) | 1,
        },
        Lane::Trace(chunk) => match chunk.trace(row) {
            0 => 0,
            id => mixed_hash(rows::ValueRef::Int((id >> 64) as i64 ^ (id as i64).rotate_left(31))) | 1,
        },
        lane => lane.value(row).map_or(0, |value| mixed_hash(value.as_ref()) | 1),
    }
}

/// Columns of numbers, each once, and what each state reads.
fn inputs<'a>(states: &[(Kind, Option<Source>)], lanes: &'a [Lane<'a>]) -> (Vec<Numbers<'a>>, Vec<Input<'a>>) {
    let mut numbers: Vec<Numbers<'a>> = Vec::new();
    let mut places: Vec<(&Source, usize)> = Vec::new();
    let mut inputs = Vec::new();
    for ((kind, source), lane) in states.iter().zip(lanes) {
        inputs.push(match (kind, source) {
            (Kind::Count, _) | (_, None) => Input::Nothing,
            (Kind::Distinct, _) => match lane.dict() {
                Some(dict) => {
                    let hash = |code| dict.get(code).map_or(0, |value| mixed_hash(value) | 1);
                    Input::Hashes((0..=dict.len() as u32).map(hash).collect())
                }
                None => Input::HashesByRow(lane),
            },
            (_, Some(source)) => match places.iter().find(|(s, _)| *s == source) {
                Some((_, place)) => Input::Numbers(*place),
                None => {
                    places.push((source, numbers.len()));
                    numbers.push(Numbers::of(lane));
                    Input::Numbers(numbers.len() - 1)
                }
            },
        });
    }
    (numbers, inputs)
}

fn resolve(table: &mut Table, keys: &mut [KeyLane<'_>], n: usize, slot: u32, closed: bool, budget: &Budget) -> u32 {
    let mut key = Vec::with_capacity(keys.len() + 1);
    key.push(slot);
    for (lane, interner) in keys.iter_mut().zip(&mut table.interners) {
        let code = lane.codes[n];
        match lane.number(code, interner, closed, budget) {
            Some(number) => key.push(number),
            None => return NO_GROUP,
        }
    }
    table.group(&key, budget)
}

/// Times mostly follow each other, so the bucket of the last one is tried before dividing.
struct SlotOfTime {
    slots: Option<Slots>,
    from: i64,
    to: i64,
    slot: u32,
}

impl SlotOfTime {
    fn new(slots: Option<Slots>) -> SlotOfTime {
        SlotOfTime { slots, from: 0, to: 0, slot: 0 }
    }

    fn of(&mut self, time: i64) -> u32 {
        let Some(slots) = self.slots else { return 0 };
        if time < self.from || time >= self.to {
            let shifted = time.saturating_add(slots.shift);
            let begin = shifted.div_euclid(slots.width).saturating_mul(slots.width);
            (self.from, self.to) =
                (begin.saturating_sub(slots.shift), begin.saturating_add(slots.width).saturating_sub(slots.shift));
            self.slot = slots.of(time);
        }
        self.slot
    }
}
