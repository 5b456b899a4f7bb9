//! Requests to rows.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message;
use rows::{Row, Value, names};
use vocab::Timestamp;

use crate::json;
use crate::value::text;

/// Attributes kept of one record; further ones are counted.
const ATTRIBUTES_MAX: usize = 1_024;
/// Bytes kept of one text value; longer ones are cut.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Flag evaluations kept of one span; SDKs keep at most 128 events of one.
const EVALUATIONS_MAX: usize = 128;
/// How deep nested values are flattened to text.
const DEPTH_MAX: u32 = 8;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
}

/// Why a whole body is refused.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf.
    #[error("the body is not an OTLP protobuf message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Not JSON.
    #[error("the body is not OTLP JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Rows and what was wrong with the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// What is kept.
    pub rows: Vec<Row>,
    /// Records that were refused.
    pub rejected: i64,
    /// Why the first of them was.
    pub reason: String,
}

/// Decodes a trace export.
pub fn traces(body: &[u8], encoding: Encoding) -> Result<Decoded, DecodeError> {
    let request = match encoding {
        Encoding::Protobuf => ExportTraceServiceRequest::decode(body)?,
        Encoding::Json => json::read(body)?,
    };
    Ok(traces_rows(request))
}

/// Decodes a log export.
pub fn logs(body: &[u8], encoding: Encoding) -> Result<Decoded, DecodeError> {
    let request = match encoding {
        Encoding::Protobuf => ExportLogsServiceRequest::decode(body)?,
        Encoding::Json => json::read(body)?,
    };
    Ok(logs_rows(request))
}

fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    if bytes.is_empty() { Some([0; N]) } else { bytes.try_into().ok() }
}

fn nanos(value: u64) -> Timestamp {
    Timestamp::from_nanos(i64::try_from(value).unwrap_or(i64::MAX))
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn put(row: &mut Row, attributes: &[KeyValue]) {
    for attribute in attributes {
        if row.attributes.len() >= ATTRIBUTES_MAX || attribute.key.is_empty() || attribute.key.len() > 256 {
            continue;
        }
        let Some(value) = &attribute.value else { continue };
        let value = match &value.value {
            None => continue,
            Some(Any::BoolValue(b)) => Value::Bool(*b),
            Some(Any::IntValue(n)) => Value::Int(*n),
            Some(Any::DoubleValue(n)) if n.is_finite() => Value::Float(*n),
            Some(_) => Value::Str(cut(text(value, DEPTH_MAX))),
        };
        row.set(&attribute.key, value);
    }
}

fn base(resource: Option<&Resource>, scope: Option<&InstrumentationScope>) -> Row {
    let mut row = Row::default();
    if let Some(resource) = resource {
        put(&mut row, &resource.attributes);
    }
    if let Some(scope) = scope {
        if !scope.name.is_empty() {
            row.set("otel.scope.name", scope.name.clone());
        }
        put(&mut row, &scope.attributes);
    }
    row
}

/// Rows of a decoded trace export.
pub fn traces_rows(request: ExportTraceServiceRequest) -> Decoded {
    let mut decoded = Decoded::default();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            let base = base(resource.resource.as_ref(), scope.scope.as_ref());
            for span in &scope.spans {
                match span_row(&base, span) {
                    Ok(row) => {
                        decoded.rows.push(row);
                        decoded.rows.extend(evaluations(&base, span));
                    }
                    Err(reason) => decoded.reject(format!("span {:?}: {reason}", span.name)),
                }
            }
        }
    }
    decoded
}

impl Decoded {
    fn reject(&mut self, reason: String) {
        self.rejected += 1;
        if self.reason.is_empty() {
            self.reason = reason;
        }
    }
}

