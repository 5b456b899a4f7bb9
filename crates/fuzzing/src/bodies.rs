//! The targets.

use arbitrary::Unstructured;
use flags::{Context, FlagSet, Segment};
use openfeature::Snapshot;
use rows::{Expression, Filter, Operand, Row};
use serde_json::{Map, Value, json};
use vocab::Timestamp;

use crate::{intake, made};

/// Takes bytes from outside; panics where a promise is broken.
pub type Target = fn(&[u8]);

/// By the name of their files in `fuzz/fuzz_targets`.
pub const TARGETS: [(&str, Target); 7] = [
    ("document", document),
    ("evaluation", evaluation),
    ("segment", segment),
    ("request", request),
    ("question", question),
    ("export", intake::export),
    ("records", intake::records),
];

pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);
/// No need to look at more flags of one document.
const FLAGS_MAX: usize = 20;

/// Reads a document, and evaluates what it holds.
pub fn document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let strict = FlagSet::parse(text);
    let lenient = FlagSet::parse_leniently(text);
    let _ = FlagSet::parse_part(text);
    if let Ok(set) = &strict {
        let (again, findings) = lenient.as_ref().expect("what is read strictly is read leniently");
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(set.digest(), again.digest());
    }
    if let Ok((set, _)) = lenient {
        let context = Context::of("user-1").with("plan", "pro").with("list", json!([1, "x", null]));
        agree(&set, &context, NOW, strict.is_ok());
    }
}

/// Makes a document, a context and a time, and evaluates.
pub fn evaluation(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let made = made::document(&mut u).and_then(|document| Ok((document, made::context(&mut u)?, made::time(&mut u)?)));
    let Ok((document, context, now)) = made else { return };
    let context = Context::new(context);
    if let Ok((set, findings)) = FlagSet::parse_leniently(&document.to_string()) {
        agree(&set, &context, now, findings.is_empty());
    }
    // What is sound by itself, even if it needs what is not there, or itself.
    let set = FlagSet::parse_part(&sound(document).to_string()).expect("each part can be read");
    agree(&set, &context, now, true);
}

/// Whether a value is the same text everywhere, and truthy. Of others JSONLogic makes texts and truth values in its own way: a split
/// by an attribute that is a list, 0 or false is not the same in process yet.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_i64().is_some_and(|n| n != 0 && n.unsigned_abs() < 1 << 50),
        Value::Bool(is) => *is,
        Value::Object(map) => map.values().all(is_plain),
        _ => false,
    }
}

/// The document without flags and segments that cannot be read.
pub(crate) fn sound(mut document: Value) -> Value {
    let evaluators = document["$evaluators"].as_object().cloned().unwrap_or_default();
    let none = Map::new();
    if let Some(flags) = document["flags"].as_object_mut() {
        flags.retain(|key, flag| flags::Flag::compile(key, flag, &evaluators, &none).is_ok());
    }
    if let Some(segments) = document["segments"].as_object_mut() {
        segments.retain(|_, segment| Segment::compile(segment).is_ok());
    }
    document
}

/// All ways to ask give the same answer.
fn agree(set: &FlagSet, context: &Context, now: Timestamp, sound: bool) {
    let all: Vec<_> = set.evaluate_all(context, now).take(FLAGS_MAX).collect();
    for (flag, found) in all {
        assert_eq!(found, set.evaluate(flag.key(), context, now), "{}", flag.key());
        assert_eq!(found, set.explain(flag.key(), context, now).0, "{}", flag.key());
        let _ = flag.evaluate(context, None, now);
        let Some(portable) = set.portable(flag.key()).filter(|_| sound) else { continue };
        let sent = match flags::Flag::compile(flag.key(), &portable, &Map::new(), &Map::new()) {
            Ok(sent) => sent,
            Err(findings) => panic!("{portable} is sent but cannot be read: {findings:?}"),
        };
        if !context.attributes().values().all(is_plain) {
            continue;
        }
        // flagd's clock has whole seconds.
        let second = Timestamp::from_nanos(now.nanos() - now.nanos().rem_euclid(1_000_000_000));
        let here = set.evaluate(flag.key(), context, second).map(|found| found.value);
        let there = sent.evaluate(context, None, second).map(|found| found.value);
        if let (Ok(here), Ok(there)) = (here, there) {
            assert_eq!(here, there, "{} in process, sent as {portable}, for {context:?}", flag.definition());
        }
    }
}

