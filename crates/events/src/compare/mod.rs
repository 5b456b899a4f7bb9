//! What is different about these: every attribute and value ranked by how surely its share differs.
//!
//! For each condition on an attribute (a value, a range of numbers, that it is absent) `p` is its share in the selection and
//! `q` in the baseline. Conditions are ranked by the lower confidence bound of `|p - q|`, and only those that an exact test
//! tells apart are named, corrected for all that were tried, so that two samples of the same thing say "nothing stands out" in
//! at least 95 of 100 cases ([`rank`]). What the rows count follows from what they come of ([`side`]). The best conditions
//! are then looked at together: which say the same, which explain only in pairs, which only go with a cause ([`together`]).
//! Attributes that define arm, fault, selection or outcome are listed apart: they differ by construction ([`apart`]).
//!
//! All of it shows what goes together, not what brings about what.

mod answer;
mod apart;
mod attribute;
mod cells;
mod number;
mod predicate;
mod rank;
mod side;
mod subjects;
mod together;

use std::collections::HashSet;

use hashbrown::HashMap;
use rows::{Filter, Row};
use vocab::Timestamp;

use crate::builder::Builder;
use crate::chunk::Chunk;
use crate::mask::Mask;
use crate::parallel::parallel;
use crate::query::{Budget, Check, Limits, Names, QueryError, RELATED, Stop, resolve, select};
use crate::store::Store;
pub use answer::{ApartValue, Cause, Comparison, Condition, RankedValue, Side};
pub use apart::Apart;
pub use side::Unit;
use side::{Part, Rows};

/// Which events.
#[derive(Clone, Debug)]
pub struct Selection {
    /// They satisfy this.
    pub filter: Filter,
    /// From this time on; none is the question's.
    pub from: Option<Timestamp>,
    /// Before this time; none is the question's.
    pub to: Option<Timestamp>,
    /// They belong to one of these traces or subjects; with neither, to any.
    pub traces: HashSet<u128>,
    /// Values of `user.id`.
    pub subjects: HashSet<String>,
}

impl Selection {
    /// Events that satisfy a filter.
    pub fn of(filter: Filter) -> Selection {
        Selection { filter, from: None, to: None, traces: HashSet::new(), subjects: HashSet::new() }
    }
}

/// What is different about these, beside those?
#[derive(Clone, Debug)]
pub struct Question {
    /// These.
    pub selection: Selection,
    /// Those; none is all other events of the time. Events that are selected too do not count here.
    pub baseline: Option<Selection>,
    /// From this time on.
    pub from: Timestamp,
    /// Before this time.
    pub to: Timestamp,
    /// What counts once; none lets the events decide.
    pub unit: Option<Unit>,
    /// What it may take; see [`comparison_limits`]. Memory is what is read from Parquet files and what the rows of both sides take.
    pub limits: Limits,
}

/// What a comparison may take by default: the time of a query, and more memory, as it looks at every attribute.
pub fn comparison_limits() -> Limits {
    Limits { memory: MEMORY_MAX, ..Limits::default() }
}

/// Ten million events of fifty attributes from Parquet files fit.
const MEMORY_MAX: usize = 2 << 30;

