//! The control plane under bad input, kill -9, restarts and full disks; the proxy without it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{BIN, Process, alone, api, call, serve, until};

pub fn flag(variant: &str) -> Value {
    json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": variant})
}

pub fn fault_spec(min_ms: u64) -> Value {
    json!({"name": "slow", "treatment": {"fault": {"route": "all", "delay_ms": 200}}, "baseline_ratio": 4,
        "stages": [{"share": 0.05, "min_ms": min_ms}], "window_ms": 1000, "settle_ms": 500,
        "warm_up": {"min_exposures": 20, "min_ms": 500, "max_ms": 60_000},
        "guardrails": {"ceiling_share": 0.0}, "alpha": 0.0001,
        "kpi": {"success": "name = 'request' and http.response.status_code < 500", "failure": "name = 'request' and error = true"}})
}

pub fn token(address: &str, admin: &str, role: &str) -> String {
    let (status, made) = api(address, admin, "POST", "/api/v1/tokens", &json!({"name": role, "role": role}));
    assert_eq!(status, 201, "{made}");
    made["secret"].as_str().unwrap().to_owned()
}

/// An upstream that answers 200 to everything.
pub fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 8_192];
                let mut seen = Vec::new();
                while let Ok(n) = stream.read(&mut buffer) {
                    seen.extend_from_slice(&buffer[..n]);
                    if n == 0 {
                        return;
                    }
                    while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                        seen.drain(..end + 4);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

pub fn edge(dir: &std::path::Path, control: &str, upstream: &str, token: &str) -> Process {
    let path = dir.join("edge.yaml");
    let text = format!(
        "name: edge\nlisten: 127.0.0.1:0\ncontrol: http://{control}\nedge: true\nsubject: {{header: x-user-id}}\n\
         routes:\n  - {{name: all, upstream: 'http://{upstream}', timeout: 2s}}\n"
    );
    std::fs::write(&path, text).unwrap();
    Process::start(&["proxy", "--json", "--config", path.to_str().unwrap()], token)
}

/// Requests of many users through the proxy until told to stop; counts answers other than 200.
pub fn traffic(address: String, stop: Arc<AtomicBool>, failed: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut n = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            let user = format!("user-{}", n.wrapping_mul(2_654_435_761) % 20_000);
            match call(&address, "GET", "/", &[("x-user-id", &user)], b"") {
                Ok((200, _)) => {}
                other => {
                    eprintln!("request failed: {other:?}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

#[test]
fn bad_input_is_refused_with_its_place_and_without_a_token_nothing_goes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path(), "127.0.0.1:0");
    let address = server.address();
    let admin = server.ready["admin_token"].as_str().unwrap().to_owned();
    for (method, path) in [
        ("GET", "/api/v1/status"),
        ("POST", "/v1/traces"),
        ("PUT", "/api/v1/flags/x"),
        ("POST", "/api/v1/halt"),
        ("POST", "/ofrep/v1/evaluate/flags/x"),
        ("GET", "/audit/checkpoint"),
        ("GET", "/api/v1/proxy/snapshot"),
    ] {
        let (status, problem) = api(&address, "sw_wrong", method, path, &Value::Null);
        assert_eq!((status, &problem["code"]), (401, &"unauthenticated".into()), "{method} {path}");
    }
    let ingest = token(&address, &admin, "ingest");
    assert_eq!(api(&address, &ingest, "GET", "/api/v1/status", &Value::Null).0, 403);
    let (status, problem) = api(&address, &admin, "PUT", "/api/v1/flags/x", &json!({"state": "ON"}));
    assert_eq!(status, 422);
    assert!(problem["detail"].as_str().unwrap().starts_with("/flags/x/state: expected ENABLED"), "{problem}");
    let (status, problem) = api(&address, &admin, "POST", "/api/v1/experiments", &json!({"name": "x", "bogus": 1}));
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("bogus"), "{problem}");
    let (status, problem) = api(&address, &admin, "POST", "/api/v1/query", &json!({"where": "a = "}));
    assert!(status == 400 && problem["detail"].as_str().unwrap().contains("character 5"), "{problem}");
    // OTLP: a broken body is refused whole, a broken span alone.
    let (status, problem) = api(&address, &ingest, "POST", "/v1/traces", &json!({"resourceSpans": 7}));
    assert!(status == 400 && problem["code"] == "invalid-otlp", "{problem}");
    let span = |id: &str| json!({"traceId": id, "spanId": "b7ad6b7169203331", "name": "s", "startTimeUnixNano": "1764000000000000000"});
    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span("0af7651916cd43dd8448eb211c80319c"), span("0af7")]}]}]});
    let (status, answer) = api(&address, &ingest, "POST", "/v1/traces", &spans);
    assert_eq!((status, &answer["partialSuccess"]["rejectedSpans"]), (200, &"1".into()), "{answer}");
    let bearer = format!("Bearer {ingest}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    assert_eq!(call(&address, "POST", "/v1/traces", &headers, &vec![b' '; 17 << 20]).map_or(413, |a| a.0), 413);
    // The console is there and locked down; the second process on the directory is refused.
    let (status, page) = call(&address, "GET", "/", &[], b"").unwrap();
    assert!(status == 200 && !page.is_empty());
    let second = Command::new(BIN)
        .args(["serve", "--listen", "127.0.0.1:0", "--data", dir.path().to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && text.contains("is in use by another process"), "{text}");
}

/// Scenario: flags are put and events are sent without pause while the control plane is killed with -9, twice.
/// Guarantees: nothing acknowledged is missing, the state is the same after each restart, the log verifies.
#[test]
fn kill_9_under_load_loses_nothing_acknowledged() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut server = serve(dir.path(), "127.0.0.1:0");
    let admin = server.ready["admin_token"].as_str().unwrap().to_owned();
    let listen = server.address();
    let (mut puts, mut rows) = (BTreeSet::new(), 0_u64);
    for round in 0..2 {
        let bearer = format!("Bearer {admin}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let deadline = Instant::now() + Duration::from_millis(1_500);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1_000));
            server.kill();
        });
        let mut n = 0;
        while Instant::now() < deadline {
            n += 1;
            let key = format!("flag-{round}-{n}");
            let body = flag("off").to_string();
            match call(&listen, "PUT", &format!("/api/v1/flags/{key}"), &headers, body.as_bytes()) {
                Ok((200, _)) => puts.insert(key),
                _ => continue,
            };
            let at = (1_764_000_000_000_000_000_u64 + round as u64 * 1_000_000 + n).to_string();
            let log =
                json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": at, "eventName": "load"}]}]}]});
            let send = || call(&listen, "POST", "/v1/logs", &headers, log.to_string().as_bytes());
            if let Ok((200, _)) = send() {
                rows += 1;
                // As a client does that did not hear the answer.
                let _ = send();
            }
        }
        killer.join().unwrap();
        server = serve(dir.path(), &listen);
        let (_, answer) = api(&listen, &admin, "GET", "/api/v1/flags", &Value::Null);
        let kept: BTreeSet<String> =
            answer["flags"].as_array().unwrap().iter().map(|f| f["key"].as_str().unwrap().to_owned()).collect();
        assert!(puts.is_subset(&kept), "missing: {:?}", puts.difference(&kept).collect::<Vec<_>>());
        assert!(kept.len() <= puts.len() + round + 1, "one unacknowledged put a round at most");
        let asked = json!({"where": "name = 'load'", "calculate": ["count"], "from": "2025-01-01T00:00:00Z"});
        let (_, answer) = api(&listen, &admin, "POST", "/api/v1/query", &asked);
        let stored = answer["rows"][0]["count"].as_f64().unwrap_or(0.0) as u64;
        assert!(stored >= rows && stored <= rows + round as u64 + 1, "{stored} stored, {rows} acknowledged");
        rows = stored;
    }
    assert!(puts.len() > 20 && rows > 20, "{} puts, {rows} rows", puts.len());
    until(5, "a checkpoint over all entries", || {
        let output = Command::new(BIN)
            .args(["audit", "verify", "--json", "--data", dir.path().to_str().unwrap()])
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        // Before the first checkpoint, a second after the start, there is nothing to verify.
        let missing = report["reason"].as_str().is_some_and(|r| r.contains("cannot read"));
        assert!(report["verified"] == true || missing, "{report}");
        (report["size"].as_u64()? > puts.len() as u64).then_some(())
    });
}

