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

/// Whether there was one in any of them; all are looked at.
fn any<'a>(values: impl Iterator<Item = &'a mut Value>) -> bool {
    values.map(widen).filter(|widened| *widened).count() > 0
}

/// Makes each `intValue` that is no 64-bit number a `doubleValue`; whether there was one.
fn widen(value: &mut Value) -> bool {
    match value {
        Value::Array(values) => any(values.iter_mut()),
        Value::Object(members) => {
            let too_large = members.get("intValue").filter(|n| n.is_number() && n.as_i64().is_none());
            match too_large.cloned() {
                Some(number) => {
                    members.remove("intValue");
                    members.insert("doubleValue".to_owned(), number);
                    true
                }
                None => any(members.values_mut()),
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
