//! Rows as columns: up to a million rows that never change.

use std::sync::Arc;

use arrow_buffer::{ArrowNativeType, ScalarBuffer};
use hashbrown::HashMap;
use rows::{Comparison, Filter, Row, Test, Value, ValueRef, names};
use vocab::Timestamp;

use crate::bits::Bits;
use crate::column::{Column, Data, select_numbers};

/// Numbers that are our own or lie in a mapped file.
#[derive(Clone, Debug)]
pub(crate) enum Numbers<T: ArrowNativeType> {
    Owned(Vec<T>),
    Mapped(ScalarBuffer<T>),
}

impl<T: ArrowNativeType> Default for Numbers<T> {
    fn default() -> Numbers<T> {
        Numbers::Owned(Vec::new())
    }
}

impl<T: ArrowNativeType> std::ops::Deref for Numbers<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Numbers::Owned(v) => v,
            Numbers::Mapped(v) => v,
        }
    }
}

impl<T: ArrowNativeType> Numbers<T> {
    pub(crate) fn push(&mut self, value: T) {
        if let Numbers::Owned(v) = self {
            v.push(value);
        }
    }
}

pub(crate) type Longs = Numbers<i64>;
pub(crate) type Spans = Numbers<u64>;
/// Two halves, high first, so that a mapped array of 16-byte ids needs no alignment of 16.
pub(crate) type Traces = Numbers<u64>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) time: Longs,
    /// Smallest and largest time; nothing of it if there are no rows.
    pub(crate) time_min: i64,
    pub(crate) time_max: i64,
    /// -1 is none.
    pub(crate) duration: Longs,
    pub(crate) trace: Traces,
    pub(crate) span: Spans,
    pub(crate) parent: Spans,
    pub(crate) columns: Vec<Column>,
    /// Places of columns by name.
    pub(crate) by_name: HashMap<Arc<str>, Vec<usize>>,
}

impl Chunk {
    pub(crate) fn len(&self) -> usize {
        self.time.len()
    }

    pub(crate) fn trace(&self, row: usize) -> u128 {
        u128::from(self.trace[2 * row]) << 64 | u128::from(self.trace[2 * row + 1])
    }

    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Column> {
        self.by_name.get(name).into_iter().flatten().map(|place| &self.columns[*place])
    }

    /// After columns and times are in place.
    pub(crate) fn index(&mut self) {
        self.by_name.clear();
        for (place, column) in self.columns.iter().enumerate() {
            self.by_name.entry(column.name.clone()).or_default().push(place);
        }
        self.time_min = self.time.iter().copied().min().unwrap_or(0);
        self.time_max = self.time.iter().copied().max().unwrap_or(0);
    }

    /// Rows within `[from, to)`.
    pub(crate) fn in_time(&self, from: Timestamp, to: Timestamp) -> Bits {
        let (from, to) = (from.nanos(), to.nanos());
        let n = self.len();
        if n == 0 || self.time_max < from || self.time_min >= to {
            return Bits::none(n);
        }
        if from <= self.time_min && self.time_max < to {
            return Bits::all(n);
        }
        let mut bits = Bits::none(n);
        let times = &*self.time;
        bits.set_where(|row| from <= times[row] && times[row] < to);
        bits
    }

