//! Statistics that stay true however often one looks: numbers in, numbers out.
//!
//! Everything here is *anytime-valid*: the chance that a harmless change ever raises an alarm, at any of arbitrarily many
//! looks, is at most alpha. The crate knows nothing of subjects, windows or experiments; who counts as one observation is
//! decided by its callers, and the guarantees hold only if one observation is one independent unit.
//!
//! - [`LabelBet`]: bets on which arm the next bad unit is in (Lindon & Malek 2022; an e-process by Ville's inequality);
//! - [`ExceedanceBet`]: the same bet told whether the unit lies above a frozen cut-point (latency);
//! - [`ratio`]: e-values of a split against its intended ratio (sample-ratio mismatch);
//! - [`mean`]: asymptotic confidence sequence of a difference of means (Waudby-Smith et al. 2023);
//! - [`share`]: Wilson and Newcombe bounds of shares, for comparisons;
//! - [`power`]: how many bad units it takes to stop.

mod exceedance;
mod label;
mod math;
pub mod mean;
pub mod power;
pub mod ratio;
pub mod share;

pub use exceedance::ExceedanceBet;
pub use label::{LabelBet, RateRatioBounds};
pub use math::{ln_beta, ln_gamma, normal_quantile};

#[cfg(test)]
mod tests;
