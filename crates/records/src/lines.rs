//! JSON lines: one object a line is one row.
//!
//! Objects within are flattened, their names joined by dots; lists become JSON text, null nothing. These names are more than attributes:
//!
//! | name | becomes |
//! |---|---|
//! | `time`, `timestamp`, `@timestamp`, the first of them that is there; or the one that [`Shape`] names | when it was |
//! | `duration_ms` | how long it took |
//! | `trace_id`, `trace.trace_id`, `traceId`, `trace.id`: 32 hex digits | which trace |
//! | `span_id`, `trace.span_id`, `spanId`, `span.id`: 16 hex digits | which span |
//! | `parent_id`, `parent_span_id`, `trace.parent_id`, `parentSpanId`, `parent.id`: 16 hex digits | its parent |
//!
//! What is not of the form stays an attribute. A line without a time has that of receipt, and says so.

use rows::draft::{NO_ROOM, Room};
use rows::{Draft, Row, ValueRef, names};
use serde_json::Value;
use vocab::Timestamp;

use crate::moment;

/// Bytes of one line.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Lines of one request; further ones are refused.
pub const LINES_MAX: u64 = 100_000;
/// Bytes of what a [`Shape`] adds to each row.
pub const SET_BYTES_MAX: usize = 1 << 10;
/// Refused lines that are named; further ones are counted.
pub const REFUSALS_MAX: usize = 100;
/// How deep objects are flattened; what is deeper becomes JSON text.
const DEPTH_MAX: u32 = 16;

const TIMES: [&str; 3] = ["time", "timestamp", "@timestamp"];
const TRACES: [&str; 4] = ["trace_id", names::TRACE, "traceId", "trace.id"];
const SPANS: [&str; 4] = ["span_id", names::SPAN, "spanId", "span.id"];
const PARENTS: [&str; 5] = ["parent_id", "parent_span_id", names::PARENT, "parentSpanId", "parent.id"];

/// What the lines of one file have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// The name of the field that is the time, flattened.
    pub time_field: Option<String>,
    /// Attributes for each row; they go before the line's own.
    pub set: Vec<(String, String)>,
}

/// Why a line is no row.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Too long.
    #[error("the line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON.
    #[error("the line is not JSON: {reason}, at column {column}")]
    Json {
        /// What is wrong.
        reason: String,
        /// Where.
        column: usize,
    },
    /// JSON, but a number or a list.
    #[error("the line is not a JSON object")]
    NotAnObject,
    /// The request makes too much of too little.
    #[error("{NO_ROOM}")]
    NoRoom,
    /// Too many lines.
    #[error("a request has at most {LINES_MAX} lines")]
    TooMany,
}

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its number, from 1 in the whole input.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// What became of lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// One for each line that is sound, in order.
    pub rows: Vec<Row>,
    /// Lines that are not.
    pub refused: u64,
    /// The first of them.
    pub refusals: Vec<Refusal>,
}

/// Reads lines that came at this time; `first` is the number of the first. Lines with nothing but space are passed over.
pub fn read(body: &[u8], first: u64, shape: &Shape, received: Timestamp) -> Read {
    let mut read = Read::default();
    let mut room = Room::default();
    for (n, line) in (0..).zip(body.split(|byte| *byte == b'\n')) {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = if n < LINES_MAX { row(line, shape, received) } else { Err(LineError::TooMany) };
        match row.and_then(|row| if room.take(&row) { Ok(row) } else { Err(LineError::NoRoom) }) {
            Ok(row) => read.rows.push(row),
            Err(error) => {
                read.refused += 1;
                if read.refusals.len() < REFUSALS_MAX {
                    read.refusals.push(Refusal { line: first.saturating_add(n), reason: error.to_string() });
                }
            }
        }
    }
    read
}

/// The row of one line.
pub fn row(line: &[u8], shape: &Shape, received: Timestamp) -> Result<Row, LineError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
        LineError::Json { reason, column: error.column() }
    })?;
    let Value::Object(object) = &value else { return Err(LineError::NotAnObject) };
    let mut fields = Vec::new();
    for (name, value) in object {
        flatten(name.clone(), value, DEPTH_MAX, &mut fields);
    }
    let time = match &shape.time_field {
        Some(name) => fields.iter().position(|(known, _)| known == name),
        None => TIMES.iter().find_map(|name| fields.iter().position(|(known, _)| known == name)),
    };
    let mut draft = Draft::default();
    let (mut trace, mut span, mut parent) = (0, 0, 0);
    for (n, (name, value)) in fields.iter().enumerate() {
        let known = |names: &[&str], digits: usize| {
            let text = value.as_str().filter(|text| names.contains(&name.as_str()) && text.len() == digits)?;
            let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u128::from_str_radix(text, 16).ok().filter(|_| is_hex)
        };
        if Some(n) == time {
            continue;
        }
        if let Some(id) = known(&TRACES, 32) {
            trace = id;
        } else if let Some(id) = known(&SPANS, 16) {
            span = id as u64;
        } else if let Some(id) = known(&PARENTS, 16) {
            parent = id as u64;
        } else if let Some(ms) = value.as_f64().filter(|ms| name == names::DURATION_MS && *ms >= 0.0) {
            draft.lasted(ms * 1e6);
        } else {
            put(&mut draft, name, value);
        }
    }
    shape.set.iter().for_each(|(name, text)| draft.put(name, ValueRef::Str(text)));
    draft.belongs_to(trace, span, parent);
    match time.and_then(|place| fields.get(place)).map(|(_, value)| (moment::read(value), value)) {
        Some((Some(nanos), _)) => draft.at(nanos, received),
        Some((None, value)) if !value.is_null() => {
            draft.received("the time cannot be read", &text(value), received);
        }
        _ => draft.at(0, received),
    }
    draft.say(names::SIGNAL, "event");
    Ok(draft.finish())
}

fn flatten<'a>(name: String, value: &'a Value, depth: u32, fields: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(object) if depth > 0 && !object.is_empty() && name.len() <= rows::draft::NAME_BYTES_MAX => {
            for (inner, value) in object {
                flatten(format!("{name}.{inner}"), value, depth - 1, fields);
            }
        }
        _ => fields.push((name, value)),
    }
}

/// A value's text: that of a text without quotes.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn put(draft: &mut Draft, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(b) => draft.put(name, ValueRef::Bool(*b)),
        Value::String(text) => draft.put(name, ValueRef::Str(text)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => draft.put(name, ValueRef::Int(whole)),
            (None, Some(number)) => draft.put(name, ValueRef::Float(number)),
            (None, None) => draft.put(name, ValueRef::Str(&number.to_string())),
        },
        Value::Array(_) | Value::Object(_) => draft.put(name, ValueRef::Str(&text(value))),
    }
}
