//! A change of a flag that is too much at once, from the command line to its end: as a rollout by itself, promoted or stopped.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::control_plane::edge;
use crate::harness::{BIN, alone, api, call, serve, until};

const USERS: usize = 900;

/// One log record of OTLP in JSON.
fn record(name: &str, attributes: &[(&str, &str)]) -> Value {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().to_string();
    let attributes: Vec<Value> =
        attributes.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect();
    json!({"timeUnixNano": nanos, "eventName": name, "attributes": attributes})
}

fn send(address: &str, token: &str, records: Vec<Value>) {
    let service = json!([{"key": "service.name", "value": {"stringValue": "shop"}}]);
    let body = json!({"resourceLogs": [{"resource": {"attributes": service}, "scopeLogs": [{"logRecords": records}]}]});
    let (status, answer) = api(address, token, "POST", "/v1/logs", &body);
    assert_eq!(status, 200, "{answer}");
}

/// Scenario: 900 users ask for a flag, report what they got and whether checking out worked. An owner changes the flag for all of them,
/// once to a colour that harms nobody, once to one with which nobody can check out.
/// Guarantees: neither is in force at once; the first is promoted by itself, the second stopped by itself and never in force; both are
/// in the flag's history.
#[test]
fn a_jump_is_rolled_out_by_itself_and_stops_itself() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("data"), "127.0.0.1:0");
    let (address, token) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
    let tell = |words: &[&str]| -> String {
        let url = format!("http://{address}");
        let output =
            Command::new(BIN).args(words).env("SEAWORTHY_URL", url).env("SEAWORTHY_TOKEN", &token).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let write = |name: &str, text: &str| -> String {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let flag = |colour: &str| {
        let definition = json!({"variants": {"blue": "b", "green": "g", "red": "r"}, "on": true, "fallthrough": colour,
            "owner": "checkout", "rules": [{"when": {"attr": "plan", "op": "in", "values": ["never"]}, "serve": "blue"}]});
        write(&format!("{colour}.json"), &definition.to_string())
    };
    tell(&["flag", "put", &flag("blue"), "--key", "button"]);
    let profile = "default: true\nowner: web\nkpi: {success: name = \"paid\", failure: name = \"not paid\"}\n\
        stage_min: 1s\nwindow: 1s\nsettle: 500ms\nmin_subjects: 50\nmargin: 0.2\n\
        warm_up: {min_exposures: 40, min: 1s, max: 60s}\nstages: [{share: 0.1, min: 1s}, {share: 0.5, min: 2s}]\n";
    tell(&["profile", "put", "checkouts", &write("profile.yaml", profile)]);
    assert!(tell(&["profile", "list"]).contains("for flags that name none"));

    // Every user asks, reports what he got, and checks out or fails to.
    let visit = |only: Option<usize>| -> Vec<String> {
        let (mut records, mut got) = (Vec::new(), Vec::new());
        for n in (0..USERS).filter(|n| only.is_none_or(|part| n % 10 == part)) {
            let user = format!("user-{n}");
            let body = json!({"context": {"targetingKey": user, "plan": "pro"}});
            let (status, answer) = api(&address, &token, "POST", "/ofrep/v1/evaluate/flags/button", &body);
            assert_eq!(status, 200, "{answer}");
            let variant = answer["variant"].as_str().unwrap().to_owned();
            let seen = [
                ("feature_flag.key", "button"),
                ("feature_flag.result.variant", &variant),
                ("feature_flag.context.id", &user),
            ];
            records.push(record("feature_flag.evaluation", &seen));
            // One in thirty fails anyway.
            let paid = variant != "red" && (n / 10) % 30 != 7;
            records.push(record(if paid { "paid" } else { "not paid" }, &[("user.id", &user)]));
            got.push(variant);
        }
        send(&address, &token, records);
        got
    };
    visit(None);
    let show = |id: &str| api(&address, &token, "GET", &format!("/api/v1/experiments/{id}"), &Value::Null).1;
    let put = |colour: &str| -> Value {
        let answer = tell(&["flag", "put", &flag(colour), "--key", "button", "--reason", colour, "--json"]);
        serde_json::from_str(&answer).unwrap()
    };
    let goes_on = |id: &str, most: f64| -> Value {
        let mut part = 0;
        until(90, "an end", || {
            let got = visit(Some(part % 10));
            part += 1;
            let live = show(id);
            let changed = got.iter().filter(|variant| *variant != "blue" && *variant != "green").count();
            assert!(changed as f64 <= most * got.len() as f64, "{changed} of {} at once: {live}", got.len());
            live["ended_at"].is_string().then_some(live)
        })
    };

    let dry = tell(&[
        "apply",
        "-f",
        &write(
            "doc.json",
            &json!({"flags": {"button": serde_json::from_str::<Value>(
        &std::fs::read_to_string(flag("green")).unwrap()).unwrap()}})
            .to_string(),
        ),
        "--dry-run",
    ]);
    assert!(dry.contains("it would become a rollout, watched and in stages of 10 %, 50 %"), "{dry}");
    let changed = put("green");
    assert_eq!((&changed["applied"], &changed["rollout"]["owner"]), (&false.into(), &"checkout".into()), "{changed}");
    let id = changed["rollout"]["id"].as_str().unwrap();
    assert_eq!(visit(Some(0)).iter().filter(|variant| *variant != "blue").count(), 0, "in force before it was watched");
    let ended = goes_on(id, 0.0);
    assert_eq!(ended["state"], "promoted", "{ended}");
    assert!(visit(Some(0)).iter().all(|variant| variant == "green"));

    let changed = put("red");
    let id = changed["rollout"]["id"].as_str().unwrap();
    let ended = goes_on(id, 0.75);
    assert_eq!((&ended["state"], &ended["needs_ack"]), (&"stopped".into(), &true.into()), "{ended}");
    assert!(visit(Some(0)).iter().all(|variant| variant == "green"), "stopped, and yet in force");
    let history = tell(&["flag", "history", "button"]);
    for word in ["flag.put", "experiment.start", "experiment.phase"] {
        assert!(history.contains(word), "{word}: {history}");
    }
    // The same again waits for somebody who looked at it.
    let again = Command::new(BIN)
        .args(["flag", "put", &flag("red"), "--key", "button"])
        .env("SEAWORTHY_URL", format!("http://{address}"))
        .env("SEAWORTHY_TOKEN", &token)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("needs-ack"), "{again:?}");
}

