use rows::{Row, Value};
use serde_json::json;
use vocab::Timestamp;

use crate::lines::{LINE_BYTES_MAX, REFUSALS_MAX, Refusal, Shape, read};
use crate::{junit, moment};

const RECEIVED: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

fn rows_of(text: &str) -> Vec<Row> {
    let read = read(text.as_bytes(), 1, &Shape::default(), RECEIVED);
    assert_eq!(read.refusals, [], "{text}");
    read.rows
}

#[test]
fn a_line_becomes_a_row() {
    let rows = rows_of(
        r#"{"time":"2025-11-24T15:00:00Z","name":"play","http":{"status":200,"path":{"route":"/p"}},"ok":true,"x":1.5,"none":null,
"list":[1,{"a":2}],"empty":{},"big":18446744073709551615,"duration_ms":12.5,"trace_id":"0af7651916cd43dd8448eb211c80319c",
"span_id":"b7ad6b7169203331","parent_span_id":"00000000000000ff","SampleRate":4}"#
            .replace('\n', "")
            .as_str(),
    );
    let row = &rows[0];
    assert_eq!((row.time.to_string().as_str(), row.duration_nanos), ("2025-11-24T15:00:00Z", Some(12_500_000)));
    assert_eq!((row.trace, row.span, row.parent), (0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331, 0xff));
    let mut attributes = row.attributes.clone();
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: Vec<(String, Value)> = [
        ("big", Value::Float(18_446_744_073_709_551_615.0)),
        ("empty", "{}".into()),
        ("http.path.route", "/p".into()),
        ("http.status", Value::Int(200)),
        ("list", r#"[1,{"a":2}]"#.into()),
        ("meta.sample_rate", Value::Float(4.0)),
        ("meta.signal_type", "event".into()),
        ("name", "play".into()),
        ("ok", Value::Bool(true)),
        ("x", Value::Float(1.5)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(attributes, expected);
}

#[test]
fn what_is_no_id_and_no_length_stays_an_attribute() {
    let rows = rows_of(r#"{"trace_id":"abc","span_id":"+7ad6b7169203331","parent_id":7,"duration_ms":"long"}"#);
    let row = &rows[0];
    assert_eq!((row.trace, row.span, row.parent, row.duration_nanos), (0, 0, 0, None));
    assert_eq!((row.text("trace_id"), row.text("span_id")), (Some("abc"), Some("+7ad6b7169203331")));
    assert_eq!((row.get("parent_id"), row.text("duration_ms")), (Some(&Value::Int(7)), Some("long")));
}

#[test]
fn times_in_all_forms() {
    let nanos = 1_764_000_000_000_000_000_i128;
    for value in [
        json!(1_764_000_000),
        json!(1_764_000_000.0),
        json!(1_764_000_000_000_i64),
        json!(1_764_000_000_000_000_i64),
        json!(1_764_000_000_000_000_000_i64),
        json!("1764000000"),
        json!("1764000000.0"),
        json!("2025-11-24T16:00:00Z"),
        json!("2025-11-24T17:00:00+01:00"),
        json!(" 2025-11-24T16:00:00 "),
        json!("2025-11-24 16:00:00"),
    ] {
        assert_eq!(moment::read(&value), Some(nanos), "{value}");
    }
    assert_eq!(moment::read(&json!(1_764_000_000.25)), Some(nanos + 250_000_000));
    assert_eq!(moment::read(&json!(-1)), Some(-1_000_000_000));
    for value in [json!("yesterday"), json!(""), json!("NaN"), json!([1]), json!(null)] {
        assert_eq!(moment::read(&value), None, "{value}");
    }
    // Which field is the time.
    let at = |text: &str, time_field: Option<&str>| {
        let shape = Shape { time_field: time_field.map(str::to_owned), ..Shape::default() };
        let row = read(text.as_bytes(), 1, &shape, RECEIVED).rows.remove(0);
        let problem = row.text("meta.time_problem").map(str::to_owned);
        (row.time.nanos() / 1_000_000_000, problem)
    };
    assert_eq!(at(r#"{"@timestamp":1764000003,"timestamp":1764000002}"#, None), (1_764_000_002, None));
    assert_eq!(at(r#"{"@timestamp":1764000003,"time":1764000001}"#, None), (1_764_000_001, None));
    assert_eq!(at(r#"{"log":{"ts":1764000004},"time":1764000001}"#, Some("log.ts")), (1_764_000_004, None));
    let received = RECEIVED.nanos() / 1_000_000_000;
    assert_eq!(at("{}", None), (received, Some("the time is missing".into())));
    assert_eq!(at(r#"{"time":null}"#, None), (received, Some("the time is missing".into())));
    assert_eq!(at(r#"{"time":"soon"}"#, None), (received, Some("the time cannot be read".into())));
    assert_eq!(at(r#"{"time":1e300}"#, None), (received, Some("the time is more than a day ahead".into())));
}

#[test]
fn broken_lines_are_named_by_number() {
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(LINE_BYTES_MAX));
    let body = [&b"{\"a\":1}\n{\"a\":\n\n  \r\n[1]\n{\"a\":\"\xff\"}\n"[..], long.as_bytes(), b"\n{\"a\":2}"].concat();
    let read = read(&body, 11, &Shape::default(), RECEIVED);
    assert_eq!((read.rows.len(), read.refused), (2, 4));
    let expected = [
        (12, "the line is not JSON: EOF while parsing a value, at column 5"),
        (15, "the line is not a JSON object"),
        (16, "the line is not JSON: invalid unicode code point, at column 7"),
        (17, "the line is longer than 1048576 bytes"),
    ]
    .map(|(line, reason)| Refusal { line, reason: reason.into() });
    assert_eq!(read.refusals, expected);
    let many = super::lines::read("x\n".repeat(1_000).as_bytes(), 1, &Shape::default(), RECEIVED);
    assert_eq!((many.refused, many.refusals.len()), (1_000, REFUSALS_MAX));
}

#[test]
fn a_shape_adds_to_each_row_and_nobody_says_the_signal() {
    let shape = Shape { set: vec![("service.name".into(), "ci".into())], ..Shape::default() };
    let read = read(br#"{"service":{"name":"other"},"meta":{"signal_type":"request"}}"#, 1, &shape, RECEIVED);
    let row = &read.rows[0];
    assert_eq!((row.text("service.name"), row.text("meta.signal_type")), (Some("ci"), Some("event")));
}

/// Guarantees: deep and wide lines become rows of bounded size, and a request of them takes bounded memory.
#[test]
fn lines_are_bounded() {
    let deep = format!("{}1{}", r#"{"abcdefgh":"#.repeat(100), "}".repeat(100));
    assert!(rows_of(&deep)[0].attributes.iter().all(|(name, _)| name.len() < 300));
    let wide: Vec<String> = (0..2_000).map(|n| format!(r#""a{n}":1"#)).collect();
    let row = rows_of(&format!("{{{}}}", wide.join(","))).remove(0);
    assert_eq!(row.get("meta.dropped_attributes"), Some(&Value::Int(976)));
    // Short lines with long names, once each for many attributes.
    let inner: Vec<String> = (0..1_000).map(|n| format!(r#""{n}":1"#)).collect();
    let line = format!("{{\"{}\":{{{}}}}}\n", "n".repeat(240), inner.join(","));
    let read = read(line.repeat(1_000).as_bytes(), 1, &Shape::default(), RECEIVED);
    assert!(read.rows.len() < 1_000 && read.refused as usize == 1_000 - read.rows.len(), "{}", read.rows.len());
    assert!(read.refusals[0].reason.contains("smaller batches"));
}

const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE testsuites [<!ENTITY lol "lolololol">]>
<testsuites name="all">
  <testsuite name="shop.cart" timestamp="2025-11-24T16:00:00" file="cart_test.py" tests="5">
    <properties><property name="a" value="b"/></properties>
    <testcase name="adds &lt;one&gt;" classname="shop.cart.Cart" time="0.125"/>
    <testcase name="fails" classname="shop.cart.Cart" time="1,000.5" file="other.py">
      <failure message="expected 1 &amp; got 2" type="AssertionError">stack</failure>
      <system-out>noise</system-out>
    </testcase>
    <testcase name="breaks"><error type="x"><![CDATA[ no <db> ]]>&lol;&#33;</error><failure message="later"/></testcase>
    <testcase name="waits"><skipped/></testcase>
    <testsuite name="inner" timestamp="not a time"><testcase name="deep" time="-1"/></testsuite>
  </testsuite>
</testsuites>"#;

#[test]
fn a_report_becomes_a_record_for_each_case() {
    let report = junit::read(REPORT.as_bytes());
    assert_eq!(report.error, None);
    let (suite, time, file) = ("all / shop.cart", "2025-11-24T16:00:00Z", "cart_test.py");
    let expected = json!([
        {"name": "adds <one>", "test.classname": "shop.cart.Cart", "test.suite": suite, "test.file": file, "time": time,
         "duration_ms": 125.0, "test.outcome": "passed", "error": false},
        {"name": "fails", "test.classname": "shop.cart.Cart", "test.suite": suite, "test.file": "other.py", "time": time,
         "duration_ms": 1_000_500.0, "test.outcome": "failed", "error": true, "test.message": "expected 1 & got 2"},
        {"name": "breaks", "test.suite": suite, "test.file": file, "time": time, "test.outcome": "error", "error": true,
         "test.message": "no <db> &lol;!"},
        {"name": "waits", "test.suite": suite, "test.file": file, "time": time, "test.outcome": "skipped", "error": false},
        {"name": "deep", "test.suite": "all / shop.cart / inner", "test.file": file, "time": "not a time",
         "test.outcome": "passed", "error": false},
    ]);
    assert_eq!(json!(report.cases), expected);
    // In the form of JSON lines it becomes a row.
    let rows = rows_of(&json!(report.cases[1]).to_string());
    assert_eq!((rows[0].duration_nanos, rows[0].text("test.outcome")), (Some(1_000_500_000_000), Some("failed")));
    assert_eq!(rows[0].time, RECEIVED);
}

#[test]
fn what_is_broken_in_a_report_is_named_and_the_rest_kept() {
    for (report, cases, expected) in [
        ("<testsuite>\n<testcase name='a'/>\n<testcase", 1, "line 3: the report is not XML: "),
        ("<testsuite>\n<testcase name='a'/>\n</other>", 1, "line 3: the report is not XML: "),
        ("<testsuite>\n<testcase name='a'/>", 1, "line 2: the report ends before its elements do"),
        ("<testsuite>\n<testcase name='&nothing;'/></testsuite>", 0, "line 2: <testcase>: "),
        ("<html></html>", 0, "line 1: there is no <testsuites> or <testsuite>: it is not a JUnit report"),
        ("", 0, "line 1: there is no <testsuites>"),
    ] {
        let read = junit::read(report.as_bytes());
        assert_eq!(read.cases.len(), cases, "{report}");
        let error = read.error.unwrap().to_string();
        assert!(error.starts_with(expected), "{report}: {error}");
    }
    let deep = format!("<testsuite>{}", "<a>".repeat(100_000));
    assert_eq!(junit::read(deep.as_bytes()).error.unwrap().reason, "<a> is more than 64 elements deep");
    assert_eq!(junit::read(b"<testsuite name='\xff'/>").error.unwrap().reason, "the report is not UTF-8");
    let long = vec![b' '; junit::REPORT_BYTES_MAX + 1];
    assert!(junit::read(&long).error.unwrap().reason.contains("longer than"));
}

/// Guarantees: nothing that is read panics, and each line is a row, refused, or empty.
#[test]
fn anything_is_survived() {
    arbtest::arbtest(|u| {
        let bytes: Vec<u8> = u.arbitrary()?;
        let read = read(&bytes, u64::MAX, &Shape::default(), RECEIVED);
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)).count();
        assert_eq!(read.rows.len() + read.refused as usize, lines);
        let _ = junit::read(&bytes);
        Ok(())
    });
}
