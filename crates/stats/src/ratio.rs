//! Sample-ratio mismatch: do the arms hold the numbers of subjects that the assignment promises?
//!
//! Intuition: a 1:4 split that shows 1:3 is broken plumbing (a lost log, a redirect, a crash before the first report), and
//! numbers from a broken split prove nothing.
//!
//! Formula (Lindon & Malek 2022; research notes 2.1 "closed form", 2.2 e): a Beta prior worth `k` units around the intended
//! share, `ln E = ln B(k rho + n_T, k (1-rho) + n_C) - ln B(k rho, k (1-rho)) - n_T ln rho - n_C ln(1-rho)`.

use crate::math::ln_beta;

/// How many units the prior is worth. 100 finds a split that is off by a tenth within some thousands of subjects.
pub const PRIOR_UNITS: f64 = 100.0;

/// `ln E` against "each unit is in treatment with probability `rho`", for `0 < rho < 1`; 0 otherwise. Two-sided.
pub fn log_e(treatment: u64, baseline: u64, rho: f64, prior_units: f64) -> f64 {
    if !(rho > 0.0 && rho < 1.0) {
        return 0.0;
    }
    let (t, b) = (treatment as f64, baseline as f64);
    let (a, c) = (prior_units * rho, prior_units * (1.0 - rho));
    ln_beta(a + t, c + b) - ln_beta(a, c) - t * rho.ln() - b * (1.0 - rho).ln()
}
