//! One attribute of a chunk: small integer codes with a dictionary, or plain numbers.
//!
//! Code 0 is "absent"; code n stands for value n of the column's dictionary, whose place 0 is null. An attribute that occurs
//! with values of several types is several columns of one name. Numbers of which most rows have one of their own are kept as
//! they are: a dictionary would only make them longer. An attribute that few rows have is a list of rows and codes.

use std::sync::{Arc, OnceLock};

use arrow_array::{Array, Float64Array, Int64Array, StringArray};
use arrow_buffer::ScalarBuffer;
use rows::{Value, ValueRef};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Str,
    Int,
    Float,
    Bool,
}

impl Kind {
    pub(crate) fn of(value: &Value) -> Kind {
        match value {
            Value::Str(_) => Kind::Str,
            Value::Int(_) => Kind::Int,
            Value::Float(_) => Kind::Float,
            Value::Bool(_) => Kind::Bool,
        }
    }

    /// As one byte, in files.
    pub(crate) fn number(self) -> u8 {
        match self {
            Kind::Str => 0,
            Kind::Int => 1,
            Kind::Float => 2,
            Kind::Bool => 3,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Kind> {
        [Kind::Str, Kind::Int, Kind::Float, Kind::Bool].into_iter().find(|kind| kind.number() == number)
    }
}

/// Which row has which value.
#[derive(Clone, Debug)]
pub(crate) enum Codes {
    /// Rows ascending, codes never 0.
    Sparse {
        rows: ScalarBuffer<u32>,
        codes: ScalarBuffer<u32>,
    },
    Dense8(ScalarBuffer<u8>),
    Dense16(ScalarBuffer<u16>),
    Dense32(ScalarBuffer<u32>),
}

/// Values by code; place 0 is null.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    Strs(StringArray),
    Ints(Int64Array),
    Floats(Float64Array),
    /// false is 1, true is 2.
    Bools,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Dict {
    values: Values,
    /// Whether the values are in the order of their hash.
    ordered: bool,
}

impl Dict {
    pub(crate) fn new(values: Values, ordered: bool) -> Dict {
        Dict { values, ordered }
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    /// How many values there are; the largest code.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::Strs(v) => v.len().saturating_sub(1),
            Values::Ints(v) => v.len().saturating_sub(1),
            Values::Floats(v) => v.len().saturating_sub(1),
            Values::Bools => 2,
        }
    }

    /// Whether [`Dict::codes_of`] works.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Codes of the values with this hash; only where [`Dict::is_ordered`].
    pub(crate) fn codes_of(&self, hash: u64) -> impl Iterator<Item = u32> {
        (self.first_from(hash)..=self.len() as u32).take_while(move |code| self.hash_at(*code) == hash)
    }

    /// The first code whose value's hash is at least `hash`; one past the last if there is none. Only where [`Dict::is_ordered`].
    pub(crate) fn first_from(&self, hash: u64) -> u32 {
        let (mut low, mut high) = (1, self.len() as u32 + 1);
        while low < high {
            let middle = low.midpoint(high);
            if self.hash_at(middle) < hash { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The hash of a code's value.
    pub(crate) fn hash_at(&self, code: u32) -> u64 {
        self.get(code).map_or(0, value_hash)
    }

    /// The value of `code`; none for 0.
    pub(crate) fn get(&self, code: u32) -> Option<ValueRef<'_>> {
        let place = code as usize;
        if place == 0 {
            return None;
        }
        Some(match &self.values {
            Values::Strs(v) => ValueRef::Str(v.value(place)),
            Values::Ints(v) => ValueRef::Int(v.value(place)),
            Values::Floats(v) => ValueRef::Float(v.value(place)),
            Values::Bools => ValueRef::Bool(place == 2),
        })
    }
}

/// The cells of a column.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// Values by code.
    Coded { codes: Codes, dict: Dict },
    /// Whole numbers as they are.
    Ints(Int64Array),
    /// Numbers as they are.
    Floats(Float64Array),
}

impl Data {
    fn bytes(&self) -> usize {
        match self {
            Data::Ints(v) => v.get_buffer_memory_size(),
            Data::Floats(v) => v.get_buffer_memory_size(),
            Data::Coded { codes, dict } => {
                let codes = match codes {
                    Codes::Sparse { rows, codes } => size_of_val(&rows[..]) + size_of_val(&codes[..]),
                    Codes::Dense8(codes) => codes.len(),
                    Codes::Dense16(codes) => size_of_val(&codes[..]),
                    Codes::Dense32(codes) => size_of_val(&codes[..]),
                };
                let values = match &dict.values {
                    Values::Strs(v) => v.get_buffer_memory_size(),
                    Values::Ints(v) => v.get_buffer_memory_size(),
                    Values::Floats(v) => v.get_buffer_memory_size(),
                    Values::Bools => 0,
                };
                codes + values
            }
        }
    }
}

/// Gives a column of a cold file when somebody asks for it.
pub(crate) trait Load: std::fmt::Debug + Send + Sync {
    /// All absent if it cannot be read; whoever loads says so elsewhere.
    fn load(&self) -> Data;
}

/// One attribute with values of one type.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    data: OnceLock<Data>,
    cold: Option<Arc<dyn Load>>,
    /// Kept once counted, where it is small.
    totals: OnceLock<Box<[u32]>>,
}

/// Dictionaries up to this size have their counts kept in memory.
const TOTALS_MAX: usize = 65_536;

impl Column {
    pub(crate) fn new(name: Arc<str>, kind: Kind, data: Data) -> Column {
        Column { name, kind, data: OnceLock::from(data), cold: None, totals: OnceLock::new() }
    }

