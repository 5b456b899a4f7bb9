//! Feature flags: documents in flagd's JSON form and in our own dialect, compiled once, evaluated without allocation on the
//! common path.
//!
//! - [`FlagSet`] reads a document and says of each fault where it is; it holds flags, segments and experiments in front of flags;
//! - [`Flag::evaluate`] decides for one context: variant, value, reason (OpenFeature terms);
//! - [`bucket`] holds the bucketing generations as data, and [`Slice`], the sticky assignment of experiments;
//! - an [`Overlay`] puts an experiment in front of a flag's own rules for the subjects of its slice: another variant, or the answer
//!   after a change of flags ([`Patch`]).
//!
//! Pure: no clock (the time is an argument), no I/O, and nothing known of HTTP, experiments' state or storage.

mod attribute;
pub mod bucket;
mod clock;
mod condition;
mod context;
mod document;
mod evaluate;
mod export;
mod fields;
mod fractional;
pub mod generation;
mod impact;
mod javascript;
mod logic;
mod model;
mod patch;
mod segment;
mod semver;
mod sight;
mod split;

pub use bucket::{BucketKey, Bucketing, Slice};
pub use clock::Clock;
pub use context::Context;
pub use document::{DOCUMENT_BYTES_MAX, Finding, Flag, FlagSet};
pub use evaluate::{ErrorCode, Evaluation, EvaluationError, Overlay, Reason, Serves};
pub use impact::{Impact, impact};
pub use patch::{FlagChange, Patch};
pub use segment::Segment;

#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod patch_tests;
#[cfg(test)]
mod tests;
