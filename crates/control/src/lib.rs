//! The state of the control plane: a fold over the audit log.
//!
//! [`State::decide`] turns a command into an [`Entry`], or says why not; nothing changes until that entry is durable in the
//! log. [`State::apply`] turns entry and index into the next state. Restart is replay; history and replication fall out of
//! it. `decide` never refuses what makes things safer (stop, kill, halt), and `apply` never fails: an entry that it cannot
//! read is skipped and named, since a log is never rewritten.
//!
//! Pure. Larger bodies are inline as long as a leaf holds them ([`ENTRY_BYTES_MAX`]).

mod delegation;
mod entry;
mod environment;
pub mod guard;
mod state;

pub use delegation::{Delegation, Hours, Values, Wish};
pub use entry::{Action, Batch, ENTRY_BYTES_MAX, Entry, PhaseRecord};
pub use environment::{Environment, EnvironmentKind};
pub use flags::FlagChange;
pub use state::{Command, FlagRecord, Preview, ProfileRecord, Refusal, SegmentRecord, State, TokenRecord};

#[cfg(test)]
mod delegation_tests;
#[cfg(test)]
mod tests;