/// Scenario: a fault is on, under load, when the control plane dies; it comes back; the proxy dies and comes back.
/// Guarantees: faults are off within the lease, no request fails, the restarted control plane goes on with the same
/// evidence (no subject is counted twice or forgotten), and switches the fault on again only by its own decision.
#[test]
fn control_plane_gone_faults_gone_and_evidence_resumes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = serve(&data, "127.0.0.1:0");
    let listen = server.address();
    let admin = server.ready["admin_token"].as_str().unwrap().to_owned();
    let proxy_token = token(&listen, &admin, "proxy");
    let proxy = edge(dir.path(), &listen, &upstream(), &proxy_token);
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let users: Vec<_> = (0..2).map(|_| traffic(proxy.address(), stop.clone(), failed.clone())).collect();
    let health = |proxy: &Process| -> Value {
        let (_, body) = call(&proxy.address(), "GET", "/.seaworthy/healthz", &[], b"").unwrap();
        serde_json::from_slice(&body).unwrap()
    };
    until(10, "a lease", || (health(&proxy)["lease_is_valid"] == true).then_some(()));
    let (status, started) = api(&listen, &admin, "POST", "/api/v1/experiments", &fault_spec(120_000));
    assert_eq!(status, 201, "{started}");
    let path = format!("/api/v1/experiments/{}", started["id"].as_str().unwrap());
    until(40, "the fault is on", || (health(&proxy)["faults_on"] == 1).then_some(()));
    let show = || api(&listen, &admin, "GET", &path, &Value::Null).1;
    until(20, "some evidence", || (show()["arms"]["baseline"]["exposed"].as_u64()? > 100).then_some(()));

    let before = show();
    server.kill();
    let killed = Instant::now();
    until(5, "faults are off", || (health(&proxy)["faults_on"] == 0).then_some(()));
    assert!(killed.elapsed() <= Duration::from_millis(3_300), "lease of 3 s, took {:?}", killed.elapsed());
    let (status, _) = call(&proxy.address(), "GET", "/", &[("x-user-id", "u")], b"").unwrap();
    assert_eq!(status, 200, "a proxy without control plane serves");

    let server = serve(&data, &listen);
    let after = show();
    assert_eq!((&after["state"], &after["id"]), (&before["state"], &before["id"]));
    for arm in ["treatment", "baseline"] {
        let exposed = |view: &Value| view["arms"][arm]["exposed"].as_u64().unwrap();
        assert!(exposed(&after) >= exposed(&before), "{arm}: {} then {}", exposed(&before), exposed(&after));
    }
    until(10, "the proxy holds a lease again", || (health(&proxy)["lease_is_valid"] == true).then_some(()));
    assert_eq!(failed.load(Ordering::Relaxed), 0, "no request failed while the control plane was gone");

    // The distinct subjects in the event store are exactly those in the tally.
    stop.store(true, Ordering::Relaxed);
    users.into_iter().for_each(|user| user.join().unwrap());
    std::thread::sleep(Duration::from_millis(1_200));
    let (_, stopped) = api(&listen, &admin, "POST", &format!("{path}/stop"), &json!({"reason": "test"}));
    assert_eq!((&stopped["state"], &stopped["needs_ack"]), (&"stopped".into(), &true.into()), "{stopped}");
    let began = stopped["harm_began_at"].as_str().unwrap();
    let asked = json!({"where": "experiment.exposure = true", "group_by": ["experiment.arm"],
        "calculate": ["count_distinct(user.id)"], "from": began});
    let (_, answer) = api(&listen, &admin, "POST", "/api/v1/query", &asked);
    for row in answer["rows"].as_array().unwrap() {
        let arm = row["experiment.arm"].as_str().unwrap();
        assert_eq!(
            row["count_distinct(user.id)"].as_f64(),
            stopped["arms"][arm]["exposed"].as_f64(),
            "{arm}: {answer} {stopped}"
        );
    }
    proxy.kill();
    let proxy = edge(dir.path(), &listen, &upstream(), &proxy_token);
    until(10, "a new proxy holds a lease and no fault", || {
        let health = health(&proxy);
        (health["lease_is_valid"] == true && health["faults_on"] == 0).then_some(())
    });
    drop(server);
}

