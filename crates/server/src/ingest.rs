//! OTLP over HTTP and gRPC. Acknowledged means durable.

use std::io::Read;
use std::sync::Arc;

use auth::Role;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flags::Serves;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsService;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use otlp::{DecodeError, Decoded, Encoding};
use rows::{Row, Value, names};
use serde_json::json;
use tokio::sync::oneshot;
use tonic::{Request, Status};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::app::App;
use crate::intake::{Job, Refused, Taken};
use crate::lifecycle::Report;
use crate::problem::Problem;

/// The longest body after decompression.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// Gives a flag evaluation reported by an OpenFeature hook its arm: by the variant that was reported, for subjects of a
/// running experiment's slice. Here, since only here the subject's key is still in clear text.
fn stamp_flag_exposure(app: &App, row: &mut Row) {
    let Some(key) = row.text(names::FLAG) else { return };
    if row.get(names::EXPOSURE).is_some() {
        return;
    }
    let subject = names::SUBJECT_SOURCES.iter().rev().find_map(|name| row.text(name));
    if let Some(id) = subject.and_then(|subject| app.previews.of(key, subject, row.time)) {
        return row.set(names::PREVIEW, id.to_string());
    }
    let snapshot = app.flags.load();
    let Some(overlay) = snapshot.flags.overlay(key) else { return };
    let Some(subject) = subject else { return };
    let reported = row.text("feature_flag.result.variant").or_else(|| row.text("feature_flag.variant"));
    let arm = overlay.slice.arm(subject).filter(|arm| match &overlay.serves {
        // In warm-up nobody is treated. A client that reports another variant than its subject should have proves nothing.
        Serves::Rules => true,
        Serves::Variant(variant) => (reported == Some(&**variant)) == arm.is_treatment(),
        Serves::Change { .. } => app.recent.exposed.arm(overlay.experiment, key, subject, reported) == Some(*arm),
    });
    if let Some(arm) = arm {
        row.set(names::EXPERIMENT, overlay.experiment.to_string());
        row.set(names::ARM, arm.as_str());
        row.set(names::EXPOSURE, true);
    }
}

/// The same for the same rows, so that a client that did not hear our answer may send them again.
fn key_of(rows: &[Row]) -> u128 {
    let mut hash = Xxh3::new();
    for row in rows {
        hash.update(&row.time.nanos().to_le_bytes());
        hash.update(&row.duration_nanos.unwrap_or(-1).to_le_bytes());
        hash.update(&row.trace.to_le_bytes());
        hash.update(&row.span.to_le_bytes());
        hash.update(&row.parent.to_le_bytes());
        for (name, value) in &row.attributes {
            hash.update(name.as_bytes());
            match value {
                Value::Str(text) => {
                    hash.update(&[0]);
                    hash.update(text.as_bytes());
                }
                Value::Int(n) => {
                    hash.update(&[1]);
                    hash.update(&n.to_le_bytes());
                }
                Value::Float(n) => {
                    hash.update(&[2]);
                    hash.update(&n.to_bits().to_le_bytes());
                }
                Value::Bool(b) => hash.update(&[3, u8::from(*b)]),
            }
        }
        hash.update(&[0xff]);
    }
    hash.digest128()
}

/// Redacts and stores; returns when the rows are durable. Of two calls with one key within 15 minutes the second stores nothing.
pub(crate) async fn store_rows(app: &Arc<App>, mut rows: Vec<Row>, key: Option<u128>) -> Result<(), Problem> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut reports = Vec::new();
    for row in &mut rows {
        let report = Report::of(row);
        stamp_flag_exposure(app, row);
        // Who is on a preview gets what no rule gives.
        reports
            .extend(report.map(|report| if row.get(names::PREVIEW).is_some() { report.of_nobody() } else { report }));
        app.redactor.redact(row);
    }
    app.log_templates.stamp(&mut rows);
    let (done, answer) = oneshot::channel();
    let broken = || {
        let detail = "the event store takes nothing until a restart";
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "events-unavailable",
            detail,
            "see the server's log, then restart it",
        )
    };
    app.intake.send(Job { rows, key, done }).await.map_err(|_| broken())?;
    let outcome = answer.await;
    // What was stored before was counted before.
    if let (false, Ok(Ok(Taken::Stored) | Err(Refused::NotInBucket(Taken::Stored)))) = (reports.is_empty(), &outcome) {
        // What is durable counts; a sender that comes again because it was refused does not count twice.
        let app = app.clone();
        let _ = tokio::task::spawn_blocking(move || app.lifecycle.take(&app, &reports)).await;
    }
    match outcome {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Refused::NotInBucket(_))) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "bucket-unavailable",
            "the events are on this server's disk, but the bucket did not take them in time",
            "send the same request again: it is not stored twice",
        )),
        Ok(Err(Refused::Full)) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "disk-full",
            "the disk under the event store is full; nothing of this request was stored",
            "make room, then send it again",
        )),
        Ok(Err(Refused::Broken)) | Err(_) => Err(broken()),
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match media.split(';').next().unwrap_or_default().trim() {
        "application/x-protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            format!("content type {other:?}"),
            "send application/x-protobuf or application/json",
        )),
    }
}

