//! Which rows of a chunk satisfy a filter, conditions on related spans included.
//!
//! `root.f`, `parent.f` and `any.f` are the fields of another event of the row's trace: of the span without a parent, of the
//! span that called this one, of any event, log records included. A span is what has a duration: a log record names the span
//! it was written in, and is neither its parent nor a root. Conditions with the same prefix that stand in one `and` mean one span, and so does a group of
//! `and` and `or` in which all conditions have it. `not` is outside: `not any.error = true` holds where no span has it.
//! Related spans are looked for up to an hour before and after the time range.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::Array;
use rows::{Comparison, Condition, Filter, Test, Value, ValueRef};
use vocab::Timestamp;

use super::budget::{Budget, Stop, share_out};
use super::lane::{Lane, Names, Source, hex};
use super::{QueryError, RELATED};
use crate::chunk::Chunk;
use crate::column::{Codes, Column, Data, Dict, value_hash};
use crate::mask::Mask;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Root,
    Parent,
    Any,
}

const PREFIXES: [(&str, Relation); 3] =
    [("root.", Relation::Root), ("parent.", Relation::Parent), ("any.", Relation::Any)];

/// A filter, resolved for the chunks of one query.
#[derive(Debug)]
pub(crate) enum Check {
    All,
    Test(Source, Comparison),
    And(Vec<Check>),
    Or(Vec<Check>),
    Not(Box<Check>),
    /// The row's trace is one of these.
    Traces(Arc<HashSet<u128>>),
    /// The row's trace and parent are one of these.
    Parents(Arc<HashSet<(u128, u64)>>),
}

struct Resolver<'a> {
    names: &'a Names<'a>,
    chunks: &'a [&'a Chunk],
    budget: &'a Budget,
    from: Timestamp,
    to: Timestamp,
}

/// Resolves a filter; conditions on related spans are answered at once.
pub(crate) fn resolve(
    filter: &Filter,
    names: &Names<'_>,
    chunks: &[&Chunk],
    budget: &Budget,
    (from, to): (Timestamp, Timestamp),
) -> Result<Check, QueryError> {
    Resolver { names, chunks, budget, from: from - RELATED, to: to + RELATED }.check(filter.root(), true)
}

impl Resolver<'_> {
    fn prefix(&self, field: &str) -> Option<(&'static str, Relation)> {
        let found = PREFIXES.iter().find(|(prefix, _)| field.len() > prefix.len() && field.starts_with(prefix))?;
        (!self.names.has_attribute(field)).then_some(*found)
    }

    /// The relation that all conditions have, if it is one and none is negated.
    fn relation(&self, condition: &Condition) -> Option<Relation> {
        match condition {
            Condition::Test(test) => self.prefix(&test.field).map(|(_, relation)| relation),
            Condition::And(parts) | Condition::Or(parts) => {
                let first = self.relation(parts.first()?)?;
                parts.iter().all(|part| self.relation(part) == Some(first)).then_some(first)
            }
            Condition::All | Condition::Not(_) => None,
        }
    }

    fn without_prefix(&self, condition: &Condition) -> Condition {
        let all = |parts: &[Condition]| parts.iter().map(|part| self.without_prefix(part)).collect();
        match condition {
            Condition::Test(test) => {
                let cut = self.prefix(&test.field).map_or(0, |(prefix, _)| prefix.len());
                Condition::Test(Test { field: test.field[cut..].to_owned(), comparison: test.comparison.clone() })
            }
            Condition::And(parts) => Condition::And(all(parts)),
            Condition::Or(parts) => Condition::Or(all(parts)),
            other => other.clone(),
        }
    }

    fn check(&self, condition: &Condition, related: bool) -> Result<Check, QueryError> {
        if related {
            if let Some(relation) = self.relation(condition) {
                return self.related(relation, condition);
            }
        }
        match condition {
            Condition::All => Ok(Check::All),
            Condition::Test(test) => {
                let source = self.names.field(&test.field);
                let comparison = match source {
                    Source::Time => test.comparison.of_time().map_err(QueryError::Time)?,
                    _ => test.comparison.clone(),
                };
                Ok(Check::Test(source, comparison))
            }
            Condition::Not(inner) => Ok(Check::Not(Box::new(self.check(inner, related)?))),
            Condition::Or(parts) => {
                Ok(Check::Or(parts.iter().map(|part| self.check(part, related)).collect::<Result<_, _>>()?))
            }
            Condition::And(parts) => {
                let mut checks = Vec::new();
                let relations: Vec<Option<Relation>> =
                    parts.iter().map(|part| if related { self.relation(part) } else { None }).collect();
                for (_, relation) in PREFIXES {
                    let same: Vec<Condition> = parts
                        .iter()
                        .zip(&relations)
                        .filter(|(_, r)| **r == Some(relation))
                        .map(|(part, _)| part.clone())
                        .collect();
                    if !same.is_empty() {
                        checks.push(self.related(relation, &Condition::And(same))?);
                    }
                }
                for (part, _) in parts.iter().zip(&relations).filter(|(_, r)| r.is_none()) {
                    checks.push(self.check(part, related)?);
                }
                Ok(Check::And(checks))
            }
        }
    }

    fn related(&self, relation: Relation, condition: &Condition) -> Result<Check, QueryError> {
        let check = self.check(&self.without_prefix(condition), false)?;
        let found = share_out(self.chunks, HashSet::new, |found: &mut HashSet<(u128, u64)>, _, chunk| {
            select(chunk, &check, self.from, self.to).blocks(|rows| {
                self.budget.check()?;
                let before = found.capacity();
                for row in rows.iter().map(|row| *row as usize) {
                    let trace = chunk.trace(row);
                    let is_span = chunk.duration[row] >= 0;
                    match relation {
                        _ if trace == 0 => {}
                        Relation::Any => _ = found.insert((trace, 0)),
                        Relation::Root if is_span && chunk.parent[row] == 0 => _ = found.insert((trace, 0)),
                        Relation::Parent if is_span && chunk.span[row] != 0 => {
                            _ = found.insert((trace, chunk.span[row]))
                        }
                        _ => {}
                    }
                }
                self.budget.take((found.capacity() - before) * 33);
                Ok::<(), Stop>(())
            })
        });
        if self.budget.stopped() == Some(Stop::Cancelled) {
            return Err(QueryError::Cancelled);
        }
        let all = found.into_iter().reduce(|mut a, b| {
            a.extend(b);
            a
        });
        let all = all.unwrap_or_default();
        Ok(match relation {
            Relation::Parent => Check::Parents(Arc::new(all)),
            _ => Check::Traces(Arc::new(all.into_iter().map(|(trace, _)| trace).collect())),
        })
    }
}

