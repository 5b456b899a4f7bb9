//! Rows as Arrow record batches, for a query engine on top: the columns that are asked for, of the rows that may be asked for,
//! some thousand at a time. Nothing is copied before its turn comes.
//!
//! A table has five columns that every event may have: `time` (nanoseconds, UTC), `duration_ms`, `trace_id`, `span_id`,
//! `parent_id` (hex digits). Then one column an attribute, by name. An attribute that occurs with values of several types within
//! the time of the table is several columns: the first of text, number, truth has the bare name, the others end in `:int`, `:float`
//! or `:bool`. Whole and other numbers are one column of numbers. A name that is taken, such as an attribute `time`, ends in
//! `:attribute`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow_array::builder::StringViewBuilder;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, RecordBatch, RecordBatchOptions, StringArray, StringViewArray,
    TimestampNanosecondArray, UInt32Array, new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_select::take::take;
use rows::{Condition, names};
use vocab::Timestamp;

use crate::chunk::Chunk;
use crate::column::{Codes, Column, Data, Kind, Values};
use crate::query::{Check, Source, hex, select};
use crate::segment::suffix;
use crate::store::Store;

/// Rows in one batch.
const BATCH_ROWS: usize = 8_192;
/// Texts of a dictionary that batches share. Of a longer one each batch has its own, as engines count what is shared once a batch.
const SHARED_MAX: usize = 1_024;

/// The rows of a time, as they were when it was asked for.
#[derive(Debug)]
pub struct Table {
    chunks: Vec<Arc<Chunk>>,
    from: Timestamp,
    to: Timestamp,
    schema: SchemaRef,
    origins: Vec<Origin>,
    /// What is left out, and why; an answer that lacks rows must say so.
    pub incomplete: Vec<String>,
}

/// Where the cells of a column come from.
#[derive(Clone, Debug)]
enum Origin {
    Time,
    Duration,
    Trace,
    Span,
    Parent,
    /// The values of this attribute that are of this type; of [`Kind::Float`] any number.
    Attribute(Arc<str>, Kind),
}

/// What of a table is read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Places of columns in the schema, in the order of the batches' columns.
    pub columns: Vec<usize>,
    /// A condition on columns of the table that every row to be read satisfies. Rows that do not satisfy it may be given, too.
    pub condition: Condition,
    /// Rows that begin before this are not read.
    pub from: Timestamp,
    /// Nor those that begin then or later.
    pub to: Timestamp,
}

impl Store {
    /// The rows that begin within `[from, to)`, for another engine.
    pub fn table(&self, from: Timestamp, to: Timestamp) -> Table {
        let parts = self.parts_in(from, to);
        let mut kinds: BTreeMap<Arc<str>, HashSet<Kind>> = BTreeMap::new();
        for column in parts.chunks.iter().flat_map(|chunk| &chunk.columns) {
            kinds.entry(column.name.clone()).or_default().insert(column.kind);
        }
        let (schema, origins) = columns(&kinds);
        Table { chunks: parts.chunks, from, to, schema, origins, incomplete: parts.incomplete }
    }
}

/// All columns, for attributes with values of these types.
fn columns(kinds: &BTreeMap<Arc<str>, HashSet<Kind>>) -> (SchemaRef, Vec<Origin>) {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let mut fields = vec![Field::new("time", time, false), Field::new(names::DURATION_MS, DataType::Float64, true)];
    fields.extend(["trace_id", "span_id", "parent_id"].map(|name| Field::new(name, DataType::Utf8View, true)));
    let mut origins = vec![Origin::Time, Origin::Duration, Origin::Trace, Origin::Span, Origin::Parent];
    let mut taken: HashSet<String> = fields.iter().map(|field| field.name().clone()).collect();
    let mut put = |name: &Arc<str>, kind: Kind, suffix: &str| {
        let mut column = format!("{name}{suffix}");
        while !taken.insert(column.clone()) {
            column.push_str(":attribute");
        }
        fields.push(Field::new(column, data_type(kind), true));
        origins.push(Origin::Attribute(name.clone(), kind));
    };
    let mut more = Vec::new();
    for (name, kinds) in kinds {
        let number = if kinds.contains(&Kind::Float) { Kind::Float } else { Kind::Int };
        let mut each = [Kind::Str, number, Kind::Bool].into_iter().filter(|kind| kinds.contains(kind));
        if let Some(first) = each.next() {
            put(name, first, "");
        }
        more.extend(each.map(|kind| (name, kind)));
    }
    // Bare names first: an attribute that is called `n:int` keeps its name.
    more.into_iter().for_each(|(name, kind)| put(name, kind, suffix(kind)));
    (Arc::new(Schema::new(fields)), origins)
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Str => DataType::Utf8View,
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
    }
}

