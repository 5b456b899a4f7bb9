//! The wide-event store: durable at once, visible at once, fast to ask what is different.
//!
//! | path | content | mutable |
//! |---|---|---|
//! | `events/wal/…` | batches of rows in the form of `rows::codec`, each behind its time of receipt | grows, then removed |
//! | `events/<yyyy-mm-dd>/<hh>/<first>-<last>.arrow` | a segment: the rows of those batches, one Arrow IPC file | no |
//!
//! Rows live in chunks: columns of small integer codes with one dictionary each. The chunk being filled is in memory; full
//! ones become segments, which are memory-mapped. Queries and comparisons are loops over codes ([`query`], [`compare`]).
//! Storage is behind `files::Files`; HTTP, OTLP and experiments are unknown here.

mod bits;
mod chunk;
pub mod compare;
pub mod query;
mod segment;
mod store;

pub use compare::{Comparison, RankedValue, Side};
pub use query::{Answer, Query, QueryError};
pub use store::{AppendError, OpenError, SEGMENT_ROWS, Store};

#[cfg(test)]
mod tests;
