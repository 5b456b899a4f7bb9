//! Questions: filter, group by, calculate, over time, beside an earlier window; raw rows; traces; which services call which.
//!
//! | part | does |
//! |---|---|
//! | `budget` | time, memory, groups, cancelling; work on a few threads |
//! | `lane`, `select` | a field by row; which rows satisfy a filter |
//! | `sketch`, `state`, `group`, `top` | percentiles and distinct values; what is kept per group; the pass over all chunks; the most frequent of very many values |
//! | `answer`, `concurrency`, `raw` | a whole answer of groups; spans in flight; raw rows |
//! | `trace`, `services`, `fields` | one trace; the service map; which fields there are |
//!
//! A figure counts an event as often as its `meta.sample_rate` says; `min`, `max` and `count_distinct` do not. Whole and other
//! numbers of the same value are one value. The words are those of docs/reference/query.md.

mod answer;
mod arrow;
mod budget;
mod calculation;
mod concurrency;
mod fields;
mod group;
mod lane;
mod raw;
mod select;
mod services;
mod sketch;
mod state;
mod top;
mod trace;

use rows::{Expression, Filter, ParseExpressionError, Row, Value};
use vocab::{Millis, Timestamp};

pub use budget::{Cancel, Limits};
pub use calculation::{Calculation, Having, Order};
pub use fields::{FieldFound, Fields};
pub use services::{Call, ServiceMap};
pub use sketch::Bucket;
pub use trace::{Trace, TraceSpan};

pub(crate) use budget::{Budget, Stop};
pub(crate) use lane::{Names, Source, hex};
pub(crate) use select::{Check, resolve, select};

use crate::store::Store;

/// Time buckets of one answer. A chart has no more points, and a table nobody reads further.
pub const BUCKETS_MAX: u64 = 10_000;
/// Lines of one answer and those skipped before them.
pub const ROWS_MAX: usize = 100_000;
/// How far outside the time range a related span may begin: a root, a parent, one that is still in flight.
pub(crate) const RELATED: Millis = Millis::from_secs(3_600);
/// Fields to group by, calculations, calculated fields, orders.
pub const PARTS_MAX: usize = 32;

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which rows.
    pub filter: Filter,
    /// From this time on.
    pub from: Timestamp,
    /// Before this time.
    pub to: Timestamp,
    /// Rates and concurrency are taken up to here if it is before `to`: what has not happened yet is no quiet time.
    pub now: Timestamp,
    /// Fields that expressions make, by name; each may use those before it.
    pub calculated: Vec<(String, Expression)>,
    /// Fields or expressions to group by, in order.
    pub group_by: Vec<String>,
    /// What to calculate; none asks for raw rows.
    pub calculate: Vec<Calculation>,
    /// Width of time buckets; none is one for all.
    pub step: Option<Millis>,
    /// Whether buckets without events get a line, with 0 where that is the figure of nothing.
    pub fill: bool,
    /// Which groups, by their figures over the whole time.
    pub having: Vec<Having>,
    /// In which order; the first calculation, largest first, if none. Raw rows: newest first.
    pub order: Vec<Order>,
    /// Groups (not lines, if there is a step), or raw rows, left out before the first.
    pub offset: usize,
    /// Groups or raw rows in the answer.
    pub limit: usize,
    /// Fields or expressions of raw rows; none is all fields there are.
    pub fields: Vec<String>,
    /// Gives each figure also for the window that is so much earlier.
    pub compare_to: Option<Millis>,
    /// What it may take.
    pub limits: Limits,
}

impl Query {
    /// All rows of a time, counted.
    pub fn new(from: Timestamp, to: Timestamp) -> Query {
        Query {
            filter: Filter::all(),
            from,
            to,
            now: Timestamp::from_nanos(i64::MAX),
            calculated: Vec::new(),
            group_by: Vec::new(),
            calculate: vec![Calculation::Count],
            step: None,
            fill: false,
            having: Vec::new(),
            order: Vec::new(),
            offset: 0,
            limit: 100,
            fields: Vec::new(),
            compare_to: None,
            limits: Limits::default(),
        }
    }
}

/// Why a question cannot be asked, or has no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// Not a calculation.
    #[error(
        "{0:?} is no calculation: expected count, rate, concurrency, or count_distinct, sum, avg, min, max, rate_sum, \
         histogram, heatmap, p50 … p99.99 of a field in parentheses"
    )]
    Calculation(String),
    /// Not a condition on a figure.
    #[error("having, {text:?}: {reason}")]
    Having {
        /// The condition.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// An order by something that is not in the answer.
    #[error("{name:?} is not in the answer: order and having take one of {known}")]
    NotInAnswer {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Not an expression.
    #[error("{text:?}: {source}")]
    Expression {
        /// The whole text.
        text: String,
        /// Where and why.
        source: ParseExpressionError,
    },
    /// A calculated field costs too much.
    #[error("a calculated field with the fields it uses has more than {max} parts")]
    Costly {
        /// The bound.
        max: usize,
    },
    /// A prefix where none can be.
    #[error("{0:?}: root., parent. and any. are for conditions of a filter; there is no attribute of this name")]
    Related(String),
    /// A time in a filter.
    #[error("filter, field time: {0}")]
    Time(String),
    /// The time range is empty.
    #[error("the time range is empty: from {from} is not before to {to}")]
    EmptyRange {
        /// The start.
        from: Timestamp,
        /// The end.
        to: Timestamp,
    },
    /// Too many buckets.
    #[error("{buckets} time buckets are more than {BUCKETS_MAX}: a step of {smallest} or more fits this time range")]
    Buckets {
        /// How many there would be.
        buckets: u64,
        /// The smallest step in whole seconds that fits.
        smallest: Millis,
    },
    /// A list is too long.
    #[error("{what}: {given} are more than {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        given: usize,
        /// The bound.
        max: usize,
    },
    /// A limit was hit before there was anything to answer.
    #[error("{0}")]
    Limit(String),
    /// Whoever asked does not wait any more.
    #[error("the query was cancelled")]
    Cancelled,
}

