use rows::{Row, Value};
use vocab::Timestamp;

use crate::*;

pub(crate) const RECEIVED: Timestamp = Timestamp::from_micros(1_764_000_001_000_000);

const SPANS: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"web"}}]},
"scopeSpans":[{"scope":{"name":"flask"},"spans":[
{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"GET /","kind":2,
 "startTimeUnixNano":"1764000000000000000","endTimeUnixNano":"1764000000250000000","status":{"code":2},
 "attributes":[{"key":"http.status_code","value":{"intValue":"500"}},{"key":"ok","value":{"boolValue":false}},
  {"key":"list","value":{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":1}]}}}]},
{"traceId":"0af7","spanId":"b7ad6b7169203331","name":"broken","startTimeUnixNano":"1"}]}]}]}"#;

#[test]
fn a_span_becomes_a_row_and_a_broken_one_is_named() {
    let decoded = traces(SPANS.as_bytes(), Encoding::Json, RECEIVED).unwrap();
    assert_eq!((decoded.rows.len(), decoded.rejected), (1, 1));
    assert_eq!(decoded.reason, "span \"broken\": trace_id is not 16 bytes");
    let row = &decoded.rows[0];
    assert_eq!(row.trace, 0x0af7651916cd43dd8448eb211c80319c);
    assert_eq!(row.duration_nanos, Some(250_000_000));
    assert_eq!(row.get("http.status_code"), Some(&Value::Int(500)));
    assert_eq!(row.get("error"), Some(&Value::Bool(true)));
    assert_eq!(
        (row.text("service.name"), row.text("kind"), row.text("list")),
        (Some("web"), Some("server"), Some(r#"["a",1]"#))
    );
    assert!(traces(b"{", Encoding::Json, RECEIVED).unwrap_err().to_string().contains("line 1"));
    assert!(traces(&[0xff; 9], Encoding::Protobuf, RECEIVED).is_err());
}

/// Guarantees: a flag evaluation that a hook wrote as an event of a span becomes a row, with the service and the trace of the span.
#[test]
fn a_reported_evaluation_becomes_a_row() {
    let event = |name: &str, key: &str| {
        format!(
            r#"{{"timeUnixNano":"1764000000000000007","name":"{name}","attributes":[{{"key":"{key}","value":{{"stringValue":"player"}}}},
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
        "startTimeUnixNano":"1764000000000000005","endTimeUnixNano":"1764000000000000009","events":[{}]}}]}}]}}]}}"#,
        events.join(",")
    );
    let decoded = traces(body.as_bytes(), Encoding::Json, RECEIVED).unwrap();
    assert_eq!(decoded.rows.len(), 5);
    let signals: Vec<_> = decoded.rows.iter().map(|row| row.text("meta.signal_type").unwrap()).collect();
    assert_eq!(signals, ["trace", "log", "log", "span_event", "span_event"]);
    for (row, name) in decoded.rows[1..].iter().zip(["feature_flag.evaluation", "feature_flag"]) {
        assert_eq!((row.text("name"), row.text("feature_flag.key")), (Some(name), Some("player")));
        assert_eq!((row.text("service.name"), row.text("meta.signal_type")), (Some("web"), Some("log")));
        assert_eq!(
            (row.time.nanos(), row.trace, row.duration_nanos),
            (1_764_000_000_000_000_007, decoded.rows[0].trace, None)
        );
    }
}

#[test]
fn a_log_record_becomes_a_row() {
    let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1764000000000000005","eventName":"play.started",
        "body":{"stringValue":"hello"},"attributes":[{"key":"user.id","value":{"stringValue":"u1"}}]},{"traceId":"00"},{}]}]}]}"#;
    let decoded = logs(body.as_bytes(), Encoding::Json, RECEIVED).unwrap();
    assert_eq!((decoded.rows.len(), decoded.rejected), (2, 1));
    assert_eq!(
        (decoded.rows[1].time, decoded.rows[1].text("meta.time_problem")),
        (RECEIVED, Some("the time is missing"))
    );
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

/// A span with what hangs on it, as a stock SDK writes it.
fn span_with(more: &str) -> Decoded {
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"web"}}}}]}},
        "scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"GET /",
        "startTimeUnixNano":"1764000000000000005","endTimeUnixNano":"1764000000000000009"{more}}}]}}]}}]}}"#
    );
    traces(body.as_bytes(), Encoding::Json, RECEIVED).unwrap()
}