impl Table {
    /// All columns; `time` first.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The time of its rows: from, and before which.
    pub fn time(&self) -> (Timestamp, Timestamp) {
        (self.from, self.to)
    }

    /// Places of the chunks that may have rows of this time, for [`Table::read`], and how many rows each has.
    pub fn chunks(&self, from: Timestamp, to: Timestamp) -> Vec<(usize, usize)> {
        let within = |chunk: &Chunk| chunk.time_max >= from.nanos() && chunk.time_min < to.nanos();
        let found = self.chunks.iter().enumerate().filter(|(_, chunk)| within(chunk));
        found.map(|(place, chunk)| (place, chunk.len())).collect()
    }

    /// Reads one chunk.
    pub fn read(self: &Arc<Self>, chunk: usize, wanted: &Arc<Wanted>) -> Result<Reader, ArrowError> {
        let schema = Arc::new(self.schema.project(&wanted.columns)?);
        Ok(Reader { table: self.clone(), chunk, wanted: wanted.clone(), schema, rows: None, at: 0, shared: Vec::new() })
    }

    fn source(&self, column: &str) -> Option<Source> {
        let place = self.schema.index_of(column).ok()?;
        Some(match &self.origins[place] {
            Origin::Time => Source::Time,
            Origin::Duration => Source::Duration,
            Origin::Trace => Source::Trace,
            Origin::Span => Source::Span,
            Origin::Parent => Source::Parent,
            Origin::Attribute(name, _) => Source::Attribute(name.to_string()),
        })
    }

    /// At least the rows that satisfy the condition.
    fn check(&self, condition: &Condition) -> Check {
        let all = |parts: &[Condition]| parts.iter().map(|part| self.check(part)).collect();
        match condition {
            // What is not known of a row may not exclude it, not even the other way round.
            Condition::All | Condition::Not(_) => Check::All,
            Condition::And(parts) => Check::And(all(parts)),
            Condition::Or(parts) => Check::Or(all(parts)),
            Condition::Test(test) => match self.source(&test.field) {
                Some(source) => Check::Test(source, test.comparison.clone()),
                None => Check::All,
            },
        }
    }
}

/// Gives the wanted rows of one chunk, batch by batch.
#[derive(Debug)]
pub struct Reader {
    table: Arc<Table>,
    chunk: usize,
    wanted: Arc<Wanted>,
    schema: SchemaRef,
    /// Those to be given, once the first batch is asked for.
    rows: Option<Vec<u32>>,
    at: usize,
    /// By place in the batch: the texts that batches share.
    shared: Vec<Option<StringViewArray>>,
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = self.table.chunks.get(self.chunk)?.clone();
        let rows = match self.rows.take() {
            Some(rows) => rows,
            None => {
                self.shared = self.wanted.columns.iter().map(|place| self.shared(&chunk, *place)).collect();
                let (from, to) = (self.wanted.from.max(self.table.from), self.wanted.to.min(self.table.to));
                select(&chunk, &self.table.check(&self.wanted.condition), from, to).rows()
            }
        };
        let batch = rows.get(self.at..rows.len().min(self.at + BATCH_ROWS)).filter(|batch| !batch.is_empty());
        let given = batch.map(|batch| self.batch(&chunk, batch));
        self.at += BATCH_ROWS;
        self.rows = Some(rows);
        given
    }
}

impl Reader {
    fn shared(&self, chunk: &Chunk, place: usize) -> Option<StringViewArray> {
        let Some(Origin::Attribute(name, Kind::Str)) = self.table.origins.get(place) else { return None };
        let (_, dict) = of_kind(chunk, name, Kind::Str)?.coded()?;
        match dict.values() {
            Values::Strs(texts) if dict.len() <= SHARED_MAX => Some(StringViewArray::from(texts)),
            _ => None,
        }
    }

    fn batch(&self, chunk: &Chunk, rows: &[u32]) -> Result<RecordBatch, ArrowError> {
        let places = self.wanted.columns.iter().zip(&self.shared);
        let arrays = places.map(|(place, shared)| match self.table.origins.get(*place) {
            Some(origin) => cells(chunk, origin, shared.as_ref(), rows),
            None => Err(ArrowError::SchemaError(format!("there is no column {place}"))),
        });
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
    }
}

