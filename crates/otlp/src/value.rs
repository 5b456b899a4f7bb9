//! Attribute values that are no single text, number or truth value, as text: nothing in them is lost but what is too long or too deep.
//!
//! | value | text |
//! |---|---|
//! | bytes | base64 with padding |
//! | array, map | JSON; bytes in it are base64, numbers that are not finite text, what is absent `null` |
//! | a number that is not finite | `NaN`, `Infinity`, `-Infinity` |
//!
//! This is how OpenTelemetry's specification has such values for systems that know text only ("AnyValue representation for
//! non-OTLP protocols").

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use serde_json::{Map, Value as Json, json};

/// A value as text. What is nested deeper than `depth` is `…`.
pub(crate) fn text(value: &AnyValue, depth: u32) -> String {
    match json(value, depth) {
        Json::Null => String::new(),
        Json::String(text) => text,
        other => other.to_string(),
    }
}

fn json(value: &AnyValue, depth: u32) -> Json {
    match &value.value {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(truth)) => json!(truth),
        Some(Any::IntValue(n)) => json!(n),
        Some(Any::DoubleValue(x)) if x.is_finite() => json!(x),
        Some(Any::DoubleValue(x)) if x.is_nan() => json!("NaN"),
        Some(Any::DoubleValue(x)) => json!(if *x > 0.0 { "Infinity" } else { "-Infinity" }),
        Some(Any::BytesValue(bytes)) => json!(STANDARD.encode(bytes)),
        Some(Any::ArrayValue(_) | Any::KvlistValue(_)) if depth == 0 => json!("…"),
        Some(Any::ArrayValue(list)) => list.values.iter().map(|value| json(value, depth - 1)).collect(),
        Some(Any::KvlistValue(list)) => {
            let member = |value: &Option<AnyValue>| value.as_ref().map_or(Json::Null, |value| json(value, depth - 1));
            list.values.iter().map(|one| (one.key.clone(), member(&one.value))).collect::<Map<_, _>>().into()
        }
        // Nothing, or a kind of value that is not known yet.
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests;
