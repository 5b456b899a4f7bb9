//! OTLP to rows, and redaction: what comes in from outside becomes what may be stored.
//!
//! A span or log record becomes one row; resource, scope and own attributes are joined (own beats scope beats resource).
//! [`Redactor`] then removes secrets and replaces names of subjects by pseudonyms, before anything touches a disk. Broken
//! records are counted and named, the rest of a batch is kept. Transport is not known here.

mod decode;
mod json;
mod redact;
mod value;

pub use decode::{DecodeError, Decoded, Encoding, logs, logs_rows, traces, traces_rows};
pub use redact::{Redactor, pseudonym};

#[cfg(test)]
mod tests;
