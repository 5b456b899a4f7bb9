//! Several chunks as one, with dictionaries in the order of their values' hashes.
//!
//! Values are never compared row by row: the dictionaries are merged (sorted runs of hashes), then each chunk's codes are
//! translated. Numbers that are mostly distinct lose their dictionary, attributes that few rows have become lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, Float64Array, Int64Array, StringArray};
use rows::ValueRef;

use crate::builder::{SPARSE_FROM, narrow};
use crate::chunk::{Chunk, Numbers};
use crate::column::{Codes, Column, Data, Dict, Kind, Values, value_hash};

/// The chunks one after the other.
pub(crate) fn merge(chunks: &[&Chunk]) -> Chunk {
    let n_rows: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let mut merged = Chunk {
        time: joined(chunks, n_rows, |chunk| &chunk.time),
        duration: joined(chunks, n_rows, |chunk| &chunk.duration),
        trace: joined(chunks, 2 * n_rows, |chunk| &chunk.trace),
        span: joined(chunks, n_rows, |chunk| &chunk.span),
        parent: joined(chunks, n_rows, |chunk| &chunk.parent),
        ..Chunk::default()
    };
    // The order of the first chunk that has them, so that what belongs together stays together.
    let mut places: BTreeMap<(&Arc<str>, Kind), usize> = BTreeMap::new();
    let mut parts: Vec<Vec<(usize, &Column)>> = Vec::new();
    let mut offset = 0;
    for chunk in chunks {
        for column in &chunk.columns {
            let place = *places.entry((&column.name, column.kind)).or_insert_with(|| {
                parts.push(Vec::new());
                parts.len() - 1
            });
            parts[place].push((offset, column));
        }
        offset += chunk.len();
    }
    merged.columns = parts.iter().filter_map(|parts| column(parts, chunks, n_rows)).collect();
    merged.index();
    merged
}

fn joined<T: arrow_buffer::ArrowNativeType>(
    chunks: &[&Chunk],
    len: usize,
    part: impl Fn(&Chunk) -> &Numbers<T>,
) -> Numbers<T> {
    let mut all = Vec::with_capacity(len);
    chunks.iter().for_each(|chunk| all.extend_from_slice(part(chunk)));
    Numbers::Owned(all)
}

/// One column of its parts, each with the number of its first row.
fn column(parts: &[(usize, &Column)], chunks: &[&Chunk], n_rows: usize) -> Option<Column> {
    let (_, first) = parts.first()?;
    let lens: BTreeMap<usize, usize> = chunks
        .iter()
        .scan(0, |offset, chunk| {
            let start = *offset;
            *offset += chunk.len();
            Some((start, chunk.len()))
        })
        // An empty chunk has no rows to miss.
        .filter(|(_, len)| *len > 0)
        .collect();
    let len_at = |offset: usize| lens.get(&offset).copied().unwrap_or(0);
    let present: usize = parts.iter().map(|(offset, column)| column.present(len_at(*offset))).sum();
    if present == 0 {
        return None;
    }
    let is_number = matches!(first.kind, Kind::Int | Kind::Float);
    let is_rare = present * SPARSE_FROM < n_rows;
    if is_number && !is_rare && is_mostly_distinct(parts, present, n_rows) {
        return Some(Column::new(first.name.clone(), first.kind, plain(parts, first.kind, n_rows)));
    }
    let (dict, translations) = merged_dict(parts, first.kind);
    let codes = if is_rare {
        let (mut rows, mut codes) = (Vec::with_capacity(present), Vec::with_capacity(present));
        for ((offset, column), translation) in parts.iter().zip(&translations) {
            each(column, |row, code| {
                rows.push((offset + row) as u32);
                codes.push(translation[code as usize]);
            });
        }
        Codes::Sparse { rows: rows.into(), codes: codes.into() }
    } else {
        let mut dense = vec![0_u32; n_rows];
        for ((offset, column), translation) in parts.iter().zip(&translations) {
            each(column, |row, code| dense[offset + row] = translation[code as usize]);
        }
        narrow(dense, dict.len())
    };
    Some(Column::new(first.name.clone(), first.kind, Data::Coded { codes, dict }))
}

/// Row and code of every value; of plain numbers each row is its own code, as [`merged_dict`] takes them.
fn each(column: &Column, mut each: impl FnMut(usize, u32)) {
    match column.data() {
        Data::Coded { codes, .. } => codes.for_each(each),
        Data::Ints(v) => (0..v.len()).filter(|row| v.is_valid(*row)).for_each(|row| each(row, row as u32 + 1)),
        Data::Floats(v) => (0..v.len()).filter(|row| v.is_valid(*row)).for_each(|row| each(row, row as u32 + 1)),
    }
}

fn n_codes(column: &Column) -> usize {
    match column.data() {
        Data::Coded { dict, .. } => dict.len(),
        Data::Ints(v) => v.len(),
        Data::Floats(v) => v.len(),
    }
}

fn value(column: &Column, code: u32) -> Option<ValueRef<'_>> {
    match column.data() {
        Data::Coded { dict, .. } => dict.get(code),
        _ => column.get(code as usize - 1),
    }
}

