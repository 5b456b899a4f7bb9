//! One event as typed attributes: what proxy, OTLP intake and event store exchange.
//!
//! A [`Row`] is one wide event: a span, a log record, a proxied request. [`codec`] is its compact form on the wire between
//! proxy and server and in the write-ahead log. [`Filter`] is the language of `--where`: parsed once, applied to a row here
//! and to whole columns in the store. Nothing here knows Arrow, HTTP or where a row comes from.

pub mod codec;
mod filter;
mod row;

pub use filter::{Comparison, Filter, ParseFilterError, Test};
pub use row::{Row, Value, ValueRef, names};

#[cfg(test)]
mod tests;
