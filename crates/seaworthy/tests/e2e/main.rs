//! End to end: the real binary as processes, real sockets, real signals.
//!
//! The tests share two cores, so they run one after the other (a lock), and none waits on a fixed time where it can ask.

mod beside;
mod control_plane;
mod demo;
mod disk_full;
mod flag_life;
mod flag_refs;
mod flags;
mod grpc;
mod harness;
mod intake;
mod kills;
mod log_lines;
mod questions;
mod rollouts;
mod sql;
