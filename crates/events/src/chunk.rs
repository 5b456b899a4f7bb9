//! Rows as columns of codes.
//!
//! Code 0 is "absent"; code n stands for value n-1 of the column's dictionary. An attribute that occurs with values of two
//! types is two columns of one name. In the chunk being filled a column is a list of (row, code), so that thousands of rare
//! attributes cost nothing; a sealed chunk holds dense codes of one, two or four bytes.

use std::sync::Arc;

use arrow_array::{Array, Float64Array, Int64Array, StringArray};
use arrow_buffer::ScalarBuffer;
use hashbrown::HashMap;
use rows::{Comparison, Filter, Row, Value, ValueRef, names};
use vocab::Timestamp;

use crate::bits::Bits;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Str,
    Int,
    Float,
    Bool,
}

impl Kind {
    fn of(value: &Value) -> Kind {
        match value {
            Value::Str(_) => Kind::Str,
            Value::Int(_) => Kind::Int,
            Value::Float(_) => Kind::Float,
            Value::Bool(_) => Kind::Bool,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Codes {
    Sparse { rows: Vec<u32>, codes: Vec<u32> },
    Dense8(ScalarBuffer<u8>),
    Dense16(ScalarBuffer<u16>),
    Dense32(ScalarBuffer<u32>),
}

/// Values by code - 1.
#[derive(Clone, Debug)]
pub(crate) enum Dict {
    Strs(Vec<Box<str>>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    /// false, true.
    Bools,
    /// From a segment; place 0 is the absent value.
    MappedStrs(StringArray),
    MappedInts(Int64Array),
    MappedFloats(Float64Array),
}

impl Dict {
    pub(crate) fn len(&self) -> usize {
        match self {
            Dict::Strs(v) => v.len(),
            Dict::Ints(v) => v.len(),
            Dict::Floats(v) => v.len(),
            Dict::Bools => 2,
            Dict::MappedStrs(v) => v.len() - 1,
            Dict::MappedInts(v) => v.len() - 1,
            Dict::MappedFloats(v) => v.len() - 1,
        }
    }

    /// Whether the values are ordered by their hash; in a chunk being filled they are in order of arrival.
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Dict::MappedStrs(_) | Dict::MappedInts(_) | Dict::MappedFloats(_))
    }

    /// Codes of the values with this hash; only where [`Dict::is_ordered`].
    pub(crate) fn codes_of(&self, hash: u64) -> impl Iterator<Item = u32> {
        let hash_at = |code: u32| self.get(code).map_or(0, value_hash);
        let (mut low, mut high) = (1, self.len() as u32 + 1);
        while low < high {
            let middle = low.midpoint(high);
            if hash_at(middle) < hash { low = middle + 1 } else { high = middle }
        }
        (low..=self.len() as u32).take_while(move |code| hash_at(*code) == hash)
    }

    /// The value of `code`; none for 0.
    pub(crate) fn get(&self, code: u32) -> Option<ValueRef<'_>> {
        let place = (code as usize).checked_sub(1)?;
        Some(match self {
            Dict::Strs(v) => ValueRef::Str(&v[place]),
            Dict::Ints(v) => ValueRef::Int(v[place]),
            Dict::Floats(v) => ValueRef::Float(v[place]),
            Dict::Bools => ValueRef::Bool(place == 1),
            Dict::MappedStrs(v) => ValueRef::Str(v.value(place + 1)),
            Dict::MappedInts(v) => ValueRef::Int(v.value(place + 1)),
            Dict::MappedFloats(v) => ValueRef::Float(v.value(place + 1)),
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) codes: Codes,
    pub(crate) dict: Dict,
}

impl Column {
    /// Calls `each` with row and code of every present value, in row order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(usize, u32)) {
        match &self.codes {
            Codes::Sparse { rows, codes } => rows.iter().zip(codes).for_each(|(r, c)| each(*r as usize, *c)),
            Codes::Dense8(v) => {
                v.iter().enumerate().filter(|(_, c)| **c != 0).for_each(|(r, c)| each(r, u32::from(*c)))
            }
            Codes::Dense16(v) => {
                v.iter().enumerate().filter(|(_, c)| **c != 0).for_each(|(r, c)| each(r, u32::from(*c)))
            }
            Codes::Dense32(v) => v.iter().enumerate().filter(|(_, c)| **c != 0).for_each(|(r, c)| each(r, *c)),
        }
    }

    /// How often each code occurs; place 0 counts absences. The hot loop of every comparison.
    pub(crate) fn count_all(&self, n_rows: usize) -> Vec<u32> {
        let mut counts = vec![0_u32; self.dict.len() + 1];
        match &self.codes {
            Codes::Sparse { codes, .. } => {
                codes.iter().for_each(|c| counts[*c as usize] += 1);
                counts[0] = (n_rows - codes.len()) as u32;
            }
            Codes::Dense8(v) => v.iter().for_each(|c| counts[usize::from(*c)] += 1),
            Codes::Dense16(v) => v.iter().for_each(|c| counts[usize::from(*c)] += 1),
            Codes::Dense32(v) => v.iter().for_each(|c| counts[*c as usize] += 1),
        }
        counts
    }

    /// How often each code occurs among `rows`; place 0 counts absences.
    pub(crate) fn count_selected(&self, selected: &Bits, rows: &[u32]) -> Vec<u32> {
        let mut counts = vec![0_u32; self.dict.len() + 1];
        match &self.codes {
            Codes::Sparse { rows: at, codes } => {
                let mut present = 0;
                for (row, code) in at.iter().zip(codes) {
                    if selected.has(*row as usize) {
                        counts[*code as usize] += 1;
                        present += 1;
                    }
                }
                counts[0] = rows.len() as u32 - present;
            }
            Codes::Dense8(v) => rows.iter().for_each(|r| counts[usize::from(v[*r as usize])] += 1),
            Codes::Dense16(v) => rows.iter().for_each(|r| counts[usize::from(v[*r as usize])] += 1),
            Codes::Dense32(v) => rows.iter().for_each(|r| counts[v[*r as usize] as usize] += 1),
        }
        counts
    }

    fn select(&self, comparison: &Comparison, into: &mut Bits) {
        let holds: Vec<bool> =
            (0..=self.dict.len() as u32).map(|code| code > 0 && comparison.holds(self.dict.get(code))).collect();
        if !holds.iter().any(|h| *h) {
            return;
        }
        self.for_each(|row, code| {
            if holds[code as usize] {
                into.set(row);
            }
        });
    }
}

/// Rows as columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) time: Longs,
    /// -1 is none.
    pub(crate) duration: Longs,
    pub(crate) trace: Traces,
    pub(crate) span: Spans,
    pub(crate) parent: Spans,
    pub(crate) columns: Vec<Column>,
    /// Places of columns by name.
    pub(crate) by_name: HashMap<Arc<str>, Vec<usize>>,
}

/// A growing or a mapped array.
#[derive(Clone, Debug)]
pub(crate) enum Numbers<T: arrow_buffer::ArrowNativeType> {
    Owned(Vec<T>),
    Mapped(ScalarBuffer<T>),
}

impl<T: arrow_buffer::ArrowNativeType> Default for Numbers<T> {
    fn default() -> Numbers<T> {
        Numbers::Owned(Vec::new())
    }
}

impl<T: arrow_buffer::ArrowNativeType> std::ops::Deref for Numbers<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match self {
            Numbers::Owned(v) => v,
            Numbers::Mapped(v) => v,
        }
    }
}

