//! Experiments: every production change, watched against a baseline, stopped when it hurts.
//!
//! - [`Spec`]: what a person asks for, and what is wrong with it;
//! - [`Experiment`]: a started spec, frozen, with its slice and phase;
//! - [`Tally`]: what was observed, cut into closed windows, one subject counted once;
//! - [`step`]: experiment + tally + now → what to do next and why (or why not yet);
//! - [`plan`]: the price before the start;
//! - [`Profile`]: how a change of flags is watched that becomes a rollout by itself.
//!
//! Pure: no clock, no I/O, no randomness. The crate knows events only as [`rows::Row`]s and nothing of HTTP, storage, flags'
//! documents or proxies. The shell feeds the tally, calls `step` and carries its answer out.

mod experiment;
mod plan;
mod profile;
mod spec;
mod step;
mod tally;
mod verdict;

pub use experiment::{Acceptance, Experiment, Phase};
pub use plan::{Price, plan};
pub use profile::Profile;
pub use spec::{
    Fault, Guardrails, Kpi, LATENCY_CUT_SHARES, OnSuccess, Spec, SpecFinding, Stage, Treatment, VariantChange, WarmUp,
};
pub use step::{GuardrailReport, GuardrailState, Report, Transition, Turn, step};
pub use tally::{ArmCounts, KpiKind, Observation, Second, Tally};
pub use verdict::{Outcome, Verdict};

#[cfg(test)]
mod tests;
