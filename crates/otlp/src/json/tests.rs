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
            (row.get("n").cloned(), row.text("list").unwrap_or_default().to_owned())
        })
    };
    let float = |x: f64, list: &str| (Some(Value::Float(x)), list.to_owned());
    assert_eq!(
        of(r#"{"intValue":-9223372036854776000}"#).unwrap(),
        float(-9_223_372_036_854_776_000.0, "[-9.223372036854776e18]")
    );
    assert_eq!(of(r#"{"intValue":1e+300}"#).unwrap(), float(1e300, "[1e300]"));
    assert_eq!(of(r#"{"intValue":"7"}"#).unwrap(), (Some(Value::Int(7)), "[7]".to_owned()));
    assert!(of(r#"{"intValue":true}"#).is_err());
}
