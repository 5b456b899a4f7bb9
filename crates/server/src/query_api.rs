//! Questions over HTTP: the query language, traces, the service map, fields, markers. See docs/reference/query.md.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Duration;

use auth::Role;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use control::Entry;
use events::QueryError;
use events::query::{Answer as Found, Calculation, Cancel, Cell, Having, Limits, Order};
use http::{HeaderMap, StatusCode, header};
use rows::{Expression, Filter, Row, names};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vocab::{Millis, Timestamp};

use crate::api::{Answer, Shared, blocking, broken, parse, time};
use crate::app::{App, entry_json, lock, now};
use crate::ingest::value_json;
use crate::problem::Problem;

/// How far back a question looks that does not say.
pub(crate) const RANGE: Millis = Millis::from_secs(7_200);
/// The longest a question may run.
const TIME_MAX_SECS: u64 = 300;
/// Markers in one answer; the newest are given.
const MARKERS_MAX: usize = 1_000;
/// Audit entries read while changes wait.
const PAGE: u64 = 200;
/// Audit entries that are looked through for markers.
pub(crate) const ENTRIES_MAX: u64 = 20_000;

pub(crate) fn routes() -> axum::Router<std::sync::Arc<crate::app::App>> {
    axum::Router::new()
        .route("/api/v1/query", post(query))
        .route("/api/v1/compare", post(compare))
        .route("/api/v1/traces/{id}", get(trace))
        .route("/api/v1/services/map", get(service_map))
        .route("/api/v1/fields", get(fields))
        .route("/api/v1/markers", get(markers))
}

/// A text, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Default for Texts {
    fn default() -> Texts {
        Texts::Many(Vec::new())
    }
}