/// An upstream that answers with the preview that the proxy passed on.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let seen = head.iter().find_map(|line| line.strip_prefix("sw-preview: ")).unwrap_or_default();
            let mut stream = stream;
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{seen}", seen.len());
        }
    });
    address
}

/// Scenario: a flag is off; a link puts one person on its new variant. He follows it through the proxy, and his evaluation is reported.
/// Guarantees: he gets it and nobody else does, not even with his link; his trace is found by the preview; killing the flag ends it.
#[test]
fn a_preview_is_one_persons() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("data"), "127.0.0.1:0");
    let (address, token) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
    let proxy = edge(dir.path(), &address, &echo(), &crate::control_plane::token(&address, &token, "proxy"));
    let tell = |words: &[&str]| -> (bool, String, String) {
        let url = format!("http://{address}");
        let output =
            Command::new(BIN).args(words).env("SEAWORTHY_URL", url).env("SEAWORTHY_TOKEN", &token).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    };
    let definition = json!({"variants": {"old": 1, "new": 2}, "on": false, "fallthrough": "old"});
    let (status, answer) = api(&address, &token, "PUT", "/api/v1/flags/player", &definition);
    assert_eq!(status, 200, "{answer}");
    assert!(tell(&["preview", "create", "player", "blue"]).2.contains("unknown-variant"));
    let (fine, link, said) =
        tell(&["preview", "create", "player", "new", "--url", "https://shop.example/play?a=b#top"]);
    assert!(fine && said.contains("for one person until"), "{said}");
    let text = link.strip_prefix("https://shop.example/play?a=b&sw-preview=").unwrap().strip_suffix("#top\n").unwrap();

    // From the link into a cookie, and from either into a header for the application.
    let get = |path: &str, headers: &[(&str, &str)]| {
        let (status, body) = call(&proxy.address(), "GET", path, headers, b"").unwrap();
        assert_eq!(status, 200);
        String::from_utf8(body).unwrap()
    };
    until(10, "the proxy has the key", || (get(&format!("/play?sw-preview={text}"), &[]) == text).then_some(()));
    assert_eq!(get("/play", &[("cookie", &format!("a=b; sw-preview={text}"))]), text);
    assert_eq!(get("/play", &[]), "");

    let evaluate = |user: &str, preview: &str| {
        let body = json!({"context": {"targetingKey": user, "sw-preview": preview}});
        api(&address, &token, "POST", "/ofrep/v1/evaluate/flags/player", &body).1
    };
    let his = evaluate("bea", text);
    assert_eq!((&his["value"], &his["reason"]), (&2.into(), &"TARGETING_MATCH".into()), "{his}");
    let id = his["metadata"]["previewId"].as_str().unwrap().to_owned();
    for (user, preview) in [("zed", text), ("bea", ""), ("bea", "swp_00")] {
        let other = evaluate(user, preview);
        assert!(other["value"].is_null() && other["reason"] == "DISABLED", "{user}: {other}");
    }
    // His report leads to his trace, and no page shows the link's text.
    let seen =
        [("feature_flag.key", "player"), ("feature_flag.result.variant", "new"), ("feature_flag.context.id", "bea")];
    let mut reported = record("feature_flag.evaluation", &seen);
    reported["traceId"] = json!("0af7651916cd43dd8448eb211c80319c");
    send(&address, &token, vec![reported]);
    let (fine, found, _) =
        tell(&["query", "--where", &format!("preview.id = \"{id}\" and name = \"feature_flag.evaluation\""), "--json"]);
    assert!(fine && found.contains("0af7651916cd43dd8448eb211c80319c"), "{found}");
    let everything =
        tell(&["query", "--json"]).1 + &tell(&["audit", "list", "--json"]).1 + &tell(&["preview", "list", "--json"]).1;
    assert!(everything.contains(&id) && !everything.contains(text), "{everything}");
    until(5, "the first use is on record", || tell(&["audit", "list"]).1.contains("preview.bind").then_some(()));

    // It is his after a restart, too, until the flag is killed.
    server.kill();
    let server = serve(&dir.path().join("data"), &address);
    assert_eq!(evaluate("bea", text)["value"], 2);
    assert!(evaluate("zed", text)["value"].is_null());
    assert!(tell(&["flag", "kill", "player"]).0);
    assert!(evaluate("bea", text)["value"].is_null());
    assert!(!tell(&["preview", "revoke", &id]).0, "it is gone");
    drop(server);
}

