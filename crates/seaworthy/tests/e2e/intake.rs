//! Everything that comes in: what hangs on spans, metrics, compressed bodies, absurd times, names without end, JSON lines, reports of
//! tests. A secret in any of it reaches neither answers nor the disk.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use serde_json::{Value, json};

use crate::harness::{BIN, Process, alone, api, call};

const SECRET: &str = "canary-4711";

fn now_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn secrets() -> Value {
    json!([text("db.password", SECRET), text("url.full", &format!("http://me:{SECRET}@host/p?sig={SECRET}"))])
}

/// A caller and who it calls; an event, an exception, a link; a span whose clock was never set.
fn spans(now: u64) -> Value {
    let span = |id: &str, parent: &str, name: &str| {
        json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": id, "parentSpanId": parent, "name": name, "kind": 2,
            "startTimeUnixNano": now.to_string(), "endTimeUnixNano": (now + 5_000_000).to_string()})
    };
    let mut web = span("00000000000000a1", "", "GET /play");
    web["events"] = json!([
        {"timeUnixNano": (now + 1).to_string(), "name": "retry", "attributes": secrets()},
        {"timeUnixNano": (now + 2).to_string(), "name": "exception", "attributes": [text("exception.type", "Timeout")]},
    ]);
    web["links"] =
        json!([{"traceId": "11111111111111111111111111111111", "spanId": "2222222222222222", "attributes": secrets()}]);
    let mut lost = span("00000000000000a3", "00000000000000a1", "lost");
    (lost["startTimeUnixNano"], lost["endTimeUnixNano"]) = ("1000".into(), "2000".into());
    let of = |service: &str, spans: Value| json!({"resource": {"attributes": [text("service.name", service)]}, "scopeSpans": [{"spans": spans}]});
    let lookup = span("00000000000000a2", "00000000000000a1", "lookup");
    json!({"resourceSpans": [of("web", json!([web, lost])), of("catalog", json!([lookup]))]})
}

fn metrics(now: u64) -> Value {
    let at = |mut point: Value| {
        point["timeUnixNano"] = now.to_string().into();
        point
    };
    json!({"resourceMetrics": [{"resource": {"attributes": [text("service.name", "web")]}, "scopeMetrics": [{"metrics": [
        {"name": "queue.length", "unit": "1", "gauge": {"dataPoints": [at(json!({"asInt": "7", "attributes": secrets()}))]}},
        {"name": "bytes", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [at(json!({"asDouble": 2.5}))]}},
        {"name": "latency", "histogram": {"aggregationTemporality": 1, "dataPoints": [
            at(json!({"count": "10", "sum": 100, "bucketCounts": ["5", "5"], "explicitBounds": [10], "min": 1, "max": 30}))]}},
        {"name": "strange"},
    ]}]}]})
}

struct Server {
    process: Process,
    token: String,
}

impl Server {
    fn start(data: &Path, token: Option<&str>, more: &[&str]) -> Server {
        let words = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        let process = Process::start(&[&words[..], more].concat(), "");
        let token = token.map_or_else(|| process.ready["admin_token"].as_str().unwrap().to_owned(), str::to_owned);
        Server { process, token }
    }

    fn api(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        api(&self.process.address(), &self.token, method, path, body)
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.token);
        let headers = [&[("authorization", bearer.as_str())][..], headers].concat();
        let (status, answer) = call(&self.process.address(), "POST", path, &headers, body).unwrap();
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// Counts by one field, as `value: count` in order.
    fn counts(&self, filter: &str, field: &str) -> Vec<String> {
        let asked = json!({"where": filter, "calculate": ["count"], "group_by": [field], "order": [field], "from": "2000-01-01T00:00:00Z"});
        let (status, answer) = self.api("POST", "/api/v1/query", &asked);
        assert_eq!(status, 200, "{answer}");
        let rows = answer["rows"].as_array().unwrap();
        rows.iter()
            .map(|row| format!("{}: {}", row[field].as_str().unwrap_or("-"), row["count"].as_f64().unwrap()))
            .collect()
    }

