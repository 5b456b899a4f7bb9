//! Lists of JSON objects as tables in memory: what the control plane knows, as its API shows it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use serde_json::Value;
use vocab::Timestamp;

use crate::scan::EventsTable;

/// The table of events.
const EVENTS: &str = "events";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A time; RFC 3339 text in JSON.
    Time,
    /// Text.
    Text,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// True or false.
    Bool,
    /// Whatever it is, as JSON text.
    Json,
}

/// A column of a list.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Where its value is in an object: a JSON pointer (RFC 6901). What is not there, or is of another kind, is null.
    pub pointer: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// A list that is a table.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// Its columns.
    pub columns: &'static [Column],
}

/// The objects of a list.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// One a row.
    pub rows: Vec<Value>,
    /// What is left out, and why.
    pub incomplete: Vec<String>,
}

/// Where the rows come from. Called on threads of the engine when a statement names the table; may wait.
pub trait Tables: fmt::Debug + Send + Sync {
    /// The events of the time that is asked about.
    fn events(&self) -> events::Table;
    /// The lists there are.
    fn known(&self) -> &'static [Known];
    /// The rows of one of them, or why they cannot be had.
    fn rows(&self, name: &str) -> Result<Rows, String>;
}

/// The tables of one statement: each is made when it is first named, and stays the same.
#[derive(Debug)]
pub(crate) struct Schemas {
    tables: Arc<dyn Tables>,
    made: Mutex<HashMap<String, Arc<dyn TableProvider>>>,
    incomplete: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Schemas {
    pub(crate) fn new(tables: Arc<dyn Tables>) -> Schemas {
        Schemas { tables, made: Mutex::default(), incomplete: Mutex::default() }
    }

    /// What the tables that were named lack.
    pub(crate) fn incomplete(&self) -> Vec<String> {
        lock(&self.incomplete).clone()
    }

    fn make(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if name == EVENTS {
            let table = self.tables.events();
            lock(&self.incomplete).extend(table.incomplete.iter().cloned());
            return Ok(Some(Arc::new(EventsTable::new(Arc::new(table)))));
        }
        let Some(known) = self.tables.known().iter().find(|known| known.name == name) else { return Ok(None) };
        let found = self.tables.rows(name).map_err(|reason| DataFusionError::Execution(format!("{name}: {reason}")))?;
        lock(&self.incomplete).extend(found.incomplete);
        let batch = batch(known.columns, &found.rows)?;
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }
}

#[async_trait]
impl SchemaProvider for Schemas {
    fn table_names(&self) -> Vec<String> {
        let lists = self.tables.known().iter().map(|known| known.name);
        std::iter::once(EVENTS).chain(lists).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some(made) = lock(&self.made).get(name) {
            return Ok(Some(made.clone()));
        }
        let made = self.make(name)?;
        if let Some(made) = &made {
            lock(&self.made).insert(name.to_owned(), made.clone());
        }
        Ok(made)
    }

    fn table_exist(&self, name: &str) -> bool {
        name == EVENTS || self.tables.known().iter().any(|known| known.name == name)
    }
}

fn batch(columns: &[Column], rows: &[Value]) -> Result<RecordBatch, DataFusionError> {
    let field = |column: &Column| Field::new(column.name, data_type(column.kind), true);
    let schema: SchemaRef = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let arrays = columns.iter().map(|column| array(column, rows)).collect();
    Ok(RecordBatch::try_new(schema, arrays)?)
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        Kind::Text | Kind::Json => DataType::Utf8View,
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
    }
}

fn array(column: &Column, rows: &[Value]) -> ArrayRef {
    let cells = || rows.iter().map(|row| row.pointer(column.pointer).filter(|value| !value.is_null()));
    match column.kind {
        Kind::Time => {
            let nanos = |value: &Value| Timestamp::parse(value.as_str()?).ok().map(|time| time.nanos());
            let times: TimestampNanosecondArray = cells().map(|cell| cell.and_then(nanos)).collect();
            Arc::new(times.with_timezone("UTC"))
        }
        Kind::Text => Arc::new(cells().map(|cell| cell.and_then(Value::as_str)).collect::<StringViewArray>()),
        Kind::Json => Arc::new(cells().map(|cell| cell.map(Value::to_string)).collect::<StringViewArray>()),
        Kind::Int => Arc::new(cells().map(|cell| cell.and_then(Value::as_i64)).collect::<Int64Array>()),
        Kind::Float => Arc::new(cells().map(|cell| cell.and_then(Value::as_f64)).collect::<Float64Array>()),
        Kind::Bool => Arc::new(cells().map(|cell| cell.and_then(Value::as_bool)).collect::<BooleanArray>()),
    }
}
