//! How the comparison reads columns: counts by code, values of chosen rows. The rest of it knows no form of storage.

use arrow_array::Array;
use rows::{Value, ValueRef};

use crate::column::{Codes, Column, Data, Kind};

/// Rows of one chunk, ascending.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chosen<'a> {
    /// Every row of the chunk, each counting once.
    All(usize),
    /// These rows, each with its weight or counting once.
    Listed(&'a [u32], Option<&'a [f32]>),
}

/// How often each code occurs, in weights; code 0 (absent) is not counted.
#[derive(Debug)]
pub(super) enum Counts {
    Whole(Vec<u32>),
    Weighted(Vec<f64>),
    /// By code, ascending.
    Few(Vec<(u32, f64)>),
}

impl Counts {
    pub(super) fn of(&self, code: u32) -> f64 {
        match self {
            Counts::Whole(v) => v.get(code as usize).map_or(0.0, |n| f64::from(*n)),
            Counts::Weighted(v) => v.get(code as usize).copied().unwrap_or(0.0),
            Counts::Few(v) => v.binary_search_by_key(&code, |(c, _)| *c).map_or(0.0, |place| v[place].1),
        }
    }

    /// Calls `each` with code and count of what occurs, by code.
    pub(super) fn each(&self, mut each: impl FnMut(u32, f64)) {
        match self {
            Counts::Whole(v) => {
                v.iter().enumerate().skip(1).filter(|(_, n)| **n > 0).for_each(|(c, n)| each(c as u32, f64::from(*n)));
            }
            Counts::Weighted(v) => {
                v.iter().enumerate().skip(1).filter(|(_, n)| **n > 0.0).for_each(|(c, n)| each(c as u32, *n));
            }
            Counts::Few(v) => v.iter().for_each(|(c, n)| each(*c, *n)),
        }
    }

    pub(super) fn present(&self) -> f64 {
        match self {
            Counts::Whole(v) => v.iter().skip(1).map(|n| u64::from(*n)).sum::<u64>() as f64,
            Counts::Weighted(v) => v.iter().skip(1).sum(),
            Counts::Few(v) => v.iter().map(|(_, n)| n).sum(),
        }
    }
}

/// A dictionary with more values than this many times the rows is not counted code by code but by sorting the rows' codes.
const SORTED_FROM: usize = 4;

/// Counts the codes of a column among rows.
pub(super) fn count(column: &Column, chosen: Chosen<'_>) -> Counts {
    let codes = distinct(column) + 1;
    match chosen {
        Chosen::All(n_rows) => Counts::Whole(match column.coded() {
            Some(_) => column.totals(n_rows).into_owned(),
            None => (0..=n_rows).map(|code| u32::from(value(column, code as u32).is_some())).collect(),
        }),
        Chosen::Listed(rows, weights) if codes > SORTED_FROM * rows.len() => {
            let mut found: Vec<(u32, f64)> = Vec::new();
            gather(column, rows, |place, code| found.push((code, weights.map_or(1.0, |w| f64::from(w[place])))));
            found.sort_unstable_by_key(|(code, _)| *code);
            found.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 += next.1;
                }
                same
            });
            Counts::Few(found)
        }
        Chosen::Listed(rows, None) => {
            let mut counts = vec![0_u32; codes];
            gather(column, rows, |_, code| counts[code as usize] += 1);
            Counts::Whole(counts)
        }
        Chosen::Listed(rows, Some(weights)) => {
            let mut counts = vec![0.0_f64; codes];
            gather(column, rows, |place, code| counts[code as usize] += f64::from(weights[place]));
            Counts::Weighted(counts)
        }
    }
}

