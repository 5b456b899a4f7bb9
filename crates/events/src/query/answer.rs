//! A whole answer of groups.
//!
//! If there may be many groups, and their order needs less than all figures, a first pass finds which groups are in the
//! answer (by count of one attribute: [`top`], without hashing a row), and a second calculates the rest for these alone.

use std::cmp::Ordering;
use std::collections::HashMap;

use rows::{Value, ValueRef};
use vocab::{Millis, Timestamp};

use super::budget::{Budget, Stop};
use super::calculation::{Calculation, Having};
use super::concurrency::{Flights, flights};
use super::group::{Grouped, Pass, Slots, Table, group};
use super::lane::{Names, Source, normal};
use super::select::{Check, resolve};
use super::state::{Kind, State};
use super::top::{top, values_of};
use super::{Answer, BUCKETS_MAX, Cell, Column, ColumnKind, PARTS_MAX, Query, QueryError, ROWS_MAX, raw};
use crate::chunk::Chunk;

/// With fewer possible groups one pass is quicker.
const TWO_PASSES_FROM: u64 = 20_000;
/// Widths that a heatmap without a step chooses from, in seconds.
const WIDTHS: [u64; 14] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 10_800, 86_400];
/// Buckets that a heatmap without a step has at most, about.
const HEATMAP_BUCKETS: u64 = 90;

/// What a calculation reads from states.
#[derive(Clone, Copy, Debug)]
struct Figure<'q> {
    calculation: &'q Calculation,
    state: usize,
}

/// The question with its names resolved.
struct Plan<'q> {
    query: &'q Query,
    check: Check,
    /// The same of the earlier window, which has related spans of its own.
    check_earlier: Option<Check>,
    fields: Vec<Source>,
    states: Vec<(Kind, Option<Source>)>,
    figures: Vec<Figure<'q>>,
    slots: Option<Slots>,
    /// Nothing after this counts as time.
    until: Timestamp,
    having: Vec<(usize, &'q Having)>,
    order: Vec<(Key, bool)>,
}

/// What is ordered by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    Time,
    Field(usize),
    Figure(usize),
}

/// A group over the whole time, with its place in each time bucket.
struct Series {
    keys: Vec<Option<Value>>,
    /// Its number in the totals.
    total: usize,
    /// Slot and group, ascending.
    parts: Vec<(u32, usize)>,
}

fn at_most(what: &'static str, given: usize, max: usize) -> Result<(), QueryError> {
    if given > max { Err(QueryError::TooMany { what, given, max }) } else { Ok(()) }
}

pub(crate) fn answer(chunks: &[&Chunk], query: &Query, budget: &Budget) -> Result<Answer, QueryError> {
    at_most("fields to group by", query.group_by.len(), PARTS_MAX)?;
    at_most("calculations", query.calculate.len(), PARTS_MAX)?;
    at_most("calculated fields", query.calculated.len(), PARTS_MAX)?;
    at_most("orders", query.order.len(), PARTS_MAX)?;
    at_most("conditions on figures", query.having.len(), PARTS_MAX)?;
    at_most("fields", query.fields.len(), 1_000)?;
    at_most("rows of limit and offset", query.limit.saturating_add(query.offset), ROWS_MAX)?;
    if query.from >= query.to {
        return Err(QueryError::EmptyRange { from: query.from, to: query.to });
    }
    let names = Names::new(chunks, &query.calculated)?;
    if query.calculate.is_empty() {
        return raw::raw(chunks, query, &names, budget);
    }
    let plan = Plan::new(chunks, query, &names, budget)?;
    plan.run(chunks, budget)
}

