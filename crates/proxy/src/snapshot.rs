//! What the control plane pushes to proxies: the experiments that concern them, and nothing else.

use flags::Slice;
use serde::{Deserialize, Serialize};
use vocab::Share;

/// The share that all faults together may harm; checked here again, so that a mistake of the control plane cannot exceed it.
const HARM_MAX: Share = match Share::from_ppm(50_000) {
    Some(share) => share,
    None => Share::NONE,
};

/// The state of the data plane, by version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Raised with every change.
    pub version: u64,
    /// Raised by every halt.
    pub epoch: u64,
    /// The installation's key for pseudonyms and tags, in hex.
    pub key: String,
    /// Live fault experiments.
    pub experiments: Vec<Active>,
}

/// One experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Active {
    /// Its id.
    pub id: String,
    /// The epoch it belongs to.
    pub epoch: u64,
    /// Salt of its layer.
    pub layer_salt: String,
    /// Its own salt.
    pub arm_salt: String,
    /// Where its range begins, in parts per million.
    pub offset: u32,
    /// How long it is, in parts per million.
    pub population: u32,
    /// Which part of it is treatment, in parts per million of the range.
    pub treatment_part: u32,
    /// The route it acts on; a request to it is the exposure.
    pub route: String,
    /// Whether the fault acts: false in warm-up.
    pub on: bool,
    /// Milliseconds to wait.
    pub delay_ms: Option<u64>,
    /// Status to answer with.
    pub abort: Option<u16>,
}

impl Active {
    /// The slice.
    pub fn slice(&self) -> Slice {
        let share = |ppm| Share::from_ppm(ppm).unwrap_or(Share::NONE);
        Slice::new(&self.layer_salt, &self.arm_salt, self.offset, share(self.population), share(self.treatment_part))
    }
}

impl Snapshot {
    /// Whether the faults it holds stay within the budget and do not overlap.
    pub fn is_within_budget(&self) -> bool {
        let treated: u64 = self.experiments.iter().map(|e| u64::from(e.slice().treated().ppm())).sum();
        treated <= u64::from(HARM_MAX.ppm()) + self.experiments.len() as u64
    }
}

/// What a proxy tells when it renews its lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Renewal {
    /// The proxy's name.
    pub name: String,
    /// Tells instances of one name apart.
    pub instance: String,
    /// The snapshot it acts on.
    pub version: u64,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewalAnswer {
    /// The newest snapshot's version.
    pub version: u64,
}