    fn rows(&self, filter: &str) -> Vec<Value> {
        let (status, answer) =
            self.api("POST", "/api/v1/query", &json!({"where": filter, "from": "2000-01-01T00:00:00Z"}));
        assert_eq!(status, 200, "{answer}");
        answer["rows"].as_array().unwrap().clone()
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let mut child = Command::new(BIN)
            .args(words)
            .env("SEAWORTHY_URL", format!("http://{}", self.process.address()))
            .env("SEAWORTHY_TOKEN", &self.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its words does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }
}

/// Guarantees: no file of the data directory holds the secret.
fn assert_no_secret(dir: &Path) {
    let mut dirs = vec![dir.to_owned()];
    let mut files = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{}", path.display());
        }
    }
    assert!(files > 2);
}

#[test]
fn spans_with_all_that_hangs_on_them_and_metrics() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), None, &[]);
    let now = now_nanos();
    // Sent twice, and once more in another compression: the same bytes, stored once.
    let body = spans(now).to_string().into_bytes();
    let packed = zstd::encode_all(&body[..], 3).unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    deflate.write_all(&body).unwrap();
    let deflated = deflate.finish().unwrap();
    for (coding, bytes) in [("identity", &body), ("zstd", &packed), ("deflate", &deflated)] {
        let headers = [("content-type", "application/json"), ("content-encoding", coding)];
        assert_eq!(server.post("/v1/traces", &headers, bytes), (200, json!({})), "{coding}");
    }
    let (status, answer) = server.api("POST", "/v1/metrics", &metrics(now));
    let message = "metric \"strange\" has no data that is known here";
    assert_eq!(
        (status, answer),
        (200, json!({"partialSuccess": {"rejectedDataPoints": "1", "errorMessage": message}}))
    );
    assert_eq!(server.counts("", "meta.signal_type"), ["link: 1", "metric: 3", "span_event: 2", "trace: 3"]);
    // Below their span in the trace, and no spans.
    let (_, trace) = server.api("GET", "/api/v1/traces/0af7651916cd43dd8448eb211c80319c", &Value::Null);
    let spans = trace["spans"].as_array().unwrap();
    let names = |list: &Value| list.as_array().unwrap().iter().map(|row| row["name"].clone()).collect::<Vec<_>>();
    assert_eq!(spans.len(), 3, "{trace}");
    assert_eq!(
        (names(&spans[0]["events"]), names(&spans[0]["links"])),
        (vec![json!("retry"), json!("exception")], vec![json!("link")])
    );
    assert_eq!(spans[0]["links"][0]["link.trace_id"], "11111111111111111111111111111111");
    assert_eq!(trace["missing"], json!([]));
    let shown = server.run(&["trace", "0af7651916cd43dd8448eb211c80319c"], "");
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("  · retry") && shown.contains("  → trace 11111111111111111111111111111111"), "{shown}");
    let (_, map) = server.api("GET", "/api/v1/services/map", &Value::Null);
    assert_eq!(map["services"], json!([{"name": "catalog", "spans": 1.0}, {"name": "web", "spans": 2.0}]), "{map}");
    assert_eq!((map["calls"].as_array().unwrap().len(), &map["calls"][0]["calls"]), (1, &json!(1.0)));
    // A clock that was never set: kept at the time of receipt, with what it said, and its length.
    let lost = &server.rows("name = 'lost'")[0];
    assert_eq!(
        (&lost["meta.time_problem"], &lost["meta.original_time"]),
        (&json!("the time is before 2000"), &json!("1000"))
    );
    assert_eq!((&lost["duration_ms"], lost["time"].as_str() > Some("2025")), (&json!(0.001), true));
    let latency = &server.rows("metric.name = 'latency'")[0];
    assert_eq!(
        (&latency["metric.p50"], &latency["metric.p90"], &latency["metric.count"]),
        (&json!(10.0), &json!(26.0), &json!(10))
    );
    let gauge = &server.rows("metric.kind = 'gauge'")[0];
    assert_eq!(
        (&gauge["value"], &gauge["db.password"], &gauge["service.name"]),
        (&json!(7), &json!("[REDACTED]"), &json!("web"))
    );
    // Bodies that are no such thing, or too large when unpacked.
    for (coding, code) in [("zstd", "invalid-zstd"), ("deflate", "invalid-deflate"), ("gzip", "invalid-gzip")] {
        let headers = [("content-type", "application/json"), ("content-encoding", coding)];
        let (status, problem) = server.post("/v1/traces", &headers, b"nonsense");
        assert_eq!((status, &problem["code"]), (400, &json!(code)));
    }
    let bomb = zstd::encode_all(&vec![b' '; 64 << 20][..], 3).unwrap();
    let headers = [("content-type", "application/json"), ("content-encoding", "zstd")];
    let (status, problem) = server.post("/v1/traces", &headers, &bomb);
    assert_eq!((status, &problem["code"]), (413, &json!("too-large")), "{problem}");
    let mut broken = ExportTraceServiceRequest::default();
    broken.resource_spans.push(Default::default());
    broken.resource_spans[0].schema_url = "aa".into();
    let mut broken = broken.encode_to_vec();
    *broken.last_mut().unwrap() = 0xff;
    let (status, problem) = server.post("/v1/traces", &[("content-type", "application/x-protobuf")], &broken);
    assert_eq!((status, &problem["code"]), (400, &json!("invalid-otlp")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("the text of ResourceSpans.schema_url"), "{detail}");
    assert_no_secret(dir.path());
}

