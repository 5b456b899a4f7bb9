//! Log lines: a new kind of line comes out of a comparison, and keeps its template over a restart.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{BIN, alone, api, serve, until};

/// Lines of one version of the shop; the second has a new kind among them.
fn lines(version: &str, first: u64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let users = ["alice", "bob", "carol", "dave", "erin"];
    let records: Vec<Value> = (first..first + 400)
        .map(|n| {
            let user = users[n as usize % users.len()];
            let body = match n % 4 {
                0 if version == "v2" => format!("stock of item {n} is negative: {} left after {}ms", n % 7, n * 3),
                0 | 1 => format!("GET /carts/{n}/items took {} ms from 10.0.{}.{}:{n}", n % 90, n % 20, n % 250),
                2 => format!("order {n} placed by {user}"),
                _ => format!("session \"{user}-{n}\" refreshed at 2026-11-28T13:00:{:02}Z", n % 60),
            };
            json!({"timeUnixNano": (now - n * 1_000_000).to_string(), "body": {"stringValue": body}})
        })
        .collect();
    let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let resource = json!({"attributes": [attribute("service.name", "shop"), attribute("service.version", version)]});
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]})
}

/// Scenario: of two versions of a service the second logs a new kind of line; then the server restarts.
/// Guarantees: `seaworthy compare` names the line's template first; no line is lost; the same lines have the same templates and ids
/// after the restart; no template holds what redaction removed.
#[test]
fn a_new_kind_of_line_is_named_first() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut server = serve(dir.path(), "127.0.0.1:0");
    let (listen, admin) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
    let send = |body: &Value| assert_eq!(api(&listen, &admin, "POST", "/v1/logs", body).0, 200);
    // Each kind has been seen with more than one user before.
    send(&lines("v0", 0));
    for n in 1..4 {
        send(&lines("v1", n * 1_000));
        send(&lines("v2", n * 1_000 + 500));
    }
    let ask = |body: Value| {
        let (status, answer) = api(&listen, &admin, "POST", "/api/v1/query", &body);
        assert_eq!(status, 200, "{answer}");
        answer["rows"].as_array().unwrap().clone()
    };
    let counted = json!({"where": "service.version = 'v2'", "calculate": ["count"], "group_by": ["log.template"]});
    let rows = ask(counted.clone());
    assert_eq!(rows.iter().map(|row| row["count"].as_f64().unwrap()).sum::<f64>(), 1_200.0, "{rows:?}");
    let mut texts: Vec<&str> = rows.iter().map(|row| row["log.template"].as_str().unwrap()).collect();
    texts.sort_unstable();
    let expected = [
        "GET /carts/<*>/items took <*> ms from <*>",
        "order <*> placed by <*>",
        "session \"<*>\" refreshed at <*>",
        "stock of item <*> is negative: <*> left after <*>",
    ];
    assert_eq!(texts, expected);
    let compared = Command::new(BIN)
        .args(["compare", "--json", "--where", "service.version = 'v2'", "--baseline-where", "service.version = 'v1'"])
        .args(["--server", &format!("http://{listen}")])
        .env("SEAWORTHY_TOKEN", &admin)
        .output()
        .unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stderr));
    let answer: Value = serde_json::from_slice(&compared.stdout).unwrap();
    let first = &answer["ranked"][0];
    assert_eq!(first["attribute"], "log.template", "{answer}");
    assert_eq!((&first["value"], &first["baseline_share"]), (&expected[3].into(), &0.0.into()), "{answer}");

    let ids = json!({"calculate": ["count"], "group_by": ["log.template", "log.template_id"], "where": "service.version = 'v2'"});
    let pairs = |rows: &[Value]| {
        let mut pairs: Vec<String> =
            rows.iter().map(|row| format!("{} {}", row["log.template_id"], row["log.template"])).collect();
        pairs.sort_unstable();
        pairs
    };
    let before = pairs(&ask(ids.clone()));
    assert_eq!(before.len(), 4);
    assert!(Command::new("kill").arg(server.child.id().to_string()).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
    drop(server);
    let restarted = serve(dir.path(), &listen);
    assert_eq!(restarted.ready["findings"], json!([]));
    send(&lines("v2", 9_000));
    let after = until(5, "the lines are there", || {
        let rows = ask(ids.clone());
        (rows.iter().map(|row| row["count"].as_f64().unwrap()).sum::<f64>() == 1_600.0).then_some(rows)
    });
    assert_eq!(pairs(&after), before);
}