/// Rows that begin within `[from, to)` and satisfy the filter.
pub(crate) fn select(chunk: &Chunk, check: &Check, from: Timestamp, to: Timestamp) -> Mask {
    let (from, to) = (from.nanos(), to.nanos());
    if chunk.time_max < from || chunk.time_min >= to {
        return Mask::none(chunk.len());
    }
    let mask = holds(chunk, check);
    if from <= chunk.time_min && chunk.time_max < to {
        return mask;
    }
    mask.and(&Mask::of(&chunk.time, |t| from <= t && t < to))
}

fn holds(chunk: &Chunk, check: &Check) -> Mask {
    let n = chunk.len();
    match check {
        Check::All => Mask::all(n),
        Check::Not(inner) => holds(chunk, inner).not(),
        Check::And(parts) => parts.iter().fold(Mask::all(n), |mask, part| mask.and(&holds(chunk, part))),
        Check::Or(parts) => parts.iter().fold(Mask::none(n), |mask, part| mask.or(&holds(chunk, part))),
        Check::Traces(traces) => by_row(n, |row| traces.contains(&chunk.trace(row))),
        Check::Parents(parents) => {
            by_row(n, |row| chunk.parent[row] != 0 && parents.contains(&(chunk.trace(row), chunk.parent[row])))
        }
        Check::Test(source, comparison) => test(chunk, source, comparison),
    }
}

fn by_row(n: usize, holds: impl Fn(usize) -> bool) -> Mask {
    let mut mask = Mask::none(n);
    (0..n).filter(|row| holds(*row)).for_each(|row| mask.set(row));
    mask
}

fn test(chunk: &Chunk, source: &Source, comparison: &Comparison) -> Mask {
    match source {
        Source::Time => Mask::of(&chunk.time, |t| comparison.holds(Some(ValueRef::Int(t)))),
        Source::Duration => durations(&chunk.duration, comparison),
        Source::Trace => match comparison {
            Comparison::Equal(Value::Str(text)) => match id(text, 32) {
                Some(id) => {
                    let (high, low) = ((id >> 64) as u64, id as u64);
                    let halves = &chunk.trace;
                    let mut mask = Mask::none(chunk.len());
                    let same = |pair: &[u64]| pair[0] == high && pair[1] == low;
                    halves.chunks_exact(2).enumerate().filter(|(_, p)| same(p)).for_each(|(row, _)| mask.set(row));
                    mask
                }
                None => Mask::none(chunk.len()),
            },
            _ => by_row(chunk.len(), |row| {
                let trace = chunk.trace(row);
                trace != 0 && comparison.holds(Some(ValueRef::Str(&hex(trace, 32))))
            }),
        },
        Source::Span => spans(&chunk.span, comparison),
        Source::Parent => spans(&chunk.parent, comparison),
        Source::Attribute(name) => {
            let masks = chunk.named(name).map(|column| column_mask(chunk.len(), column, comparison));
            masks.reduce(|a, b| a.or(&b)).unwrap_or_else(|| Mask::none(chunk.len()))
        }
        Source::Calculated(..) => {
            let lane = Lane::of(chunk, source);
            if let Lane::Mapped(codes, results) = &lane {
                let holds: Vec<bool> =
                    results.iter().map(|value| comparison.holds(value.as_ref().map(Value::as_ref))).collect();
                return by_row(chunk.len(), |row| holds[codes.code(row) as usize]);
            }
            by_row(chunk.len(), |row| comparison.holds(lane.value(row).as_ref().map(|v| v.as_ref())))
        }
    }
}

