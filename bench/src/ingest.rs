//! Durable ingest: spans of 30 attributes as OTLP over gRPC and HTTP, several requests under way, each answered when it is on
//! the disk. Client and server share the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::json;

use crate::Args;
use crate::figures::{Figures, percentile};
use crate::machine::{Process, api, cpu_seconds};

const SPANS: usize = 512;
const UNDER_WAY: usize = 8;

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// A number that looks drawn.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// 24 attributes; six more come with the resource.
fn span(n: u64, now: u64) -> Span {
    let draw = |k: u64, of: u64| mix(n * 64 + k) % of;
    let mut attributes = vec![
        text("user.id", format!("u{}", draw(1, 100_000))),
        text("http.request.method", ["GET", "POST", "PUT"][draw(2, 3) as usize].to_owned()),
        text("http.route", format!("/api/v1/things/{}", draw(3, 60))),
        attribute(
            "http.response.status_code",
            any_value::Value::IntValue([200, 200, 200, 404, 500][draw(4, 5) as usize]),
        ),
        text("customer.id", format!("c{}", draw(5, 5_000))),
        text("session.number", format!("s{}", draw(6, 200_000))),
        attribute("db.calls", any_value::Value::IntValue(draw(7, 12) as i64)),
        attribute("db.ms", any_value::Value::DoubleValue(draw(8, 40_000) as f64 / 1e3)),
        attribute("cache.hit", any_value::Value::BoolValue(draw(9, 2) == 1)),
        attribute("bytes.out", any_value::Value::IntValue(draw(10, 60_000) as i64)),
    ];
    let low = [
        "region",
        "zone",
        "plan",
        "device",
        "os",
        "browser",
        "app.version",
        "build",
        "flag.a",
        "flag.b",
        "flag.c",
        "shard",
        "queue",
        "lang",
    ];
    attributes.extend(low.iter().zip(11..).map(|(name, k)| text(name, format!("{name}-{}", draw(k, 4 + k)))));
    let length = 1_000_000 + draw(40, 200_000_000);
    Span {
        trace_id: [mix(n).to_be_bytes(), mix(n + 1).to_be_bytes()].concat(),
        span_id: mix(n * 3 + 1).to_be_bytes().to_vec(),
        name: "request".to_owned(),
        kind: 2,
        start_time_unix_nano: now - length,
        end_time_unix_nano: now,
        attributes,
        ..Default::default()
    }
}

fn bodies(requests: usize) -> Vec<Bytes> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let resource =
        ["service.name", "service.version", "host.name", "deployment.environment", "k8s.pod.name", "cloud.region"];
    (0..requests)
        .map(|request| {
            let spans = (0..SPANS).map(|n| span((request * SPANS + n) as u64, now)).collect();
            let attributes = resource.iter().map(|name| text(name, format!("{name}-{}", request % 20))).collect();
            let resource = Some(Resource { attributes, ..Default::default() });
            let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
            let whole = ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
            };
            whole.encode_to_vec().into()
        })
        .collect()
}

fn framed(message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.extend_from_slice(message);
    frame.freeze()
}

async fn send(address: &str, token: &str, bodies: &[Bytes], grpc: bool) -> Result<(f64, Vec<f64>)> {
    let bodies: Arc<Vec<Bytes>> = Arc::new(bodies.iter().map(|b| if grpc { framed(b) } else { b.clone() }).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(grpc).build_http();
    let path = if grpc { "/opentelemetry.proto.collector.trace.v1.TraceService/Export" } else { "/v1/traces" };
    let media = if grpc { "application/grpc" } else { "application/x-protobuf" };
    let began = Instant::now();
    let workers: Vec<_> = (0..UNDER_WAY)
        .map(|_| {
            let (bodies, next, client) = (bodies.clone(), next.clone(), client.clone());
            let (uri, token) = (format!("http://{address}{path}"), format!("Bearer {token}"));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let request = Request::post(&uri)
                        .header("authorization", &token)
                        .header("content-type", media)
                        .header("te", "trailers")
                        .body(Full::new(body.clone()))?;
                    let began = Instant::now();
                    let response = client.request(request).await?;
                    let status = response.status();
                    let whole = response.into_body().collect().await?;
                    took.push(began.elapsed().as_secs_f64() * 1e3);
                    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&whole.to_bytes()));
                    if grpc {
                        let code = whole.trailers().and_then(|t| t.get("grpc-status")).context("no grpc-status")?;
                        ensure!(code == "0", "grpc-status {code:?}");
                    }
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for worker in workers {
        took.extend(worker.await??);
    }
    Ok((began.elapsed().as_secs_f64(), took))
}

/// Measures both ways in, each into a fresh server.
pub fn measure(args: &Args, figures: &mut Figures) -> Result<()> {
    let requests = if args.small { 8 } else { 1_200 };
    let bodies = bodies(requests);
    let bytes: usize = bodies.iter().map(Bytes::len).sum();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for (name, grpc) in [("OTLP/gRPC", true), ("OTLP/HTTP protobuf", false)] {
        let dir = tempfile::tempdir_in(&args.out)?;
        let server = Process::serve(std::process::Command::new(&args.bin), dir.path())?;
        let (address, token) = (server.address()?, server.admin()?);
        let (secs, mut took) = runtime.block_on(send(&address, &token, &bodies, grpc))?;
        let cpu = cpu_seconds(server.id())?;
        let asked = json!({"calculate": ["count"], "from": "2020-01-01T00:00:00Z"});
        let answer = runtime.block_on(api(&address, &token, "POST", "/api/v1/query", &asked))?;
        let spans = requests * SPANS;
        ensure!(answer["rows"][0]["count"].as_f64() == Some(spans as f64), "{spans} sent, stored: {answer}");
        figures.ours(
            &format!("ingest, {name}, spans of 30 attributes ({} bytes), durable", bytes / spans),
            format!(
                "{:.0} spans/s ({:.0} a CPU second of the server); a request of {SPANS}: p50 {:.0} ms, p99 {:.0} ms; peak {:.0} MB",
                spans as f64 / secs,
                spans as f64 / cpu,
                percentile(&mut took, 0.5),
                percentile(&mut took, 0.99),
                server.peak_mb()?,
            ),
        );
    }
    Ok(())
}