impl<'q> Plan<'q> {
    fn new(chunks: &[&Chunk], query: &'q Query, names: &Names<'_>, budget: &Budget) -> Result<Plan<'q>, QueryError> {
        let fields: Vec<Source> = query.group_by.iter().map(|f| names.parse(f)).collect::<Result<_, _>>()?;
        let mut states: Vec<(Kind, Option<Source>)> = vec![(Kind::Count, None)];
        let mut figures = Vec::new();
        for calculation in &query.calculate {
            let source = calculation.field().map(|f| names.parse(f)).transpose()?;
            let kind = match calculation {
                Calculation::Count | Calculation::Rate | Calculation::Concurrency => Kind::Count,
                Calculation::CountDistinct(_) => Kind::Distinct,
                Calculation::Sum(_)
                | Calculation::Avg(_)
                | Calculation::Min(_)
                | Calculation::Max(_)
                | Calculation::RateSum(_) => Kind::Moments,
                Calculation::Percentile(..) | Calculation::Histogram(_) | Calculation::Heatmap(_) => Kind::Sketch,
            };
            let wanted = (kind, source);
            let state = states.iter().position(|s| *s == wanted).unwrap_or_else(|| {
                states.push(wanted);
                states.len() - 1
            });
            figures.push(Figure { calculation, state });
        }
        let by_name = |name: &str| {
            let wanted = Calculation::parse(name).ok();
            query.calculate.iter().position(|c| wanted.as_ref() == Some(c))
        };
        let unknown = |name: &str| {
            let mut known = query.group_by.clone();
            known.extend(query.calculate.iter().map(Calculation::name));
            QueryError::NotInAnswer { name: name.to_owned(), known: known.join(", ") }
        };
        let having = query
            .having
            .iter()
            .map(|h| match query.calculate.iter().position(|c| *c == h.figure) {
                Some(place) => Ok((place, h)),
                None => Err(unknown(&h.figure.name())),
            })
            .collect::<Result<_, _>>()?;
        let mut order = Vec::new();
        for wanted in &query.order {
            let key = match query.group_by.iter().position(|f| f.trim() == wanted.by) {
                Some(place) => Key::Field(place),
                None => match by_name(&wanted.by) {
                    Some(place) => Key::Figure(place),
                    None if wanted.by == rows::TIME && slots_wanted(query) => Key::Time,
                    None => return Err(unknown(&wanted.by)),
                },
            };
            order.push((key, wanted.descending));
        }
        if !order.iter().any(|(key, _)| matches!(key, Key::Figure(_) | Key::Field(_))) {
            let is_number = |c: &Calculation| !matches!(c, Calculation::Histogram(_) | Calculation::Heatmap(_));
            order.extend(query.calculate.iter().position(is_number).map(|place| (Key::Figure(place), true)));
        }
        let slots = slots(query)?;
        let check = resolve(&query.filter, names, chunks, budget, (query.from, query.to))?;
        let window_earlier = query.compare_to.map(|back| (query.from - back, query.to - back));
        let resolve_in = |window| resolve(&query.filter, names, chunks, budget, window);
        let check_earlier = window_earlier.map(resolve_in).transpose()?;
        let until = if query.now > query.from { query.to.min(query.now) } else { query.to };
        Ok(Plan { query, check, check_earlier, fields, states, figures, slots, until, having, order })
    }

    /// States that order and conditions on figures look at.
    fn ranking(&self) -> Vec<usize> {
        let figures = self.order.iter().filter_map(|(key, _)| if let Key::Figure(n) = key { Some(*n) } else { None });
        let figures = figures.chain(self.having.iter().map(|(n, _)| *n));
        let mut states: Vec<usize> = figures.map(|n| self.figures[n].state).chain([0]).collect();
        states.sort_unstable();
        states.dedup();
        states
    }

    /// How many groups there may be.
    fn groups_possible(&self, chunks: &[&Chunk]) -> u64 {
        let distinct = |column: &crate::column::Column, chunk: &Chunk| match column.coded() {
            Some((_, dict)) => dict.len() as u64 + 1,
            None => chunk.len() as u64 + 1,
        };
        let values = |source: &Source| match source {
            Source::Attribute(name) => {
                let of = |chunk: &&Chunk| chunk.named(name).map(|c| distinct(c, chunk)).sum::<u64>();
                chunks.iter().map(of).max().unwrap_or(1).max(1)
            }
            _ => TWO_PASSES_FROM,
        };
        self.fields.iter().map(values).fold(1, u64::saturating_mul)
    }

    fn pass<'a>(
        &'a self,
        states: &'a [(Kind, Option<Source>)],
        slots: Option<Slots>,
        only: Option<&'a [Vec<Option<Value>>]>,
        budget: &'a Budget,
    ) -> Pass<'a> {
        Pass {
            check: &self.check,
            from: self.query.from,
            to: self.query.to,
            fields: &self.fields,
            slots,
            states,
            only,
            budget,
        }
    }

    fn has_concurrency(&self) -> bool {
        self.figures.iter().any(|f| matches!(f.calculation, Calculation::Concurrency))
    }

    fn run(&self, chunks: &[&Chunk], budget: &Budget) -> Result<Answer, QueryError> {
        let query = self.query;
        let wanted = query.limit + query.offset;
        let mut answer = Answer {
            columns: self.columns(),
            step: self.slots.map(|s| Millis((s.width / 1_000_000) as u64)),
            ..Answer::default()
        };
        let ranking = self.ranking();
        let cheap = ranking.iter().all(|n| !self.states[*n].0.is_expensive());
        let saves = self.slots.is_some() || ranking.len() < self.states.len();
        let two_passes = !self.fields.is_empty()
            && cheap
            && self.groups_possible(chunks) >= TWO_PASSES_FROM
            && !self.has_concurrency();
        let by_count = self.having.is_empty()
            && self.order.first().is_some_and(|(key, descending)| match key {
                Key::Figure(n) => {
                    *descending && matches!(self.figures[*n].calculation, Calculation::Count | Calculation::Rate)
                }
                _ => false,
            })
            && self.order.len() == 1;
        let mut winners: Option<Vec<Vec<Option<Value>>>> = None;
        let whole = (query.from, query.to);
        if two_passes && by_count && self.fields.len() == 1 && values_of(chunks, &self.fields[0]).is_some() {
            let found = top(chunks, &self.fields[0], &self.check, whole, wanted, budget);
            answer.groups = found.groups;
            (answer.rows_scanned, answer.rows_matched) = (found.rows_scanned, found.rows_matched);
            if self.slots.is_none() && self.states.len() == 1 {
                let mut table = Vec::new();
                for (value, count) in found.values.into_iter().skip(query.offset) {
                    let figure = |f: &Figure<'_>| match f.calculation {
                        Calculation::Rate => Cell::figure(self.per_second(count, None)),
                        _ => Cell::figure(Some(count)),
                    };
                    table.push(std::iter::once(Cell::of(value)).chain(self.figures.iter().map(figure)).collect());
                }
                answer.has_more = found.groups > wanted as u64;
                answer.rows = table;
                return self.with_earlier(answer, chunks, budget);
            }
            winners = Some(found.values.into_iter().map(|(value, _)| vec![value]).collect());
        } else if two_passes && saves {
            let states: Vec<(Kind, Option<Source>)> = ranking.iter().map(|n| self.states[*n].clone()).collect();
            let grouped = group(chunks, &self.pass(&states, None, None, budget));
            (answer.rows_scanned, answer.rows_matched) = (grouped.rows_scanned, grouped.rows_matched);
            let place = |n: usize| ranking.iter().position(|r| *r == n);
            let ranked = self.rank(&grouped.table, None, &place);
            answer.groups = ranked.len() as u64;
            winners = Some(ranked.into_iter().take(wanted).map(|series| series.keys).collect());
        }
        if budget.stopped() == Some(Stop::Cancelled) {
            return Err(QueryError::Cancelled);
        }
        let grouped = group(chunks, &self.pass(&self.states, self.slots, winners.as_deref(), budget));
        let flights = self
            .has_concurrency()
            .then(|| flights(chunks, &self.check, &self.fields, self.slots, (query.from, self.until), budget));
        if winners.is_none() {
            (answer.rows_scanned, answer.rows_matched) = (grouped.rows_scanned, grouped.rows_matched);
        }
        let mut ranked = self.rank(&grouped.table, flights.as_ref(), &|n| Some(n));
        if winners.is_none() {
            answer.groups = ranked.len() as u64;
        }
        answer.has_more = answer.groups > wanted as u64 && ranked.len() >= wanted;
        let chosen: Vec<Series> = ranked.drain(..).skip(query.offset).take(query.limit).collect();
        answer.rows = self.lines(&grouped, flights.as_ref(), &chosen);
        self.with_earlier(answer, chunks, budget)
    }

    fn columns(&self) -> Vec<Column> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind };
        let mut columns = Vec::new();
        if self.slots.is_some() {
            columns.push(column(rows::TIME, ColumnKind::Time));
        }
        columns.extend(self.query.group_by.iter().map(|f| column(f.trim(), ColumnKind::Key)));
        columns.extend(self.query.calculate.iter().map(|c| column(&c.name(), ColumnKind::Figure)));
        columns
    }

    /// Series in the order of the answer, those left out by `having` removed. `place` gives where a state of the plan is in
    /// the table.
    fn rank(&self, table: &Table, flights: Option<&Flights>, place: &dyn Fn(usize) -> Option<usize>) -> Vec<Series> {
        let mut places: HashMap<&[u32], usize> = HashMap::new();
        let mut all: Vec<Series> = Vec::new();
        for n in 0..table.len() {
            let (slot, keys) =
                if self.slots.is_none() && self.fields.is_empty() { (0, Vec::new()) } else { table.key(n) };
            let at = *places.entry(table.series(n)).or_insert_with(|| {
                all.push(Series { keys, total: all.len(), parts: Vec::new() });
                all.len() - 1
            });
            all[at].parts.push((slot, n));
        }
        if let Some(flights) = flights {
            let known: std::collections::HashSet<String> = all.iter().map(|s| format!("{:?}", s.keys)).collect();
            for keys in flights.keys() {
                if !known.contains(&format!("{keys:?}")) {
                    all.push(Series { keys, total: all.len(), parts: Vec::new() });
                }
            }
        }
        if all.is_empty() && self.fields.is_empty() {
            all.push(Series { keys: Vec::new(), total: 0, parts: Vec::new() });
        }
        let mut totals: Vec<State> = table.states.iter().map(|state| state.like(all.len())).collect();
        for series in &mut all {
            series.parts.sort_unstable();
            for (_, group) in &series.parts {
                for (total, state) in totals.iter_mut().zip(&table.states) {
                    total.merge(series.total, state, *group);
                }
            }
        }
        let figures: Vec<Vec<Option<f64>>> = all
            .iter()
            .map(|series| {
                let figure = |f: &Figure<'_>| match f.calculation {
                    Calculation::Concurrency => flights.map(|flights| flights.average(&series.keys, None)),
                    _ => place(f.state).and_then(|p| self.figure(f, &totals[p], series.total, None).number()),
                };
                // Minus zero is zero, in conditions and in the order.
                self.figures.iter().map(|f| figure(f).map(|n| n + 0.0)).collect()
            })
            .collect();
        all.retain(|series| self.having.iter().all(|(n, having)| having.holds(figures[series.total][*n])));
        all.sort_by(|a, b| {
            for (key, descending) in &self.order {
                let by = match key {
                    Key::Time => Ordering::Equal,
                    // What is absent comes last in either direction.
                    Key::Figure(n) => {
                        absent_last(figures[a.total][*n], figures[b.total][*n], *descending, |a, b| a.total_cmp(b))
                    }
                    Key::Field(n) => absent_last(a.keys[*n].as_ref(), b.keys[*n].as_ref(), *descending, |a, b| {
                        order_of(a.as_ref(), b.as_ref())
                    }),
                };
                if by != Ordering::Equal {
                    return by;
                }
            }
            let keys = a.keys.iter().zip(&b.keys);
            keys.map(|(a, b)| absent_last(a.as_ref(), b.as_ref(), false, |a, b| order_of(a.as_ref(), b.as_ref())))
                .find(|o| *o != Ordering::Equal)
                .unwrap_or(Ordering::Equal)
        });
        all
    }

    fn per_second(&self, n: f64, slot: Option<u32>) -> Option<f64> {
        let (mut from, mut to) = (self.query.from, self.until);
        if let (Some(slots), Some(slot)) = (self.slots, slot) {
            from = from.max(slots.begins(slot));
            to = to.min(slots.begins(slot + 1));
        }
        let seconds = to.secs_since(from);
        (seconds > 0.0).then(|| n / seconds)
    }

    fn figure(&self, figure: &Figure<'_>, state: &State, group: usize, slot: Option<u32>) -> Cell {
        let number = match (state, figure.calculation) {
            (State::Count(v), Calculation::Rate) => self.per_second(v[group], slot),
            (State::Count(v), _) => Some(v[group]),
            (State::Distinct(v), _) => Some(v[group].count()),
            (State::Moments(v), _) if v[group].n == 0.0 => None,
            (State::Moments(v), Calculation::Sum(_)) => Some(v[group].sum),
            (State::Moments(v), Calculation::RateSum(_)) => self.per_second(v[group].sum, slot),
            (State::Moments(v), Calculation::Avg(_)) => Some(v[group].sum / v[group].n),
            (State::Moments(v), Calculation::Min(_)) => Some(v[group].min),
            (State::Moments(v), _) => Some(v[group].max),
            (State::Sketch(v), Calculation::Percentile(p, _)) => v[group].percentile(p / 100.0),
            (State::Sketch(v), _) => return Cell::Buckets(v[group].histogram()),
        };
        Cell::figure(number)
    }

    /// The figure of no event.
    fn nothing(&self, figure: &Figure<'_>) -> Cell {
        match figure.calculation {
            Calculation::Count | Calculation::Rate | Calculation::CountDistinct(_) => Cell::figure(Some(0.0)),
            Calculation::Histogram(_) | Calculation::Heatmap(_) => Cell::Buckets(Vec::new()),
            _ => Cell::None,
        }
    }

    fn lines(&self, grouped: &Grouped, flights: Option<&Flights>, chosen: &[Series]) -> Vec<Vec<Cell>> {
        let mut lines: Vec<(u32, Vec<Cell>)> = Vec::new();
        for series in chosen {
            let line = |slot: Option<u32>, group: Option<usize>| {
                let time = slot.and_then(|slot| self.slots.map(|s| Cell::Time(s.begins(slot))));
                let keys = series.keys.iter().map(|value| Cell::of(value.clone()));
                let figure = |f: &Figure<'_>| match (f.calculation, flights, group) {
                    (Calculation::Concurrency, Some(flights), _) => {
                        Cell::figure(Some(flights.average(&series.keys, slot)))
                    }
                    (_, _, Some(group)) => self.figure(f, &grouped.table.states[f.state], group, slot),
                    _ => self.nothing(f),
                };
                time.into_iter().chain(keys).chain(self.figures.iter().map(figure)).collect::<Vec<Cell>>()
            };
            let Some(slots) = self.slots else {
                lines.push((0, line(None, series.parts.first().map(|(_, group)| *group))));
                continue;
            };
            let mut parts = series.parts.iter().peekable();
            for slot in 0..slots.count {
                let group = parts.next_if(|(s, _)| *s == slot).map(|(_, group)| *group);
                let flying = flights.is_some_and(|flights| flights.average(&series.keys, Some(slot)) > 0.0);
                if group.is_some() || self.query.fill || flying {
                    if lines.len() >= ROWS_MAX {
                        break;
                    }
                    lines.push((slot, line(Some(slot), group)));
                }
            }
        }
        // Within a bucket the series keep their order.
        match self.order.iter().find(|(key, _)| *key == Key::Time) {
            Some((_, true)) => lines.sort_by_key(|(slot, _)| std::cmp::Reverse(*slot)),
            _ => lines.sort_by_key(|(slot, _)| *slot),
        }
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// Adds the figures of the window that is earlier by `compare_to`, for the groups that are in the answer.
    fn with_earlier(&self, mut answer: Answer, chunks: &[&Chunk], budget: &Budget) -> Result<Answer, QueryError> {
        let (Some(back), Some(check)) = (self.query.compare_to, &self.check_earlier) else { return Ok(answer) };
        let n_fields = self.fields.len();
        let first = usize::from(self.slots.is_some());
        let keys_of = |line: &[Cell]| -> Vec<Option<Value>> {
            let value = |cell: &Cell| if let Cell::Value(value) = cell { Some(value.clone()) } else { None };
            line[first..first + n_fields].iter().map(value).collect()
        };
        let mut only: Vec<Vec<Option<Value>>> = answer.rows.iter().map(|line| keys_of(line)).collect();
        only.sort_by_key(|keys| format!("{keys:?}"));
        only.dedup();
        let slots = self.slots.map(|s| Slots { shift: back.nanos(), ..s });
        let (from, to) = (self.query.from - back, self.query.to - back);
        let pass = Pass { check, from, to, ..self.pass(&self.states, slots, Some(&only), budget) };
        let grouped = group(chunks, &pass);
        let flights = self.has_concurrency().then(|| {
            let until = if self.until < self.query.to { self.until - back } else { to };
            flights(chunks, check, &self.fields, slots, (from, until), budget)
        });
        let mut places: HashMap<(String, u32), usize> = HashMap::new();
        for n in 0..grouped.table.len() {
            let (slot, keys) = grouped.table.key(n);
            places.insert((format!("{keys:?}"), slot), n);
        }
        for line in &mut answer.rows {
            let keys = keys_of(line);
            let slot = match (line.first(), self.slots) {
                (Some(Cell::Time(time)), Some(s)) => Some((time.nanos().div_euclid(s.width) - s.first) as u32),
                _ => None,
            };
            let found = places.get(&(format!("{keys:?}"), slot.unwrap_or(0)));
            for figure in &self.figures {
                line.push(match (figure.calculation, &flights, found) {
                    (Calculation::Concurrency, Some(flights), _) => Cell::figure(Some(flights.average(&keys, slot))),
                    (_, _, Some(group)) => self.figure(figure, &grouped.table.states[figure.state], *group, slot),
                    _ => self.nothing(figure),
                });
            }
        }
        for figure in &self.figures {
            let name = format!("{} earlier", figure.calculation.name());
            answer.columns.push(Column { name, kind: ColumnKind::Earlier });
        }
        Ok(answer)
    }
}

