use serde_json::{Value, json};
use vocab::Timestamp;

use crate::*;

fn snapshot() -> Snapshot {
    let document = json!({"flags": {
        "banner": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"},
        "gone": {"state": "DISABLED", "variants": {"on": true}}}});
    Snapshot::new(FlagSet::parse(&document.to_string()).unwrap(), true)
}

#[test]
fn single_answers_are_those_of_ofrep() {
    let now = Timestamp::default();
    let ask = |key: &str, body: &str| snapshot().single(key, body.as_bytes(), now);
    let reply = ask("banner", r#"{"context":{"targetingKey":"u1"}}"#);
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.body.unwrap(),
        json!({"key": "banner", "value": false, "variant": "off", "reason": "STATIC", "metadata": {"contextId": "u1", "flagSetId": "seaworthy", "version": snapshot().digest()[..12]}})
    );
    let disabled = ask("gone", "{}").body.unwrap();
    assert_eq!((disabled.get("value"), &disabled["reason"]), (None, &json!("DISABLED")));
    assert_eq!(
        (ask("nobody", "{}").status, ask("nobody", "{}").body.unwrap()["errorCode"].clone()),
        (404, json!("FLAG_NOT_FOUND"))
    );
    assert_eq!(ask("banner", "{").status, 400);
    assert_eq!(ask("banner", r#"{"context":{"targetingKey":1}}"#).body.unwrap()["errorCode"], "INVALID_CONTEXT");
}

/// Guarantees: every evaluation says what a telemetry hook needs, in text; `bucketing` is the flag's, experiment or not.
#[test]
fn metadata_names_set_version_and_bucketing() {
    let split = json!({"fractional": [["on", 50], ["off", 50]]});
    let document = json!({"flags": {
        "theirs": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": split,
            "metadata": {"bucketing": "flagd-v3", "flagSetId": "shop", "nested": {"a": 1}}},
        "unpinned": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": split},
        "ours": {"variants": {"on": true, "off": false}, "on": true,
            "fallthrough": {"split": {"weights": [["on", 1], ["off", 1]], "bucketing": "unleash"}}},
        "plain": {"variants": {"on": true}, "on": true, "fallthrough": "on"}}});
    let everybody = |n| flags::Overlay {
        experiment: vocab::Id::new(vocab::Kind::Experiment, n),
        slice: flags::Slice::new("l", "a", 0, vocab::Share::ALL, vocab::Share::ALL),
        serves: flags::Serves::Variant("on".into()),
        otherwise: None,
    };
    let overlays: std::collections::BTreeMap<_, _> =
        [("ours".to_owned(), everybody(1)), ("plain".to_owned(), everybody(2))].into();
    let snapshot = |under: bool| {
        let flags = FlagSet::parse(&document.to_string()).unwrap();
        Snapshot::new(if under { flags.with_overlays(overlays.clone()) } else { flags }, true)
    };
    let check = |under: bool, key: &str, expected: Value| {
        let snapshot = snapshot(under);
        let mut metadata = snapshot.decide(key, &Context::of("u"), Timestamp::default()).unwrap().metadata;
        assert!(metadata.values().all(Value::is_string), "{metadata:?}");
        assert_eq!((metadata.remove("contextId"), metadata.remove("version").is_some()), (Some(json!("u")), true));
        assert_eq!(Value::Object(metadata), expected, "{key}");
    };
    check(false, "theirs", json!({"bucketing": "flagd-v3", "flagSetId": "shop"}));
    check(false, "unpinned", json!({"bucketing": "flagd-v2", "flagSetId": "seaworthy"}));
    check(false, "ours", json!({"bucketing": "unleash", "flagSetId": "seaworthy"}));
    check(false, "plain", json!({"flagSetId": "seaworthy"}));
    let experiment = |n: u64, bucketing: &str| {
        let id = vocab::Id::new(vocab::Kind::Experiment, n).to_string();
        json!({"bucketing": bucketing, "experimentBucketing": "native-1", "experimentId": id, "experimentArm": "treatment",
            "flagSetId": "seaworthy"})
    };
    check(true, "ours", experiment(1, "unleash"));
    check(true, "plain", experiment(2, "native-1"));
}

#[test]
fn bulk_knows_what_has_not_changed() {
    let now = Timestamp::default();
    let body = br#"{"context":{"targetingKey":"u1"}}"#;
    let snapshot = snapshot();
    let first = snapshot.bulk(body, None, now);
    assert_eq!(first.body.as_ref().unwrap()["flags"].as_array().unwrap().len(), 2);
    let etag = first.etag.unwrap();
    assert_eq!(snapshot.bulk(body, Some(&etag), now).status, 304);
    assert_eq!(snapshot.bulk(br#"{"context":{"targetingKey":"u2"}}"#, Some(&etag), now).status, 200);
    let later = Timestamp::from_nanos(3_600_000_000_000);
    assert_eq!(snapshot.bulk(body, Some(&etag), later).status, 304, "no rule reads the time");
    let other = Snapshot::new(FlagSet::parse(r#"{"flags": {}}"#).unwrap(), true);
    assert_eq!(other.bulk(body, Some(&etag), now).status, 200);
}

#[test]
fn a_rule_that_reads_the_time_ends_what_clients_hold() {
    let at = |secs: i64| Timestamp::from_nanos(secs * 1_000_000_000 + 1);
    let ask = |rule: Value| {
        let document = json!({"flags": {"sale": {"state": "ENABLED", "variants": {"on": true, "off": false},
            "defaultVariant": "off", "targeting": rule}}});
        let snapshot = Snapshot::new(FlagSet::parse(&document.to_string()).unwrap(), false);
        move |now: Timestamp| {
            let reply = snapshot.bulk(b"{}", None, now);
            (reply.etag.unwrap(), reply.body.unwrap()["flags"][0]["value"].clone())
        }
    };
    let begins = ask(json!({"if": [{">=": [{"var": "$flagd.timestamp"}, 1_000]}, "on", "off"]}));
    assert_eq!(begins(at(10)), begins(at(999)));
    assert_eq!((&begins(at(999)).1, &begins(at(1_000)).1), (&json!(false), &json!(true)));
    assert_ne!(begins(at(999)).0, begins(at(1_000)).0);
    assert_eq!(begins(at(1_001)), begins(at(9_000)));
    // The boundary belongs to the other side.
    let ends = ask(json!({"if": [{">": [{"var": "$flagd.timestamp"}, 1_000]}, "on", "off"]}));
    assert_eq!((&ends(at(1_000)).1, &ends(at(1_001)).1), (&json!(false), &json!(true)));
    assert_ne!(ends(at(1_000)).0, ends(at(1_001)).0);
    let ramp = ask(json!({"fractional": [["on", {"-": [{"var": "$flagd.timestamp"}, 1_000]}], ["off", 100]]}));
    assert_ne!(ramp(at(1_000)).0, ramp(at(1_001)).0);
}