fn compare(
    parts: &[Part<'_>],
    sizes: &side::Sizes,
    names: (&str, &str),
    apart: &Apart<'_>,
    budget: &Budget,
) -> Comparison {
    let mut places: HashMap<&str, attribute::Places> = HashMap::new();
    for (number, part) in parts.iter().enumerate() {
        for (place, column) in part.chunk.columns.iter().enumerate() {
            places.entry(&column.name).or_default().push((number, place));
        }
    }
    let mut places: Vec<(&str, attribute::Places)> = places.into_iter().collect();
    // The largest first, so that neither thread is left with it at the end. How large those in Parquet files are is not known yet.
    let column = |(part, place): &(usize, usize)| &parts[*part].chunk.columns[*place];
    let size = |places: &attribute::Places| -> usize {
        places.iter().map(column).filter(|column| column.is_loaded()).map(cells::distinct).sum()
    };
    places.sort_by_cached_key(|(name, places)| (std::cmp::Reverse(size(places)), *name));
    let tallied = parallel(&places, |_, (name, places)| {
        budget.check().ok()?;
        let read = || places.iter().map(|place| column(place).read_bytes()).sum::<usize>();
        let before = read();
        let attribute = attribute::tally(parts, name, places, sizes);
        budget.take(read().saturating_sub(before));
        Some(attribute)
    });
    let n_attributes = tallied.len();
    let mut attributes: Vec<attribute::Attribute> = tallied.into_iter().flatten().collect();
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    let left_out = n_attributes - attributes.len();
    let with_pairs = budget.check().is_ok();
    let mut comparison = rank::rank(parts, sizes, &attributes, names, apart, with_pairs);
    if left_out > 0 {
        comparison.incomplete.push(format!("{left_out} of {n_attributes} attributes were not compared"));
    }
    if !with_pairs {
        comparison.incomplete.push("attributes were not looked at together".to_owned());
    }
    comparison
}

/// Compares two sets of whole rows, one row a subject.
pub fn compare_rows(selected: (&str, &[Row]), baseline: (&str, &[Row]), apart: &Apart<'_>) -> Comparison {
    let mut builder = Builder::default();
    selected.1.iter().chain(baseline.1).for_each(|row| builder.push(row));
    let rows: Vec<u32> = (0..selected.1.len() as u32).collect();
    let selected_rows = Rows::Listed { rows, weights: None };
    let chunk = builder.freeze();
    let mut parts = [Part { chunk: &chunk, selected: selected_rows, baseline: Rows::Rest }];
    let sizes = side::weigh(&mut parts, Some(Unit::Event));
    // All of it is in memory already, and small.
    let budget = Budget::new(&comparison_limits());
    let mut comparison = compare(&parts, &sizes, (selected.0, baseline.0), apart, &budget);
    comparison.unit = Unit::Subject;
    comparison.unit_why = "each row is one subject";
    comparison
}

impl Store {
    /// Compares the rows that satisfy `selection` with those that satisfy `baseline`, or with all other rows of the time.
    pub fn compare(
        &self,
        selection: &Filter,
        baseline: Option<&Filter>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Comparison, QueryError> {
        let of = |filter: &Filter| Selection::of(filter.clone());
        let (selection, baseline, limits) = (of(selection), baseline.map(of), comparison_limits());
        self.difference(&Question { selection, baseline, from, to, unit: None, limits })
    }

    /// Says what is different.
    pub fn difference(&self, question: &Question) -> Result<Comparison, QueryError> {
        let (selection, baseline) = (&question.selection, question.baseline.as_ref());
        let apart = Apart { attributes: apart::defining(&selection.filter, baseline.map(|b| &b.filter)) };
        let window = |side: &Selection| (side.from.unwrap_or(question.from), side.to.unwrap_or(question.to));
        let windows = || std::iter::once(selection).chain(baseline).map(window);
        let from = windows().map(|(from, _)| from).fold(question.from, Timestamp::min);
        let to = windows().map(|(_, to)| to).fold(question.to, Timestamp::max);
        let stored = self.parts_in(from - RELATED, to + RELATED);
        let chunks = stored.refs();
        let budget = Budget::new(&question.limits);
        let names = Names::new(&chunks, &[])?;
        let check = |side: &Selection| resolve(&side.filter, &names, &chunks, &budget, window(side));
        let (selected_if, baseline_if) = (check(selection)?, baseline.map(check).transpose()?);
        let rows_of = |chunk: &Chunk, side: &Selection, check: &Check| {
            let (from, to) = window(side);
            let mask = select(chunk, check, from, to);
            if side.traces.is_empty() && side.subjects.is_empty() {
                return mask;
            }
            mask.and(&side::members(chunk, &side.traces, &side.subjects))
        };
        let parts = parallel(&chunks, |_, chunk| {
            budget.check().ok()?;
            let selected = rows_of(chunk, selection, &selected_if);
            let listed = |mask: Mask| Rows::Listed { rows: mask.without(&selected).rows(), weights: None };
            let whole = question.from.nanos() <= chunk.time_min && chunk.time_max < question.to.nanos();
            let baseline = match (baseline, &baseline_if) {
                (Some(other), Some(check)) => listed(rows_of(chunk, other, check)),
                _ if whole => Rows::Rest,
                _ => listed(select(chunk, &Check::All, question.from, question.to)),
            };
            Some(Part { chunk, selected: Rows::Listed { rows: selected.rows(), weights: None }, baseline })
        });
        // Shares of a part of the rows would be shares of something else: until both sides are known there is no answer.
        let refused = || match budget.stopped() {
            Some(Stop::Cancelled) => QueryError::Cancelled,
            _ => {
                let hit = budget.hit().unwrap_or_default();
                QueryError::Limit(format!("{hit} before both sides were known: ask for a shorter time range"))
            }
        };
        let mut parts: Vec<Part<'_>> = parts.into_iter().collect::<Option<_>>().ok_or_else(refused)?;
        let sizes = side::weigh(&mut parts, question.unit);
        let read: usize = chunks.iter().flat_map(|chunk| &chunk.columns).map(|column| column.read_bytes()).sum();
        budget.take(read + parts.iter().map(Part::bytes).sum::<usize>());
        budget.check().map_err(|_| refused())?;
        let name = if baseline.is_some() { "baseline events" } else { "other events" };
        let mut comparison = compare(&parts, &sizes, ("selected events", name), &apart, &budget);
        if budget.stopped() == Some(Stop::Cancelled) {
            return Err(QueryError::Cancelled);
        }
        comparison.incomplete.extend(budget.hit().into_iter().chain(stored.incomplete.iter().cloned()));
        Ok(comparison)
    }
}
