//! Flags as their users handle them: documents in, explanations, kill and revive, the guard, imports; and a kill -9 amid a large
//! `apply`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{BIN, Process, alone, api, call, serve, until};

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

fn document(dir: &Path, name: &str, value: &Value) -> String {
    let path = dir.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn flags() -> Value {
    json!({
        "flags": {
            "accounts": {"variants": {"on": true, "off": false}, "on": true, "fallthrough": "on"},
            "player": {"variants": {"on": true, "off": false}, "on": true, "off_variant": "off", "fallthrough": "off",
                "prerequisites": [{"flag": "accounts", "variants": ["on"]}],
                "rules": [{"when": {"segment": "staff"}, "serve": "on"},
                    {"when": {"attr": "device", "op": "in", "values": ["tv"]},
                     "serve": {"split": {"weights": [["on", 10], ["off", 90]]}}}]},
        },
        "segments": {"staff": {"include": ["bea"]}},
    })
}

/// Scenario: a document is applied, looked at, changed, killed, put again and revived, by the command line.
#[test]
fn a_flag_from_document_to_revival() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("data"), "127.0.0.1:0");
    let token = server.ready["admin_token"].as_str().unwrap().to_owned();
    let tell = |words: &[&str]| told(&server, &token, words);
    let file = document(dir.path(), "flags.json", &flags());
    assert!(tell(&["apply", "-f", &file, "--dry-run"]).ends_with("a dry run: nothing was changed\n"));
    assert!(tell(&["apply", "-f", &file, "--reason", "first"]).contains("in force, audit index 3"));
    assert!(tell(&["apply", "-f", &file]).contains("3 are the same already"));
    assert!(tell(&["flag", "evaluate", "player", "bea"]).starts_with("true (variant on, TARGETING_MATCH)"));
    tell(&["flag", "evaluate", "player", "zed"]);
    let why = tell(&["flag", "explain", "player", "zed", "--attr", "device=tv"]);
    assert!(why.contains("/rules/1/serve/split") && why.contains("native-1"), "{why}");
    let first: Value = serde_json::from_str(&tell(&["flag", "history", "player", "--json"])).unwrap();
    let moment = first["entries"][0]["ts"].as_str().unwrap().to_owned();
    // Two users are known, and a change for everybody is refused until somebody breaks the glass.
    let mut wide = flags();
    wide["flags"]["player"]["fallthrough"] = json!("on");
    let wide = document(dir.path(), "wide.json", &wide);
    let refused = run(&server, &token, &["apply", "-f", &wide]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("unwatched-change"), "{said}");
    tell(&["apply", "-f", &wide, "--break-glass", "--reason", "the old player is broken"]);
    assert!(tell(&["flag", "reviews"]).contains("the old player is broken"));
    // Killed, it stays off whatever a pipeline puts.
    tell(&["flag", "kill", "player", "--reason", "black screens"]);
    assert!(tell(&["flag", "evaluate", "player", "bea"]).contains("DISABLED"));
    let put = run(&server, &token, &["flag", "put", &file]);
    assert!(String::from_utf8_lossy(&put.stderr).contains("killed"), "{put:?}");
    tell(&["flag", "revive", "player", "--break-glass", "--reason", "mended"]);
    assert!(tell(&["flag", "evaluate", "player", "bea"]).starts_with("true"));
    let history = tell(&["flag", "history", "player"]);
    for word in ["flag.put", "flag.kill", "flag.revive", "black screens", "glass broken"] {
        assert!(history.contains(word), "{word}: {history}");
    }
    // What it was.
    let then: Value = serde_json::from_str(&tell(&["flag", "show", "player", "--at", &moment, "--json"])).unwrap();
    assert_eq!(then["definition"]["fallthrough"], "off");
    // Asked for and not there; needed and not to be deleted.
    run(&server, &token, &["flag", "evaluate", "plaeyr", "bea"]);
    assert!(tell(&["flag", "unknown"]).contains("plaeyr"));
    let needed = run(&server, &token, &["flag", "delete", "accounts", "--break-glass", "--reason", "tidy"]);
    assert!(String::from_utf8_lossy(&needed.stderr).contains("tangled-flags"), "{needed:?}");
    // Another system's flags come in and go out again as they came.
    let theirs = json!({"flags": {"theirs": {"key": "theirs", "on": true, "version": 1, "salt": "s", "variations": [true, false],
        "offVariation": 1, "fallthrough": {"rollout": {"variations": [{"variation": 0, "weight": 60_000},
            {"variation": 1, "weight": 40_000}]}}}}, "segments": {}});
    let theirs = document(dir.path(), "theirs.json", &theirs);
    tell(&["import", "launchdarkly", &theirs]);
    let exported: Value = serde_json::from_str(&tell(&["flag", "export"])).unwrap();
    let again = document(dir.path(), "again.json", &exported);
    assert!(tell(&["apply", "-f", &again]).contains("are the same already\nnothing to do"));
}

