//! SQL as a user asks it: over HTTP and on the command line. Without the cargo feature `sql`: what the binary says instead.

#![cfg_attr(not(feature = "sql"), allow(dead_code))]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::harness::{BIN, Process, alone, api, call, serve};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_764_000_000 * SECOND;
const FROM: &str = "2025-11-24T16:00:00Z";
const TO: &str = "2025-11-24T17:00:00Z";

struct Plane {
    _dir: tempfile::TempDir,
    _server: Process,
    address: String,
    admin: String,
}

impl Plane {
    fn start() -> Plane {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(dir.path(), "127.0.0.1:0");
        let (address, admin) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
        Plane { _dir: dir, _server: server, address, admin }
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        api(&self.address, &self.admin, method, path, body)
    }

    fn ask(&self, mut body: Value) -> (u16, Value) {
        (body["from"], body["to"]) = (FROM.into(), TO.into());
        self.call("POST", "/api/v1/sql", &body)
    }

    fn raw(&self, accept: &str, body: &Value) -> (u16, Vec<u8>) {
        let bearer = format!("Bearer {}", self.admin);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("accept", accept)];
        call(&self.address, "POST", "/api/v1/sql", &headers, body.to_string().as_bytes()).unwrap()
    }

    fn cli(&self, words: &[&str], input: &str) -> Output {
        let mut command = Command::new(BIN);
        command
            .args(words)
            .env("SEAWORTHY_URL", format!("http://{}", self.address))
            .env("SEAWORTHY_TOKEN", &self.admin);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who reads no input closes it; that is no fault of the test.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Twelve spans of one service; `experiment` is on the even ones.
    fn send(&self, experiment: &str) {
        let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let spans: Vec<Value> = (0..12_u64)
            .map(|n| {
                let from = START + n * SECOND;
                let mut attributes = vec![
                    json!({"key": "n", "value": {"intValue": n.to_string()}}),
                    json!({"key": "share", "value": {"doubleValue": n as f64 / 4.0}}),
                    json!({"key": "ok", "value": {"boolValue": n % 3 == 0}}),
                    text("note", "=1+1, \"x\""),
                    if n < 6 { text("clash", "seven") } else { json!({"key": "clash", "value": {"intValue": "7"}}) },
                ];
                if n % 2 == 0 {
                    let arm = if n % 4 == 0 { "treatment" } else { "baseline" };
                    attributes.extend([text("experiment.id", experiment), text("experiment.arm", arm)]);
                }
                json!({"traceId": format!("{:032x}", n + 1), "spanId": format!("{:016x}", n + 1), "name": "GET /play",
                    "kind": 2, "startTimeUnixNano": from.to_string(),
                    "endTimeUnixNano": (from + (n + 1) * 10_000_000).to_string(), "attributes": attributes})
            })
            .collect();
        let resource = json!({"attributes": [text("service.name", "web")]});
        let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]});
        assert_eq!(self.call("POST", "/v1/traces", &body).0, 200);
    }
}

#[cfg(not(feature = "sql"))]
#[test]
fn a_binary_without_sql_says_how_to_get_it() {
    let _alone = alone();
    let plane = Plane::start();
    let (status, problem) = plane.ask(json!({"sql": "SELECT 1"}));
    assert_eq!((status, &problem["code"]), (501, &json!("no-sql")), "{problem}");
    let output = plane.cli(&["sql", "SELECT 1"], "");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("built without SQL") && said.contains("--features sql"), "{said}");
    plane.send("none");
}