/// Scenario: an owner delegates a price within bounds; the holder of that token sets it, steps over the bounds, and clears it.
#[test]
fn a_delegated_control_point() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("data"), "127.0.0.1:0");
    let (address, admin) = (server.address(), server.ready["admin_token"].as_str().unwrap().to_owned());
    let tell = |token: &str, words: &[&str]| -> (bool, String) {
        let url = format!("http://{address}");
        let output =
            Command::new(BIN).args(words).env("SEAWORTHY_URL", url).env("SEAWORTHY_TOKEN", token).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let definition = json!({"variants": {"low": 10, "high": 20}, "on": true, "fallthrough": "low"});
    api(&address, &admin, "PUT", "/api/v1/flags/price", &definition);
    let (fine, made) = tell(
        &admin,
        &[
            "delegation",
            "create",
            "mia from sales",
            "--flag",
            "price",
            "--variants",
            "high",
            "--between",
            "5..15",
            "--largest-share",
            "50%",
            "--for",
            "30d",
            "--json",
        ],
    );
    assert!(fine, "{made}");
    let made: Value = serde_json::from_str(&made).unwrap();
    let (secret, id) = (made["secret"].as_str().unwrap(), made["id"].as_str().unwrap());
    assert!(tell(secret, &["delegation", "set", "high", "--share", "20%", "--reason", "fair"]).1.contains("in force"));
    assert!(tell(secret, &["delegation", "show"]).1.contains("\"serve\": \"high\""));
    for words in [["set", "low"], ["set", "high"], ["set", "--value=16"]] {
        let share = if words[1] == "high" { "--share=60%" } else { "--share=10%" };
        let (fine, said) = tell(secret, &["delegation", words[0], words[1], share]);
        assert!(!fine && said.contains("outside-delegation"), "{words:?}: {said}");
    }
    assert!(tell(secret, &["delegation", "set", "--value", "12"]).0);
    // The token is good for nothing else, and what it did is in the flag's history under its name.
    for words in [&["flag", "list"][..], &["flag", "kill", "price"], &["delegation", "list"]] {
        assert!(tell(secret, words).1.contains("forbidden"), "{words:?}");
    }
    assert!(tell(&admin, &["delegation", "list"]).1.contains("mia from sales"));
    let history = tell(&admin, &["flag", "history", "price"]).1;
    assert!(history.contains("delegation:mia from sales") && history.contains("fair"), "{history}");
    assert!(tell(secret, &["delegation", "clear"]).1.contains("taken back"));
    let exported: Value = serde_json::from_str(&tell(&admin, &["flag", "show", "price", "--json"]).1).unwrap();
    assert_eq!(exported["definition"]["variants"], definition["variants"]);
    assert!(tell(&admin, &["delegation", "revoke", id]).0);
    assert!(tell(secret, &["delegation", "show"]).1.contains("unauthenticated"));
}
