//! The event store under kill -9 at random moments, with segments so small that they are written, merged and turned into Parquet all
//! the while. `SEAWORTHY_KILLS` says how often (200 is the full test), `SEED` which moments.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::control_plane::token;
use crate::grpc::{Grpc, attribute, frame, now_nanos};
use crate::harness::{BIN, Process, alone, api, call, until};

/// Events of one batch.
const EVENTS: u64 = 20;
/// Events that make a segment.
const SEGMENT: u64 = 400;
const SENDERS: u64 = 4;
/// Batches that one question counts event by event: fewer groups than a question may have.
const COUNTED: u64 = 20_000;

/// The number of an event: whose, in which batch, the how many-th.
fn id(sender: u64, batch: u64, event: u64) -> u64 {
    sender * 1_000_000_000 + batch * 100 + event
}

/// Attributes of an event: its number, something that few have, some text.
fn attributes(sender: u64, batch: u64, event: u64) -> Vec<(&'static str, any_value::Value)> {
    let mut all = vec![
        ("load.id", any_value::Value::IntValue(id(sender, batch, event) as i64)),
        ("load.sender", any_value::Value::IntValue(sender as i64)),
        ("load.batch", any_value::Value::IntValue(batch as i64)),
        ("text", any_value::Value::StringValue(format!("text {}", (batch * 7 + event) % 50))),
    ];
    if (batch + event).is_multiple_of(40) {
        all.push(("load.rare", any_value::Value::StringValue(format!("rare {batch}"))));
    }
    all
}

fn logs(sender: u64, batch: u64) -> Bytes {
    let json = |(key, value): (&str, any_value::Value)| match value {
        any_value::Value::IntValue(n) => json!({"key": key, "value": {"intValue": n.to_string()}}),
        any_value::Value::StringValue(text) => json!({"key": key, "value": {"stringValue": text}}),
        other => panic!("{other:?}"),
    };
    let records: Vec<Value> = (0..EVENTS)
        .map(|event| {
            let attributes: Vec<Value> = attributes(sender, batch, event).into_iter().map(json).collect();
            json!({"timeUnixNano": now_nanos().to_string(), "eventName": "load", "attributes": attributes})
        })
        .collect();
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string().into_bytes().into()
}

fn spans(sender: u64, batch: u64) -> Bytes {
    let spans = (0..EVENTS).map(|event| {
        let number = id(sender, batch, event) + 1;
        Span {
            trace_id: u128::from(number).to_be_bytes().to_vec(),
            span_id: number.to_be_bytes().to_vec(),
            name: "load".to_owned(),
            start_time_unix_nano: now_nanos(),
            end_time_unix_nano: now_nanos() + 1_000,
            attributes: attributes(sender, batch, event)
                .into_iter()
                .map(|(key, value)| attribute(key, value))
                .collect(),
            ..Default::default()
        }
    });
    frame(spans.collect())
}

/// Sends batch after batch, each until it is acknowledged; says how many.
fn sender(
    number: u64,
    address: String,
    token: String,
    stop: Arc<AtomicBool>,
    again: Arc<AtomicU64>,
) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let bearer = format!("Bearer {token}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let grpc = Grpc::new(&address, &token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let is_grpc = number % 2 == 1;
        let mut batch = 0;
        while !stop.load(Ordering::Relaxed) {
            let body = if is_grpc { spans(number, batch) } else { logs(number, batch) };
            let send = || match is_grpc {
                true => runtime.block_on(grpc.export(body.clone())),
                false => matches!(call(&address, "POST", "/v1/logs", &headers, &body), Ok((200, _))),
            };
            let deadline = Instant::now() + Duration::from_secs(60);
            while !send() {
                assert!(Instant::now() < deadline, "sender {number}: batch {batch} was not taken for a minute");
                again.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
            batch += 1;
            std::thread::sleep(Duration::from_millis(3));
        }
        batch
    })
}

fn serve(data: &Path, listen: &str) -> Command {
    let mut command = Command::new(BIN);
    command.args(["serve", "--json", "--listen", listen, "--data", data.to_str().unwrap()]);
    command.args(["--events-segment-rows", &SEGMENT.to_string(), "--events-cold-after", "4s"]);
    command
}

fn tree(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { tree(&path) } else { vec![path] }).collect()
}

/// Rows of a segment or Parquet file, by its name.
fn rows_in(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.split('-').nth(4)?.parse().ok()
}