/// Whether a dictionary would take more bytes than the numbers themselves. The distinct values are bounded from above by the sum over
/// the parts, which repeat each other; so it is asked of the largest part, and of the sum.
fn is_mostly_distinct(parts: &[(usize, &Column)], present: usize, n_rows: usize) -> bool {
    let dict_len = |column: &Column| match column.data() {
        Data::Coded { dict, .. } => dict.len(),
        _ => column.present(0),
    };
    let largest = parts.iter().map(|(_, column)| dict_len(column)).max().unwrap_or(0);
    let sum: usize = parts.iter().map(|(_, column)| dict_len(column)).sum();
    if sum <= 255 || largest <= 32 {
        return false;
    }
    // Exact when it is close: the hashes decide.
    let distinct = if sum * 2 < present / 2 { sum } else { distinct(parts) };
    let width = match distinct {
        0..=255 => 1,
        256..=65_535 => 2,
        _ => 4,
    };
    width * n_rows + 8 * distinct > 8 * n_rows
}

fn distinct(parts: &[(usize, &Column)]) -> usize {
    let mut hashes: Vec<u64> = Vec::new();
    for (_, column) in parts {
        hashes.extend((1..=n_codes(column) as u32).filter_map(|code| value(column, code)).map(value_hash));
    }
    hashes.sort_unstable();
    hashes.dedup();
    hashes.len()
}

fn plain(parts: &[(usize, &Column)], kind: Kind, n_rows: usize) -> Data {
    if kind == Kind::Int {
        let mut all: Vec<Option<i64>> = vec![None; n_rows];
        for (offset, column) in parts {
            each(column, |row, code| {
                if let Some(ValueRef::Int(n)) = value(column, code) {
                    all[offset + row] = Some(n);
                }
            });
        }
        return Data::Ints(unless_all_there(Int64Array::from(all)));
    }
    let mut all: Vec<Option<f64>> = vec![None; n_rows];
    for (offset, column) in parts {
        each(column, |row, code| {
            if let Some(ValueRef::Float(n)) = value(column, code) {
                all[offset + row] = Some(n);
            }
        });
    }
    Data::Floats(unless_all_there(Float64Array::from(all)))
}

/// Without the bits that say who is there, if all are.
fn unless_all_there<T: arrow_array::types::ArrowPrimitiveType>(
    array: arrow_array::PrimitiveArray<T>,
) -> arrow_array::PrimitiveArray<T> {
    if array.null_count() == 0 { arrow_array::PrimitiveArray::new(array.values().clone(), None) } else { array }
}

/// The values of all parts once, in the order of their hash, and for each part its new codes by old ones.
fn merged_dict(parts: &[(usize, &Column)], kind: Kind) -> (Dict, Vec<Vec<u32>>) {
    if kind == Kind::Bool {
        return (Dict::new(Values::Bools, true), parts.iter().map(|_| vec![0, 1, 2]).collect());
    }
    let mut entries: Vec<(u64, u32, u32)> = Vec::new();
    for (part, (_, column)) in parts.iter().enumerate() {
        entries.extend(
            (1..=n_codes(column) as u32).filter_map(|code| Some((value_hash(value(column, code)?), part as u32, code))),
        );
    }
    // Parts that are sorted already are found and merged as they are.
    entries.sort_by_key(|(hash, ..)| *hash);
    let mut translations: Vec<Vec<u32>> = parts.iter().map(|(_, column)| vec![0; n_codes(column) + 1]).collect();
    // The first place where each value of the result stands.
    let mut firsts: Vec<(u32, u32)> = Vec::new();
    let at = |(part, code): (u32, u32)| value(parts[part as usize].1, code);
    let mut group = 0;
    for (place, (hash, part, code)) in entries.iter().enumerate() {
        if place == 0 || entries[place - 1].0 != *hash {
            group = firsts.len();
        }
        // Values of one hash are almost always one value.
        let own = at((*part, *code));
        let same = (group..firsts.len()).find(|n| same_bits(at(firsts[*n]), own));
        let new = same.unwrap_or_else(|| {
            firsts.push((*part, *code));
            firsts.len() - 1
        });
        translations[*part as usize][*code as usize] = new as u32 + 1;
    }
    let all = std::iter::once(None).chain(firsts.iter().map(|first| at(*first)));
    let values = match kind {
        Kind::Str => Values::Strs(
            all.map(|value| match value {
                Some(ValueRef::Str(text)) => Some(text),
                _ => None,
            })
            .collect::<StringArray>(),
        ),
        Kind::Int => Values::Ints(
            all.map(|value| match value {
                Some(ValueRef::Int(n)) => Some(n),
                _ => None,
            })
            .collect::<Int64Array>(),
        ),
        Kind::Float | Kind::Bool => Values::Floats(
            all.map(|value| match value {
                Some(ValueRef::Float(n)) => Some(n),
                _ => None,
            })
            .collect::<Float64Array>(),
        ),
    };
    (Dict::new(values, true), translations)
}

fn same_bits(a: Option<ValueRef<'_>>, b: Option<ValueRef<'_>>) -> bool {
    match (a, b) {
        (Some(ValueRef::Float(a)), Some(ValueRef::Float(b))) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}
