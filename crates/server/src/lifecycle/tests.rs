use control::{Command, FlagChange};

use super::*;
use crate::boot;
use crate::tests::plane;

fn put(app: &App, key: &str, definition: Value) {
    let changes = vec![FlagChange::Put { key: key.into(), definition }];
    app.commit(Command::Flags { changes, break_glass: false }, "test", "").unwrap();
}

fn split() -> Value {
    json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "metadata": {"bucketing": "flagd-v3"},
        "targeting": {"fractional": [["on", 30], ["off", 70]]}})
}

fn row(key: &str, subject: &str, variant: &str) -> Row {
    let mut row = Row { time: now(), ..Row::default() };
    for (name, value) in [
        (names::NAME, "feature_flag.evaluation"),
        (names::SERVICE, "checkout"),
        ("service.version", "1.4.2"),
        (names::FLAG, key),
        (SUBJECT, subject),
        (VARIANT[0], variant),
    ] {
        row.set(name, value);
    }
    row
}

fn state_of(app: &App, key: &str) -> Value {
    let state = app.state.load_full();
    View::new(app, &state).of(key, &state.flags()[key])
}

/// Scenario: a flag is made, reported, and the server restarted.
/// Guarantees: it is never seen, then live; what is known of its use outlives the restart; no subject is on the disk.
#[test]
fn use_outlives_a_restart_and_names_nobody() {
    let (dir, app, _, jobs) = plane();
    put(&app, "search-v2", split());
    put(&app, "idle", split());
    assert_eq!(state_of(&app, "search-v2")["state"], "never-seen");
    app.flags.load().resolve("search-v2", &flags::Context::of("ann-clear"), now()).unwrap();
    let reports: Vec<Report> = (0..30)
        .filter_map(|n| Report::of(&row("search-v2", &format!("ann-clear-{n}"), "on")))
        .chain(Report::of(&row("mistyped", "ann-clear", "made-up")))
        .collect();
    app.lifecycle.take(&app, &reports);
    let check = |app: &App| {
        let life = state_of(app, "search-v2");
        assert_eq!(
            (&life["state"], &life["evaluations"], &life["resolved"]),
            (&json!("live"), &json!(30), &json!(1)),
            "{life}"
        );
        assert_eq!((&life["services"][0]["service"], &life["variants"]), (&json!("checkout"), &json!({"on": 30})));
        assert_eq!(state_of(app, "idle")["state"], "never-seen");
        let unknown = unknown_flags(app, &app.state.load());
        assert_eq!(
            (unknown.len(), &unknown[0]["key"], &unknown[0]["services"][0]["version"]),
            (1, &json!("mistyped"), &json!("1.4.2"))
        );
        assert!(app.recent.asked_lately("search-v2", now()) && !app.recent.asked_lately("idle", now()));
    };
    check(&app);
    app.lifecycle.save(&app);
    let text = String::from_utf8(app.files.read(PATH).unwrap()).unwrap();
    assert!(text.contains("search-v2") && !text.contains("ann-clear") && !text.contains("made-up"), "{text}");
    drop((app, jobs));
    let (app, _jobs, findings) = boot::open(&crate::tests::options(dir.path())).unwrap();
    assert_eq!((findings, app.recent.known_share(now())), (Vec::new(), 0.0));
    check(&app);
}

#[test]
fn a_damaged_file_is_set_aside_and_named() {
    for bytes in ["{", r#"{"format": 9, "recent": {}, "usage": {}}"#] {
        let (dir, app, _, jobs) = plane();
        app.files.replace(PATH, bytes.as_bytes()).unwrap();
        drop((app, jobs));
        let (app, _jobs, findings) = boot::open(&crate::tests::options(dir.path())).unwrap();
        assert!(findings.len() == 1 && findings[0].contains("usage.json.damaged"), "{findings:?}");
        assert_eq!(app.files.read(DAMAGED).unwrap(), bytes.as_bytes());
        app.lifecycle.save(&app);
        assert!(serde_json::from_slice::<Saved>(&app.files.read(PATH).unwrap()).is_ok());
    }
}

#[test]
fn what_others_need_is_not_to_be_removed() {
    let (_dir, app, _, _jobs) = plane();
    put(
        &app,
        "accounts",
        json!({"variants": {"on": true}, "on": true, "fallthrough": "on", "expires": "2020-01-01T00:00:00Z"}),
    );
    put(
        &app,
        "player",
        json!({"variants": {"on": true}, "on": true, "fallthrough": "on", "kind": "kill-switch",
        "prerequisites": [{"flag": "accounts", "variants": ["on"]}]}),
    );
    app.commit(Command::FlagKill("player".into()), "test", "").unwrap();
    let life = state_of(&app, "accounts");
    assert_eq!((&life["state"], &life["needed_by"]), (&json!("expired"), &json!(["player"])), "{life}");
    assert!(life["why"].as_str().unwrap().contains("needed by player"), "{life}");
}

/// What the hooks for Python (0.3.1) and JavaScript (1.0.0) write of an evaluation that failed is one report each.
#[test]
fn a_failed_evaluation_is_reported_once() {
    let base = Row::default().with(names::FLAG, "nobody");
    let event = base.clone().with("error.type", "flag_not_found").with("feature_flag.result.reason", "error");
    let report = Report::of(&event).unwrap();
    assert!(report.failed && report.variant.is_none());
    let request = base.with("exception.type", "FlagNotFoundError");
    assert!(Report::of(&request).is_none(), "Python: the exception on the span of the request");
    assert!(Report::of(&event.with("exception.type", "FlagNotFoundError")).is_some(), "JavaScript: a span of its own");
}

/// Guarantees: the client that hashes by another generation is named; a report in clear text stays in memory.
#[test]
fn drift_is_seen_at_ingest() {
    let (_dir, app, _, _jobs) = plane();
    put(&app, "search-v2", split());
    let mut theirs = split();
    theirs["metadata"]["bucketing"] = json!("flagd-v2");
    let theirs = flags::FlagSet::parse(&json!({"flags": {"search-v2": theirs}}).to_string()).unwrap();
    let ruleset = app.flags.load().digest()[..12].to_owned();
    let reports: Vec<Report> = (0..400)
        .filter_map(|n| {
            let subject = format!("user-{n}");
            let variant = theirs.evaluate_by_key("search-v2", &subject, now())?.variant?;
            Report::of(&row("search-v2", &subject, variant).with(RULESET, ruleset.as_str()))
        })
        .collect();
    app.lifecycle.take(&app, &reports);
    let drift = state_of(&app, "search-v2")["drift"].clone();
    let sentence = drift[0]["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("service checkout 1.4.2 buckets \"search-v2\" with flagd-v2, pinned is flagd-v3: "),
        "{sentence}"
    );
    assert!(!format!("{:?}", app.lifecycle).contains("user-"));
}
