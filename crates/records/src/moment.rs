//! Times as people write them.
//!
//! | form | read as |
//! |---|---|
//! | RFC 3339, with `T` or a space | itself; without a zone, UTC |
//! | a number, also as text, of less than 10¹¹ | seconds since 1970 |
//! | less than 10¹⁴ | milliseconds |
//! | less than 10¹⁷ | microseconds |
//! | others | nanoseconds |
//!
//! So 1764000000, 1764000000000 and 1764000000000000000 are the same moment; seconds reach the year 5138.

use serde_json::Value;
use vocab::Timestamp;

/// Nanoseconds since 1970; none if it is in no known form.
pub fn read(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(whole_number(whole.into())),
            None => number.as_f64().map(fraction),
        },
        Value::String(text) => read_text(text),
        _ => None,
    }
}

/// The same of a text.
pub fn read_text(text: &str) -> Option<i128> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole_number(whole.into()));
    }
    if let Some(number) = text.parse::<f64>().ok().filter(|n| n.is_finite()) {
        return Some(fraction(number));
    }
    let time = Timestamp::parse(text).or_else(|_| Timestamp::parse(&format!("{text}Z")));
    time.ok().map(|time| time.nanos().into())
}

/// What a number of this size counts, in nanoseconds.
fn unit(size: f64) -> i128 {
    match size {
        n if n < 1e11 => 1_000_000_000,
        n if n < 1e14 => 1_000_000,
        n if n < 1e17 => 1_000,
        _ => 1,
    }
}

fn whole_number(n: i128) -> i128 {
    n * unit(n.unsigned_abs() as f64)
}

fn fraction(n: f64) -> i128 {
    let unit = unit(n.abs());
    // The whole part exactly, so that only what is behind the point is rounded.
    n.trunc() as i128 * unit + (n.fract() * unit as f64).round() as i128
}