    pub(crate) fn cold(name: Arc<str>, kind: Kind, cold: Arc<dyn Load>) -> Column {
        Column { name, kind, data: OnceLock::new(), cold: Some(cold), totals: OnceLock::new() }
    }

    /// The cells; read from the cold file the first time.
    pub(crate) fn data(&self) -> &Data {
        self.data.get_or_init(|| match &self.cold {
            Some(cold) => cold.load(),
            None => Data::Floats(Float64Array::new_null(0)),
        })
    }

    /// Whether [`Column::data`] reads nothing.
    pub(crate) fn is_loaded(&self) -> bool {
        self.data.get().is_some()
    }

    /// Bytes that were read from a cold file and stay in memory for as long as the column does.
    pub(crate) fn read_bytes(&self) -> usize {
        match (&self.cold, self.data.get()) {
            (Some(_), Some(data)) => data.bytes(),
            _ => 0,
        }
    }

    /// Codes and dictionary, if it has them.
    pub(crate) fn coded(&self) -> Option<(&Codes, &Dict)> {
        match self.data() {
            Data::Coded { codes, dict } => Some((codes, dict)),
            _ => None,
        }
    }

    /// Codes and dictionary, whatever the cells are; of plain numbers each row has a code of its own.
    pub(crate) fn as_coded(&self) -> (Codes, Dict) {
        let own = |len: usize, is_there: &dyn Fn(usize) -> bool| {
            let codes: Vec<u32> = (0..len).map(|row| if is_there(row) { row as u32 + 1 } else { 0 }).collect();
            Codes::Dense32(codes.into())
        };
        match self.data() {
            Data::Coded { codes, dict } => (codes.clone(), dict.clone()),
            Data::Ints(v) => {
                let values = Values::Ints(std::iter::once(None).chain(v.iter()).collect());
                (own(v.len(), &|row| v.is_valid(row)), Dict::new(values, false))
            }
            Data::Floats(v) => {
                let values = Values::Floats(std::iter::once(None).chain(v.iter()).collect());
                (own(v.len(), &|row| v.is_valid(row)), Dict::new(values, false))
            }
        }
    }

    /// The value of a row.
    pub(crate) fn get(&self, row: usize) -> Option<ValueRef<'_>> {
        match self.data() {
            Data::Ints(v) => v.is_valid(row).then(|| ValueRef::Int(v.value(row))),
            Data::Floats(v) => v.is_valid(row).then(|| ValueRef::Float(v.value(row))),
            Data::Coded { codes, dict } => dict.get(codes.get(row)),
        }
    }

    /// How many rows have a value.
    pub(crate) fn present(&self, n_rows: usize) -> usize {
        match self.data() {
            Data::Ints(v) => v.len() - v.null_count(),
            Data::Floats(v) => v.len() - v.null_count(),
            Data::Coded { codes: Codes::Sparse { rows, .. }, .. } => rows.len(),
            Data::Coded { .. } => n_rows - self.totals(n_rows).first().map_or(0, |n| *n as usize),
        }
    }