/// Calls `each` with place in `rows` and code of every row of `rows` (ascending) where the column has a value.
pub(super) fn gather(column: &Column, rows: &[u32], mut each: impl FnMut(usize, u32)) {
    let codes = match column.data() {
        Data::Coded { codes, .. } => codes,
        // Of plain numbers each row has a code of its own.
        _ => {
            let code = |row: u32| (row, column.get(row as usize).is_some());
            return rows
                .iter()
                .enumerate()
                .map(|(place, row)| (place, code(*row)))
                .filter(|(_, (_, is_there))| *is_there)
                .for_each(|(place, (row, _))| each(place, row + 1));
        }
    };
    match codes {
        Codes::Sparse { rows: at, codes } => {
            let mut from = 0;
            for (place, row) in rows.iter().enumerate() {
                // Steps that double, then a search: near where the last one was if rows are dense, quick if they are not.
                let mut step = 1;
                while from + step < at.len() && at[from + step] < *row {
                    step *= 2;
                }
                let end = (from + step + 1).min(at.len());
                from += at[from.min(end)..end].partition_point(|r| r < row);
                if at.get(from) == Some(row) {
                    each(place, codes[from]);
                }
            }
        }
        Codes::Dense8(v) => rows
            .iter()
            .enumerate()
            .map(|(place, row)| (place, u32::from(v[*row as usize])))
            .filter(|(_, code)| *code != 0)
            .for_each(|(place, code)| each(place, code)),
        Codes::Dense16(v) => rows
            .iter()
            .enumerate()
            .map(|(place, row)| (place, u32::from(v[*row as usize])))
            .filter(|(_, code)| *code != 0)
            .for_each(|(place, code)| each(place, code)),
        Codes::Dense32(v) => rows
            .iter()
            .enumerate()
            .map(|(place, row)| (place, v[*row as usize]))
            .filter(|(_, code)| *code != 0)
            .for_each(|(place, code)| each(place, code)),
    }
}

/// The codes that stand for `value` in this column.
pub(super) fn codes_of(column: &Column, value: &Value, hash: u64) -> Vec<u32> {
    let fits = matches!(
        (value, column.kind),
        (Value::Str(_), Kind::Str)
            | (Value::Int(_), Kind::Int)
            | (Value::Float(_), Kind::Float)
            | (Value::Bool(_), Kind::Bool)
    );
    if !fits {
        return Vec::new();
    }
    let same = |code: &u32| self::value(column, *code) == Some(value.as_ref());
    match column.coded() {
        Some((_, dict)) if dict.is_ordered() => dict.codes_of(hash).filter(same).collect(),
        _ => (1..=distinct(column) as u32).filter(same).collect(),
    }
}

/// The value of a code.
pub(super) fn value(column: &Column, code: u32) -> Option<ValueRef<'_>> {
    match column.data() {
        Data::Coded { dict, .. } => dict.get(code),
        _ => column.get((code as usize).checked_sub(1)?),
    }
}

/// Codes of the values with a hash; only where [`is_ordered`].
pub(super) fn codes_with(column: &Column, hash: u64) -> impl Iterator<Item = u32> {
    column.coded().into_iter().flat_map(move |(_, dict)| dict.codes_of(hash))
}

/// How many different values the column has in its chunk, at most.
pub(super) fn distinct(column: &Column) -> usize {
    match column.data() {
        Data::Coded { dict, .. } => dict.len(),
        Data::Ints(v) => v.len(),
        Data::Floats(v) => v.len(),
    }
}

/// Whether values can be found without looking at all of them.
pub(super) fn is_ordered(column: &Column) -> bool {
    column.coded().is_some_and(|(_, dict)| dict.is_ordered())
}

/// Whether its values are numbers.
pub(super) fn is_number(column: &Column) -> bool {
    matches!(column.kind, Kind::Int | Kind::Float)
}

/// Calls `each` with row and code of every value.
pub(super) fn each(column: &Column, mut each: impl FnMut(usize, u32)) {
    match column.data() {
        Data::Coded { codes, .. } => codes.for_each(each),
        Data::Ints(v) => (0..v.len()).filter(|row| v.is_valid(*row)).for_each(|row| each(row, row as u32 + 1)),
        Data::Floats(v) => (0..v.len()).filter(|row| v.is_valid(*row)).for_each(|row| each(row, row as u32 + 1)),
    }
}
