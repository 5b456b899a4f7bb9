//! How often an event counts, because others like it were left out by sampling.
//!
//! | said by | form | weight |
//! |---|---|---|
//! | the attribute `SampleRate` (Honeycomb) | a number from 1 | the number |
//! | `ot=th:T` in `tracestate` (OpenTelemetry, probability sampling) | 1 to 14 hex digits, zeros behind them left out | 2⁵⁶ / (2⁵⁶ − T) |
//! | `ot=p:N` in `tracestate` (the same, of before 2024) | 0 to 62; 63 is never | 2ᴺ |
//!
//! T is the threshold below which a trace's 56 random bits lose: a trace is kept with the probability 1 − T / 2⁵⁶. What is not of such a
//! form is no weight.

use crate::row::ValueRef;

/// The largest weight. One event that stands for more would drown all others; larger ones are made so large.
pub const RATE_MAX: f64 = 1e9;

/// 14 hex digits.
const WHOLE: u64 = 1 << 56;

/// A weight that was said as a number.
pub(crate) fn rate(value: ValueRef<'_>) -> Option<f64> {
    let rate = value.as_f64()?;
    (rate.is_finite() && rate >= 1.0).then(|| rate.min(RATE_MAX))
}

/// The weight that a `tracestate` says.
pub fn of_tracestate(text: &str) -> Option<f64> {
    let fields = text.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
    let field = |key: &str| fields.split(';').find_map(|field| field.trim().strip_prefix(key));
    match field("th:") {
        Some(digits) => {
            let is_hex = (1..=14).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let threshold = u64::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
            let threshold = threshold << (4 * (14 - digits.len()));
            Some((WHOLE as f64 / (WHOLE - threshold) as f64).min(RATE_MAX))
        }
        None => {
            let digits = field("p:").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
            let power = digits.parse::<u32>().ok().filter(|power| *power <= 62)?;
            Some(((1_u64 << power) as f64).min(RATE_MAX))
        }
    }
}