fn of_kind<'a>(chunk: &'a Chunk, name: &str, kind: Kind) -> Option<&'a Column> {
    chunk.named(name).find(|column| column.kind == kind)
}

fn cells(
    chunk: &Chunk,
    origin: &Origin,
    shared: Option<&StringViewArray>,
    rows: &[u32],
) -> Result<ArrayRef, ArrowError> {
    let each = || rows.iter().map(|row| *row as usize);
    let ids = |ids: &[u64]| hex_texts(each().map(|row| u128::from(ids[row])), 16);
    let (name, kind) = match origin {
        Origin::Time => {
            let times = TimestampNanosecondArray::from_iter_values(each().map(|row| chunk.time[row]));
            return Ok(Arc::new(times.with_timezone("UTC")));
        }
        Origin::Duration => {
            let known = each().map(|row| Some(chunk.duration[row]).filter(|nanos| *nanos >= 0));
            return Ok(Arc::new(known.map(|nanos| nanos.map(|n| n as f64 / 1e6)).collect::<Float64Array>()));
        }
        Origin::Trace => return Ok(hex_texts(each().map(|row| chunk.trace(row)), 32)),
        Origin::Span => return Ok(ids(&chunk.span)),
        Origin::Parent => return Ok(ids(&chunk.parent)),
        Origin::Attribute(name, kind) => (name, *kind),
    };
    let column = of_kind(chunk, name, kind);
    if kind == Kind::Float {
        // Whole numbers among the others.
        if let Some(whole) = of_kind(chunk, name, Kind::Int) {
            let number = |column: &Column, row| column.get(row).and_then(|value| value.as_f64());
            let either = |row| column.and_then(|column| number(column, row)).or_else(|| number(whole, row));
            return Ok(Arc::new(each().map(either).collect::<Float64Array>()));
        }
    }
    let Some(column) = column else { return Ok(new_null_array(&data_type(kind), rows.len())) };
    let (codes, dict) = match column.data() {
        Data::Ints(numbers) => return plain(numbers, rows),
        Data::Floats(numbers) => return plain(numbers, rows),
        Data::Coded { codes, dict } => (codes_at(codes, rows), dict),
    };
    match dict.values() {
        Values::Strs(texts) => match shared {
            Some(shared) => take(shared, &UInt32Array::from(codes), None),
            None => Ok(copied(texts, &codes)),
        },
        Values::Ints(numbers) => take(numbers, &UInt32Array::from(codes), None),
        Values::Floats(numbers) => take(numbers, &UInt32Array::from(codes), None),
        Values::Bools if kind == Kind::Bool => {
            Ok(Arc::new(codes.iter().map(|code| (*code > 0).then_some(*code == 2)).collect::<BooleanArray>()))
        }
        // A cold column that could not be read.
        Values::Bools => Ok(new_null_array(&data_type(kind), rows.len())),
    }
}

/// Numbers that have no codes; a slice where the rows stand together.
fn plain<T: Array>(numbers: &T, rows: &[u32]) -> Result<ArrayRef, ArrowError> {
    match (rows.first(), rows.last()) {
        (Some(first), Some(last)) if (last - first) as usize + 1 == rows.len() => {
            Ok(numbers.slice(*first as usize, rows.len()))
        }
        _ => take(numbers, &UInt32Array::from(rows.to_vec()), None),
    }
}

/// The codes of these rows, which ascend; 0 where there is none.
fn codes_at(codes: &Codes, rows: &[u32]) -> Vec<u32> {
    let Codes::Sparse { rows: holders, codes } = codes else {
        return rows.iter().map(|row| codes.get(*row as usize)).collect();
    };
    let mut next = holders.partition_point(|holder| Some(holder) < rows.first());
    let code = |row: &u32| {
        while holders.get(next).is_some_and(|holder| holder < row) {
            next += 1;
        }
        if holders.get(next) == Some(row) { codes[next] } else { 0 }
    };
    rows.iter().map(code).collect()
}

fn copied(texts: &StringArray, codes: &[u32]) -> ArrayRef {
    let mut built = StringViewBuilder::with_capacity(codes.len());
    codes.iter().for_each(|code| built.append_option((*code > 0).then(|| texts.value(*code as usize))));
    Arc::new(built.finish())
}

/// Ids as they are shown; 0 is none.
fn hex_texts(ids: impl Iterator<Item = u128>, digits: usize) -> ArrayRef {
    let mut built = StringViewBuilder::new();
    ids.for_each(|id| built.append_option((id != 0).then(|| hex(id, digits))));
    Arc::new(built.finish())
}
