//! The chunk being filled.
//!
//! A column is a list of (row, code) while it grows, so that thousands of rare attributes cost nothing. Rows of one source look
//! alike, so the place of the last row's attribute and the last value of each column are tried before anything is hashed.

use std::sync::Arc;

use arrow_array::{Float64Array, Int64Array, StringArray};
use hashbrown::{HashMap, HashTable};
use rows::{Row, Value, ValueRef};

use crate::chunk::Chunk;
use crate::column::{Codes, Column, Data, Dict, Kind, Values, value_hash};

/// An attribute that at least one row in so many has is a column with a code for every row; a rarer one is a list.
pub(crate) const SPARSE_FROM: usize = 16;

#[derive(Debug)]
enum Held {
    /// End of each value in the text.
    Strs {
        text: String,
        ends: Vec<u32>,
    },
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools,
}

impl Held {
    fn get(&self, code: u32) -> Option<ValueRef<'_>> {
        let place = code as usize - 1;
        Some(match self {
            Held::Strs { text, ends } => {
                let start = if place == 0 { 0 } else { *ends.get(place - 1)? as usize };
                ValueRef::Str(text.get(start..*ends.get(place)? as usize)?)
            }
            Held::Ints(v) => ValueRef::Int(*v.get(place)?),
            Held::Floats(v) => ValueRef::Float(*v.get(place)?),
            Held::Bools => ValueRef::Bool(place == 1),
        })
    }

    fn len(&self) -> usize {
        match self {
            Held::Strs { ends, .. } => ends.len(),
            Held::Ints(v) => v.len(),
            Held::Floats(v) => v.len(),
            Held::Bools => 2,
        }
    }
}

/// Whether two values are the same bits; unlike `==`, zero is not minus zero.
fn same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Float(a), ValueRef::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

#[derive(Debug)]
struct Growing {
    name: Arc<str>,
    kind: Kind,
    rows: Vec<u32>,
    codes: Vec<u32>,
    held: Held,
    lookup: HashTable<u32>,
}

impl Growing {
    fn new(name: Arc<str>, kind: Kind) -> Growing {
        let held = match kind {
            Kind::Str => Held::Strs { text: String::new(), ends: Vec::new() },
            Kind::Int => Held::Ints(Vec::new()),
            Kind::Float => Held::Floats(Vec::new()),
            Kind::Bool => Held::Bools,
        };
        Growing { name, kind, rows: Vec::new(), codes: Vec::new(), held, lookup: HashTable::new() }
    }

    fn push(&mut self, row: u32, value: &Value) {
        // A name occurs once a row; a repeated one keeps its first value.
        if self.rows.last() == Some(&row) {
            return;
        }
        let code = self.code(value.as_ref());
        self.rows.push(row);
        self.codes.push(code);
    }

    fn code(&mut self, value: ValueRef<'_>) -> u32 {
        if let ValueRef::Bool(b) = value {
            return u32::from(b) + 1;
        }
        if let Some(last) = self.codes.last() {
            if self.held.get(*last).is_some_and(|held| same(held, value)) {
                return *last;
            }
        }
        let hash = value_hash(value);
        let held = &self.held;
        if let Some(code) = self.lookup.find(hash, |code| held.get(*code).is_some_and(|held| same(held, value))) {
            return *code;
        }
        match (value, &mut self.held) {
            (ValueRef::Str(s), Held::Strs { text, ends }) => {
                text.push_str(s);
                ends.push(text.len() as u32);
            }
            (ValueRef::Int(n), Held::Ints(v)) => v.push(n),
            (ValueRef::Float(n), Held::Floats(v)) => v.push(n),
            _ => {}
        }
        let code = self.held.len() as u32;
        let held = &self.held;
        self.lookup.insert_unique(hash, code, |code| held.get(*code).map_or(0, value_hash));
        code
    }