/// An id written with exactly so many hex digits in lower case, as ids are shown; 0 is none.
fn id(text: &str, digits: usize) -> Option<u128> {
    let plain = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|id| plain && *id != 0)
}

fn spans(ids: &[u64], comparison: &Comparison) -> Mask {
    match comparison {
        Comparison::Exists => Mask::of(ids, |id| id != 0),
        Comparison::Equal(Value::Str(text)) => match id(text, 16) {
            Some(wanted) => Mask::of(ids, |id| u128::from(id) == wanted),
            None => Mask::none(ids.len()),
        },
        _ => Mask::of(ids, |id| id != 0 && comparison.holds(Some(ValueRef::Str(&hex(id.into(), 16))))),
    }
}

fn durations(nanos: &[i64], comparison: &Comparison) -> Mask {
    let of = |holds: &dyn Fn(f64) -> bool| Mask::of(nanos, |n| n >= 0 && holds(n as f64 / 1e6));
    let number = |value: &Value| value.as_ref().as_f64();
    match comparison {
        Comparison::Greater(v) => match number(v) {
            Some(than) => Mask::of(nanos, |n| n >= 0 && n as f64 / 1e6 > than),
            None => Mask::none(nanos.len()),
        },
        Comparison::GreaterEqual(v) => match number(v) {
            Some(than) => Mask::of(nanos, |n| n >= 0 && n as f64 / 1e6 >= than),
            None => Mask::none(nanos.len()),
        },
        Comparison::Less(v) => match number(v) {
            Some(than) => Mask::of(nanos, |n| n >= 0 && (n as f64 / 1e6) < than),
            None => Mask::none(nanos.len()),
        },
        _ => of(&|ms| comparison.holds(Some(ValueRef::Float(ms)))),
    }
}

/// Codes of values that satisfy the comparison, if a dictionary in order finds them without looking at each.
fn sought(dict: &Dict, comparison: &Comparison) -> Option<Vec<u32>> {
    let texts: Vec<&str> = match comparison {
        Comparison::Equal(Value::Str(text)) => vec![text],
        Comparison::In(values) if values.iter().all(|v| matches!(v, Value::Str(_))) => {
            values.iter().filter_map(|v| if let Value::Str(text) = v { Some(text.as_str()) } else { None }).collect()
        }
        _ => return None,
    };
    if !dict.is_ordered() || !matches!(dict.get(1), Some(ValueRef::Str(_))) {
        return None;
    }
    let codes = texts.iter().flat_map(|text| {
        let wanted = ValueRef::Str(text);
        dict.codes_of(value_hash(wanted)).filter(move |code| dict.get(*code) == Some(wanted))
    });
    Some(codes.collect())
}

fn column_mask(n: usize, column: &Column, comparison: &Comparison) -> Mask {
    let (column_codes, dict) = match column.data() {
        Data::Coded { codes, dict } => (codes, dict),
        Data::Ints(v) => {
            let mut mask = Mask::none(n);
            let holds = |x: i64| comparison.holds(Some(ValueRef::Int(x)));
            (0..v.len()).filter(|row| v.is_valid(*row) && holds(v.value(*row))).for_each(|row| mask.set(row));
            return mask;
        }
        Data::Floats(v) => {
            let mut mask = Mask::none(n);
            let holds = |x: f64| comparison.holds(Some(ValueRef::Float(x)));
            (0..v.len()).filter(|row| v.is_valid(*row) && holds(v.value(*row))).for_each(|row| mask.set(row));
            return mask;
        }
    };
    if let Some(codes) = sought(dict, comparison) {
        match (codes.as_slice(), column_codes) {
            ([], _) => return Mask::none(n),
            ([one], Codes::Dense8(v)) => return Mask::of(v, |c| u32::from(c) == *one),
            ([one], Codes::Dense16(v)) => return Mask::of(v, |c| u32::from(c) == *one),
            ([one], Codes::Dense32(v)) => return Mask::of(v, |c| c == *one),
            _ => {}
        }
    }
    let exists = matches!(comparison, Comparison::Exists);
    let holds: Vec<bool> =
        (0..=dict.len() as u32).map(|code| code > 0 && (exists || comparison.holds(dict.get(code)))).collect();
    match column_codes {
        Codes::Dense8(v) => Mask::of(v, |c| holds[usize::from(c)]),
        Codes::Dense16(v) => Mask::of(v, |c| holds[usize::from(c)]),
        Codes::Dense32(v) => Mask::of(v, |c| holds[c as usize]),
        Codes::Sparse { rows, codes } => {
            let mut mask = Mask::none(n);
            rows.iter()
                .zip(codes.iter())
                .filter(|(_, c)| holds[**c as usize])
                .for_each(|(row, _)| mask.set(*row as usize));
            mask
        }
    }
}
