//! JSON and protobuf's `Struct` into one another.

use flags::Context;
use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

/// A context is nested no deeper than this.
const DEPTH_MAX: usize = 32;

/// Protobuf's form of a JSON object.
pub(crate) fn to_struct(object: &Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct { fields: object.iter().map(|(k, v)| (k.clone(), to_value(v))).collect() }
}

fn to_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(list) => Kind::ListValue(prost_types::ListValue { values: list.iter().map(to_value).collect() }),
        Value::Object(map) => Kind::StructValue(to_struct(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// JSON's form of a protobuf object; none if it is nested too deeply. Whole numbers become integers.
pub(crate) fn from_struct(object: prost_types::Struct, depth: usize) -> Option<Map<String, Value>> {
    object.fields.into_iter().map(|(k, v)| Some((k, from_value(v, depth)?))).collect()
}

fn from_value(value: prost_types::Value, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(b)) => Value::Bool(b),
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => Value::Number(Number::from(n as i64)),
        Some(Kind::NumberValue(n)) => Number::from_f64(n).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(s)) => Value::String(s),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(|v| from_value(v, depth + 1)).collect::<Option<_>>()?)
        }
        Some(Kind::StructValue(object)) => Value::Object(from_struct(object, depth + 1)?),
    })
}

/// The context of a request.
pub(crate) fn context(object: Option<prost_types::Struct>) -> Option<Context> {
    Some(Context::new(object.map_or(Some(Map::new()), |object| from_struct(object, 0))?))
}
