//! A bet on the arm label given whether a unit lies above a cut-point that was frozen before the start.
//!
//! Intuition: if the change slows nobody down, knowing that a request was slow says nothing about its arm. If it does,
//! slow ones are treatment's more often, and fast ones a little less often.
//!
//! Formula (research notes 2.2 d): with `p` the share above the cut-point (validity does not need it to be right) and a
//! risk ratio `r`, `theta_above = rho r/(rho r + 1 - rho)` and
//! `theta_below = rho (1-pr)/(rho (1-pr) + (1-rho)(1-p))`; E is the mixture over `r ≤ 0.95/p`.

use serde::{Deserialize, Serialize};

use crate::math::log_sum_exp;

const NODES: usize = 24;

/// The bet on one cut-point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExceedanceBet {
    share_above: f64,
    ratios: [f64; NODES],
    node_log_lr: [f64; NODES],
}

impl ExceedanceBet {
    /// `share_above` is the share of baseline units above the cut-point, e.g. 0.01 for its p99; clamped to [1e-4, 0.9].
    pub fn new(share_above: f64) -> ExceedanceBet {
        let p = share_above.clamp(1e-4, 0.9);
        let (low, high) = (1.02_f64.ln(), (0.95 / p).max(1.05).ln());
        let step = (high / low).ln() / (NODES - 1) as f64;
        ExceedanceBet {
            share_above: p,
            ratios: std::array::from_fn(|j| (low * (step * j as f64).exp()).exp()),
            node_log_lr: [0.0; NODES],
        }
    }

    /// One more unit, `above` the cut-point or not. A `rho` outside (0, 1) changes nothing.
    pub fn observe(&mut self, in_treatment: bool, above: bool, rho: f64) {
        if !(rho > 0.0 && rho < 1.0) {
            return;
        }
        for (log_lr, r) in self.node_log_lr.iter_mut().zip(self.ratios) {
            let (t, b) = if above {
                (rho * r, 1.0 - rho)
            } else {
                (rho * (1.0 - self.share_above * r), (1.0 - rho) * (1.0 - self.share_above))
            };
            let alternative = t / (t + b);
            *log_lr += if in_treatment { (alternative / rho).ln() } else { ((1.0 - alternative) / (1.0 - rho)).ln() };
        }
    }

    /// The natural logarithm of the e-value.
    pub fn log_e(&self) -> f64 {
        log_sum_exp(&self.node_log_lr) - (NODES as f64).ln()
    }

    /// The logarithm of the plain average of several cut-points' e-values, which is itself an e-value; 0 for none.
    pub fn log_e_average(bets: &[ExceedanceBet]) -> f64 {
        if bets.is_empty() {
            return 0.0;
        }
        let terms: Vec<f64> = bets.iter().map(ExceedanceBet::log_e).collect();
        log_sum_exp(&terms) - (bets.len() as f64).ln()
    }
}
