use serde_json::json;
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
        json!({"key": "banner", "value": false, "variant": "off", "reason": "STATIC", "metadata": {"contextId": "u1", "version": snapshot().digest()[..12]}})
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
    let ask = |rule: serde_json::Value| {
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
