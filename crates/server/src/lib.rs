//! The shell of the control plane: stores, loops, REST, OTLP, OFREP, console. It carries out and decides nothing: what may
//! be done is decided by `control`, what an experiment does next by `experiments::step`.
//!
//! - [`boot`]: opens a data directory and starts everything;
//! - [`app`]: the one commit path: decide → durable in the audit log → apply → publish;
//! - [`tap`]: rows to observations, tallies and their checkpoints;
//! - [`watch`]: the loop that asks `step` four times a second, on a thread of its own, so that intake cannot starve it;
//! - [`intake`]: rows to the event store with group commit;
//! - [`recent`]: who and what was evaluated lately, for judging changes of flags;
//! - [`lifecycle`]: who reports which flag, which may go, which client drifts, and `usage.json`;
//! - [`api`], [`flags_api`], [`profiles_api`], [`delegations_api`], [`previews_api`], [`query_api`], [`sql_api`], [`ingest`], [`proxies`], [`view`], [`problem`]: HTTP.

mod api;
mod app;
mod body;
mod boot;
mod delegations_api;
mod exposed;
mod flags_api;
mod ingest;
mod intake;
mod known_names;
mod lifecycle;
mod lines_api;
mod log_templates;
mod otlp_api;
mod previews;
mod previews_api;
mod problem;
mod profiles_api;
mod proxies;
mod query_api;
mod recent;
mod sql_api;
#[cfg(feature = "sql")]
mod sql_tables;
mod tap;
mod tending;
mod view;
mod watch;

pub use boot::{BootError, Bucket, Options, Started, run};
pub use bucket::Place;
pub use control::Environment;
pub use events::{Keep, SEGMENT_ROWS, check as check_events};
pub use tap::{Joiner, Tap};

#[cfg(test)]
mod tests;