/// One call over gRPC: its status, and the answer's message.
async fn grpc(server: &Server, service: &str, message: &[u8], coding: Option<&str>) -> (String, Vec<u8>) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let packed = if coding.is_some() { zstd::encode_all(message, 3).unwrap() } else { message.to_vec() };
    let mut frame = BytesMut::new();
    frame.put_u8(coding.is_some().into());
    frame.put_u32(packed.len() as u32);
    frame.extend_from_slice(&packed);
    let mut request = hyper::Request::post(format!(
        "http://{}/opentelemetry.proto.collector.{service}/Export",
        server.process.address()
    ))
    .header("authorization", format!("Bearer {}", server.token))
    .header("content-type", "application/grpc")
    .header("te", "trailers");
    if let Some(coding) = coding {
        request = request.header("grpc-encoding", coding);
    }
    let response = client.request(request.body(Full::new(frame.freeze())).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let whole = body.collect().await.unwrap();
    let trailers = whole.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status")).unwrap();
    let status = status.to_str().unwrap().to_owned();
    (status, whole.to_bytes().get(5..).unwrap_or_default().to_vec())
}

#[test]
fn over_grpc_compressed_and_sent_twice() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), None, &[]);
    let traces: ExportTraceServiceRequest = serde_json::from_str(&spans(now_nanos()).to_string()).unwrap();
    let metrics: ExportMetricsServiceRequest = serde_json::from_str(&metrics(now_nanos()).to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // The time of one span is that of receipt, each time another; it is the same span.
        for coding in [Some("zstd"), None, Some("zstd")] {
            let (status, answer) = grpc(&server, "trace.v1.TraceService", &traces.encode_to_vec(), coding).await;
            assert_eq!(status, "0");
            assert_eq!(ExportTraceServiceResponse::decode(&answer[..]).unwrap().partial_success, None);
        }
        let (status, answer) = grpc(&server, "metrics.v1.MetricsService", &metrics.encode_to_vec(), Some("zstd")).await;
        // The partial success of all signals is alike.
        let partial = ExportTraceServiceResponse::decode(&answer[..]).unwrap().partial_success.unwrap();
        assert_eq!((status.as_str(), partial.rejected_spans), ("0", 1));
        // 8: more than is taken, when unpacked.
        let bomb = vec![0_u8; 64 << 20];
        assert_eq!(grpc(&server, "trace.v1.TraceService", &bomb, Some("zstd")).await.0, "8");
    });
    assert_eq!(server.counts("", "meta.signal_type"), ["link: 1", "metric: 3", "span_event: 2", "trace: 3"]);
}

