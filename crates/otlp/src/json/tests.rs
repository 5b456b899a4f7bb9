use rows::Value;
use vocab::Timestamp;

use crate::{Encoding, traces};

#[test]
fn a_number_that_is_too_large_costs_nothing_but_its_exactness() {
    let of = |value: &str| {
        let body = format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"startTimeUnixNano":"5","attributes":[
                {{"key":"n","value":{value}}},
                {{"key":"list","value":{{"arrayValue":{{"values":[{value}]}}}}}}]}}]}}]}}]}}"#
        );
        traces(body.as_bytes(), Encoding::Json, Timestamp::from_nanos(9)).map(|decoded| {
            let row = &decoded.rows[0];
            let list: Vec<f64> = serde_json::from_str(row.text("list").unwrap_or_default()).unwrap();
            (row.get("n").cloned(), list)
        })
    };
    let float = |x: f64| (Some(Value::Float(x)), vec![x]);
    assert_eq!(of(r#"{"intValue":-9223372036854776000}"#).unwrap(), float(-9_223_372_036_854_776_000.0));
    assert_eq!(of(r#"{"intValue":1e+300}"#).unwrap(), float(1e300));
    assert_eq!(of(r#"{"intValue":"7"}"#).unwrap(), (Some(Value::Int(7)), vec![7.0]));
    assert!(of(r#"{"intValue":true}"#).is_err());
}