/// Order with what is absent at the end.
fn absent_last<T>(a: Option<T>, b: Option<T>, descending: bool, order: impl Fn(&T, &T) -> Ordering) -> Ordering {
    match (&a, &b) {
        (Some(a), Some(b)) if descending => order(b, a),
        (Some(a), Some(b)) => order(a, b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// Numbers, then text, then truth values.
pub(crate) fn order_of(a: ValueRef<'_>, b: ValueRef<'_>) -> Ordering {
    let rank = |v: &ValueRef<'_>| match v {
        ValueRef::Int(_) | ValueRef::Float(_) => 0,
        ValueRef::Str(_) => 1,
        ValueRef::Bool(_) => 2,
    };
    match (normal(a), normal(b)) {
        (ValueRef::Int(a), ValueRef::Int(b)) => a.cmp(&b),
        (ValueRef::Str(a), ValueRef::Str(b)) => a.cmp(b),
        (ValueRef::Bool(a), ValueRef::Bool(b)) => a.cmp(&b),
        (a, b) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => rank(&a).cmp(&rank(&b)),
        },
    }
}

/// Order of values that may be absent, the absent ones last.
pub(crate) fn order_absent_last(a: Option<&Value>, b: Option<&Value>, descending: bool) -> Ordering {
    absent_last(a, b, descending, |a, b| order_of(a.as_ref(), b.as_ref()))
}

fn slots_wanted(query: &Query) -> bool {
    query.step.is_some() || query.calculate.iter().any(|c| matches!(c, Calculation::Heatmap(_)))
}

/// Time buckets: multiples of the step from the epoch on, so that the same time is in the same bucket in every answer.
fn slots(query: &Query) -> Result<Option<Slots>, QueryError> {
    if !slots_wanted(query) {
        return Ok(None);
    }
    let length = query.to.since(query.from);
    let width = query.step.unwrap_or_else(|| {
        let wanted = length.0 / 1_000 / HEATMAP_BUCKETS;
        Millis::from_secs(WIDTHS.into_iter().find(|w| *w >= wanted).unwrap_or(wanted))
    });
    let width = width.nanos().max(1_000_000);
    let first = query.from.nanos().div_euclid(width);
    let last = query.to.nanos().saturating_sub(1).div_euclid(width);
    let buckets = last.abs_diff(first) + 1;
    if buckets > BUCKETS_MAX {
        let smallest = Millis::from_secs(length.0 / 1_000 / (BUCKETS_MAX - 1) + 1);
        return Err(QueryError::Buckets { buckets, smallest });
    }
    Ok(Some(Slots { width, first, count: buckets as u32, shift: 0 }))
}