impl<T: arrow_buffer::ArrowNativeType> Numbers<T> {
    fn push(&mut self, value: T) {
        if let Numbers::Owned(v) = self {
            v.push(value);
        }
    }
}

pub(crate) type Longs = Numbers<i64>;
pub(crate) type Spans = Numbers<u64>;
/// Two halves, high first, so that a mapped array of 16-byte ids needs no alignment of 16.
pub(crate) type Traces = Numbers<u64>;

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

    pub(crate) fn index_columns(&mut self) {
        self.by_name.clear();
        for (place, column) in self.columns.iter().enumerate() {
            self.by_name.entry(column.name.clone()).or_default().push(place);
        }
    }

    /// Rows within `[from, to)` that satisfy the filter.
    pub(crate) fn select(&self, filter: &Filter, from: Timestamp, to: Timestamp) -> Bits {
        let n = self.len();
        let mut in_time = Bits::none(n);
        for (row, time) in self.time.iter().enumerate() {
            if (from.nanos()..to.nanos()).contains(time) {
                in_time.set(row);
            }
        }
        let matching = filter.fold(
            &|| Bits::all(n),
            &mut |test| {
                let mut bits = Bits::none(n);
                match test.field.as_str() {
                    names::DURATION_MS => {
                        for (row, nanos) in self.duration.iter().enumerate() {
                            if *nanos >= 0 && test.comparison.holds(Some(ValueRef::Float(*nanos as f64 / 1e6))) {
                                bits.set(row);
                            }
                        }
                    }
                    names::TRACE | names::SPAN | names::PARENT => {
                        for row in 0..n {
                            let value = self.pseudo(&test.field, row);
                            if test.comparison.holds(value.as_ref().map(Value::as_ref)) {
                                bits.set(row);
                            }
                        }
                    }
                    name => self.named(name).for_each(|column| column.select(&test.comparison, &mut bits)),
                }
                bits
            },
            &Bits::and,
            &Bits::or,
            &Bits::not,
        );
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

    /// Dense codes of a column, for random access.
    pub(crate) fn dense(&self, column: &Column) -> Vec<u32> {
        let mut codes = vec![0; self.len()];
        column.for_each(|row, code| codes[row] = code);
        codes
    }

    /// Whole rows, for raw answers and for comparisons of subjects.
    pub(crate) fn rows(&self, selected: &[u32]) -> Vec<Row> {
        let mut places: HashMap<u32, usize> = HashMap::with_capacity(selected.len());
        let mut rows: Vec<Row> = selected
            .iter()
            .enumerate()
            .map(|(place, row)| {
                places.insert(*row, place);
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
        for column in &self.columns {
            column.for_each(|row, code| {
                if let (Some(place), Some(value)) = (places.get(&(row as u32)), column.dict.get(code)) {
                    rows[*place].attributes.push((column.name.to_string(), value.to_value()));
                }
            });
        }
        rows
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Str(Box<str>),
    Bits(u64),
}

/// A chunk being filled.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    chunk: Chunk,
    places: HashMap<(Arc<str>, Kind), usize>,
    lookups: Vec<HashMap<Key, u32>>,
}

impl Builder {
    pub(crate) fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    pub(crate) fn push(&mut self, row: &Row) {
        let number = self.chunk.len() as u32;
        self.chunk.time.push(row.time.nanos());
        self.chunk.duration.push(row.duration_nanos.map_or(-1, |n| n.max(0)));
        self.chunk.trace.push((row.trace >> 64) as u64);
        self.chunk.trace.push(row.trace as u64);
        self.chunk.span.push(row.span);
        self.chunk.parent.push(row.parent);
        for (name, value) in &row.attributes {
            let place = self.column(name, Kind::of(value));
            let code = self.code(place, value);
            if let Codes::Sparse { rows, codes } = &mut self.chunk.columns[place].codes {
                // A name occurs once a row; a repeated one keeps its first value.
                if rows.last() != Some(&number) {
                    rows.push(number);
                    codes.push(code);
                }
            }
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
        let place = self.chunk.columns.len();
        let dict = match kind {
            Kind::Str => Dict::Strs(Vec::new()),
            Kind::Int => Dict::Ints(Vec::new()),
            Kind::Float => Dict::Floats(Vec::new()),
            Kind::Bool => Dict::Bools,
        };
        let codes = Codes::Sparse { rows: Vec::new(), codes: Vec::new() };
        self.chunk.columns.push(Column { name: name.clone(), kind, codes, dict });
        self.chunk.by_name.entry(name.clone()).or_default().push(place);
        self.places.insert((name, kind), place);
        self.lookups.push(HashMap::new());
        place
    }

    fn code(&mut self, place: usize, value: &Value) -> u32 {
        #[derive(PartialEq, Eq, Hash)]
        enum Borrowed<'a> {
            Str(&'a str),
            Bits(u64),
        }
        impl hashbrown::Equivalent<Key> for Borrowed<'_> {
            fn equivalent(&self, key: &Key) -> bool {
                match (self, key) {
                    (Borrowed::Str(a), Key::Str(b)) => **a == **b,
                    (Borrowed::Bits(a), Key::Bits(b)) => a == b,
                    _ => false,
                }
            }
        }
        let borrowed = match value {
            Value::Str(s) => Borrowed::Str(s),
            Value::Int(n) => Borrowed::Bits(*n as u64),
            Value::Float(n) => Borrowed::Bits(n.to_bits()),
            Value::Bool(b) => return u32::from(*b) + 1,
        };
        let lookup = &mut self.lookups[place];
        if let Some(code) = lookup.get(&borrowed) {
            return *code;
        }
        let dict = &mut self.chunk.columns[place].dict;
        let key = match (value, &mut *dict) {
            (Value::Str(s), Dict::Strs(v)) => {
                v.push(s.as_str().into());
                Key::Str(s.as_str().into())
            }
            (Value::Int(n), Dict::Ints(v)) => {
                v.push(*n);
                Key::Bits(*n as u64)
            }
            (Value::Float(n), Dict::Floats(v)) => {
                v.push(*n);
                Key::Bits(n.to_bits())
            }
            _ => return 0,
        };
        let code = dict.len() as u32;
        lookup.insert(key, code);
        code
    }

    /// Takes the chunk out, with dense codes and dictionaries ordered by the hash of the value, so that segments can be
    /// merged and searched.
    pub(crate) fn seal(&mut self) -> Chunk {
        let mut chunk = std::mem::take(self).chunk;
        let n = chunk.len();
        for column in &mut chunk.columns {
            let mut order: Vec<(u64, u32)> = (1..=column.dict.len() as u32)
                .map(|code| (column.dict.get(code).map_or(0, value_hash), code))
                .collect();
            if !matches!(column.dict, Dict::Bools) {
                order.sort_unstable();
            }
            let mut new_codes = vec![0_u32; order.len() + 1];
            order.iter().enumerate().for_each(|(place, (_, old))| new_codes[*old as usize] = place as u32 + 1);
            let olds = order.iter().map(|(_, old)| *old as usize - 1);
            column.dict = match &column.dict {
                Dict::Strs(v) => Dict::Strs(olds.map(|o| v[o].clone()).collect()),
                Dict::Ints(v) => Dict::Ints(olds.map(|o| v[o]).collect()),
                Dict::Floats(v) => Dict::Floats(olds.map(|o| v[o]).collect()),
                other => other.clone(),
            };
            let mut dense = vec![0_u32; n];
            column.for_each(|row, code| dense[row] = new_codes[code as usize]);
            column.codes = match order.len() {
                0..=254 => Codes::Dense8(dense.iter().map(|c| *c as u8).collect::<Vec<u8>>().into()),
                255..=65_534 => Codes::Dense16(dense.iter().map(|c| *c as u16).collect::<Vec<u16>>().into()),
                _ => Codes::Dense32(dense.into()),
            };
        }
        chunk
    }
}

/// 64 bits of a value; the same in every process (FNV-1a over type and bytes, finished with a multiply-shift).
pub(crate) fn value_hash(value: ValueRef<'_>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    match value {
        ValueRef::Str(s) => s.bytes().for_each(&mut eat),
        ValueRef::Int(n) => {
            eat(1);
            n.to_le_bytes().into_iter().for_each(&mut eat);
        }
        ValueRef::Float(n) => {
            eat(2);
            n.to_bits().to_le_bytes().into_iter().for_each(&mut eat);
        }
        ValueRef::Bool(b) => eat(3 + u8::from(b)),
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
