//! Ingest while heavy questions and comparisons run: how soon spans are acknowledged and seen. `SEAWORTHY_BESIDE_SECS` says for how
//! long each part runs; with a few seconds it only shows that nothing waits for ever, and figures mean nothing. Senders, askers and
//! the server share the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::grpc::{Grpc, attribute, frame, now_nanos};
use crate::harness::{alone, api, serve};

/// Requests under way at full speed, and spans in each.
const UNDER_WAY: u64 = 8;
const SPANS: u64 = 512;
/// The steady sender: requests a second, and spans in each.
const STEADY: u64 = 20;
const STEADY_SPANS: u64 = 100;

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Spans of 30 attributes.
fn spans(request: u64, n: u64) -> Bytes {
    let span = |event: u64| {
        let number = request * SPANS + event + 1;
        let draw = |k: u64, below: u64| mix(number.wrapping_mul(64) + k) % below;
        let mut attributes = vec![
            attribute("request.number", Any::IntValue(request as i64)),
            attribute("http.route", Any::StringValue(format!("/route/{}", draw(1, 40)))),
            attribute("status", Any::IntValue([200, 200, 200, 404, 500][draw(2, 5) as usize])),
            attribute("customer", Any::StringValue(format!("c{}", draw(3, 5_000)))),
            attribute("session", Any::StringValue(format!("s{}", draw(4, 200_000)))),
            attribute("db.ms", Any::DoubleValue(draw(5, 40_000) as f64 / 1e3)),
        ];
        attributes
            .extend((6..30).map(|k| attribute(&format!("low.{k}"), Any::StringValue(format!("v{}", draw(k, 3 + k))))));
        let now = now_nanos();
        Span {
            trace_id: [mix(number).to_be_bytes(), mix(number + 1).to_be_bytes()].concat(),
            span_id: number.to_be_bytes().to_vec(),
            name: "request".to_owned(),
            start_time_unix_nano: now - 1_000_000 - draw(40, 200_000_000),
            end_time_unix_nano: now,
            attributes,
            ..Default::default()
        }
    };
    frame((0..n).map(span).collect())
}

fn percentile(all: &mut [f64], share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// A figure of `/proc/<id>/status`, in MB.
fn memory_mb(id: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1e3
}

/// Asks one heavy question after the other; counts them.
fn asker(address: String, token: String, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let questions = [
            (
                "/api/v1/query",
                json!({"group_by": ["http.route", "low.20", "status"], "calculate": ["count", "p99(duration_ms)"]}),
            ),
            ("/api/v1/compare", json!({"where": "status = 500 and duration_ms > 100"})),
            (
                "/api/v1/query",
                json!({"group_by": ["session"], "calculate": ["p99(duration_ms)", "count"], "limit": 100}),
            ),
            (
                "/api/v1/query",
                json!({"where": "session contains '99'", "calculate": ["count_distinct(customer)"], "step": "1s"}),
            ),
        ];
        for (path, question) in questions.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let (status, answer) = api(&address, &token, "POST", path, question);
            assert_eq!(status, 200, "{answer}");
            asked.fetch_add(1, Ordering::Relaxed);
        }
    })
}

/// Scenario: two askers ask without pause; first eight senders send as fast as they can, then one sends at a steady rate and looks
/// at once whether its spans are there.
/// Guarantees: nothing is refused or lost, what is acknowledged is seen by the next question, and nobody waits for ever.
#[test]
fn questions_do_not_hold_up_whoever_sends() {
    let _alone = alone();
    let secs = std::env::var("SEAWORTHY_BESIDE_SECS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let time = Duration::from_secs(secs);
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path(), "127.0.0.1:0");
    let (address, admin) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let grpc = Grpc::new(&address, &admin);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let askers: Vec<_> = (0..2).map(|_| asker(address.clone(), admin.clone(), stop.clone(), asked.clone())).collect();

    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let full = (0..UNDER_WAY).map(|_| {
        let (grpc, next) = (grpc.clone(), next.clone());
        runtime.spawn(async move {
            let mut took = Vec::new();
            while began.elapsed() < time {
                let body = spans(next.fetch_add(1, Ordering::Relaxed), SPANS);
                let began = Instant::now();
                assert!(grpc.export(body).await, "refused");
                took.push(began.elapsed().as_secs_f64() * 1e3);
            }
            took
        })
    });
    let full: Vec<_> = full.collect();
    let mut full_ms: Vec<f64> = full.into_iter().flat_map(|one| runtime.block_on(one).unwrap()).collect();
    let rate = (full_ms.len() as u64 * SPANS) as f64 / began.elapsed().as_secs_f64();
    let asked_beside = asked.load(Ordering::Relaxed);

    let (mut steady_ms, mut seen_ms) = (Vec::new(), Vec::new());
    let first = next.load(Ordering::Relaxed);
    let began = Instant::now();
    let mut request = first;
    while began.elapsed() < time {
        let body = spans(request, STEADY_SPANS);
        let sent = Instant::now();
        assert!(runtime.block_on(grpc.export(body)), "refused");
        steady_ms.push(sent.elapsed().as_secs_f64() * 1e3);
        let acknowledged = Instant::now();
        let (_, answer) = api(
            &address,
            &admin,
            "POST",
            "/api/v1/query",
            &json!({"where": format!("request.number = {request}"), "calculate": ["count"], "from": "-10s"}),
        );
        assert_eq!(answer["rows"][0]["count"], STEADY_SPANS as f64, "what was acknowledged is seen: {answer}");
        seen_ms.push(acknowledged.elapsed().as_secs_f64() * 1e3);
        request += 1;
        let due = began + Duration::from_millis((request - first) * 1_000 / STEADY);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    stop.store(true, Ordering::Relaxed);
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    let total = full_ms.len() as u64 * SPANS + steady_ms.len() as u64 * STEADY_SPANS;
    let (_, answer) = api(&address, &admin, "POST", "/api/v1/query", &json!({"calculate": ["count"]}));
    assert_eq!(answer["rows"][0]["count"], total as f64);
    std::thread::sleep(time.min(Duration::from_secs(10)));
    let id = server.child.id();
    let figures: Value = json!({
        "full speed": {"spans_per_second": rate.round(), "ack_ms_p50": percentile(&mut full_ms, 0.5),
            "ack_ms_p99": percentile(&mut full_ms, 0.99), "questions": asked_beside},
        "steady": {"ack_ms_p50": percentile(&mut steady_ms, 0.5), "ack_ms_p99": percentile(&mut steady_ms, 0.99),
            "seen_ms_p99": percentile(&mut seen_ms, 0.99), "questions": asked.load(Ordering::Relaxed) - asked_beside},
        "memory": {"peak_mb": memory_mb(id, "VmHWM:"), "idle_beyond_mapped_files_mb": memory_mb(id, "RssAnon:")},
        "spans": total,
    });
    eprintln!("{figures:#}");
    let slowest = full_ms.iter().chain(&steady_ms).chain(&seen_ms).fold(0.0, |most: f64, ms| most.max(*ms));
    assert!(slowest < 10_000.0, "{figures:#}");
}
