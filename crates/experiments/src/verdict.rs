//! What was decided, with the numbers that led to it. Stored in the audit log, so all numbers are whole.

use serde::{Deserialize, Serialize};
use vocab::Timestamp;

/// How an experiment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Evidence of harm at the promised error rate.
    Harm,
    /// An absolute ceiling was passed.
    Ceiling,
    /// A person or a halt ended it.
    Veto,
    /// The numbers prove nothing: broken split, fault not injected, arms that differed before the change.
    Invalid,
    /// It ran its full course unstopped and was reverted.
    Unharmed,
    /// It passed and everybody gets it.
    Promoted,
    /// It ended without an answer and was reverted.
    Inconclusive,
    /// It works as coded, not as wanted, and was reverted.
    NotWanted,
}

/// The decision and its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// The guardrail that decided, if one did.
    pub guardrail: Option<String>,
    /// Evidence of harm, in thousandths of the natural logarithm of the e-value.
    pub log_e_milli: i64,
    /// What it had to reach.
    pub log_threshold_milli: i64,
    /// Treatment subjects that met the change.
    pub subjects_exposed: u64,
    /// Baseline subjects beside them.
    pub baseline_exposed: u64,
    /// Treatment subjects with a bad window.
    pub subjects_hurt: u64,
    /// Baseline subjects with a bad window.
    pub baseline_hurt: u64,
    /// Treatment's hurt subjects beyond what baseline's rate lets expect; never below 0.
    pub excess_hurt: u64,
    /// From the first harm to this decision, in milliseconds; 0 if no harm began.
    pub ms_to_stop: u64,
    /// When.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// For a person.
    pub sentence: String,
}

/// Times in the log are whole microseconds.
pub(crate) mod micros {
    use serde::{Deserialize, Deserializer, Serializer};
    use vocab::Timestamp;

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(time.micros())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::from_micros)
    }
}