#[test]
fn events_and_links_become_rows_below_their_span() {
    let decoded = span_with(
        r#","traceState":"ot=th:c","attributes":[{"key":"own","value":{"intValue":"1"}}],
        "droppedEventsCount":2,"droppedLinksCount":3,"droppedAttributesCount":4,
        "events":[{"timeUnixNano":"1764000000000000006","name":"retry","droppedAttributesCount":1,
            "attributes":[{"key":"n","value":{"intValue":"2"}}]},{"name":"no time"}],
        "links":[{"traceId":"11111111111111111111111111111111","spanId":"2222222222222222",
            "attributes":[{"key":"why","value":{"stringValue":"batch"}}]}]"#,
    );
    let [span, retry, untimed, link] = &decoded.rows[..] else { panic!("{decoded:?}") };
    for (name, n) in [("meta.dropped_events", 2), ("meta.dropped_links", 3), ("meta.dropped_attributes", 4)] {
        assert_eq!(span.get(name), Some(&Value::Int(n)), "{name}");
    }
    for row in [retry, untimed, link] {
        assert_eq!((row.trace, row.span, row.parent, row.duration_nanos), (span.trace, 0, span.span, None));
        assert_eq!((row.text("service.name"), row.get("own")), (Some("web"), None));
        // A sampled span stands for others, and so does what hangs on it.
        assert_eq!(row.get("meta.sample_rate"), Some(&Value::Float(4.0)));
    }
    assert_eq!((retry.time.nanos(), untimed.time), (1_764_000_000_000_000_006, span.time));
    assert_eq!((retry.text("name"), retry.get("n")), (Some("retry"), Some(&Value::Int(2))));
    assert_eq!(retry.get("meta.dropped_attributes"), Some(&Value::Int(1)));
    assert_eq!(retry.text("meta.annotation_type"), Some("span_event"));
    assert_eq!((link.text("meta.annotation_type"), link.text("meta.signal_type")), (Some("link"), Some("link")));
    assert_eq!(link.text("link.trace_id"), Some("11111111111111111111111111111111"));
    assert_eq!((link.text("link.span_id"), link.text("why")), (Some("2222222222222222"), Some("batch")));
    assert_eq!(link.time, span.time);
}

#[test]
fn too_many_events_and_links_are_counted() {
    let events = vec![r#"{"timeUnixNano":"1764000000000000006","name":"e"}"#; 200].join(",");
    let links = vec![r#"{"traceId":"11111111111111111111111111111111"}"#; 130].join(",");
    let evaluation = r#"{"name":"feature_flag","attributes":[{"key":"feature_flag.key","value":{"stringValue":"f"}}]}"#;
    let decoded = span_with(&format!(r#","events":[{events},{evaluation}],"links":[{links}]"#));
    assert_eq!(decoded.rows.len(), 1 + 128 + 1 + 128);
    assert_eq!(decoded.rows[0].get("meta.dropped_events"), Some(&Value::Int(72)));
    assert_eq!(decoded.rows[0].get("meta.dropped_links"), Some(&Value::Int(2)));
    // Many events of other kinds do not cost an evaluation.
    assert_eq!(decoded.rows[129].text("feature_flag.key"), Some("f"));
}

#[test]
fn a_span_without_times_is_kept() {
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"},{"name":"b","startTimeUnixNano":"18446744073709551615"}]}]}]}"#;
    let decoded = traces(body.as_bytes(), Encoding::Json, RECEIVED).unwrap();
    assert_eq!((decoded.rows.len(), decoded.rejected), (2, 0));
    assert!(decoded.rows.iter().all(|row| row.time == RECEIVED && row.duration_nanos == Some(0)));
    assert_eq!(decoded.rows[1].text("meta.original_time"), Some("18446744073709551615"));
}

/// Guarantees: nobody from outside says what signal a row is: rows of our own proxies are not redacted as others are.
#[test]
fn nobody_else_says_what_a_row_is() {
    let forged = r#"[{"key":"meta.signal_type","value":{"stringValue":"request"}},{"key":"user.id","value":{"stringValue":"ann"}}]"#;
    let spans = span_with(&format!(
        r#","attributes":{forged},"events":[{{"name":"e","attributes":{forged}}}],"links":[{{"attributes":{forged}}}]"#
    ));
    let body = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":{forged}}},"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":
        {{"dataPoints":[{{"asInt":"1","attributes":{forged}}}]}}}}]}}]}}]}}"#
    );
    let metrics = metrics(body.as_bytes(), Encoding::Json, RECEIVED).unwrap();
    let mut rows = [spans.rows, metrics.rows].concat();
    assert_eq!(rows.len(), 4);
    rows.iter_mut().for_each(|row| Redactor::new([7; 32]).redact(row));
    let all = format!("{rows:?}");
    assert!(!all.contains("\"ann\"") && !all.contains("\"request\""), "{all}");
}

