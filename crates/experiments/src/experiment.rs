//! A started spec: frozen, with its slice and its phase. This is state of the control plane, a fold over the audit log.

use std::sync::Arc;

use flags::{FlagChange, Slice};
use vocab::{Id, Share, Timestamp};

use crate::spec::{Spec, Treatment};
use crate::verdict::{Outcome, Verdict};

/// Where an experiment stands. Stop is reachable from every live phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Arms run equal; the treatment is off.
    WarmUp,
    /// The treatment is on for the share of this stage (counted from 0).
    Running {
        /// Which stage.
        stage: usize,
    },
    /// No data: faults are off, a rollout keeps its share, and it waits.
    Held {
        /// The stage it returns to.
        stage: usize,
    },
    /// Everybody gets it.
    Promoted,
    /// It ran its course and was reverted.
    Completed,
    /// Stopped and reverted; stays so until a person acknowledges it.
    Stopped,
    /// Reverted because its numbers prove nothing.
    Invalid,
    /// Reverted because no answer came.
    Expired,
}

impl Phase {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::WarmUp => "warm-up",
            Phase::Running { .. } => "running",
            Phase::Held { .. } => "held",
            Phase::Promoted => "promoted",
            Phase::Completed => "completed",
            Phase::Stopped => "stopped",
            Phase::Invalid => "invalid",
            Phase::Expired => "expired",
        }
    }

    /// Whether it can still change by itself.
    pub fn is_live(self) -> bool {
        matches!(self, Phase::WarmUp | Phase::Running { .. } | Phase::Held { .. })
    }

    /// The stage it is in; none outside stages.
    pub fn stage(self) -> Option<usize> {
        match self {
            Phase::Running { stage } | Phase::Held { stage } => Some(stage),
            _ => None,
        }
    }
}

/// What a person says of a change that works as it was coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// It is what was wanted.
    pub as_wanted: bool,
    /// In words.
    pub note: String,
    /// When.
    pub at: Timestamp,
}

/// A started experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Given by the fold.
    pub id: Id,
    /// Frozen at start.
    pub spec: Arc<Spec>,
    /// Salt of the layer its slice lies in.
    pub layer_salt: String,
    /// Its own salt.
    pub arm_salt: String,
    /// Where its range begins in the layer, in parts per million.
    pub offset: u32,
    /// Where it stands.
    pub phase: Phase,
    /// The last stage that ran, from 0; none before the first.
    pub reached: Option<usize>,
    /// Why, for a person.
    pub reason: String,
    /// When it was started.
    pub started_at: Timestamp,
    /// When the present phase began.
    pub phase_at: Timestamp,
    /// When the treatment was first switched on.
    pub harm_began_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Whether a person acknowledged that it was stopped.
    pub acknowledged: bool,
    /// What the person said whose acceptance it asks for.
    pub acceptance: Option<Acceptance>,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// The epoch it was started in; a halt raises the epoch and ends all older ones.
    pub epoch: u64,
}

impl Experiment {
    /// The slice in force: both arms' subjects.
    pub fn slice(&self) -> Slice {
        let population = match self.phase {
            Phase::WarmUp => self.spec.population(0),
            Phase::Running { stage } | Phase::Held { stage } => self.spec.population(stage),
            _ => Share::NONE,
        };
        let part = Share::from_fraction(self.spec.rho()).unwrap_or(Share::NONE);
        Slice::new(&self.layer_salt, &self.arm_salt, self.offset, population, part)
    }

    /// Whether treatment subjects get the treatment now.
    pub fn treatment_is_on(&self) -> bool {
        match self.phase {
            Phase::Running { .. } => true,
            Phase::Held { .. } => !self.spec.harms(),
            _ => false,
        }
    }

    /// The share of all subjects that may be harmed by it at its largest stage; 0 for what does not harm on purpose.
    pub fn budget_share(&self) -> Share {
        if !self.phase.is_live() || !self.spec.harms() {
            return Share::NONE;
        }
        self.spec.stages.last().map_or(Share::NONE, |s| s.share)
    }

    /// A stopped experiment stays stopped until a person acknowledges it.
    pub fn needs_ack(&self) -> bool {
        self.phase == Phase::Stopped && !self.acknowledged
    }

    /// Whether it ended because users were hurt, or a ceiling said so: what a person has to look at before the next try.
    pub fn verdict_was_harm(&self) -> bool {
        self.verdict.as_ref().is_some_and(|v| matches!(v.outcome, Outcome::Harm | Outcome::Ceiling))
    }

    /// What counts for the test begins here: the warm-up's counts do not enter it.
    pub fn era_began_at(&self) -> Timestamp {
        self.harm_began_at.unwrap_or(self.started_at)
    }

    /// What it changes: two live experiments never share one.
    pub fn targets(&self) -> Vec<String> {
        self.spec.treatment.targets()
    }
}

impl Treatment {
    /// See [`Experiment::targets`].
    pub fn targets(&self) -> Vec<String> {
        match self {
            Treatment::Fault(fault) => vec![format!("route {}", fault.route)],
            Treatment::Flag(change) => vec![format!("flag {}", change.key)],
            Treatment::Flags(changes) => changes.iter().map(FlagChange::target).collect(),
        }
    }
}
