//! One event as typed attributes: what proxy, OTLP intake and event store exchange.
//!
//! A [`Row`] is one wide event: a span, a log record, a proxied request. [`codec`] is its compact form on the wire between
//! proxy and server and in the write-ahead log. [`Filter`] is the language of `--where`: parsed once, applied to a row here
//! and to whole columns in the store. [`Expression`] is the language of calculated fields. A [`Draft`] is a row in the making, from what
//! somebody outside sent: limits, times and weights. Nothing here knows Arrow, HTTP or where a row comes from.

pub mod codec;
pub mod draft;
mod expression;
mod filter;
mod row;
mod scan;
pub mod weight;

pub use draft::Draft;
pub use expression::{Expression, Operand, ParseExpressionError, quoted};
pub use filter::{Comparison, Condition, Filter, ParseFilterError, Pattern, TIME, Test};
pub use row::{Row, Value, ValueRef, names};

#[cfg(test)]
mod draft_tests;
#[cfg(test)]
mod tests;
