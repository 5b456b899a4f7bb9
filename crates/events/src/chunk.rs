//! Rows as columns: up to a million rows that never change.

use std::sync::Arc;

use arrow_buffer::{ArrowNativeType, ScalarBuffer};
use hashbrown::HashMap;
use rows::{Row, ValueRef};
use vocab::Timestamp;

use crate::column::{Column, Data};

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