fn unpack(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Problem> {
    let coding = headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("identity");
    match coding.trim() {
        "" | "identity" => Ok(body),
        "gzip" => {
            let mut plain = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&body[..]).take(BODY_BYTES_MAX as u64 + 1);
            reader
                .read_to_end(&mut plain)
                .map_err(|e| Problem::bad_request("invalid-gzip", e.to_string(), "send a whole gzip stream"))?;
            if plain.len() > BODY_BYTES_MAX {
                return Err(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    format!("more than {BODY_BYTES_MAX} bytes after decompression"),
                    "send smaller batches",
                ));
            }
            Ok(plain.into())
        }
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-encoding",
            format!("content encoding {other:?}"),
            "send gzip or identity",
        )),
    }
}

async fn http_export(
    app: Arc<App>,
    headers: HeaderMap,
    body: Bytes,
    decode: fn(&[u8], Encoding) -> Result<Decoded, DecodeError>,
    rejected_name: &'static str,
) -> Result<Response, Problem> {
    app.authorize(&headers, Role::Ingest)?;
    let encoding = encoding(&headers)?;
    let body = unpack(&headers, body)?;
    let key = xxh3_128(&body);
    let decoded = tokio::task::spawn_blocking(move || decode(&body, encoding))
        .await
        .map_err(|_| Problem::bad_request("invalid-body", "the body cannot be decoded", "send OTLP"))?
        .map_err(|e| {
            Problem::bad_request("invalid-otlp", e.to_string(), "mend the message; nothing of it was stored")
        })?;
    store_rows(&app, decoded.rows, Some(key)).await?;
    if encoding == Encoding::Protobuf {
        // Field 1 is the partial success: {1: rejected, 2: message}, the same for all signals.
        let partial = ExportTracePartialSuccess { rejected_spans: decoded.rejected, error_message: decoded.reason };
        let response = ExportTraceServiceResponse { partial_success: (decoded.rejected > 0).then_some(partial) };
        let bytes = <ExportTraceServiceResponse as prost::Message>::encode_to_vec(&response);
        return Ok(([(header::CONTENT_TYPE, "application/x-protobuf")], bytes).into_response());
    }
    let mut answer = json!({});
    if decoded.rejected > 0 {
        answer =
            json!({"partialSuccess": {rejected_name: decoded.rejected.to_string(), "errorMessage": decoded.reason}});
    }
    Ok(axum::Json(answer).into_response())
}

pub(crate) async fn http_traces(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    http_export(app, headers, body, otlp::traces, "rejectedSpans").await
}

pub(crate) async fn http_logs(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    http_export(app, headers, body, otlp::logs, "rejectedLogRecords").await
}

/// The gRPC services.
#[derive(Clone, Debug)]
pub(crate) struct Grpc(pub(crate) Arc<App>);

impl Grpc {
    async fn take<T>(&self, request: Request<T>, rows: fn(T) -> Decoded) -> Result<Decoded, Status> {
        let headers = request.metadata().clone().into_headers();
        self.0.authorize(&headers, Role::Ingest).map_err(status)?;
        let mut decoded = rows(request.into_inner());
        // What arrived is decoded already; before anything is stamped on it the rows are as good.
        let key = key_of(&decoded.rows);
        store_rows(&self.0, std::mem::take(&mut decoded.rows), Some(key)).await.map_err(status)?;
        Ok(decoded)
    }
}

fn status(problem: Problem) -> Status {
    match problem.status {
        StatusCode::UNAUTHORIZED => Status::unauthenticated(problem.detail),
        StatusCode::FORBIDDEN => Status::permission_denied(problem.detail),
        StatusCode::SERVICE_UNAVAILABLE => Status::unavailable(problem.detail),
        _ => Status::invalid_argument(problem.detail),
    }
}

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let decoded = self.take(request, otlp::traces_rows).await?;
        let partial = ExportTracePartialSuccess { rejected_spans: decoded.rejected, error_message: decoded.reason };
        Ok(tonic::Response::new(ExportTraceServiceResponse {
            partial_success: (decoded.rejected > 0).then_some(partial),
        }))
    }
}

#[tonic::async_trait]
impl LogsService for Grpc {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let decoded = self.take(request, otlp::logs_rows).await?;
        let partial =
            ExportLogsPartialSuccess { rejected_log_records: decoded.rejected, error_message: decoded.reason };
        Ok(tonic::Response::new(ExportLogsServiceResponse {
            partial_success: (decoded.rejected > 0).then_some(partial),
        }))
    }
}

/// An attribute as JSON.
pub(crate) fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Str(s) => json!(s),
        Value::Int(n) => json!(n),
        Value::Float(n) => json!(n),
        Value::Bool(b) => json!(b),
    }
}
