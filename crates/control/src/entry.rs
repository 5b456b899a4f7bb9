//! Entries of the audit log: canonical JSON (keys sorted, no floats but in specs and flags), one action each.
//!
//! What is written never changes meaning: a new field is optional, a new meaning is a new action.

use auth::Role;
use experiments::{Phase, Spec, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vocab::{Id, Timestamp};

use crate::delegation::Delegation;
use crate::environment::Environment;

/// The longest entry that is written: what a leaf of the log holds.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// Who did what, when and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of this form, 1.
    pub v: u32,
    /// Microseconds since 1970.
    pub ts: i64,
    /// `token:<name>`, `system:guard`, `system:boot`.
    pub actor: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The change was made past the guard on unwatched jumps; somebody should look at it afterwards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// Its place among entries that count together: none of them is carried out before the last is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// A place in a batch, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Which.
    pub n: u32,
    /// Of how many.
    pub of: u32,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", content = "body")]
pub enum Action {
    /// A token was made.
    #[serde(rename = "token.create")]
    TokenCreate {
        /// For people.
        name: String,
        /// What it may do.
        role: Role,
        /// SHA-256 of its text, in hex.
        sha256: String,
        /// Microseconds since 1970; none never expires.
        expires: Option<i64>,
    },
    /// Somebody may set one flag within bounds: a token of role `delegate` was made.
    #[serde(rename = "flag.delegate")]
    Delegate {
        /// For people.
        name: String,
        /// SHA-256 of the token's text, in hex.
        sha256: String,
        /// Microseconds since 1970; none never expires.
        expires: Option<i64>,
        /// What he may do.
        bounds: Box<Delegation>,
    },
    /// A token is worth nothing any more.
    #[serde(rename = "token.revoke")]
    TokenRevoke {
        /// Which.
        id: Id,
    },
    /// A flag was made or changed.
    #[serde(rename = "flag.put")]
    FlagPut {
        /// Which.
        key: String,
        /// Its definition, in flagd's dialect or ours.
        definition: Value,
    },
    /// A flag was removed.
    #[serde(rename = "flag.delete")]
    FlagDelete {
        /// Which.
        key: String,
    },
    /// A segment was made or changed.
    #[serde(rename = "segment.put")]
    SegmentPut {
        /// Which.
        key: String,
        /// Its definition.
        definition: Value,
    },
    /// A segment was removed.
    #[serde(rename = "segment.delete")]
    SegmentDelete {
        /// Which.
        key: String,
    },
    /// A flag was switched off for everybody.
    #[serde(rename = "flag.kill")]
    FlagKill {
        /// Which.
        key: String,
    },
    /// A flag that was killed is again as it was before.
    #[serde(rename = "flag.revive")]
    FlagRevive {
        /// Which.
        key: String,
    },
    /// The server says which environment it is.
    #[serde(rename = "environment.set")]
    EnvironmentSet {
        /// Which.
        #[serde(flatten)]
        environment: Environment,
    },
    /// A rollout profile was made or changed.
    #[serde(rename = "profile.put")]
    ProfilePut {
        /// Which.
        name: String,
        /// What it says.
        definition: Value,
    },
    /// A rollout profile was removed.
    #[serde(rename = "profile.delete")]
    ProfileDelete {
        /// Which.
        name: String,
    },
    /// One person gets one variant, for a while.
    #[serde(rename = "preview.create")]
    PreviewCreate {
        /// Of which flag.
        flag: String,
        /// Which variant.
        variant: String,
        /// Who, as a pseudonym; none is whoever uses it first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// Microseconds since 1970.
        ends: i64,
    },
    /// A preview was used for the first time, by this subject.
    #[serde(rename = "preview.bind")]
    PreviewBind {
        /// Which.
        id: Id,
        /// A pseudonym.
        subject: String,
    },
    /// A preview counts no more.
    #[serde(rename = "preview.revoke")]
    PreviewRevoke {
        /// Which.
        id: Id,
    },
    /// An experiment was started.
    #[serde(rename = "experiment.start")]
    ExperimentStart {
        /// Frozen.
        spec: Box<Spec>,
        /// Its own salt.
        arm_salt: String,
        /// Salt of its layer.
        layer_salt: String,
        /// Where its range begins.
        offset: u32,
    },
    /// An experiment changed its phase.
    #[serde(rename = "experiment.phase")]
    ExperimentPhase {
        /// Which.
        id: Id,
        /// To where.
        to: PhaseRecord,
        /// With which numbers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<Verdict>,
    },
    /// A person acknowledged a stop.
    #[serde(rename = "experiment.ack")]
    ExperimentAck {
        /// Which.
        id: Id,
    },
    /// The person whose acceptance a rollout asks for said whether it works as wanted.
    #[serde(rename = "experiment.accept")]
    ExperimentAccept {
        /// Which.
        id: Id,
        /// What he said.
        as_wanted: bool,
    },
    /// Every connected proxy confirmed that a treatment is off.
    #[serde(rename = "experiment.off-everywhere")]
    ExperimentOff {
        /// Which.
        id: Id,
        /// How many proxies confirmed.
        proxies: u64,
        /// Microseconds since 1970.
        at: i64,
    },
    /// Everything that may harm is off.
    #[serde(rename = "halt")]
    Halt,
    /// The halt was lifted.
    #[serde(rename = "resume")]
    Resume,
}

/// A phase in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseRecord {
    /// See [`Phase`].
    WarmUp,
    /// With the stage, from 0.
    Running(usize),
    /// With the stage, from 0.
    Held(usize),
    /// See [`Phase`].
    Promoted,
    /// See [`Phase`].
    Completed,
    /// See [`Phase`].
    Stopped,
    /// See [`Phase`].
    Invalid,
    /// See [`Phase`].
    Expired,
}

