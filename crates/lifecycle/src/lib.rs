//! What becomes of flags once they are out: who uses them, which have done their work, which client gives users another variant than it
//! should.
//!
//! - [`usage`]: counts by flag, service and version, bounded, to be written down;
//! - [`standing`]: never seen, live, stale, expired or safe to remove, with the evidence in words;
//! - [`drift`]: reported variants beside those that the pinned bucketing gives.
//!
//! Pure. It knows neither rows nor OTLP nor disks; the shell tells it what was reported and keeps what it counted. It does not know what
//! nobody tells: a client that evaluates in process and reports nothing is not seen.

pub mod drift;
pub mod standing;
pub mod usage;

pub use drift::{Drift, Exposure, Finding};
pub use standing::{Facts, Stage, Standing};
pub use usage::{Asked, Caller, Placed, Reported, Usage};