/// Reads or makes a segment, and asks who is in it.
pub fn segment(data: &[u8]) {
    let definition = match serde_json::from_slice(data) {
        Ok(definition) => definition,
        Err(_) => match made::segment(&mut Unstructured::new(data)) {
            Ok(definition) => definition,
            Err(_) => return,
        },
    };
    if Segment::compile(&definition).is_err() {
        return;
    }
    let included = definition["include"][0].as_str().unwrap_or_default().to_owned();
    let flag = json!({"variants": {"in": true, "out": false}, "on": true, "fallthrough": "out",
        "rules": [{"when": {"segment": "s0"}, "serve": "in"}]});
    let document = json!({"flags": {"f": flag}, "segments": {"s0": definition}});
    // It may need what is not there.
    let Ok(set) = FlagSet::parse(&document.to_string()) else { return };
    for subject in ["", "user-1", &included] {
        let context = Context::of(subject).with("plan", "pro").with("n", 7);
        let found = set.evaluate("f", &context, NOW);
        if !included.is_empty() && subject == included {
            assert_eq!(found.expect("nothing is asked but the list").variant, Some("in"));
        }
    }
}

/// Answers OFREP requests with the bytes as body, and with a body that is made.
pub fn request(data: &[u8]) {
    // Choices first, then bytes as they are: both are bodies.
    let mut u = Unstructured::new(data);
    let made = made::context(&mut u).map(|context| json!({"context": context}).to_string());
    let flags = json!({"flags": {
        "static": {"state": "ENABLED", "variants": {"a": "1", "b": "2"}, "defaultVariant": "a", "metadata": {"m": [1], "n": 1}},
        "ours": {"variants": {"a": {"x": 1}, "b": {}}, "on": true, "fallthrough": null, "rules": [
            {"when": {"attr": ["/deep/x", "plan"], "op": "in", "values": ["pro", 1]},
             "serve": {"split": {"weights": [["a", 1], ["b", 1]], "by": ["n", "targetingKey"]}}}]},
        "logic": {"state": "ENABLED", "variants": {"a": 1, "b": 2}, "defaultVariant": "a", "targeting":
            {"if": [{"in": [{"var": "plan"}, {"var": "list"}]}, {"fractional": [{"var": "deep.x"}, ["a", 1], ["b", 1]]}]}},
    }});
    let set = FlagSet::parse(&flags.to_string()).expect("a sound document");
    let snapshot = Snapshot::new(set, true);
    for body in made.iter().map(|text| text.as_bytes()).chain([data]) {
        for key in ["static", "ours", "logic", "nobody"] {
            let reply = snapshot.single(key, body, NOW);
            assert!(matches!(reply.status, 200 | 400 | 404), "{}", reply.status);
            assert!(reply.body.is_some_and(|body| body["key"] == *key || body.get("errorCode").is_some()));
        }
        let reply = snapshot.bulk(body, None, NOW);
        let Some(etag) = reply.etag else {
            assert_eq!(reply.status, 400);
            continue;
        };
        assert_eq!(reply.body.and_then(|body| body["flags"].as_array().map(Vec::len)), Some(3));
        assert_eq!(snapshot.bulk(body, Some(&etag), NOW).status, 304);
    }
    if let Ok(Value::String(key)) = serde_json::from_slice(data) {
        snapshot.single(&key, b"", NOW);
    }
}

/// Reads a filter and a calculated field, asks them of a row; reads a batch of rows.
pub fn question(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        ask(text);
    }
    if let Ok(text) = made::question(&mut Unstructured::new(data)) {
        ask(&text);
    }
    if let Ok(rows) = rows::codec::decode(data) {
        let bytes = rows::codec::encode(&rows);
        // By its bytes: a number may be NaN, which equals nothing.
        let again = rows::codec::decode(&bytes).expect("what was written can be read");
        assert_eq!(rows::codec::encode(&again), bytes);
    }
}

fn ask(text: &str) {
    let row = Row { time: NOW, duration_nanos: Some(5), trace: 7, ..Row::default() }
        .with("name", "GET /play")
        .with("n", 3_i64)
        .with("x", 0.5)
        .with("ok", true);
    if let Ok(filter) = Filter::parse(text) {
        let again = Filter::parse(&filter.to_string()).expect("a filter's text is a filter");
        assert_eq!((again.matches(&row), again.fields()), (filter.matches(&row), filter.fields()));
    }
    if let Ok(expression) = Expression::parse(text) {
        let names = expression.fields().to_vec();
        let values: Vec<_> = names.iter().map(|name| row.field(name)).collect();
        let _ = expression.evaluate(&mut |place| values[place].as_ref().map(|value| Operand::of(value.as_ref())));
    }
}
