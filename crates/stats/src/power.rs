//! The price before the start: how many bad units until a harm of a given size stops the experiment.
//!
//! Computed, not simulated: after `n` bad units of which the expected share is in treatment, the bet stands at
//! `ln Σ_j w_j exp(n · g_j)` with `g_j` the growth of node `j` per unit; the answer is the smallest `n` at which that reaches
//! ln(1/alpha). It is a little cautious: luck lets half the runs stop sooner, so it lies within a quarter above the simulated medians of
//! research notes 2.1.

use crate::LabelBet;

/// No answer is looked for beyond this many bad units: a harm that needs more is not seen in any run a person waits for.
pub const EVENTS_MAX: u64 = 1_000_000;

/// Bad units, in both arms together, until the label bet reaches `1/alpha` in the median, if treatment's rate is
/// `rate_ratio` (> 1) times baseline's and a unit is in treatment with probability `rho`. None beyond [`EVENTS_MAX`].
pub fn events_until_stop(rate_ratio: f64, rho: f64, alpha: f64) -> Option<u64> {
    if !(rate_ratio > 1.0 && rho > 0.0 && rho < 1.0 && alpha > 0.0 && alpha < 1.0) {
        return None;
    }
    let in_treatment = rho * rate_ratio / (rho * rate_ratio + 1.0 - rho);
    let reached = |n: u64| LabelBet::expected_log_e(n as f64, in_treatment, rho) >= (1.0 / alpha).ln();
    if !reached(EVENTS_MAX) {
        return None;
    }
    let (mut low, mut high) = (0, EVENTS_MAX);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if reached(middle) { high = middle } else { low = middle }
    }
    Some(high)
}