/// Scenario: the proxy dies under load while a fault is on, and another takes its place.
/// Guarantees: the experiment goes on by itself; nobody changes sides; evidence is what the event store holds.
#[test]
fn a_proxy_killed_under_load_loses_no_arm() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("data"), "127.0.0.1:0");
    let listen = server.address();
    let admin = server.ready["admin_token"].as_str().unwrap().to_owned();
    let (proxy_token, upstream) = (token(&listen, &admin, "proxy"), upstream());
    let (status, started) = {
        let mut spec = fault_spec(120_000);
        // The same users come in each round: many are seen on both sides of a kill.
        spec["treatment"] = json!({"fault": {"route": "all", "delay_ms": 5}});
        api(&listen, &admin, "POST", "/api/v1/experiments", &spec)
    };
    assert_eq!(status, 201, "{started}");
    let path = format!("/api/v1/experiments/{}", started["id"].as_str().unwrap());
    let show = || api(&listen, &admin, "GET", &path, &Value::Null).1;
    let exposed = |view: &Value| view["arms"]["baseline"]["exposed"].as_u64().unwrap_or(0);
    let mut seen = 0;
    for round in 0..3 {
        let proxy = edge(dir.path(), &listen, &upstream, &proxy_token);
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let users: Vec<_> = (0..3).map(|_| traffic(proxy.address(), stop.clone(), failed.clone())).collect();
        until(40, "more subjects", || (exposed(&show()) > seen + 20 && show()["state"] == "running").then_some(()));
        seen = exposed(&show());
        assert_eq!(failed.load(Ordering::Relaxed), 0, "round {round}");
        proxy.kill();
        stop.store(true, Ordering::Relaxed);
        users.into_iter().for_each(|user| user.join().unwrap());
        // The view may be a moment old; it never shrinks.
        assert!(exposed(&show()) >= seen);
    }
    std::thread::sleep(Duration::from_millis(500));
    let view = show();
    let asked = json!({"where": "experiment.exposure = true", "group_by": ["user.id", "experiment.arm"],
        "calculate": ["count"], "from": view["harm_began_at"], "limit": 100_000});
    let (_, answer) = api(&listen, &admin, "POST", "/api/v1/query", &asked);
    let rows = answer["rows"].as_array().unwrap();
    let users: BTreeSet<&str> = rows.iter().map(|row| row["user.id"].as_str().unwrap()).collect();
    assert_eq!(users.len(), rows.len(), "a user was seen in both arms");
    for arm in ["treatment", "baseline"] {
        let stored = rows.iter().filter(|row| row["experiment.arm"] == arm).count() as u64;
        assert_eq!(Some(stored), view["arms"][arm]["exposed"].as_u64(), "{arm}: {view}");
    }
}

/// Guarantees: whose fault an error is stands in the answer and in the event; hostile headers put nobody into an arm.
#[test]
fn an_upstream_that_is_down_is_named() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("data"), "127.0.0.1:0");
    let admin = server.ready["admin_token"].as_str().unwrap().to_owned();
    let proxy_token = token(&server.address(), &admin, "proxy");
    let proxy = edge(dir.path(), &server.address(), "127.0.0.1:1", &proxy_token);
    let hostile = [("x-user-id", "u"), ("baggage", "sw-s=AAAAAAAAAAAAAAAAAAAAAA,sw-x=exp_0000001.0.00")];
    let (status, body) = call(&proxy.address(), "GET", "/", &hostile, b"").unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["whose"], &answer["retry_is_safe"]), (502, &"upstream".into(), &true.into()));
    let row = until(5, "the event", || {
        let (_, answer) =
            api(&server.address(), &admin, "POST", "/api/v1/query", &json!({"where": "name = 'request'"}));
        answer["rows"].get(0).cloned()
    });
    assert_eq!((&row["error.whose"], &row["http.response.status_code"]), (&"upstream".into(), &502.into()));
    assert!(row.get("experiment.id").is_none(), "{row}");
}