/// Guarantees: no secret passes in what hangs on a span, nor in a metric.
#[test]
fn secrets_do_not_pass_in_events_links_and_metrics() {
    let secret = r#"[{"key":"db.password","value":{"stringValue":"canary"}},{"key":"url.full","value":{"stringValue":"http://me:canary@host/?sig=canary"}}]"#;
    let spans =
        span_with(&format!(r#","events":[{{"name":"e","attributes":{secret}}}],"links":[{{"attributes":{secret}}}]"#));
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{{"asInt":"1","attributes":{secret}}}]}}}}]}}]}}]}}"#
    );
    let metrics = metrics(body.as_bytes(), Encoding::Json, RECEIVED).unwrap();
    let mut rows = [&spans.rows[1..], &metrics.rows].concat();
    assert!(rows.len() == 3 && rows.iter().all(|row| row.text("db.password") == Some("canary")));
    rows.iter_mut().for_each(|row| Redactor::new([7; 32]).redact(row));
    let all = format!("{rows:?}");
    assert!(!all.contains("canary"), "{all}");
}

/// Guarantees: text that is not UTF-8 is refused, and its field is named.
#[test]
fn text_that_is_not_utf8_is_named() {
    use prost::Message;
    let body = traces_request("n\u{e9}t").encode_to_vec();
    let place = body.windows(2).position(|pair| pair == [0xc3, 0xa9]).unwrap();
    let mut broken = body.clone();
    broken[place] = b'a';
    assert_eq!(traces(&body, Encoding::Protobuf, RECEIVED).unwrap().rows.len(), 1);
    let error = traces(&broken, Encoding::Protobuf, RECEIVED).unwrap_err().to_string();
    assert!(error.starts_with("the text of Span.name: "), "{error}");
    assert!(
        error.ends_with("ExportTraceServiceRequest.resource_spans is not UTF-8, as all text in protobuf must be"),
        "{error}"
    );
    let error =
        traces(b"{\"resourceSpans\":[{\"schemaUrl\":\"\xe9\"}]}", Encoding::Json, RECEIVED).unwrap_err().to_string();
    assert!(error.contains("invalid unicode") && error.contains("column"), "{error}");
}

fn traces_request(name: &str) -> opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest {
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let spans = vec![Span { name: name.to_owned(), ..Default::default() }];
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
    }
}

/// Guarantees: a small request whose resource is large does not become rows without end.
#[test]
fn a_request_makes_rows_of_bounded_size() {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Any};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    let mut request = traces_request("x");
    let resource = &mut request.resource_spans[0];
    let value = Some(AnyValue { value: Some(Any::StringValue("x".repeat(10_000))) });
    let attributes = (0..20).map(|n| KeyValue { key: format!("a{n}"), value: value.clone(), ..Default::default() });
    resource.resource = Some(Resource { attributes: attributes.collect(), ..Default::default() });
    let span = resource.scope_spans[0].spans[0].clone();
    resource.scope_spans[0].spans = vec![span; 2_000];
    let decoded = traces_rows(&request, RECEIVED);
    assert!((250..320).contains(&decoded.rows.len()), "{}", decoded.rows.len());
    assert_eq!(decoded.rejected as usize, 2_000 - decoded.rows.len());
    assert!(decoded.reason.contains("smaller batches"), "{}", decoded.reason);
    assert!(rows::codec::encode(&decoded.rows).len() < 64 << 20);
}

/// Fixed seeds of the fuzz target: no body panics.
#[test]
fn bodies_survive_anything() {
    arbtest::arbtest(|u| {
        let bytes: Vec<u8> = u.arbitrary()?;
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let _ = traces(&bytes, encoding, RECEIVED);
            let _ = logs(&bytes, encoding, RECEIVED);
            let _ = metrics(&bytes, encoding, RECEIVED);
        }
        Ok(())
    });
}
