//! The words all crates share: time, shares of subjects, subjects and their pseudonyms, ids, names, arms.
//!
//! This crate knows nothing of flags, experiments, storage or the wire. Its types carry units and ranges so that no other
//! crate has to repeat them. It depends on no other crate of ours.

mod arm;
mod id;
mod share;
mod subject;
mod time;

pub use arm::Arm;
pub use id::{Id, Kind, Name, ParseIdError, ParseNameError};
pub use share::{ParseShareError, Share};
pub use subject::{ParsePseudonymError, Pseudonym, SUBJECT_BYTES_MAX, subject_key_fits};
pub use time::{Millis, ParseMillisError, ParseTimestampError, Timestamp};

#[cfg(test)]
mod tests;