/// Scenario: four senders send distinct batches without pause, over HTTP and gRPC, and send again what they heard no answer to; the
/// server dies by kill -9 at random moments, also while it starts.
/// Guarantees: at the end every event is there exactly once, nothing is damaged, and no file is left over.
#[test]
fn kills_at_random_moments_lose_and_double_no_event() {
    let _alone = alone();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("SEAWORTHY_KILLS").unwrap_or(10);
    let seed = number("SEED").unwrap_or_else(now_nanos) | 1;
    eprintln!("SEED={seed}");
    let mut state = seed;
    let mut draw = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    };
    let dir = tempfile::tempdir().unwrap();
    let mut server = Process::spawn(serve(dir.path(), "127.0.0.1:0"), "");
    let (listen, admin) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
    let ingest = token(&listen, &admin, "ingest");
    let (stop, again) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| sender(number, listen.clone(), ingest.clone(), stop.clone(), again.clone()))
        .collect();
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(draw(2_000)));
        server.kill();
        if draw(4) == 0 {
            let mut command = serve(dir.path(), &listen);
            let mut early =
                command.stdout(Stdio::null()).stdin(Stdio::null()).env("SEAWORTHY_LOG", "warn").spawn().unwrap();
            std::thread::sleep(Duration::from_millis(draw(120)));
            early.kill().unwrap();
            early.wait().unwrap();
        }
        server = Process::spawn(serve(dir.path(), &listen), "");
        assert_eq!(server.ready["findings"], json!([]));
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    let batches: Vec<u64> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    assert!(batches.iter().all(|n| *n > kills), "{batches:?}");
    assert!(again.load(Ordering::Relaxed) > 0, "nobody had to send anything again");
    // Twice: as it is now, and after everything was turned into Parquet.
    for round in 0..2 {
        for (sender, batches) in batches.iter().enumerate() {
            counted_once(&listen, &admin, sender as u64, *batches);
        }
        if round == 0 {
            let parquet = || {
                let paths = tree(&dir.path().join("events"));
                let ending =
                    |ending: &str| paths.iter().filter(|path| path.to_str().unwrap().ends_with(ending)).count();
                (ending(".arrow") == 0 && ending(".parquet") > 0).then_some(())
            };
            until(60, "all segments are Parquet", parquet);
        }
    }
    assert!(Command::new("kill").arg(server.child.id().to_string()).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
    let checked = Command::new(BIN).args(["events", "check", "--json", "--data"]).arg(dir.path()).output().unwrap();
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(checked.status.success() && report["damage"] == json!([]), "{report}");
    let paths = tree(dir.path());
    let left_over = |path: &&PathBuf| {
        let name = path.to_str().unwrap();
        path.file_name().unwrap().to_str().unwrap().contains(".tmp")
            || name.ends_with(".damaged")
            || (name.ends_with(".sparse.arrow") && !Path::new(&name.replace(".sparse", "")).exists())
    };
    assert_eq!(paths.iter().filter(left_over).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
    // What is flushed at once is smaller than this: it was merged.
    let merged = paths.iter().filter(|path| rows_in(path).is_some_and(|rows| rows > SEGMENT * 4 + 100)).count();
    let events: u64 = batches.iter().map(|n| n * EVENTS).sum();
    let again = again.load(Ordering::Relaxed);
    eprintln!("{kills} kills, {events} events, {again} batches sent again, {merged} merged files, {report}");
    assert!(merged > 0, "nothing was merged");
}

/// Each event of a sender is there once: as many as there should be, their numbers add up, and no number stands twice.
fn counted_once(listen: &str, admin: &str, sender: u64, batches: u64) {
    let ask = |question: Value| {
        let (status, answer) = api(listen, admin, "POST", "/api/v1/query", &question);
        assert!(status == 200 && answer["incomplete"] == json!([]), "{status} {answer}");
        answer
    };
    for first in (0..batches).step_by(COUNTED as usize) {
        let end = batches.min(first + COUNTED);
        let filter = format!("load.sender = {sender} and load.batch >= {first} and load.batch < {end}");
        let answer =
            ask(json!({"where": filter, "calculate": ["count", "sum(load.id)"], "from": "2025-01-01T00:00:00Z"}));
        let sum: u64 = (first..end).flat_map(|batch| (0..EVENTS).map(move |event| id(sender, batch, event))).sum();
        let figures = (answer["rows"][0]["count"].as_f64(), answer["rows"][0]["sum(load.id)"].as_f64());
        assert_eq!(
            figures,
            (Some(((end - first) * EVENTS) as f64), Some(sum as f64)),
            "sender {sender}, {first} to {end}"
        );
        let twice = json!({"where": filter, "calculate": ["count"], "group_by": ["load.id"], "having": "count > 1",
            "from": "2025-01-01T00:00:00Z"});
        let answer = ask(twice);
        assert_eq!(answer["rows"], json!([]), "sender {sender}, {first} to {end}");
    }
    let beyond = format!("load.sender = {sender} and load.batch >= {batches}");
    let answer = ask(json!({"where": beyond, "calculate": ["count"], "from": "2025-01-01T00:00:00Z"}));
    assert_eq!(answer["rows"][0]["count"].as_f64().unwrap_or(0.0), 0.0);
}
