//! Feature flags: documents in flagd's JSON form, compiled once, evaluated without allocation on the common path.
//!
//! - [`FlagSet`] reads a document and says of each fault where it is;
//! - [`Flag::evaluate`] decides for one context: variant, value, reason (OpenFeature terms);
//! - [`bucket`] holds the bucketing generations as data, and [`Slice`], the sticky assignment of experiments;
//! - an [`Overlay`] puts an experiment's treatment variant in front of a flag's own rules for the subjects of its slice.
//!
//! Pure: no clock (the time is an argument), no I/O, and nothing known of HTTP, experiments' state or storage.

pub mod bucket;
mod clock;
mod context;
mod document;
mod evaluate;
mod fractional;
mod logic;
mod semver;

pub use bucket::{BucketKey, Bucketing, Slice};
pub use clock::Clock;
pub use context::Context;
pub use document::{DOCUMENT_BYTES_MAX, Finding, Flag, FlagSet};
pub use evaluate::{ErrorCode, Evaluation, EvaluationError, Overlay, Reason};

#[cfg(test)]
mod tests;