#[cfg(feature = "sql")]
#[test]
fn sql_over_events_experiments_flags_and_the_audit_log() {
    let _alone = alone();
    let plane = Plane::start();
    let flag = json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": "off"});
    assert_eq!(plane.call("PUT", "/api/v1/flags/player", &flag).0, 200);
    let spec = json!({"name": "slow", "service": "web", "treatment": {"fault": {"route": "all", "delay_ms": 200}},
        "stages": [{"share": 0.05, "min_ms": 60_000}],
        "kpi": {"success": "name = 'request'", "failure": "name = 'request' and error = true"}});
    let (status, started) = plane.call("POST", "/api/v1/experiments", &spec);
    assert_eq!(status, 201, "{started}");
    let experiment = started["id"].as_str().unwrap();
    plane.send(experiment);
    // Types.
    let (status, answer) = plane.ask(
        json!({"sql": "SELECT time, duration_ms, trace_id, n, share, ok, clash, \"clash:int\" FROM events ORDER BY n DESC LIMIT 1"}),
    );
    assert_eq!(status, 200, "{answer}");
    let row = json!({"time": "2025-11-24T16:00:11Z", "duration_ms": 120.0, "trace_id": format!("{:032x}", 12), "n": 11,
        "share": 2.75, "ok": false, "clash": null, "clash:int": 7});
    assert_eq!((&answer["rows"], &answer["has_more"]), (&json!([row]), &json!(false)), "{answer}");
    assert_eq!(answer["types"], json!(["time", "float", "text", "int", "float", "bool", "text", "int"]));
    // Events beside what the control plane knows.
    let joined = "SELECT x.name, x.service, e.\"experiment.arm\" AS arm, count(*) AS events, avg(e.duration_ms) AS ms \
        FROM events e JOIN experiments x ON e.\"experiment.id\" = x.id GROUP BY 1, 2, 3 ORDER BY arm";
    let (_, answer) = plane.ask(json!({"sql": joined}));
    let expected = json!([
        {"name": "slow", "service": "web", "arm": "baseline", "events": 3, "ms": 70.0},
        {"name": "slow", "service": "web", "arm": "treatment", "events": 3, "ms": 50.0},
    ]);
    assert_eq!(answer["rows"], expected, "{answer}");
    let changed = "SELECT f.key, f.state, a.actor, a.action FROM flags f JOIN audit a ON a.index = f.version";
    let (_, answer) = plane.ask(json!({"sql": changed}));
    let expected = json!([{"key": "player", "state": "ENABLED", "actor": "token:admin", "action": "flag.put"}]);
    assert_eq!(answer["rows"], expected, "{answer}");
    let (_, answer) = plane.ask(json!({"sql": "SELECT action FROM markers ORDER BY index"}));
    let actions: Vec<&str> = answer["rows"].as_array().unwrap().iter().map(|m| m["action"].as_str().unwrap()).collect();
    assert_eq!(actions.first(), Some(&"flag.put"), "{answer}");
    // More than was asked for is said.
    let (_, answer) = plane.ask(json!({"sql": "SELECT n FROM events", "limit": 5}));
    assert_eq!((answer["rows"].as_array().unwrap().len(), &answer["has_more"]), (5, &json!(true)));
    // The time: only of events, and all of it where that is asked for.
    let count = json!({"sql": "SELECT count(*) AS n FROM events"});
    assert_eq!(plane.call("POST", "/api/v1/sql", &count).1["rows"], json!([{"n": 0}]));
    let all = json!({"sql": "SELECT count(*) AS n FROM events", "from": "all"});
    assert_eq!(plane.call("POST", "/api/v1/sql", &all).1["rows"], json!([{"n": 12}]));
    // What is refused, and how.
    for (body, code) in [
        (json!({"sql": "DROP TABLE events"}), "not-a-question"),
        (json!({"sql": "COPY events TO '/tmp/out.csv'"}), "not-a-question"),
        (json!({"sql": "SELECT 1; SELECT 2"}), "invalid-sql"),
        (json!({"sql": "SELECT duration FROM events"}), "unknown-column"),
        (json!({"sql": "SELECT * FROM nothing"}), "invalid-sql"),
        (json!({"sql": format!("SELECT '{}'", "x".repeat(17_000))}), "sql-too-long"),
        (json!({"sql": "SELECT 1", "nonsense": 1}), "invalid-body"),
        (
            json!({"sql": "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b",
            "timeout_s": 1}),
            "time-limit",
        ),
        (
            json!({"sql": "SELECT count(*) OVER (), concat(CAST(value AS TEXT), ' is a number in a text that is rather longer than \
            it need be, and still goes on, and on') FROM generate_series(1, 1000000000)"}),
            "memory-limit",
        ),
    ] {
        let (status, problem) = plane.ask(body.clone());
        assert_eq!((status, &problem["code"]), (400, &code.into()), "{body}: {problem}");
    }
    let (_, problem) = plane.ask(json!({"sql": "SELECT duration FROM events"}));
    assert!(problem["detail"].as_str().unwrap().contains("nearest: duration_ms"), "{problem}");
    assert_eq!(api(&plane.address, "sw_nobody", "POST", "/api/v1/sql", &count).0, 401);
    // Other forms of the answer.
    let some = json!({"sql": "SELECT time, n, note, clash FROM events WHERE n = 7", "from": FROM, "to": TO});
    let (_, csv) = plane.raw("text/csv", &some);
    assert_eq!(
        String::from_utf8(csv).unwrap(),
        "time,n,note,clash\r\n2025-11-24T16:00:07Z,7,\"'=1+1, \"\"x\"\"\",\r\n"
    );
    let (status, arrow) = plane.raw("application/vnd.apache.arrow.stream", &some);
    assert!(status == 200 && arrow.starts_with(&[0xff; 4]), "{status}");
    // The command line.
    let asked = |words: &[&str], input: &str| {
        let output = plane.cli(&[&["sql", "--from", FROM, "--to", TO], words].concat(), input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        (String::from_utf8(output.stdout).unwrap(), said)
    };
    let (table, said) = asked(&["--limit", "1", "SELECT n, share FROM events ORDER BY n DESC"], "");
    assert_eq!(table, "n   share\n11  2.750\n");
    assert!(said.contains("there is more"), "{said}");
    let (csv, said) = asked(&["-", "--format", "csv", "--limit", "2"], "SELECT n FROM events\nORDER BY n");
    assert_eq!(csv, "n\r\n0\r\n1\r\n");
    assert!(said.contains("there is more"), "{said}");
    let (text, _) = asked(&["--format", "json", "SELECT count(*) AS n FROM events"], "");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["rows"], json!([{"n": 12}]));
    let refused = plane.cli(&["sql", "DELETE FROM events"], "");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SQL only reads here"));
}

/// Guarantees: a damaged file is left out of an answer, and named in it.
#[cfg(feature = "sql")]
#[test]
fn sql_names_what_is_damaged() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let token = {
        let server = serve(dir.path(), "127.0.0.1:0");
        server.ready["admin_token"].as_str().unwrap().to_owned()
    };
    // A file with the name of a segment that is none.
    let hour = dir.path().join("events/2025-11-24/16");
    std::fs::create_dir_all(&hour).unwrap();
    let name = format!("{:020}-{:020}-{START:016x}-{:016x}-5-00000000.arrow", 1, 1, START + SECOND);
    std::fs::write(hour.join(&name), b"this is no Arrow file").unwrap();
    let server = serve(dir.path(), "127.0.0.1:0");
    let body = json!({"sql": "SELECT count(*) AS n FROM events", "from": "all"});
    let (status, answer) = api(&server.address(), &token, "POST", "/api/v1/sql", &body);
    assert_eq!((status, &answer["rows"]), (200, &json!([{"n": 0}])), "{answer}");
    let incomplete = answer["incomplete"].to_string();
    assert!(incomplete.contains(&name) && incomplete.contains("does not match its checksum"), "{answer}");
}