#[test]
fn names_without_end_are_refused_and_told() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), None, &["--events-names-max", "60"]);
    let lines =
        |from: u32, to: u32| (from..to).map(|n| format!("{{\"name\":\"e\",\"cart.{n}\":1}}\n")).collect::<String>();
    let post = |server: &Server, body: &str| {
        server.post("/api/v1/events", &[("content-type", "application/x-ndjson")], body.as_bytes())
    };
    let (status, answer) = post(&server, &lines(0, 20));
    assert_eq!((status, &answer["stored"], &answer["warning"]), (200, &json!(20), &Value::Null));
    let (_, answer) = post(&server, &lines(20, 100));
    let warning = answer["warning"].as_str().unwrap();
    assert!(answer["stored"] == 80 && warning.contains("this server takes at most 60 names of attributes"), "{answer}");
    // A known name still comes in, and OTLP is told by a partial success that refuses nothing.
    let now = now_nanos().to_string();
    let log = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": now, "eventName": "mine",
        "attributes": [text("cart.3", "x"), text("cart.new", "y")]}]}]}]});
    let (status, answer) = server.api("POST", "/v1/logs", &log);
    assert_eq!((status, &answer["partialSuccess"]["rejectedLogRecords"]), (200, &json!("0")), "{answer}");
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("\"cart.new\""), "{answer}");
    let row = &server.rows("name = 'mine'")[0];
    assert_eq!((&row["cart.3"], &row["cart.new"]), (&json!("x"), &Value::Null));
    let (_, fields) = server.api("GET", "/api/v1/fields", &Value::Null);
    let refused = &fields["names_refused"];
    assert!(refused["count"].as_u64() > Some(10) && refused["max"] == 60, "{refused}");
    assert_eq!(refused["examples"].as_array().unwrap().len(), 10);
    let shown = server.run(&["fields"], "");
    assert!(String::from_utf8_lossy(&shown.stderr).contains("more than 60 names, such as cart."));
    // A restart forgets no name: there is no more room than before.
    let token = server.token.clone();
    server.process.kill();
    let server = Server::start(dir.path(), Some(&token), &["--events-names-max", "60"]);
    let (_, answer) = post(&server, "{\"name\":\"e\",\"cart.after\":1}\n");
    assert!(answer["warning"].as_str().is_some_and(|warning| warning.contains("cart.after")), "{answer}");
}

