use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValue, KeyValueList};

use super::*;

fn value(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn list(values: Vec<AnyValue>) -> AnyValue {
    value(Any::ArrayValue(ArrayValue { values }))
}

fn map(members: &[(&str, Option<AnyValue>)]) -> AnyValue {
    let member = |(key, value): &(&str, Option<AnyValue>)| KeyValue {
        key: (*key).to_owned(),
        value: value.clone(),
        ..Default::default()
    };
    value(Any::KvlistValue(KeyValueList { values: members.iter().map(member).collect() }))
}

#[test]
fn every_value_has_a_text_of_its_own() {
    let string = |text: &str| value(Any::StringValue(text.to_owned()));
    let bytes = value(Any::BytesValue(vec![0, 255, 16]));
    let many = vec![string("a,b"), string("\"c\""), value(Any::IntValue(i64::MIN)), value(Any::BoolValue(true))];
    let nested = map(&[("z", Some(list(vec![bytes.clone()]))), ("a", None), ("x", Some(AnyValue::default()))]);
    for (given, wanted) in [
        (string("a,b"), "a,b"),
        (AnyValue::default(), ""),
        (bytes, "AP8Q"),
        (value(Any::DoubleValue(f64::NAN)), "NaN"),
        (value(Any::DoubleValue(f64::NEG_INFINITY)), "-Infinity"),
        (list(vec![]), "[]"),
        (list(many), r#"["a,b","\"c\"",-9223372036854775808,true]"#),
        (list(vec![value(Any::DoubleValue(1.5)), value(Any::DoubleValue(f64::INFINITY))]), r#"[1.5,"Infinity"]"#),
        (nested, r#"{"a":null,"x":null,"z":["AP8Q"]}"#),
    ] {
        assert_eq!(text(&given, 8), wanted);
    }
}

#[test]
fn what_is_nested_too_deep_is_cut() {
    let deep = (0..100).fold(list(vec![]), |inner, _| list(vec![inner]));
    assert_eq!(text(&deep, 2), r#"[["…"]]"#);
}