    /// Rows that satisfy one comparison.
    pub(crate) fn select_test(&self, test: &Test) -> Bits {
        let n = self.len();
        let mut bits = Bits::none(n);
        match test.field.as_str() {
            names::DURATION_MS => {
                let durations = &*self.duration;
                select_numbers(&test.comparison, &mut bits, |row| match durations[row] {
                    nanos if nanos < 0 => f64::NAN,
                    nanos => nanos as f64 / 1e6,
                });
            }
            names::TRACE => {
                let halves = &*self.trace;
                let is = |row: usize, (high, low): (u64, u64)| halves[2 * row] == high && halves[2 * row + 1] == low;
                match &test.comparison {
                    Comparison::Exists => bits.set_where(|row| !is(row, (0, 0))),
                    Comparison::Equal(Value::Str(text)) => {
                        if let Some(id) = hex(text, 32).filter(|id| *id != 0) {
                            let id = ((id >> 64) as u64, id as u64);
                            bits.set_where(|row| is(row, id));
                        }
                    }
                    other => {
                        bits.set_where(|row| other.holds(self.pseudo(names::TRACE, row).as_ref().map(Value::as_ref)));
                    }
                }
            }
            name @ (names::SPAN | names::PARENT) => {
                let ids: &[u64] = if name == names::SPAN { &self.span } else { &self.parent };
                match &test.comparison {
                    Comparison::Exists => bits.set_where(|row| ids[row] != 0),
                    Comparison::Equal(Value::Str(text)) => {
                        if let Some(id) = hex(text, 16).filter(|id| *id != 0) {
                            bits.set_where(|row| ids[row] == id as u64);
                        }
                    }
                    other => bits.set_where(|row| other.holds(self.pseudo(name, row).as_ref().map(Value::as_ref))),
                }
            }
            name => self.named(name).for_each(|column| column.select(&test.comparison, &mut bits)),
        }
        bits
    }

    /// Rows within `[from, to)` that satisfy the filter.
    pub(crate) fn select(&self, filter: &Filter, from: Timestamp, to: Timestamp) -> Bits {
        let n = self.len();
        let in_time = self.in_time(from, to);
        if in_time.count() == 0 {
            return in_time;
        }
        let matching =
            filter.fold(&|| Bits::all(n), &mut |test| self.select_test(test), &Bits::and, &Bits::or, &Bits::not);
        in_time.and(matching)
    }

    /// The value of a pseudo-field.
    pub(crate) fn pseudo(&self, name: &str, row: usize) -> Option<Value> {
        match name {
            names::DURATION_MS => {
                let nanos = self.duration[row];
                (nanos >= 0).then(|| Value::Float(nanos as f64 / 1e6))
            }
            names::TRACE => match self.trace(row) {
                0 => None,
                id => Some(Value::Str(format!("{id:032x}"))),
            },
            names::SPAN | names::PARENT => match if name == names::SPAN { self.span[row] } else { self.parent[row] } {
                0 => None,
                id => Some(Value::Str(format!("{id:016x}"))),
            },
            _ => None,
        }
    }

    /// Whole rows, for raw answers and for comparisons of subjects.
    pub(crate) fn rows(&self, selected: &[u32]) -> Vec<Row> {
        let mut rows: Vec<Row> = selected
            .iter()
            .map(|row| {
                let row = *row as usize;
                Row {
                    time: Timestamp::from_nanos(self.time[row]),
                    duration_nanos: Some(self.duration[row]).filter(|n| *n >= 0),
                    trace: self.trace(row),
                    span: self.span[row],
                    parent: self.parent[row],
                    attributes: Vec::new(),
                }
            })
            .collect();
        let mut put = |place: usize, column: &Column, value: Option<ValueRef<'_>>| {
            if let Some(value) = value {
                rows[place].attributes.push((column.name.to_string(), value.to_value()));
            }
        };
        for column in &self.columns {
            for (place, row) in selected.iter().enumerate() {
                put(place, column, column.get(*row as usize));
            }
        }
        rows
    }

    /// Whether every code stands for a value and every column is as long as the chunk; a damaged file's need not be.
    pub(crate) fn is_sound(&self) -> bool {
        let n = self.len();
        let lengths = [self.duration.len(), self.span.len(), self.parent.len(), self.trace.len() / 2];
        lengths.iter().all(|len| *len == n)
            && self.columns.iter().all(|column| match column.data() {
                Data::Coded { codes, dict } => codes.is_sound(dict.len(), n),
                Data::Ints(v) => arrow_array::Array::len(v) == n,
                Data::Floats(v) => arrow_array::Array::len(v) == n,
            })
    }
}

/// An id of so many hex digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}