fn span_row(base: &Row, span: &Span) -> Result<Row, &'static str> {
    let trace: [u8; 16] = id(&span.trace_id).ok_or("trace_id is not 16 bytes")?;
    let own: [u8; 8] = id(&span.span_id).ok_or("span_id is not 8 bytes")?;
    let parent: [u8; 8] = id(&span.parent_span_id).ok_or("parent_span_id is not 8 bytes")?;
    if span.start_time_unix_nano == 0 {
        return Err("start_time_unix_nano is missing");
    }
    let mut row = base.clone();
    row.time = nanos(span.start_time_unix_nano);
    row.duration_nanos = Some(nanos(span.end_time_unix_nano).nanos().saturating_sub(row.time.nanos()).max(0));
    row.trace = u128::from_be_bytes(trace);
    row.span = u64::from_be_bytes(own);
    row.parent = u64::from_be_bytes(parent);
    put(&mut row, &span.attributes);
    row.set(names::NAME, cut(span.name.clone()));
    row.set(names::SIGNAL, "trace");
    let kind = ["unspecified", "internal", "server", "client", "producer", "consumer"];
    row.set("kind", kind.get(span.kind as usize).copied().unwrap_or("unspecified"));
    if let Some(status) = &span.status {
        row.set("error", status.code == 2);
        if !status.message.is_empty() {
            row.set("status_message", cut(status.message.clone()));
        }
    }
    if let Some(exception) = span.events.iter().find(|e| e.name == "exception") {
        put(&mut row, &exception.attributes);
    }
    Ok(row)
}

/// Flag evaluations that a telemetry hook wrote as events of a span, each as a row of its own, as if it had been a log record. Of an
/// evaluation that failed Python's hook writes an exception beside it, with the flag's key too.
fn evaluations(base: &Row, span: &Span) -> Vec<Row> {
    let trace = id::<16>(&span.trace_id).map_or(0, u128::from_be_bytes);
    let own = id::<8>(&span.span_id).map_or(0, u64::from_be_bytes);
    let reports = |event: &&Event| event.name != "exception" && event.attributes.iter().any(|a| a.key == names::FLAG);
    let reported = span.events.iter().filter(reports);
    reported
        .take(EVALUATIONS_MAX)
        .map(|event| {
            let mut row = base.clone();
            row.time = nanos(if event.time_unix_nano != 0 { event.time_unix_nano } else { span.start_time_unix_nano });
            row.trace = trace;
            row.span = own;
            put(&mut row, &event.attributes);
            row.set(names::NAME, cut(event.name.clone()));
            row.set(names::SIGNAL, "log");
            row
        })
        .collect()
}

/// Rows of a decoded log export.
pub fn logs_rows(request: ExportLogsServiceRequest) -> Decoded {
    let mut decoded = Decoded::default();
    for resource in &request.resource_logs {
        for scope in &resource.scope_logs {
            let base = base(resource.resource.as_ref(), scope.scope.as_ref());
            for record in &scope.log_records {
                let ids = id::<16>(&record.trace_id).zip(id::<8>(&record.span_id));
                let Some((trace, span)) = ids else {
                    decoded.reject("log record: trace_id or span_id has the wrong length".into());
                    continue;
                };
                let stamp =
                    if record.time_unix_nano != 0 { record.time_unix_nano } else { record.observed_time_unix_nano };
                if stamp == 0 {
                    decoded.reject("log record: neither time_unix_nano nor observed_time_unix_nano".into());
                    continue;
                }
                let mut row = base.clone();
                row.time = nanos(stamp);
                row.trace = u128::from_be_bytes(trace);
                row.span = u64::from_be_bytes(span);
                put(&mut row, &record.attributes);
                if let Some(body) = &record.body {
                    row.set("body", cut(text(body, DEPTH_MAX)));
                }
                let event_name = match row.text("event.name") {
                    Some(name) if record.event_name.is_empty() => name.to_owned(),
                    _ => record.event_name.clone(),
                };
                if !event_name.is_empty() {
                    row.set(names::NAME, event_name);
                }
                if !record.severity_text.is_empty() {
                    row.set("severity", record.severity_text.clone());
                }
                row.set(names::SIGNAL, "log");
                decoded.rows.push(row);
            }
        }
    }
    decoded
}
