//! The lifecycle of a flag as its users see it: never seen, live, the client that drifts by name, a restart, what can go.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{BIN, Process, api, serve, until};

fn run(server: &Process, token: &str, words: &[&str]) -> Output {
    Command::new(BIN)
        .args(words)
        .env("SEAWORTHY_URL", format!("http://{}", server.address()))
        .env("SEAWORTHY_TOKEN", token)
        .output()
        .unwrap()
}

fn told(server: &Process, token: &str, words: &[&str]) -> String {
    let output = run(server, token, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn split(generation: &str) -> Value {
    json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "metadata": {"bucketing": generation},
        "targeting": {"fractional": [["on", 25], ["off", 75]]}})
}

fn text(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

/// What OpenTelemetry's hook of a service reports of its users: events of spans, or log records.
fn export(
    service: &str,
    version: &str,
    ruleset: &str,
    answers: &[(String, String)],
    as_logs: bool,
) -> (&'static str, Value) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().to_string();
    let attributes = |subject: &str, variant: &str| {
        json!([
            text("feature_flag.key", "search-v2"),
            text("feature_flag.context.id", subject),
            text("feature_flag.version", ruleset),
            text("feature_flag.result.variant", variant),
            text("feature_flag.result.reason", "targeting_match")
        ])
    };
    let resource = json!({"attributes": [text("service.name", service), text("service.version", version)]});
    let name = "feature_flag.evaluation";
    if as_logs {
        let one = |(subject, variant): &(String, String)| json!({"timeUnixNano": now, "eventName": name, "attributes": attributes(subject, variant)});
        let records: Vec<Value> = answers.iter().map(one).collect();
        return ("/v1/logs", json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}));
    }
    let one = |(subject, variant): &(String, String)| {
        json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "GET /search",
            "startTimeUnixNano": now, "endTimeUnixNano": now,
            "events": [{"timeUnixNano": now, "name": name, "attributes": attributes(subject, variant)}]})
    };
    let spans: Vec<Value> = answers.iter().map(one).collect();
    ("/v1/traces", json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}))
}

/// Scenario: two services evaluate one flag in process and report it as OpenTelemetry's hooks do, one with the pinned generation, one
/// with another; then the server is killed.
/// Guarantees: the flag is never seen, then live; the service that drifts is named, by the API and by exit code 1; what is known of the
/// flag's use outlives the kill; nothing of it names a user.
#[test]
fn a_flag_is_seen_its_drifting_client_named_and_a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = serve(&data, "127.0.0.1:0");
    let token = server.ready["admin_token"].as_str().unwrap().to_owned();
    let get = |server: &Process, path: &str| {
        let (status, answer) = api(&server.address(), &token, "GET", path, &Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let body = json!({"flags": {"search-v2": split("flagd-v3"), "spare": split("flagd-v3"),
        "late": {"variants": {"on": true, "off": false}, "on": true, "fallthrough": "on", "expires": "2026-01-01T00:00:00Z"}}});
    assert_eq!(api(&server.address(), &token, "POST", "/api/v1/apply", &body).0, 200);
    let life = &get(&server, "/api/v1/flags/search-v2")["lifecycle"];
    assert_eq!((&life["state"], &life["evaluations"]), (&json!("never-seen"), &json!(0)), "{life}");
    assert!(told(&server, &token, &["flag", "show", "search-v2"]).contains("in production, 0 users, never seen"));
    assert!(told(&server, &token, &["flag", "drift"]).contains("no report could be judged"));
    // The metadata of an evaluation says what a hook then reports.
    let ask = json!({"context": {"targetingKey": "ann-clear"}});
    let (_, answer) = api(&server.address(), &token, "POST", "/ofrep/v1/evaluate/flags/spare", &ask);
    let metadata = &answer["metadata"];
    let said = (&metadata["bucketing"], &metadata["flagSetId"], &metadata["contextId"]);
    assert_eq!(said, (&json!("flagd-v3"), &json!("seaworthy"), &json!("ann-clear")), "{answer}");
    let ruleset = metadata["version"].as_str().unwrap().to_owned();

    let answers = |generation: &str| -> Vec<(String, String)> {
        let set = flags::FlagSet::parse(&json!({"flags": {"search-v2": split(generation)}}).to_string()).unwrap();
        let one = |n: u32| {
            let subject = format!("user-clear-{n}");
            let found = set.evaluate("search-v2", &flags::Context::of(&subject), vocab::Timestamp::default()).unwrap();
            (subject, found.variant.unwrap().to_owned())
        };
        (0..600).map(one).collect()
    };
    let sent = [("checkout", "1.4.2", "flagd-v2", false), ("web", "2.0", "flagd-v3", true)];
    for (service, version, generation, as_logs) in sent {
        let (path, body) = export(service, version, &ruleset, &answers(generation), as_logs);
        // As a client does that did not hear the answer: it counts once.
        for _ in 0..2 {
            let (status, answer) = api(&server.address(), &token, "POST", path, &body);
            assert_eq!(status, 200, "{answer}");
        }
    }
    let drift = get(&server, "/api/v1/drift");
    assert_eq!((&drift["alarms"], drift["judged"].as_array().unwrap().len()), (&json!(1), 2), "{drift}");
    let first = &drift["judged"][0];
    assert_eq!(
        (&first["service"], &first["explained_by"], &first["subjects"]),
        (&json!("checkout"), &json!(["flagd-v2"]), &json!(600))
    );
    let output = run(&server, &token, &["flag", "drift"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = "service checkout 1.4.2 buckets \"search-v2\" with flagd-v2, pinned is flagd-v3: ";
    assert!(
        output.status.code() == Some(1) && said.starts_with(expected) && said.contains("% of 600 users misassigned"),
        "{said}"
    );
    until(5, "the alarm in the status", || {
        (get(&server, "/api/v1/status")["flags"]["drift_alarms"] == 1).then_some(())
    });

    let check = |server: &Process| {
        let life = get(server, "/api/v1/flags/search-v2")["lifecycle"].clone();
        assert_eq!(
            (&life["state"], &life["evaluations"], &life["reported"]),
            (&json!("live"), &json!(1_200), &json!(1_200)),
            "{life}"
        );
        let services = life["services"].as_array().unwrap();
        assert!(services.len() == 2 && services.iter().all(|service| service["count"] == 600), "{life}");
        let shown = told(server, &token, &["flag", "show", "search-v2"]);
        assert!(shown.contains("lifecycle    live") && shown.contains("checkout 1.4.2: 600"), "{shown}");
        let list = told(server, &token, &["flag", "list"]);
        assert!(list.lines().any(|line| line.starts_with("search-v2") && line.contains("live")), "{list}");
        let stale = told(server, &token, &["flag", "stale"]);
        assert!(stale.contains("late") && stale.contains("expired") && !stale.contains("search-v2"), "{stale}");
    };
    check(&server);
    // What the table holds is on the disk within half a minute, and at once when the server is asked to go.
    let asked = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let mut server = server;
    server.child.wait().unwrap();
    let kept = std::fs::read_to_string(data.join("usage.json")).unwrap();
    assert!(kept.contains("search-v2") && !kept.contains("-clear"), "{kept}");
    let server = serve(&data, "127.0.0.1:0");
    check(&server);
    assert_eq!(get(&server, "/api/v1/flags/spare")["lifecycle"]["resolved"], 1);
    let missing = get(&server, "/api/v1/status")["flags"]["known_share"].clone();
    assert_eq!(missing, 0.0, "the one user who was known is not known yet");
    assert_eq!(get(&server, "/api/v1/drift")["alarms"], 0, "drift is seen anew");
}
