//! Raw rows: the newest, or the first by some fields, whole or with chosen fields only.

use std::cmp::Ordering;

use rows::Value;
use vocab::Timestamp;

use super::answer::order_absent_last;
use super::budget::{Budget, Stop, share_out};
use super::lane::{Lane, Names, Source};
use super::select::{resolve, select};
use super::{Answer, Cell, Column, ColumnKind, Query, QueryError};
use crate::chunk::Chunk;

/// A row that may be in the answer.
struct Candidate {
    keys: Vec<Option<Value>>,
    time: i64,
    chunk: usize,
    row: u32,
}

pub(crate) fn raw(chunks: &[&Chunk], query: &Query, names: &Names<'_>, budget: &Budget) -> Result<Answer, QueryError> {
    let check = resolve(&query.filter, names, chunks, budget, (query.from, query.to))?;
    let fields: Vec<Source> = query.fields.iter().map(|f| names.parse(f)).collect::<Result<_, _>>()?;
    let mut keys: Vec<(Option<Source>, bool)> = Vec::new();
    for order in &query.order {
        let source = if order.by == rows::TIME { Source::Time } else { names.parse(&order.by)? };
        keys.push((Some(source).filter(|s| *s != Source::Time), order.descending));
    }
    // Ties are newest first, and in the order of arrival after that: pages do not overlap.
    let order = |a: &Candidate, b: &Candidate| {
        let mut places = a.keys.iter().zip(&b.keys);
        for (source, descending) in &keys {
            let by = match source {
                None if *descending => b.time.cmp(&a.time),
                None => a.time.cmp(&b.time),
                Some(_) => places
                    .next()
                    .map_or(Ordering::Equal, |(a, b)| order_absent_last(a.as_ref(), b.as_ref(), *descending)),
            };
            if by != Ordering::Equal {
                return by;
            }
        }
        b.time.cmp(&a.time).then((a.chunk, a.row).cmp(&(b.chunk, b.row)))
    };
    let wanted = query.limit + query.offset;
    let keep = |found: &mut Vec<Candidate>| {
        if found.len() > wanted && wanted > 0 {
            found.select_nth_unstable_by(wanted - 1, order);
        }
        found.truncate(wanted);
    };
    type Found = (Vec<Candidate>, u64, u64);
    let found: Vec<Found> = share_out(
        chunks,
        || (Vec::new(), 0, 0),
        |found: &mut Found, place, chunk| {
            budget.check()?;
            let sources: Vec<&Source> = keys.iter().filter_map(|(source, _)| source.as_ref()).collect();
            let lanes: Vec<Lane<'_>> = sources.iter().map(|source| Lane::of(chunk, source)).collect();
            found.1 += chunk.len() as u64;
            select(chunk, &check, query.from, query.to).blocks(|rows| {
                budget.check()?;
                found.2 += rows.len() as u64;
                found.0.extend(rows.iter().map(|row| Candidate {
                    keys: lanes.iter().map(|l| l.value(*row as usize).map(|v| v.as_ref().to_value())).collect(),
                    time: chunk.time[*row as usize],
                    chunk: place,
                    row: *row,
                }));
                if found.0.len() > 4 * wanted + 65_536 {
                    keep(&mut found.0);
                }
                Ok::<(), Stop>(())
            })?;
            keep(&mut found.0);
            Ok(())
        },
    );
    let mut answer = Answer::default();
    let mut best = Vec::new();
    for (candidates, scanned, matched) in found {
        answer.rows_scanned += scanned;
        answer.rows_matched += matched;
        best.extend(candidates);
    }
    best.sort_by(order);
    best.truncate(wanted);
    best.drain(..query.offset.min(best.len()));
    answer.has_more = answer.rows_matched > wanted as u64;
    if query.fields.is_empty() {
        answer.raw = whole(chunks, &best);
        return Ok(answer);
    }
    answer.columns.push(Column { name: rows::TIME.to_owned(), kind: ColumnKind::Time });
    answer.columns.extend(query.fields.iter().map(|f| Column { name: f.trim().to_owned(), kind: ColumnKind::Field }));
    let mut lines: Vec<Vec<Cell>> = vec![Vec::new(); best.len()];
    for (place, chunk) in chunks.iter().enumerate() {
        let here: Vec<usize> = (0..best.len()).filter(|n| best[*n].chunk == place).collect();
        if here.is_empty() {
            continue;
        }
        let lanes: Vec<Lane<'_>> = fields.iter().map(|field| Lane::of(chunk, field)).collect();
        for n in here {
            let row = best[n].row as usize;
            let cell = |lane: &Lane<'_>| Cell::of(lane.value(row).map(|v| v.as_ref().to_value()));
            let time = Cell::Time(Timestamp::from_nanos(best[n].time));
            lines[n] = std::iter::once(time).chain(lanes.iter().map(cell)).collect();
        }
    }
    answer.rows = lines;
    Ok(answer)
}

/// Whole rows, in the order of the candidates.
fn whole(chunks: &[&Chunk], best: &[Candidate]) -> Vec<rows::Row> {
    let mut rows = vec![rows::Row::default(); best.len()];
    for (place, chunk) in chunks.iter().enumerate() {
        let here: Vec<usize> = (0..best.len()).filter(|n| best[*n].chunk == place).collect();
        let numbers: Vec<u32> = here.iter().map(|n| best[*n].row).collect();
        if !here.is_empty() {
            here.into_iter().zip(chunk.rows(&numbers)).for_each(|(n, row)| rows[n] = row);
        }
    }
    rows
}
