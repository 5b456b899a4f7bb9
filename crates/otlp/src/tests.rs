use rows::{Row, Value};

use crate::*;

const SPANS: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"web"}}]},
"scopeSpans":[{"scope":{"name":"flask"},"spans":[
{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"GET /","kind":2,
 "startTimeUnixNano":"1764000000000000000","endTimeUnixNano":"1764000000250000000","status":{"code":2},
 "attributes":[{"key":"http.status_code","value":{"intValue":"500"}},{"key":"ok","value":{"boolValue":false}},
  {"key":"list","value":{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":1}]}}}]},
{"traceId":"0af7","spanId":"b7ad6b7169203331","name":"broken","startTimeUnixNano":"1"}]}]}]}"#;

#[test]
fn a_span_becomes_a_row_and_a_broken_one_is_named() {
    let decoded = traces(SPANS.as_bytes(), Encoding::Json).unwrap();
    assert_eq!((decoded.rows.len(), decoded.rejected), (1, 1));
    assert_eq!(decoded.reason, "span \"broken\": trace_id is not 16 bytes");
    let row = &decoded.rows[0];
    assert_eq!(row.trace, 0x0af7651916cd43dd8448eb211c80319c);
    assert_eq!(row.duration_nanos, Some(250_000_000));
    assert_eq!(row.get("http.status_code"), Some(&Value::Int(500)));
    assert_eq!(row.get("error"), Some(&Value::Bool(true)));
    assert_eq!(
        (row.text("service.name"), row.text("kind"), row.text("list")),
        (Some("web"), Some("server"), Some("a,1"))
    );
    assert!(traces(b"{", Encoding::Json).unwrap_err().to_string().contains("line 1"));
    assert!(traces(&[0xff; 9], Encoding::Protobuf).is_err());
}

/// Guarantees: a flag evaluation that a hook wrote as an event of a span becomes a row, with the service and the trace of the span.
#[test]
fn a_reported_evaluation_becomes_a_row() {
    let event = |name: &str, key: &str| {
        format!(
            r#"{{"timeUnixNano":"7","name":"{name}","attributes":[{{"key":"{key}","value":{{"stringValue":"player"}}}},
            {{"key":"feature_flag.context.id","value":{{"stringValue":"ann"}}}}]}}"#
        )
    };
    let events = [
        event("feature_flag.evaluation", "feature_flag.key"),
        event("feature_flag", "feature_flag.key"),
        event("retry", "n"),
        event("exception", "feature_flag.key"),
    ];
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"web"}}}}]}},
        "scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"GET /",
        "startTimeUnixNano":"5","endTimeUnixNano":"9","events":[{}]}}]}}]}}]}}"#,
        events.join(",")
    );
    let decoded = traces(body.as_bytes(), Encoding::Json).unwrap();
    assert_eq!(decoded.rows.len(), 3);
    for (row, name) in decoded.rows[1..].iter().zip(["feature_flag.evaluation", "feature_flag"]) {
        assert_eq!((row.text("name"), row.text("feature_flag.key")), (Some(name), Some("player")));
        assert_eq!((row.text("service.name"), row.text("meta.signal_type")), (Some("web"), Some("log")));
        assert_eq!((row.time.nanos(), row.trace, row.duration_nanos), (7, decoded.rows[0].trace, None));
    }
}

#[test]
fn a_log_record_becomes_a_row() {
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"5","eventName":"play.started",
        "body":{"stringValue":"hello"},"attributes":[{"key":"user.id","value":{"stringValue":"u1"}}]},{}]}]}]}"#;
    let decoded = logs(body.as_bytes(), Encoding::Json).unwrap();
    assert_eq!((decoded.rows.len(), decoded.rejected), (1, 1));
    assert_eq!((decoded.rows[0].text("name"), decoded.rows[0].text("body")), (Some("play.started"), Some("hello")));
}

/// Guarantees: no secret and no clear name of a subject passes.
#[test]
fn secrets_and_names_do_not_pass() {
    let redactor = Redactor::new([7; 32]);
    let mut row = Row::default()
        .with("http.request.header.Authorization", "Bearer canary")
        .with("db.password", "canary")
        .with("url.full", "https://me:canary@host/p?a=1&X-Amz-Signature=canary&sig=canary")
        .with("url.query", "a=1&sw-preview=canary&token=canary")
        .with("http.request.header.sw_preview", "canary")
        .with("http.request.body", format!("x swp_{0} and sw_{0}, not sw_short", "canary".repeat(8)))
        .with("session.id", "canary-session")
        .with("enduser.id", "canary-user")
        .with("plan", "pro");
    redactor.redact(&mut row);
    let all = format!("{row:?}");
    assert!(!all.contains("canary"), "{all}");
    assert_eq!(row.text("url.full"), Some("https://REDACTED@host/p?a=1&X-Amz-Signature=REDACTED&sig=REDACTED"));
    assert_eq!(row.text("user.id"), Some(pseudonym(&[7; 32], "canary-user").to_string().as_str()));
    assert_eq!(row.text("plan"), Some("pro"));
    assert_eq!(row.text("url.query"), Some("a=1&sw-preview=REDACTED&token=REDACTED"));
    assert_eq!(row.text("http.request.body"), Some("x [REDACTED] and [REDACTED], not sw_short"));
    let hidden = pseudonym(&[7; 32], "u").to_string();
    for header in [format!("a=b, sw-s={hidden}"), format!(r#"["a=b","sw-s={hidden},c=d"]"#)] {
        let mut row = Row::default().with("http.request.header.baggage", header);
        redactor.redact(&mut row);
        assert_eq!(row.text("user.id"), Some(hidden.as_str()));
    }
    let mut own = Row::default().with("meta.signal_type", "request").with("user.id", hidden.as_str());
    redactor.redact(&mut own);
    assert_eq!(own.text("user.id"), Some(hidden.as_str()));
}

/// Fixed seeds of the fuzz target: no body panics.
#[test]
fn bodies_survive_anything() {
    arbtest::arbtest(|u| {
        let bytes: Vec<u8> = u.arbitrary()?;
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let _ = traces(&bytes, encoding);
            let _ = logs(&bytes, encoding);
        }
        Ok(())
    });
}