impl From<Phase> for PhaseRecord {
    fn from(phase: Phase) -> PhaseRecord {
        match phase {
            Phase::WarmUp => PhaseRecord::WarmUp,
            Phase::Running { stage } => PhaseRecord::Running(stage),
            Phase::Held { stage } => PhaseRecord::Held(stage),
            Phase::Promoted => PhaseRecord::Promoted,
            Phase::Completed => PhaseRecord::Completed,
            Phase::Stopped => PhaseRecord::Stopped,
            Phase::Invalid => PhaseRecord::Invalid,
            Phase::Expired => PhaseRecord::Expired,
        }
    }
}

impl From<&PhaseRecord> for Phase {
    fn from(record: &PhaseRecord) -> Phase {
        match record {
            PhaseRecord::WarmUp => Phase::WarmUp,
            PhaseRecord::Running(stage) => Phase::Running { stage: *stage },
            PhaseRecord::Held(stage) => Phase::Held { stage: *stage },
            PhaseRecord::Promoted => Phase::Promoted,
            PhaseRecord::Completed => Phase::Completed,
            PhaseRecord::Stopped => Phase::Stopped,
            PhaseRecord::Invalid => Phase::Invalid,
            PhaseRecord::Expired => Phase::Expired,
        }
    }
}

impl Entry {
    /// The bytes that go into the log: keys sorted, no white space.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Through Value, whose maps are sorted.
        let value = serde_json::to_value(self).expect("an entry is made of plain data");
        value.to_string().into_bytes()
    }

    /// Reads an entry.
    pub fn from_bytes(bytes: &[u8]) -> Result<Entry, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// When.
    pub fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.ts)
    }

    /// What it was done to, for lists.
    pub fn resource(&self) -> String {
        match &self.action {
            Action::TokenCreate { name, .. } => format!("token {name}"),
            Action::Delegate { bounds, .. } => format!("flag {}", bounds.flag),
            Action::TokenRevoke { id } => id.to_string(),
            Action::FlagPut { key, .. }
            | Action::FlagDelete { key }
            | Action::FlagKill { key }
            | Action::FlagRevive { key } => {
                format!("flag {key}")
            }
            Action::SegmentPut { key, .. } | Action::SegmentDelete { key } => format!("segment {key}"),
            Action::EnvironmentSet { environment } => format!("environment {environment}"),
            Action::ProfilePut { name, .. } | Action::ProfileDelete { name } => format!("profile {name}"),
            Action::ExperimentStart { spec, .. } => format!("experiment {}", spec.name),
            Action::PreviewCreate { flag, .. } => format!("flag {flag}"),
            Action::PreviewBind { id, .. } | Action::PreviewRevoke { id } => id.to_string(),
            Action::ExperimentPhase { id, .. }
            | Action::ExperimentAck { id }
            | Action::ExperimentAccept { id, .. }
            | Action::ExperimentOff { id, .. } => id.to_string(),
            Action::Halt | Action::Resume => "everything".to_owned(),
        }
    }
}