    /// How often each code occurs in the whole chunk, place 0 counting absences; nothing for plain numbers. Counted once.
    pub(crate) fn totals(&self, n_rows: usize) -> std::borrow::Cow<'_, [u32]> {
        let Data::Coded { codes, dict } = self.data() else { return Vec::new().into() };
        if dict.len() < TOTALS_MAX {
            return (&**self.totals.get_or_init(|| codes.count_all(dict.len(), n_rows).into())).into();
        }
        codes.count_all(dict.len(), n_rows).into()
    }
}

impl Codes {
    /// The code of a row.
    pub(crate) fn get(&self, row: usize) -> u32 {
        match self {
            Codes::Sparse { rows, codes } => rows.binary_search(&(row as u32)).map_or(0, |place| codes[place]),
            Codes::Dense8(v) => u32::from(v[row]),
            Codes::Dense16(v) => u32::from(v[row]),
            Codes::Dense32(v) => v[row],
        }
    }

    /// Calls `each` with row and code of every present value, in row order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(usize, u32)) {
        match self {
            Codes::Sparse { rows, codes } => {
                rows.iter().zip(codes.iter()).for_each(|(r, c)| each(*r as usize, *c));
            }
            Codes::Dense8(v) => {
                v.iter().enumerate().filter(|(_, c)| **c != 0).for_each(|(r, c)| each(r, u32::from(*c)));
            }
            Codes::Dense16(v) => {
                v.iter().enumerate().filter(|(_, c)| **c != 0).for_each(|(r, c)| each(r, u32::from(*c)));
            }
            Codes::Dense32(v) => v.iter().enumerate().filter(|(_, c)| **c != 0).for_each(|(r, c)| each(r, *c)),
        }
    }

    /// How often each code occurs; place 0 counts absences. The hot loop of every comparison.
    pub(crate) fn count_all(&self, dict_len: usize, n_rows: usize) -> Vec<u32> {
        let mut counts = vec![0_u32; dict_len + 1];
        match self {
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

    /// Codes of all rows, for random access.
    pub(crate) fn dense(&self, n_rows: usize) -> Vec<u32> {
        match self {
            Codes::Sparse { rows, codes } => {
                let mut dense = vec![0; n_rows];
                rows.iter().zip(codes.iter()).for_each(|(row, code)| dense[*row as usize] = *code);
                dense
            }
            Codes::Dense8(v) => v.iter().map(|c| u32::from(*c)).collect(),
            Codes::Dense16(v) => v.iter().map(|c| u32::from(*c)).collect(),
            Codes::Dense32(v) => v.to_vec(),
        }
    }

    /// Whether all codes and rows are within their bounds; a damaged file's need not be.
    pub(crate) fn is_sound(&self, dict_len: usize, n_rows: usize) -> bool {
        match self {
            Codes::Sparse { rows, codes } => {
                rows.len() == codes.len()
                    && rows.windows(2).all(|w| w[0] < w[1])
                    && rows.last().is_none_or(|last| (*last as usize) < n_rows)
                    && codes.iter().all(|code| (1..=dict_len).contains(&(*code as usize)))
            }
            Codes::Dense8(v) => v.len() == n_rows && v.iter().max().is_none_or(|max| usize::from(*max) <= dict_len),
            Codes::Dense16(v) => v.len() == n_rows && v.iter().max().is_none_or(|max| usize::from(*max) <= dict_len),
            Codes::Dense32(v) => v.len() == n_rows && v.iter().max().is_none_or(|max| *max as usize <= dict_len),
        }
    }
}

/// 64 bits of a value; the same in every process and version, since dictionaries on disk are ordered by it (XXH3, seeded by the type).
pub(crate) fn value_hash(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Str(s) => xxh3_64(s.as_bytes()),
        ValueRef::Int(n) => xxh3_64_with_seed(&n.to_le_bytes(), 1),
        ValueRef::Float(n) => xxh3_64_with_seed(&n.to_bits().to_le_bytes(), 2),
        ValueRef::Bool(b) => xxh3_64_with_seed(&[u8::from(b)], 3),
    }
}