/// Scenario: a flag is tried in staging and copied to production, each a control plane of its own.
/// Guarantees: what it needs comes along where it is missing; a data directory is one environment's for good; clients that ask for
/// another flag set get nothing.
#[test]
fn from_staging_to_production() {
    let dir = tempfile::tempdir().unwrap();
    let start = |data: &str, environment: &str, kind: &str| {
        let data = dir.path().join(data);
        let words =
            ["serve", "--json", "--listen", "127.0.0.1:0", "--environment", environment, "--kind", kind, "--data"];
        Process::start(&[&words[..], &[data.to_str().unwrap()]].concat(), "")
    };
    let (staging, production) = (start("a", "shop/staging", "dev"), start("b", "shop/production", "production"));
    let token = |server: &Process| server.ready["admin_token"].as_str().unwrap().to_owned();
    let (in_staging, in_production) = (token(&staging), token(&production));
    let file = document(dir.path(), "flags.json", &flags());
    told(&staging, &in_staging, &["apply", "-f", &file]);
    let from = format!("http://{}", staging.address());
    let copy = |words: &[&str]| {
        let output = Command::new(BIN)
            .args([&["copy", "--from", &from][..], words].concat())
            .env("SEAWORTHY_URL", format!("http://{}", production.address()))
            .env("SEAWORTHY_TOKEN", &in_production)
            .env("SEAWORTHY_FROM_TOKEN", &in_staging)
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(copy(&["player", "--dry-run"]).contains("a dry run: nothing was changed"));
    let said = copy(&["player"]);
    assert!(said.contains("accounts") && said.contains("staff") && said.contains("in force"), "{said}");
    let said = copy(&["player"]);
    assert!(
        said.contains("left as it is here: flag accounts, segment staff") && said.contains("nothing to do"),
        "{said}"
    );
    assert!(copy(&["plaeyr"]).contains("has no flag"));
    let history = told(&production, &in_production, &["flag", "history", "player"]);
    assert!(history.contains(&format!("copied from {from}")), "{history}");

    // Its flag set has its name, and a dev environment makes changes at once.
    let evaluate = |server: &Process, token: &str, selector: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("flagd-selector", selector)];
        let body = json!({"context": {"targetingKey": "bea"}}).to_string();
        let path = "/ofrep/v1/evaluate/flags/player";
        let (status, answer) = call(&server.address(), "POST", path, &headers, body.as_bytes()).unwrap();
        (status, serde_json::from_slice::<Value>(&answer).unwrap())
    };
    let (status, answer) = evaluate(&production, &in_production, "flagSetId=shop/production");
    assert_eq!((status, &answer["metadata"]["flagSetId"]), (200, &"shop/production".into()), "{answer}");
    assert_eq!(evaluate(&production, &in_production, "flagSetId=shop/staging").0, 404);
    assert_eq!(evaluate(&staging, &in_staging, "flagSetId=shop/staging").0, 200);
    let mut wide = flags();
    wide["flags"]["player"]["rules"] = json!([]);
    let wide = document(dir.path(), "wide.json", &wide);
    assert!(told(&staging, &in_staging, &["apply", "-f", &wide]).contains("in force"));
    assert!(!run(&production, &in_production, &["apply", "-f", &wide]).status.success());

    // Nobody starts production's data as staging by mistake.
    production.kill();
    let output = Command::new(BIN)
        .args(["serve", "--listen", "127.0.0.1:0", "--environment", "shop/staging", "--data"])
        .arg(dir.path().join("b"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("this is shop/production, not shop/staging"), "{said}");
}

/// Scenario: the control plane is killed amid large documents that change every flag at once.
/// Guarantees: after a restart all flags are of one document, and of the newest that was acknowledged or a later one.
#[test]
fn kill_9_amid_an_apply_leaves_all_or_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = serve(&data, "127.0.0.1:0");
    let token = server.ready["admin_token"].as_str().unwrap().to_owned();
    const FLAGS: usize = 300;
    let body = |version: u64| {
        let flags: serde_json::Map<String, Value> = (0..FLAGS)
            .map(|n| {
                let definition = json!({"state": "ENABLED", "variants": {"v": version}, "defaultVariant": "v"});
                (format!("flag-{n}"), definition)
            })
            .collect();
        json!({"flags": flags})
    };
    let mut acknowledged = 0;
    for round in 0..4_u64 {
        let (address, secret) = (server.address(), token.clone());
        let first = acknowledged + 1;
        let writer = std::thread::spawn(move || {
            let mut done = 0;
            let bearer = format!("Bearer {secret}");
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            for version in first.. {
                let body = body(version).to_string();
                match call(&address, "POST", "/api/v1/apply", &headers, body.as_bytes()) {
                    Ok((200, _)) => done = version,
                    Ok((status, answer)) => panic!("{status} {}", String::from_utf8_lossy(&answer)),
                    Err(_) => return done,
                }
            }
            done
        });
        std::thread::sleep(std::time::Duration::from_millis(150 + 90 * round));
        server.kill();
        acknowledged = writer.join().unwrap().max(acknowledged);
        server = serve(&data, "127.0.0.1:0");
        let answer = until(10, "flags after the restart", || {
            let (status, answer) = api(&server.address(), &token, "GET", "/api/v1/export", &Value::Null);
            (status == 200).then_some(answer)
        });
        let versions: std::collections::BTreeSet<u64> = answer["flags"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, definition)| definition["variants"]["v"].as_u64())
            .collect();
        let count = answer["flags"].as_object().map_or(0, serde_json::Map::len);
        assert!(versions.len() <= 1 && (count == 0 || count == FLAGS), "{count} flags of versions {versions:?}");
        let version = versions.first().copied().unwrap_or(0);
        assert!(version >= acknowledged, "acknowledged {acknowledged}, found {version}");
        acknowledged = version;
    }
    assert!(acknowledged > 3, "too slow to say anything: {acknowledged} documents");
}
