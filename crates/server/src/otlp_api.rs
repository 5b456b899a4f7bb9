//! OTLP over HTTP and gRPC. Acknowledged means durable.

use std::sync::Arc;

use auth::Role;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsService;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsService;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use otlp::{DecodeError, Decoded, Encoding};
use serde_json::json;
use tonic::{Request, Status};
use vocab::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

use crate::api::blocking;
use crate::app::{App, now};
use crate::body::unpack;
use crate::ingest::{Stored, key_of, store_rows};
use crate::problem::Problem;

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

async fn http_export(
    app: Arc<App>,
    headers: HeaderMap,
    body: Bytes,
    decode: fn(&[u8], Encoding, Timestamp) -> Result<Decoded, DecodeError>,
    rejected_name: &'static str,
) -> Result<Response, Problem> {
    app.authorize(&headers, Role::Ingest)?;
    let encoding = encoding(&headers)?;
    let (decoded, key) = blocking(move || {
        let body = unpack(&headers, body)?;
        let decoded = decode(&body, encoding, now()).map_err(|e| {
            Problem::bad_request("invalid-otlp", e.to_string(), "mend the message; nothing of it was stored")
        })?;
        Ok((decoded, xxh3_128(&body)))
    })
    .await?;
    let stored = store_rows(&app, decoded.rows, Some(key)).await?;
    let (rejected, message) = partial(decoded.rejected, decoded.reason, stored);
    let is_partial = !message.is_empty();
    if encoding == Encoding::Protobuf {
        // Field 1 is the partial success: {1: rejected, 2: message}, the same for all signals.
        let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: message };
        let response = ExportTraceServiceResponse { partial_success: is_partial.then_some(partial) };
        let bytes = <ExportTraceServiceResponse as prost::Message>::encode_to_vec(&response);
        return Ok(([(header::CONTENT_TYPE, "application/x-protobuf")], bytes).into_response());
    }
    let mut answer = json!({});
    if is_partial {
        answer = json!({"partialSuccess": {rejected_name: rejected.to_string(), "errorMessage": message}});
    }
    Ok(axum::Json(answer).into_response())
}

/// What a sender is told of records that were refused and of what else went wrong; with nothing rejected the message is a warning.
fn partial(rejected: i64, reason: String, stored: Stored) -> (i64, String) {
    let told = [Some(reason).filter(|reason| !reason.is_empty()), stored.warning];
    (rejected, told.into_iter().flatten().collect::<Vec<_>>().join("; "))
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

pub(crate) async fn http_metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    http_export(app, headers, body, otlp::metrics, "rejectedDataPoints").await
}

/// The gRPC services.
#[derive(Clone, Debug)]
pub(crate) struct Grpc(pub(crate) Arc<App>);

impl Grpc {
    /// Stores what a request holds; gives how many records were rejected, and what to tell.
    async fn take<T>(
        &self,
        request: Request<T>,
        rows: fn(&T, Timestamp) -> Decoded,
    ) -> Result<Option<(i64, String)>, Status> {
        let headers = request.metadata().clone().into_headers();
        self.0.authorize(&headers, Role::Ingest).map_err(status)?;
        let decoded = rows(&request.into_inner(), now());
        // What arrived is decoded already; before anything is stamped on it the rows are as good.
        let key = key_of(&decoded.rows);
        let stored = store_rows(&self.0, decoded.rows, Some(key)).await.map_err(status)?;
        Ok(Some(partial(decoded.rejected, decoded.reason, stored)).filter(|(_, message)| !message.is_empty()))
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
        let partial = self.take(request, otlp::traces_rows).await?;
        let partial_success =
            partial.map(|(rejected_spans, error_message)| ExportTracePartialSuccess { rejected_spans, error_message });
        Ok(tonic::Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Grpc {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        let partial = self.take(request, otlp::logs_rows).await?;
        let partial_success = partial.map(|(rejected_log_records, error_message)| ExportLogsPartialSuccess {
            rejected_log_records,
            error_message,
        });
        Ok(tonic::Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        let partial = self.take(request, otlp::metrics_rows).await?;
        let partial_success = partial.map(|(rejected_data_points, error_message)| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message,
        });
        Ok(tonic::Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}
