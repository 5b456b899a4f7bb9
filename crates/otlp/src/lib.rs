//! OTLP to rows, and redaction: what comes in from outside becomes what may be stored.
//!
//! A span, an event of a span, a link, a log record, a data point of a metric: each becomes one row; resource, scope and own attributes are
//! joined (own beats scope beats resource). Limits, times and weights are those of [`rows::Draft`]. [`Redactor`] then removes secrets and
//! replaces names of subjects by pseudonyms, before anything touches a disk. Broken records are counted and named, the rest of a batch is
//! kept. Transport is not known here.

mod decode;
mod json;
mod log;
mod metric;
mod quantile;
mod redact;
mod span;
mod value;

pub use decode::{DecodeError, Decoded, Encoding, logs, logs_rows, metrics, metrics_rows, traces, traces_rows};
pub use redact::{Redactor, pseudonym};

#[cfg(test)]
mod metric_tests;
#[cfg(test)]
mod tests;