#[test]
fn a_file_of_lines() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), None, &[]);
    let path = dir.path().join("events.jsonl");
    let now = now_nanos() / 1_000_000_000;
    let mut lines: String = (0..4_500)
        .map(|n| format!("{{\"at\":{},\"name\":\"order\",\"cart\":{{\"items\":{n}}},\"duration_ms\":2,\"note\":\"http://me:{SECRET}@h/\"}}\n", now - n))
        .collect();
    lines.insert_str(0, "{\"broken\n\n");
    lines.push_str(&format!("{{\"a\":\"{}\"}}\n[]\n{{\"name\":\"last\",\"at\":\"never\"}}", "x".repeat(2 << 20)));
    std::fs::write(&path, &lines).unwrap();
    let words = ["ingest", path.to_str().unwrap(), "--time-field", "at", "--set", "build=7", "--service", "shop"];
    let output = server.run(&words, "");
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), out.as_str()), (Some(1), "4501 events stored, 3 refused\n"), "{err}");
    let file = path.display();
    assert_eq!(
        err.lines().collect::<Vec<_>>(),
        [
            format!("{file}:1: the line is not JSON: EOF while parsing a string, at column 8"),
            format!("{file}:4503: the line is longer than 1048576 bytes"),
            format!("{file}:4504: the line is not a JSON object"),
        ]
    );
    // Once more, and once more as JSON.
    let output = server.run(&words, "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0 events stored, 4501 known already, 3 refused\n");
    let output = server.run(&[&words[..], &["--json"]].concat(), "");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["stored"], &answer["known_already"], &answer["refused"]), (&json!(0), &json!(4501), &json!(3)));
    assert_eq!(server.counts("build = '7' and service.name = 'shop'", "name"), ["last: 1", "order: 4500"]);
    let row = &server.rows("cart.items = 4499")[0];
    assert_eq!((&row["duration_ms"], &row["note"]), (&json!(2.0), &json!("http://REDACTED@h/")));
    assert_eq!(server.rows("name = 'last'")[0]["meta.original_time"], "never");
    // Standard input; another place for the same line is another event.
    let line = "{\"name\":\"piped\",\"SampleRate\":5}\n";
    let output = server.run(&["ingest", "-"], &line.repeat(2));
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stdout).unwrap().as_str()),
        (Some(0), "2 events stored, 0 refused\n")
    );
    assert_eq!(server.counts("name = 'piped'", "name"), ["piped: 10"]);
    // What is wrong is told before anything is sent.
    assert_eq!(server.run(&["ingest", "-", "--set", "build"], "{}").status.code(), Some(64));
    assert_eq!(server.run(&["ingest", "/nowhere/x.jsonl"], "").status.code(), Some(64));
    let headers = [("content-type", "application/x-ndjson")];
    assert_eq!(server.post("/api/v1/events?sett=a%3Db", &headers, b"{}").1["code"], "invalid-parameter");
    assert_eq!(server.post("/api/v1/events", &[("content-type", "text/plain")], b"{}").0, 415);
    let (status, _) = api(&server.process.address(), "nobody", "POST", "/api/v1/events", &json!({}));
    assert_eq!(status, 401);
    assert_no_secret(&dir.path().join("data"));
}

#[test]
fn a_report_of_tests() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), None, &[]);
    let path = dir.path().join("report.xml");
    let report = format!(
        r#"<testsuites><testsuite name="cart" timestamp="2025-11-24T16:00:00" file="cart_test.py">
        <testcase name="adds" classname="Cart" time="0.5"/>
        <testcase name="fails" classname="Cart" time="1"><failure message="GET http://me:{SECRET}@h/ gave 500"/></testcase>
        <testcase name="waits"><skipped/></testcase></testsuite></testsuites>"#
    );
    std::fs::write(&path, &report).unwrap();
    let words = ["ingest", path.to_str().unwrap(), "--service", "shop", "--set", "build=7"];
    let output = server.run(&words, "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "3 events stored, 0 refused\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(server.run(&words, "").stdout).unwrap(),
        "0 events stored, 3 known already, 0 refused\n"
    );
    assert_eq!(server.counts("test.suite = 'cart'", "test.outcome"), ["failed: 1", "passed: 1", "skipped: 1"]);
    let row = &server.rows("test.outcome = 'failed'")[0];
    assert_eq!(
        (&row["time"], &row["duration_ms"], &row["error"]),
        (&json!("2025-11-24T16:00:00Z"), &json!(1000.0), &json!(true))
    );
    assert_eq!(
        (&row["test.classname"], &row["service.name"], &row["build"]),
        (&json!("Cart"), &json!("shop"), &json!("7"))
    );
    // What cannot be read to the end is kept as far as it goes.
    let output = server.run(&["ingest", "-", "--format", "junit"], "<testsuite>\n<testcase name='one'/>\n<testcase");
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("-: line 3: the report is not XML"), "{err}");
    assert_eq!(server.counts("name = 'one'", "test.outcome"), ["passed: 1"]);
    assert_no_secret(&dir.path().join("data"));
}
