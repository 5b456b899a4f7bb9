//! Requests to rows: what is common to spans, log records and metrics.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use rows::draft::{NO_ROOM, Room};
use rows::{Draft, Row, ValueRef};
use serde::de::DeserializeOwned;
use vocab::Timestamp;

use crate::value::text;
use crate::{json, log, metric, span};

/// How deep nested values are flattened to text.
pub(crate) const DEPTH_MAX: u32 = 8;

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
    Protobuf(#[source] prost::DecodeError),
    /// Text that is not UTF-8, with the path of its field.
    #[error("the text of {field} is not UTF-8, as all text in protobuf must be")]
    NotUtf8 {
        /// The innermost first: `Span.name: ScopeSpans.spans: …`
        field: String,
    },
    /// Not JSON.
    #[error("the body is not OTLP JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> DecodeError {
        // Its kind cannot be asked for, only read.
        let text = error.to_string();
        let path = text
            .strip_suffix(": invalid string value: data is not UTF-8 encoded")
            .and_then(|text| text.strip_prefix("failed to decode Protobuf message: "));
        match path {
            Some(field) => DecodeError::NotUtf8 { field: field.to_owned() },
            None => DecodeError::Protobuf(error),
        }
    }
}

/// Rows and what was wrong with the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// What is kept. A row that hangs on a span follows it.
    pub rows: Vec<Row>,
    /// Spans, log records or data points that were refused.
    pub rejected: i64,
    /// Why the first of them was.
    pub reason: String,
    room: Room,
}

impl Decoded {
    pub(crate) fn reject(&mut self, reason: impl Into<String>) {
        self.rejected = self.rejected.saturating_add(1);
        if self.reason.is_empty() {
            self.reason = reason.into();
        }
    }

    /// Keeps a row; refuses it if the request has become too large, and says so.
    pub(crate) fn keep(&mut self, draft: Draft) -> bool {
        let fits = self.add(draft);
        if !fits {
            self.reject(NO_ROOM);
        }
        fits
    }

    /// Keeps a row that hangs on another; it is no record that the sender counts.
    pub(crate) fn hang(&mut self, draft: Draft) {
        if !self.add(draft) && self.reason.is_empty() {
            self.reason = NO_ROOM.to_owned();
        }
    }

    fn add(&mut self, draft: Draft) -> bool {
        let row = draft.finish();
        if !self.room.take(&row) {
            return false;
        }
        self.rows.push(row);
        true
    }
}

fn decode<T: Message + Default + DeserializeOwned>(body: &[u8], encoding: Encoding) -> Result<T, DecodeError> {
    Ok(match encoding {
        Encoding::Protobuf => T::decode(body)?,
        Encoding::Json => json::read(body)?,
    })
}

/// Decodes a trace export that came at this time.
pub fn traces(body: &[u8], encoding: Encoding, received: Timestamp) -> Result<Decoded, DecodeError> {
    Ok(traces_rows(&decode(body, encoding)?, received))
}

/// Decodes a log export that came at this time.
pub fn logs(body: &[u8], encoding: Encoding, received: Timestamp) -> Result<Decoded, DecodeError> {
    Ok(logs_rows(&decode(body, encoding)?, received))
}

/// Decodes a metrics export that came at this time.
pub fn metrics(body: &[u8], encoding: Encoding, received: Timestamp) -> Result<Decoded, DecodeError> {
    Ok(metrics_rows(&decode(body, encoding)?, received))
}

/// Rows of a decoded trace export.
pub fn traces_rows(request: &ExportTraceServiceRequest, received: Timestamp) -> Decoded {
    let mut decoded = Decoded::default();
    for resource in &request.resource_spans {
        for scope in &resource.scope_spans {
            let base = base(resource.resource.as_ref(), scope.scope.as_ref());
            scope.spans.iter().for_each(|span| span::take(&mut decoded, &base, span, received));
        }
    }
    decoded
}

/// Rows of a decoded log export.
pub fn logs_rows(request: &ExportLogsServiceRequest, received: Timestamp) -> Decoded {
    let mut decoded = Decoded::default();
    for resource in &request.resource_logs {
        for scope in &resource.scope_logs {
            let base = base(resource.resource.as_ref(), scope.scope.as_ref());
            scope.log_records.iter().for_each(|record| log::take(&mut decoded, &base, record, received));
        }
    }
    decoded
}

/// Rows of a decoded metrics export.
pub fn metrics_rows(request: &ExportMetricsServiceRequest, received: Timestamp) -> Decoded {
    let mut decoded = Decoded::default();
    for resource in &request.resource_metrics {
        for scope in &resource.scope_metrics {
            let base = base(resource.resource.as_ref(), scope.scope.as_ref());
            scope.metrics.iter().for_each(|metric| metric::take(&mut decoded, &base, metric, received));
        }
    }
    decoded
}

/// An id of N bytes; empty is 0.
pub(crate) fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    if bytes.is_empty() { Some([0; N]) } else { bytes.try_into().ok() }
}

pub(crate) fn put(draft: &mut Draft, attributes: &[KeyValue]) {
    for attribute in attributes {
        let Some(value) = &attribute.value else { continue };
        match &value.value {
            None => {}
            Some(Any::StringValue(s)) => draft.put(&attribute.key, ValueRef::Str(s)),
            Some(Any::BoolValue(b)) => draft.put(&attribute.key, ValueRef::Bool(*b)),
            Some(Any::IntValue(n)) => draft.put(&attribute.key, ValueRef::Int(*n)),
            Some(Any::DoubleValue(n)) if n.is_finite() => draft.put(&attribute.key, ValueRef::Float(*n)),
            Some(_) => draft.put(&attribute.key, ValueRef::Str(&text(value, DEPTH_MAX))),
        }
    }
}

fn base(resource: Option<&Resource>, scope: Option<&InstrumentationScope>) -> Draft {
    let mut draft = Draft::default();
    if let Some(resource) = resource {
        put(&mut draft, &resource.attributes);
        draft.left_out(resource.dropped_attributes_count.into());
    }
    if let Some(scope) = scope {
        if !scope.name.is_empty() {
            draft.say_text("otel.scope.name", &scope.name);
        }
        put(&mut draft, &scope.attributes);
        draft.left_out(scope.dropped_attributes_count.into());
    }
    draft
}
