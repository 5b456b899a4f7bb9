use serde_json::json;
use vocab::Timestamp;

use crate::*;

fn snapshot() -> Snapshot {
    let document = json!({"flags": {
        "banner": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"},
        "gone": {"state": "DISABLED", "variants": {"on": true}}}});
    Snapshot { flags: FlagSet::parse(&document.to_string()).unwrap(), ..Snapshot::default() }
}

#[test]
fn single_answers_are_those_of_ofrep() {
    let now = Timestamp::default();
    let ask = |key: &str, body: &str| snapshot().single(key, body.as_bytes(), now);
    let reply = ask("banner", r#"{"context":{"targetingKey":"u1"}}"#);
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.body.unwrap(),
        json!({"key": "banner", "value": false, "variant": "off", "reason": "STATIC", "metadata": {"contextId": "u1", "version": "0"}})
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
    let mut snapshot = snapshot();
    let first = snapshot.bulk(body, None, now);
    assert_eq!(first.body.as_ref().unwrap()["flags"].as_array().unwrap().len(), 2);
    let etag = first.etag.unwrap();
    assert_eq!(snapshot.bulk(body, Some(&etag), now).status, 304);
    assert_eq!(snapshot.bulk(br#"{"context":{"targetingKey":"u2"}}"#, Some(&etag), now).status, 200);
    snapshot.version += 1;
    assert_eq!(snapshot.bulk(body, Some(&etag), now).status, 200);
}