    fn freeze(self, n_rows: usize) -> Column {
        let values = match self.held {
            Held::Strs { text, ends } => {
                let starts = std::iter::once(0).chain(ends.iter().copied());
                let strs = starts.zip(ends.iter()).map(|(start, end)| text.get(start as usize..*end as usize));
                Values::Strs(std::iter::once(None).chain(strs).collect::<StringArray>())
            }
            Held::Ints(v) => Values::Ints(std::iter::once(None).chain(v.into_iter().map(Some)).collect::<Int64Array>()),
            Held::Floats(v) => {
                Values::Floats(std::iter::once(None).chain(v.into_iter().map(Some)).collect::<Float64Array>())
            }
            Held::Bools => Values::Bools,
        };
        let dict = Dict::new(values, false);
        let codes = if self.rows.len() * SPARSE_FROM < n_rows {
            Codes::Sparse { rows: self.rows.into(), codes: self.codes.into() }
        } else {
            let mut dense = vec![0_u32; n_rows];
            self.rows.iter().zip(&self.codes).for_each(|(row, code)| dense[*row as usize] = *code);
            narrow(dense, dict.len())
        };
        Column::new(self.name, self.kind, Data::Coded { codes, dict })
    }
}

/// Codes in as few bytes as the largest needs.
pub(crate) fn narrow(dense: Vec<u32>, dict_len: usize) -> Codes {
    match dict_len {
        0..=255 => Codes::Dense8(dense.iter().map(|c| *c as u8).collect::<Vec<u8>>().into()),
        256..=65_535 => Codes::Dense16(dense.iter().map(|c| *c as u16).collect::<Vec<u16>>().into()),
        _ => Codes::Dense32(dense.into()),
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    heads: Chunk,
    columns: Vec<Growing>,
    places: HashMap<(Arc<str>, Kind), usize>,
    /// The column of the attribute at each position of the last row.
    guesses: Vec<usize>,
    text_bytes: usize,
}

impl Builder {
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Bytes of text taken in, repeated or not.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    pub(crate) fn push(&mut self, row: &Row) {
        let number = self.heads.len() as u32;
        self.heads.time.push(row.time.nanos());
        self.heads.duration.push(row.duration_nanos.map_or(-1, |n| n.max(0)));
        self.heads.trace.push((row.trace >> 64) as u64);
        self.heads.trace.push(row.trace as u64);
        self.heads.span.push(row.span);
        self.heads.parent.push(row.parent);
        for (position, (name, value)) in row.attributes.iter().enumerate() {
            let kind = Kind::of(value);
            if let Value::Str(text) = value {
                self.text_bytes += text.len();
            }
            let guess = self.guesses.get(position).copied();
            let place = match guess.filter(|place| {
                let column = &self.columns[*place];
                column.kind == kind && *column.name == **name
            }) {
                Some(place) => place,
                None => {
                    let place = self.column(name, kind);
                    if position < self.guesses.len() {
                        self.guesses[position] = place;
                    } else {
                        self.guesses.push(place);
                    }
                    place
                }
            };
            self.columns[place].push(number, value);
        }
    }

    fn column(&mut self, name: &str, kind: Kind) -> usize {
        #[derive(PartialEq, Eq, Hash)]
        struct Borrowed<'a>(&'a str, Kind);
        impl hashbrown::Equivalent<(Arc<str>, Kind)> for Borrowed<'_> {
            fn equivalent(&self, key: &(Arc<str>, Kind)) -> bool {
                *self.0 == *key.0 && self.1 == key.1
            }
        }
        if let Some(place) = self.places.get(&Borrowed(name, kind)) {
            return *place;
        }
        let name: Arc<str> = name.into();
        let place = self.columns.len();
        self.columns.push(Growing::new(name.clone(), kind));
        self.places.insert((name, kind), place);
        place
    }

    /// Takes the chunk out; dictionaries are in the order of arrival.
    pub(crate) fn freeze(&mut self) -> Chunk {
        let Builder { heads: mut chunk, columns, .. } = std::mem::take(self);
        let n = chunk.len();
        chunk.columns = columns.into_iter().map(|column| column.freeze(n)).collect();
        chunk.index();
        chunk
    }
}
