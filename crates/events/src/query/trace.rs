//! One trace in the order of a waterfall: callers before those they call, siblings by time. What is missing is named.

use std::collections::{HashMap, HashSet};

use rows::{Row, names};

use super::budget::{Budget, Stop, share_out};
use crate::chunk::Chunk;

/// Rows of one trace; further ones are left out.
const ROWS_MAX: usize = 50_000;

/// A span, or a log record or another event that stands in the trace on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSpan {
    /// Its row.
    pub row: Row,
    /// Callers above it.
    pub depth: usize,
    /// It has a parent, which is not there.
    pub parent_missing: bool,
    /// Span events, by time.
    pub events: Vec<Row>,
    /// Links, by time.
    pub links: Vec<Row>,
}

/// A trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// In the order of a waterfall.
    pub spans: Vec<TraceSpan>,
    /// Spans that others name as their parent and that are not there, each once.
    pub missing: Vec<u64>,
    /// Why it is not whole.
    pub incomplete: Vec<String>,
}

pub(crate) fn trace(chunks: &[&Chunk], id: u128, budget: &Budget) -> Trace {
    let (high, low) = ((id >> 64) as u64, id as u64);
    let found = share_out(chunks, Vec::new, |found: &mut Vec<Row>, _, chunk| {
        budget.check()?;
        let halves = chunk.trace.chunks_exact(2).enumerate();
        let here = halves.filter(|(_, pair)| pair[0] == high && pair[1] == low).map(|(row, _)| row as u32);
        let here: Vec<u32> = here.take(ROWS_MAX + 1).collect();
        if !here.is_empty() {
            found.extend(chunk.rows(&here));
        }
        Ok::<(), Stop>(())
    });
    let mut rows: Vec<Row> = found.into_iter().flatten().collect();
    // The same in whichever order chunks were read.
    rows.sort_by_key(|row| (row.time, row.span, row.parent));
    let mut trace = arrange(rows);
    if trace.spans.len() > ROWS_MAX {
        trace.spans.truncate(ROWS_MAX);
        trace.incomplete.push(format!("the trace has more than {ROWS_MAX} spans: the last ones are left out"));
    }
    trace
}

/// Rows by time to spans in order.
fn arrange(rows: Vec<Row>) -> Trace {
    let (annotations, rows): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| row.get(names::ANNOTATION).is_some());
    let mut places: HashMap<u64, usize> = HashMap::new();
    for (n, row) in rows.iter().enumerate().filter(|(_, row)| row.span != 0) {
        // A log record names the span it was written in. A span is what has a duration; the first one if it came twice.
        match places.get(&row.span) {
            Some(known) if rows[*known].duration_nanos.is_some() || row.duration_nanos.is_none() => {}
            _ => _ = places.insert(row.span, n),
        }
    }
    let parent_of = |n: usize| -> Option<usize> {
        let row = &rows[n];
        let of_span = places.get(&row.span).copied().filter(|place| *place != n && row.span != 0);
        // What is not a span itself hangs below the span it names.
        of_span.or_else(|| places.get(&row.parent).copied().filter(|place| *place != n && row.parent != 0))
    };
    let parents: Vec<Option<usize>> = (0..rows.len()).map(parent_of).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
    let mut tops = Vec::new();
    for (n, parent) in parents.iter().enumerate() {
        match parent {
            Some(parent) => children[*parent].push(n),
            None => tops.push(n),
        }
    }
    let mut order: Vec<(usize, usize)> = Vec::new();
    let mut seen: HashSet<usize> = HashSet::new();
    let mut walk = |from: usize, seen: &mut HashSet<usize>| {
        let mut stack = vec![(from, 0)];
        while let Some((n, depth)) = stack.pop() {
            if seen.insert(n) {
                order.push((n, depth));
                stack.extend(children[n].iter().rev().map(|child| (*child, depth + 1)));
            }
        }
    };
    tops.iter().for_each(|top| walk(*top, &mut seen));
    // Spans that are each other's parents have no top: the earliest is taken for one.
    (0..rows.len()).for_each(|n| {
        if !seen.contains(&n) {
            walk(n, &mut seen);
        }
    });
    let mut trace = Trace::default();
    let mut slots: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
    let mut span_places: HashMap<u64, usize> = HashMap::new();
    for (n, depth) in order {
        let Some(row) = slots[n].take() else { continue };
        let parent_missing = row.parent != 0 && !places.contains_key(&row.parent);
        if parent_missing && !trace.missing.contains(&row.parent) {
            trace.missing.push(row.parent);
        }
        if row.span != 0 && places.get(&row.span) == Some(&n) {
            span_places.insert(row.span, trace.spans.len());
        }
        trace.spans.push(TraceSpan { row, depth, parent_missing, events: Vec::new(), links: Vec::new() });
    }
    for row in annotations {
        let place = span_places.get(&row.parent).or_else(|| span_places.get(&row.span)).copied();
        let is_link = row.text(names::ANNOTATION) == Some("link");
        match place {
            Some(place) if is_link => trace.spans[place].links.push(row),
            Some(place) => trace.spans[place].events.push(row),
            None => {
                let span = if row.parent != 0 { row.parent } else { row.span };
                if span != 0 && !trace.missing.contains(&span) {
                    trace.missing.push(span);
                }
                trace.spans.push(TraceSpan {
                    row,
                    depth: 0,
                    parent_missing: true,
                    events: Vec::new(),
                    links: Vec::new(),
                });
            }
        }
    }
    trace
}
