//! The two arms of an experiment.

use serde::{Deserialize, Serialize};

/// Which side of an experiment a subject is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// Watched beside the treatment, unchanged.
    Baseline,
    /// Gets the change.
    Treatment,
}

impl Arm {
    /// Both arms, baseline first.
    pub const BOTH: [Arm; 2] = [Arm::Baseline, Arm::Treatment];

    /// `baseline` or `treatment`, as in `experiment.arm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Arm::Baseline => "baseline",
            Arm::Treatment => "treatment",
        }
    }

    /// The arm of that name; none for any other string.
    pub fn parse(text: &str) -> Option<Arm> {
        match text {
            "baseline" => Some(Arm::Baseline),
            "treatment" => Some(Arm::Treatment),
            _ => None,
        }
    }

    /// True for [`Arm::Treatment`].
    pub fn is_treatment(self) -> bool {
        self == Arm::Treatment
    }
}