/// What a column of an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// The start of the time bucket, or the time of a raw row.
    Time,
    /// A field grouped by.
    Key,
    /// A figure.
    Figure,
    /// A figure of the earlier window.
    Earlier,
    /// A field of raw rows.
    Field,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As it was asked for; a figure of the earlier window has ` earlier` after it.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Absent; of a figure: no row had the field.
    None,
    /// A value.
    Value(Value),
    /// A time.
    Time(Timestamp),
    /// A histogram, ascending.
    Buckets(Vec<Bucket>),
}

impl Cell {
    /// As text; none for what is absent. A histogram is JSON.
    pub fn text(&self) -> Option<String> {
        match self {
            Cell::None => None,
            Cell::Value(value) => Some(value.as_ref().to_string()),
            Cell::Time(time) => Some(time.to_string()),
            Cell::Buckets(buckets) => {
                let bucket = |b: &Bucket| format!("{{\"low\":{},\"high\":{},\"count\":{}}}", b.low, b.high, b.count);
                Some(format!("[{}]", buckets.iter().map(bucket).collect::<Vec<_>>().join(",")))
            }
        }
    }

    /// As a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Cell::Value(value) => value.as_ref().as_f64(),
            _ => None,
        }
    }

    fn of(value: Option<Value>) -> Cell {
        value.map_or(Cell::None, Cell::Value)
    }

    fn figure(value: Option<f64>) -> Cell {
        value.filter(|x| x.is_finite()).map_or(Cell::None, |x| Cell::Value(Value::Float(x)))
    }
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What the cells of each line are.
    pub columns: Vec<Column>,
    /// Lines in order, each with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// Whole rows, if no calculation and no fields were asked for; then there are no columns.
    pub raw: Vec<Row>,
    /// Width of time buckets, also where it was chosen here.
    pub step: Option<Millis>,
    /// Groups found, before `having` and `limit`.
    pub groups: u64,
    /// Whether `limit` left groups or rows out.
    pub has_more: bool,
    /// Rows that were looked at.
    pub rows_scanned: u64,
    /// Rows that matched.
    pub rows_matched: u64,
    /// How long it took.
    pub elapsed_ms: f64,
    /// Why the answer is not whole: damaged segments, limits. Empty if it is whole.
    pub incomplete: Vec<String>,
}

impl Answer {
    /// The cell of the first line in this column, as a number.
    pub fn first(&self, column: &str) -> Option<f64> {
        let place = self.columns.iter().position(|c| c.name == column)?;
        self.rows.first()?.get(place)?.number()
    }
}

impl Store {
    /// Answers.
    pub fn query(&self, query: &Query) -> Result<Answer, QueryError> {
        let budget = budget::Budget::new(&query.limits);
        let earliest = query.compare_to.map_or(query.from, |back| query.from - back);
        let parts = self.parts_in(earliest - RELATED, query.to + RELATED);
        let mut answer = answer::answer(&parts.refs(), query, &budget)?;
        if budget.stopped() == Some(budget::Stop::Cancelled) {
            return Err(QueryError::Cancelled);
        }
        answer.incomplete = parts.incomplete.iter().map(|f| format!("left out: {f}")).chain(budget.said()).collect();
        answer.elapsed_ms = budget.elapsed_ms();
        Ok(answer)
    }

    /// One trace in the order of a waterfall.
    pub fn trace(&self, id: u128, limits: &Limits) -> Result<Trace, QueryError> {
        let budget = budget::Budget::new(limits);
        let parts = self.parts();
        let mut trace = trace::trace(&parts.refs(), id, &budget);
        if budget.stopped() == Some(budget::Stop::Cancelled) {
            return Err(QueryError::Cancelled);
        }
        trace.incomplete.extend(parts.incomplete.iter().map(|f| format!("left out: {f}")).chain(budget.said()));
        Ok(trace)
    }

    /// Which services call which.
    pub fn service_map(
        &self,
        filter: &Filter,
        from: Timestamp,
        to: Timestamp,
        limits: &Limits,
    ) -> Result<ServiceMap, QueryError> {
        let budget = budget::Budget::new(limits);
        let parts = self.parts_in(from - RELATED, to + RELATED);
        let mut map = services::service_map(&parts.refs(), filter, (from, to), &budget)?;
        if budget.stopped() == Some(budget::Stop::Cancelled) {
            return Err(QueryError::Cancelled);
        }
        map.incomplete.extend(parts.incomplete.iter().map(|f| format!("left out: {f}")).chain(budget.said()));
        map.elapsed_ms = budget.elapsed_ms();
        Ok(map)
    }

    /// Which fields there are, by name.
    pub fn fields(&self, from: Timestamp, to: Timestamp, limits: &Limits) -> Result<Fields, QueryError> {
        let budget = budget::Budget::new(limits);
        let parts = self.parts_in(from, to);
        let mut fields = fields::fields(&parts.refs(), (from, to), &budget);
        if budget.stopped() == Some(budget::Stop::Cancelled) {
            return Err(QueryError::Cancelled);
        }
        fields.incomplete.extend(parts.incomplete.iter().map(|f| format!("left out: {f}")).chain(budget.said()));
        Ok(fields)
    }
}
