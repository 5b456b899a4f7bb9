//! The wide-event store: durable at once, visible at once, fast to ask what is different.
//!
//! | path below the store's directory | content | mutable |
//! |---|---|---|
//! | `wal/…` | batches of rows in the form of `rows::codec`, each behind its time of receipt (and its key, if it has one) | grows, then removed |
//! | `keys` | keys of the batches of the last 15 minutes | replaced |
//! | `<yyyy-mm-dd>/<hh>/<first>-<last>-<min time>-<max time>-<rows>-<crc>.arrow` | a segment: the rows of those batches, one Arrow IPC file | no |
//! | `….sparse.arrow` | its attributes that few rows have | no |
//! | `….parquet` | an old segment as Parquet, instead of the Arrow files | no |
//!
//! Rows live in chunks: columns of small integer codes with one dictionary each. The chunk being filled is in memory; it is frozen when
//! it is large enough or somebody asks. Frozen chunks are merged into segments, which are memory-mapped; these into larger ones; old
//! ones become Parquet, and go in the end ([`Keep`]). Queries and comparisons are loops over codes ([`query`], [`compare`]);
//! [`Table`] gives rows to other engines.
//! Storage is behind `files::Files`; HTTP, OTLP and experiments are unknown here.

mod builder;
mod check;
mod chunk;
mod cold;
mod column;
pub mod compare;
mod export;
mod keys;
mod mask;
mod merge;
mod others;
mod parallel;
pub mod query;
mod segment;
mod store;
mod tend;

pub use check::{Checked, check};
pub use compare::{Comparison, Question, RankedValue, Selection, Side, Unit, comparison_limits};
pub use export::{Reader, Table, Wanted};
pub use others::{Foreign, LocalFile, newest};
pub use query::{Answer, Query, QueryError};
pub use store::{AppendError, Appended, Batch, OpenError, Parts, SEGMENT_ROWS, Store};
pub use tend::{Keep, SEGMENT_ROWS_MAX};

#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod planted_tests;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod tests;
