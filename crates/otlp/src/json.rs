//! OTLP's JSON form, with what JavaScript makes of it: there a whole number is sent as `intValue` however large it is, and one that
//! does not fit would cost the whole body. Such a number is taken for what it is, a number that is not exact.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads a message.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body).or_else(|error| {
        // Only then, since it takes longer.
        let Ok(mut value) = serde_json::from_slice(body) else { return Err(error) };
        if widen(&mut value) { serde_json::from_value(value).map_err(|_| error) } else { Err(error) }
    })
}

/// Makes each `intValue` that is no 64-bit number a `doubleValue`; whether there was one.
fn widen(value: &mut Value) -> bool {
    match value {
        Value::Array(values) => values.iter_mut().fold(false, |any, value| widen(value) || any),
        Value::Object(members) => {
            let too_large = members.get("intValue").filter(|n| n.is_number() && n.as_i64().is_none());
            match too_large.cloned() {
                Some(number) => {
                    members.remove("intValue");
                    members.insert("doubleValue".to_owned(), number);
                    true
                }
                None => members.values_mut().fold(false, |any, value| widen(value) || any),
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
