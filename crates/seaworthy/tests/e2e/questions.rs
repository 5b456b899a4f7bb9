//! Questions as a user asks them: over HTTP and on the command line, of spans that a client sent twice.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{BIN, alone, api, call, serve};

/// Six traces of two spans each, the fourth of which failed; one caller is missing.
fn spans() -> Value {
    let start = 1_764_000_000_000_000_000_u64;
    let span = |trace: u64, id: u64, parent: u64, name: &str, ms: u64| {
        let (from, failed) = (start + trace * 1_000_000_000, trace == 4);
        json!({"traceId": format!("{:032x}", trace), "spanId": format!("{:016x}", trace * 10 + id),
            "parentSpanId": if parent == 0 { String::new() } else { format!("{:016x}", trace * 10 + parent) },
            "name": name, "kind": 2, "startTimeUnixNano": from.to_string(), "endTimeUnixNano": (from + ms * 1_000_000).to_string(),
            "status": {"code": if failed { 2 } else { 1 }},
            "attributes": [{"key": "n", "value": {"intValue": trace.to_string()}}, {"key": "note", "value": {"stringValue": "=1+1, \"x\""}}]})
    };
    let of = |service: &str, spans: Vec<Value>| json!({"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}, "scopeSpans": [{"spans": spans}]});
    let web: Vec<Value> = (1..=6).map(|t| span(t, 1, 0, "GET /play", t * 100)).collect();
    let mut catalog: Vec<Value> = (1..=6).map(|t| span(t, 2, 1, "lookup", t * 10)).collect();
    catalog.push(span(7, 2, 9, "lookup", 1));
    json!({"resourceSpans": [of("web", web), of("catalog", catalog)]})
}

fn cli(address: &str, token: &str, words: &[&str]) -> Output {
    let url = format!("http://{address}");
    Command::new(BIN).args(words).env("SEAWORTHY_URL", url).env("SEAWORTHY_TOKEN", token).output().unwrap()
}

const FROM: &str = "2025-11-24T16:00:00Z";
const TO: &str = "2025-11-24T17:00:00Z";

#[test]
fn questions_over_http_and_on_the_command_line() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path(), "127.0.0.1:0");
    let (address, admin) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
    let bearer = format!("Bearer {admin}");
    // A client that did not hear the answer.
    for _ in 0..2 {
        assert_eq!(api(&address, &admin, "POST", "/v1/traces", &spans()).0, 200);
    }
    let ask = |mut body: Value| {
        (body["from"], body["to"]) = (FROM.into(), TO.into());
        api(&address, &admin, "POST", "/api/v1/query", &body)
    };
    let (status, answer) = ask(
        json!({"where": "root.name = 'GET /play'", "calculated_fields": [{"name": "slow", "expression": "if(duration_ms > 250, 'slow', 'fine')"}],
        "breakdowns": ["service.name", "slow"], "calculations": ["count", "max(duration_ms)"], "having": "count > 2", "orders": ["count desc", "slow"]}),
    );
    assert_eq!(status, 200, "{answer}");
    let expected = json!([
        {"service.name": "catalog", "slow": "fine", "count": 6.0, "max(duration_ms)": 60.0},
        {"service.name": "web", "slow": "slow", "count": 4.0, "max(duration_ms)": 600.0},
    ]);
    assert_eq!((&answer["rows"], answer["rows_matched"].as_u64()), (&expected, Some(12)), "{answer}");
    let (_, steps) = ask(json!({"calculate": ["count"], "step": "1m", "fill": true, "compare_to": "1h", "limit": 5}));
    assert_eq!(
        steps["rows"][0],
        json!({"time": "2025-11-24T16:00:00Z", "count": 13.0, "count earlier": 0.0}),
        "{steps}"
    );
    for (body, code) in [
        (json!({"calculate": ["p101(x)"]}), "invalid-calculation"),
        (json!({"where": "n >"}), "invalid-filter"),
        (json!({"where": "time > 5"}), "invalid-query"),
        (json!({"calculate": ["count"], "step": "1ms"}), "invalid-query"),
        (json!({"calculate": ["count"], "order": ["nothing"]}), "invalid-query"),
        (json!({"calculated_fields": [{"name": "a", "expression": "nosuch(1)"}]}), "invalid-expression"),
        (json!({"nonsense": 1}), "invalid-body"),
    ] {
        let (status, problem) = ask(body.clone());
        assert_eq!((status, &problem["code"]), (400, &code.into()), "{body}: {problem}");
    }
    // Other forms of the answer.
    let get = |accept: &str, body: Value| {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("accept", accept)];
        call(&address, "POST", "/api/v1/query", &headers, body.to_string().as_bytes()).unwrap()
    };
    let (_, csv) = get(
        "text/csv",
        json!({"fields": ["n", "note"], "where": "n = 3 and service.name = 'web'", "from": FROM, "to": TO}),
    );
    assert_eq!(String::from_utf8(csv).unwrap(), "time,n,note\r\n2025-11-24T16:00:03Z,3,\"'=1+1, \"\"x\"\"\"\r\n");
    let (status, arrow) =
        get("application/vnd.apache.arrow.stream", json!({"calculate": ["count"], "from": FROM, "to": TO}));
    assert!(status == 200 && arrow.starts_with(&[0xff; 4]), "{status}");
    assert_eq!(get("application/vnd.apache.arrow.stream", json!({"from": FROM, "to": TO})).0, 400);
    // One trace; a parent that is not there; no trace.
    let trace = |n: u64| api(&address, &admin, "GET", &format!("/api/v1/traces/{n:032x}"), &Value::Null);
    let (_, four) = trace(4);
    let names: Vec<&str> =
        four["spans"].as_array().unwrap().iter().map(|s| s["row"]["name"].as_str().unwrap()).collect();
    assert_eq!((names, &four["spans"][1]["depth"]), (vec!["GET /play", "lookup"], &json!(1)), "{four}");
    let (_, seven) = trace(7);
    assert_eq!((&seven["missing"], &seven["spans"][0]["parent_missing"]), (&json!(["000000000000004f"]), &json!(true)));
    assert_eq!((trace(99).0, api(&address, &admin, "GET", "/api/v1/traces/x", &Value::Null).0), (404, 400));
    let window = format!("from={FROM}&to={TO}");
    let (_, map) = api(&address, &admin, "GET", &format!("/api/v1/services/map?{window}"), &Value::Null);
    let call = &map["calls"][0];
    assert_eq!(
        (&call["caller"], &call["callee"], &call["calls"], &call["errors"]),
        (&json!("web"), &json!("catalog"), &json!(6.0), &json!(1.0)),
        "{map}"
    );
    assert_eq!(map["parents_missing"], 1);
    let (_, fields) = api(&address, &admin, "GET", &format!("/api/v1/fields?{window}"), &Value::Null);
    let n = fields["fields"].as_array().unwrap().iter().find(|f| f["name"] == "n").unwrap();
    assert_eq!((&n["types"], &n["rows"], &fields["rows"]), (&json!(["int"]), &json!(13), &json!(13)));
    // Comparison: an empty selection is refused, a related span and a time are understood.
    let compare = |body: Value| api(&address, &admin, "POST", "/api/v1/compare", &body);
    assert_eq!(compare(json!({"where": "", "from": FROM, "to": TO})).1["code"], "empty-selection");
    let (_, compared) =
        compare(json!({"where": "any.error = true", "selected_from": "2025-11-24T16:00:02Z", "from": FROM, "to": TO}));
    assert_eq!((&compared["selected"]["n"], &compared["baseline"]["n"]), (&json!(2), &json!(11)), "{compared}");
    // What changed: a flag, but no token.
    let (status, _) = api(
        &address,
        &admin,
        "PUT",
        "/api/v1/flags/player",
        &json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": "off"}),
    );
    assert_eq!(status, 200);
    let (_, markers) = api(&address, &admin, "GET", "/api/v1/markers?from=-1h", &Value::Null);
    let actions: Vec<&str> =
        markers["markers"].as_array().unwrap().iter().map(|m| m["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["flag.put"], "{markers}");
    // The command line.
    let shown = |words: &[&str]| {
        let output = cli(&address, &admin, words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let of_the_time = ["--from", FROM, "--to", TO];
    let table = shown(
        &[&["query", "--calculate", "count", "--group-by", "service.name", "--order", "-count"][..], &of_the_time]
            .concat(),
    );
    assert_eq!(table, "service.name  count\ncatalog       7\nweb           6\n");
    let drawn = shown(
        &[
            &["query", "--calculate", "heatmap(duration_ms)", "--step", "1h", "--where", "service.name = 'web'"][..],
            &of_the_time,
        ]
        .concat(),
    );
    assert!(drawn.contains('█'), "{drawn}");
    assert!(shown(&["trace", &format!("{:032x}", 4)]).contains("  lookup"));
    assert!(shown(&[&["map"][..], &of_the_time].concat()).contains("web     catalog"));
    assert!(shown(&[&["fields"][..], &of_the_time].concat()).contains("note"));
    assert_eq!(cli(&address, &admin, &["query", "--calculate", "nothing"]).status.code(), Some(2));
    assert!(
        shown(&["events", "check", "--data", dir.path().to_str().unwrap()]).contains("all of it is as it was written")
    );
}
