//! A sender of OTLP over gRPC, as small as can be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

pub fn now_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

pub fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// A request in its frame.
pub fn frame(spans: Vec<Span>) -> Bytes {
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    let request =
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] };
    let message = request.encode_to_vec();
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.extend_from_slice(&message);
    frame.freeze()
}

/// A connection that is made anew when it is lost.
#[derive(Clone)]
pub struct Grpc {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: String,
    bearer: String,
}

impl Grpc {
    pub fn new(address: &str, token: &str) -> Grpc {
        Grpc {
            client: Client::builder(TokioExecutor::new()).http2_only(true).build_http(),
            uri: format!("http://{address}/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
            bearer: format!("Bearer {token}"),
        }
    }

    /// Whether the server acknowledged the spans.
    pub async fn export(&self, frame: Bytes) -> bool {
        let request = hyper::Request::post(&self.uri)
            .header("authorization", &self.bearer)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame))
            .unwrap();
        let Ok(Ok(response)) = tokio::time::timeout(Duration::from_secs(10), self.client.request(request)).await else {
            return false;
        };
        let said = response.headers().get("grpc-status").cloned();
        let Ok(whole) = response.into_body().collect().await else { return false };
        let status = whole.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()).or(said);
        status.is_some_and(|code| code == "0")
    }
}
