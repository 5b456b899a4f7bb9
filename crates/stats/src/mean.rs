//! The asymptotic confidence sequence of a difference of means: how much worse may treatment still be?
//!
//! Intuition: the usual "estimate ± some standard errors", with the factor widened so that it holds at every look.
//! Asymptotic: it needs about a hundred units an arm before it means anything, and arms within 1:2, or a hundred units
//! with a value other than zero in the smaller arm (research notes 2.2 c, with the simulations that show why).
//!
//! Formula (Waudby-Smith et al. 2103.06476v7, eqs. 9 and 134): with `N = n_T + n_C`, `se² = var_T/n_T + var_C/n_C`,
//! two-sided radius `se √N √( 2(N r²+1)/(N² r²) · ln(√(N r²+1)/alpha) )`,
//! one-sided radius `se √N √( 2(N r²+1)/(N² r²) · ln(1 + √(N r²+1)/(2 alpha)) )`,
//! `r = √((-2 ln a + ln(1 - 2 ln a))/N*)` with `a = alpha` (two-sided) or `2 alpha` (one-sided); `N*` is the sample size at
//! which one expects to decide, fixed before the start.

use serde::{Deserialize, Serialize};

/// Running count, mean and sum of squared deviations (Welford 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Units seen.
    pub n: u64,
    /// Their mean; 0 for none.
    pub mean: f64,
    squares: f64,
}

impl Moments {
    /// From a count, a mean and a sample variance.
    pub fn new(n: u64, mean: f64, variance: f64) -> Moments {
        Moments { n, mean, squares: variance * n.saturating_sub(1) as f64 }
    }

    /// One more unit.
    pub fn observe(&mut self, value: f64) {
        self.n += 1;
        let off = value - self.mean;
        self.mean += off / self.n as f64;
        self.squares += off * (value - self.mean);
    }

    /// Sample variance; 0 below two units.
    pub fn variance(&self) -> f64 {
        if self.n < 2 { 0.0 } else { self.squares / (self.n - 1) as f64 }
    }
}

/// `√N` times the anytime factor; multiply by the standard error for the radius.
fn factor(n: f64, alpha: f64, n_planned: f64, two_sided: bool) -> f64 {
    let a = if two_sided { alpha } else { (2.0 * alpha).min(0.99) };
    let r2 = (-2.0 * a.ln() + (1.0 - 2.0 * a.ln()).ln()) / n_planned;
    let nr = n * r2 + 1.0;
    let log = if two_sided { (nr.sqrt() / alpha).ln() } else { (1.0 + nr.sqrt() / (2.0 * alpha)).ln() };
    (n * 2.0 * nr / (n * n * r2) * log).sqrt()
}

fn standard_error(treatment: &Moments, baseline: &Moments) -> f64 {
    (treatment.variance() / treatment.n as f64 + baseline.variance() / baseline.n as f64).sqrt()
}

/// The two-sided `1 - alpha` confidence sequence of `mean_T - mean_C` as (lower, upper); infinite below 2 units an arm.
pub fn difference_bounds(treatment: &Moments, baseline: &Moments, alpha: f64, n_planned: f64) -> (f64, f64) {
    if treatment.n < 2 || baseline.n < 2 {
        return (f64::NEG_INFINITY, f64::INFINITY);
    }
    let radius =
        standard_error(treatment, baseline) * factor((treatment.n + baseline.n) as f64, alpha, n_planned, true);
    let difference = treatment.mean - baseline.mean;
    (difference - radius, difference + radius)
}

/// The one-sided upper bound of `mean_T - mean_C`: with confidence `1 - alpha` at every look, treatment is worse by no more
/// than this. `n_floor` is added to the variance as if half a unit of each kind had been seen, so that a run without a
/// single bad unit is not taken for certainty. Infinite below 2 units an arm.
pub fn difference_upper_bound(treatment: &Moments, baseline: &Moments, alpha: f64, n_planned: f64) -> f64 {
    if treatment.n < 2 || baseline.n < 2 {
        return f64::INFINITY;
    }
    let floor = |m: &Moments| {
        let n = m.n as f64;
        let smoothed = 1.0 / (n + 1.0);
        m.variance().max(smoothed * (1.0 - smoothed)) / n
    };
    let se = (floor(treatment) + floor(baseline)).sqrt();
    treatment.mean - baseline.mean + se * factor((treatment.n + baseline.n) as f64, alpha, n_planned, false)
}