impl Texts {
    fn all(self) -> Vec<String> {
        match self {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CalculatedField {
    name: String,
    expression: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Asked {
    dataset: Option<String>,
    #[serde(rename = "where")]
    filter: String,
    calculated_fields: Vec<CalculatedField>,
    #[serde(alias = "breakdowns")]
    group_by: Vec<String>,
    #[serde(alias = "calculations")]
    calculate: Vec<String>,
    from: Option<String>,
    to: Option<String>,
    step: Option<String>,
    step_ms: Option<u64>,
    fill: bool,
    #[serde(alias = "havings")]
    having: Texts,
    #[serde(alias = "orders")]
    order: Texts,
    offset: usize,
    limit: Option<usize>,
    fields: Vec<String>,
    compare_to: Option<String>,
    timeout_s: Option<u64>,
}

fn dataset(name: Option<&str>) -> Result<(), Problem> {
    match name {
        None | Some("events") => Ok(()),
        Some(other) => {
            Err(Problem::not_found("unknown-dataset", format!("there is no dataset {other:?}; there is `events`")))
        }
    }
}

const SEE: &str = "see docs/reference/query.md";

fn filter(text: &str) -> Result<Filter, Problem> {
    Filter::parse(text).map_err(|e| Problem::bad_request("invalid-filter", e.to_string(), SEE))
}

fn refused(error: &QueryError) -> Problem {
    let code = match error {
        QueryError::Calculation(_) => "invalid-calculation",
        QueryError::Cancelled => "cancelled",
        QueryError::Limit(_) => "too-much",
        _ => "invalid-query",
    };
    Problem::bad_request(code, error.to_string(), SEE)
}

fn span(text: Option<&str>, what: &str) -> Result<Option<Millis>, Problem> {
    let wrong = |_| {
        let detail = format!("{what}: {:?} is no length of time", text.unwrap_or_default());
        Problem::bad_request("invalid-duration", detail, "write 10s, 5m, 1h or 1d")
    };
    text.map(Millis::parse).transpose().map_err(wrong)
}

fn within(timeout_s: Option<u64>, limits: Limits) -> Limits {
    let seconds = |seconds: u64| Duration::from_secs(seconds.clamp(1, TIME_MAX_SECS));
    Limits { time: timeout_s.map_or(limits.time, seconds), ..limits }
}

impl Asked {
    fn question(self) -> Result<events::Query, Problem> {
        dataset(self.dataset.as_deref())?;
        let from = time(self.from.as_deref(), now() - RANGE)?;
        let to = time(self.to.as_deref(), now() + Millis::from_secs(60))?;
        let calculated = self.calculated_fields.into_iter().map(|field| {
            let wrong = |e: rows::ParseExpressionError| {
                Problem::bad_request("invalid-expression", format!("calculated field {:?}: {e}", field.name), SEE)
            };
            Expression::parse(&field.expression).map(|expression| (field.name.clone(), expression)).map_err(wrong)
        });
        let calculate = self.calculate.iter().map(|text| Calculation::parse(text).map_err(|e| refused(&e)));
        let having = self.having.all();
        let having = having.iter().map(|text| Having::parse(text).map_err(|e| refused(&e)));
        let step = span(self.step.as_deref(), "step")?.or(self.step_ms.map(Millis)).map(|step| Millis(step.0.max(1)));
        let limits = within(self.timeout_s, Limits::default());
        Ok(events::Query {
            filter: filter(&self.filter)?,
            now: now(),
            calculated: calculated.collect::<Result<_, _>>()?,
            group_by: self.group_by,
            calculate: calculate.collect::<Result<_, _>>()?,
            step,
            fill: self.fill,
            having: having.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect(),
            order: self.order.all().iter().map(|text| Order::parse(text)).collect(),
            offset: self.offset,
            limit: self.limit.unwrap_or(100).min(events::query::ROWS_MAX),
            fields: self.fields,
            compare_to: span(self.compare_to.as_deref(), "compare_to")?,
            limits,
            ..events::Query::new(from, to)
        })
    }
}

/// Ends a question whose asker has gone.
struct Asking(Cancel);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn cell_json(cell: &Cell) -> Value {
    match cell {
        Cell::None => Value::Null,
        Cell::Value(value) => value_json(value),
        Cell::Time(time) => json!(time),
        Cell::Buckets(buckets) => {
            buckets.iter().map(|b| json!({"low": b.low, "high": b.high, "count": b.count})).collect()
        }
    }
}

/// A whole row as a flat object.
fn row_json(row: &Row) -> Map<String, Value> {
    let mut map: Map<String, Value> = row.attributes.iter().map(|(k, v)| (k.clone(), value_json(v))).collect();
    map.insert("time".into(), json!(row.time));
    for name in [names::DURATION_MS, names::TRACE, names::SPAN, names::PARENT] {
        if let Some(value) = row.field(name) {
            map.insert(name.into(), value_json(&value));
        }
    }
    map
}

fn found_json(found: &Found) -> Value {
    let whole = found.columns.is_empty();
    let line = |row: &Vec<Cell>| -> Value {
        found
            .columns
            .iter()
            .zip(row)
            .map(|(column, cell)| (column.name.clone(), cell_json(cell)))
            .collect::<Map<_, _>>()
            .into()
    };
    let rows: Vec<Value> = match whole {
        true => found.raw.iter().map(|row| row_json(row).into()).collect(),
        false => found.rows.iter().map(line).collect(),
    };
    let columns: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
    json!({"rows": rows, "columns": columns, "step_ms": found.step, "groups": found.groups, "has_more": found.has_more,
        "rows_scanned": found.rows_scanned, "rows_matched": found.rows_matched, "elapsed_ms": found.elapsed_ms,
        "incomplete": found.incomplete})
}

/// One field of CSV (RFC 4180). What a spreadsheet would take for a formula is quoted by an apostrophe.
fn csv_field(text: &str) -> String {
    let is_number = text.parse::<f64>().is_ok();
    let text = match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') if !is_number => format!("'{text}"),
        _ => text.to_owned(),
    };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// A line of CSV.
pub(crate) fn csv_line(out: &mut String, fields: impl Iterator<Item = String>) {
    out.push_str(&fields.map(|field| csv_field(&field)).collect::<Vec<_>>().join(","));
    out.push_str("\r\n");
}

/// A JSON value as a field; nothing is empty.
pub(crate) fn csv_text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn csv(found: &Found) -> String {
    let mut out = String::new();
    if found.columns.is_empty() {
        let rows: Vec<Map<String, Value>> = found.raw.iter().map(row_json).collect();
        let mut columns: Vec<&String> = rows.iter().flat_map(Map::keys).collect::<HashSet<_>>().into_iter().collect();
        // Time first, the rest by name.
        columns.sort_by_key(|name| (*name != "time", *name));
        csv_line(&mut out, columns.iter().map(|name| (*name).clone()));
        rows.iter().for_each(|row| csv_line(&mut out, columns.iter().map(|name| csv_text(row.get(*name)))));
    } else {
        csv_line(&mut out, found.columns.iter().map(|column| column.name.clone()));
        found.rows.iter().for_each(|row| csv_line(&mut out, row.iter().map(|cell| cell.text().unwrap_or_default())));
    }
    out
}

/// The form that an answer shall have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Csv,
    Arrow,
}

impl Form {
    pub(crate) fn of(headers: &HeaderMap) -> Form {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match accept {
            accept if accept.contains("text/csv") => Form::Csv,
            accept if accept.contains("vnd.apache.arrow") => Form::Arrow,
            _ => Form::Json,
        }
    }

    /// An answer of this form, with headers for what JSON says in fields.
    pub(crate) fn answer(self, body: impl IntoResponse, incomplete: &[String], has_more: bool) -> Response {
        let media = match self {
            Form::Json => return body.into_response(),
            Form::Csv => "text/csv; charset=utf-8",
            Form::Arrow => "application/vnd.apache.arrow.stream",
        };
        let mut response = ([(header::CONTENT_TYPE, media)], body).into_response();
        let headers = response.headers_mut();
        if let Some(text) = Some(incomplete.join("; ").replace('\n', " ")).filter(|text| !text.is_empty()) {
            let _ = text.parse().map(|text| headers.insert("seaworthy-incomplete", text));
        }
        if has_more {
            headers.insert("seaworthy-has-more", header::HeaderValue::from_static("true"));
        }
        response
    }
}

pub(crate) fn no_arrow(error: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no-arrow", error.to_string(), "ask for JSON or CSV")
}

async fn query(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let question = parse::<Asked>(&body)?.question()?;
    let form = Form::of(&headers);
    if form == Form::Arrow && question.calculate.is_empty() && question.fields.is_empty() {
        let remedy = "name them in `fields`, or ask for JSON or CSV";
        return Err(Problem::bad_request("fields-missing", "whole rows have no fixed columns for Arrow", remedy));
    }
    let _asking = Asking(question.limits.cancel.clone());
    let found = blocking(move || app.store.query(&question).map_err(|e| refused(&e))).await?;
    let (incomplete, has_more) = (&found.incomplete, found.has_more);
    Ok(match form {
        Form::Json => form.answer(Json(found_json(&found)), incomplete, has_more),
        Form::Csv => form.answer(csv(&found), incomplete, has_more),
        Form::Arrow => form.answer(found.arrow_stream().map_err(no_arrow)?, incomplete, has_more),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    #[serde(default)]
    dataset: Option<String>,
    #[serde(rename = "where", default)]
    filter: String,
    baseline_where: Option<String>,
    /// An earlier or later window of the baseline.
    baseline_from: Option<String>,
    baseline_to: Option<String>,
    from: Option<String>,
    to: Option<String>,
    /// The selection's part of the time, as an area of a heatmap has it.
    selected_from: Option<String>,
    selected_to: Option<String>,
    #[serde(default)]
    traces: Vec<String>,
    unit: Option<String>,
    timeout_s: Option<u64>,
}

async fn compare(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let asked: Compared = parse(&body)?;
    dataset(asked.dataset.as_deref())?;
    if asked.filter.trim().is_empty() && asked.traces.is_empty() && asked.selected_from.is_none() {
        let detail = "nothing is selected: every event would be compared with none";
        return Err(Problem::bad_request("empty-selection", detail, "give `where`, `traces` or `selected_from`"));
    }
    let optional = |text: &Option<String>| text.as_deref().map(|text| time(Some(text), now())).transpose();
    let mut selection = events::Selection::of(filter(&asked.filter)?);
    (selection.from, selection.to) = (optional(&asked.selected_from)?, optional(&asked.selected_to)?);
    for text in &asked.traces {
        let id = u128::from_str_radix(text, 16).ok().filter(|id| *id != 0 && text.len() == 32);
        let wrong = || Problem::bad_request("invalid-trace", format!("{text:?} is no trace id"), "32 hex digits");
        selection.traces.insert(id.ok_or_else(wrong)?);
    }
    let baseline_time = (optional(&asked.baseline_from)?, optional(&asked.baseline_to)?);
    let baseline = match (&asked.baseline_where, baseline_time) {
        (None, (None, None)) => None,
        (text, (from, to)) => {
            Some(events::Selection { from, to, ..events::Selection::of(filter(text.as_deref().unwrap_or_default())?) })
        }
    };
    let unit = match asked.unit.as_deref() {
        None | Some("auto") => None,
        Some("event") => Some(events::Unit::Event),
        Some("trace") => Some(events::Unit::Trace),
        Some("subject") => Some(events::Unit::Subject),
        Some(other) => {
            let detail = format!("{other:?} is no unit");
            return Err(Problem::bad_request("invalid-unit", detail, "auto, event, trace or subject"));
        }
    };
    let question = events::Question {
        selection,
        baseline,
        from: time(asked.from.as_deref(), now() - RANGE)?,
        to: time(asked.to.as_deref(), now() + Millis::from_secs(60))?,
        unit,
        limits: within(asked.timeout_s, events::comparison_limits()),
    };
    let _asking = Asking(question.limits.cancel.clone());
    blocking(move || app.store.difference(&question).map(|found| Json(found).into_response()).map_err(|e| refused(&e)))
        .await
}

async fn trace(State(app): Shared, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let wrong =
        || Problem::bad_request("invalid-trace", format!("{id:?} is no trace id"), "a trace id has 32 hex digits");
    let number = u128::from_str_radix(&id, 16).ok().filter(|n| *n != 0 && id.len() == 32).ok_or_else(wrong)?;
    let limits = Limits::default();
    let _asking = Asking(limits.cancel.clone());
    let trace = blocking(move || app.store.trace(number, &limits).map_err(|e| refused(&e))).await?;
    if trace.spans.is_empty() {
        return Err(Problem::not_found("unknown-trace", format!("there is no event of trace {id}")));
    }
    let rows = |rows: &[Row]| rows.iter().map(|row| Value::from(row_json(row))).collect::<Vec<Value>>();
    let spans: Vec<Value> = trace
        .spans
        .iter()
        .map(|span| {
            json!({"depth": span.depth, "parent_missing": span.parent_missing, "row": row_json(&span.row),
                "events": rows(&span.events), "links": rows(&span.links)})
        })
        .collect();
    let missing: Vec<String> = trace.missing.iter().map(|id| format!("{id:016x}")).collect();
    Ok(Json(json!({"trace_id": id, "spans": spans, "missing": missing, "incomplete": trace.incomplete}))
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Window {
    from: Option<String>,
    to: Option<String>,
    #[serde(rename = "where")]
    filter: String,
}

impl Window {
    fn times(&self) -> Result<(Timestamp, Timestamp), Problem> {
        let from = time(self.from.as_deref(), now() - RANGE)?;
        Ok((from, time(self.to.as_deref(), now() + Millis::from_secs(60))?))
    }
}

async fn service_map(State(app): Shared, headers: HeaderMap, Query(window): Query<Window>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let (from, to) = window.times()?;
    let filter = filter(&window.filter)?;
    let limits = Limits::default();
    let _asking = Asking(limits.cancel.clone());
    let map = blocking(move || app.store.service_map(&filter, from, to, &limits).map_err(|e| refused(&e))).await?;
    let services: Vec<Value> = map.services.iter().map(|(name, spans)| json!({"name": name, "spans": spans})).collect();
    let calls: Vec<Value> = map
        .calls
        .iter()
        .map(|call| {
            json!({"caller": call.caller, "callee": call.callee, "calls": call.calls, "errors": call.errors,
                "p50_ms": call.p50_ms, "p99_ms": call.p99_ms})
        })
        .collect();
    Ok(Json(json!({"services": services, "calls": calls, "parents_missing": map.parents_missing,
        "elapsed_ms": map.elapsed_ms, "incomplete": map.incomplete}))
    .into_response())
}

async fn fields(State(app): Shared, headers: HeaderMap, Query(window): Query<Window>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let (from, to) = window.times()?;
    let limits = Limits::default();
    let _asking = Asking(limits.cancel.clone());
    let names_refused = app.known_names.refused();
    let found = blocking(move || app.store.fields(from, to, &limits).map_err(|e| refused(&e))).await?;
    let fields: Vec<Value> = found
        .fields
        .iter()
        .map(|(name, field)| {
            let samples: Vec<Value> = field.samples.iter().map(|(value, _)| value_json(value)).collect();
            json!({"name": name, "types": field.types, "rows": field.rows, "samples": samples})
        })
        .collect();
    Ok(Json(json!({"fields": fields, "rows": found.rows, "incomplete": found.incomplete,
        "names_refused": names_refused}))
    .into_response())
}

/// Audit entries, the newest first, until `act` says that it has enough.
pub(crate) fn newest_entries(app: &App, mut act: impl FnMut(Value) -> ControlFlow<()>) -> Result<(), Problem> {
    let mut left = lock(&app.plane).log.size();
    while left > 0 {
        // A page at a time, so that a change never waits for somebody's chart.
        let indices = (left.saturating_sub(PAGE)..left).rev();
        let page = {
            let plane = lock(&app.plane);
            let read = indices.map(|index| plane.log.entry(index).map(|entry| (index, entry)).map_err(broken));
            read.collect::<Result<Vec<_>, _>>()?
        };
        left = left.saturating_sub(PAGE);
        for (index, bytes) in page {
            let Some(Ok(entry)) = bytes.map(|bytes| Entry::from_bytes(&bytes)) else { continue };
            if act(entry_json(index, &entry)).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Who may do what is no change of production.
pub(crate) fn is_marker(entry: &Value) -> bool {
    !entry["action"].as_str().unwrap_or_default().starts_with("token.")
}

/// What changed in a time: every change of flags, experiments and the rest, from the audit log, for time axes.
async fn markers(State(app): Shared, headers: HeaderMap, Query(window): Query<Window>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let (from, to) = window.times()?;
    blocking(move || {
        let (mut markers, mut incomplete) = (Vec::new(), Vec::new());
        let mut seen = 0;
        newest_entries(&app, |entry| {
            let at = entry["ts"].as_str().and_then(|text| Timestamp::parse(text).ok());
            let Some(at) = at else { return ControlFlow::Continue(()) };
            // The log is in order of time.
            if at < from {
                return ControlFlow::Break(());
            }
            seen += 1;
            if seen > ENTRIES_MAX || markers.len() >= MARKERS_MAX {
                incomplete.push("older changes are left out: ask for a later time, or read the audit log");
                return ControlFlow::Break(());
            }
            if at < to && is_marker(&entry) {
                markers.push(entry);
            }
            ControlFlow::Continue(())
        })?;
        Ok(Json(json!({"markers": markers, "incomplete": incomplete})).into_response())
    })
    .await
}
