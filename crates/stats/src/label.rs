//! A bet on the arm label of each bad unit.
//!
//! The intuition: while a change is harmless, the next user who has a bad time is a treatment user with the known
//! probability rho of his assignment, whatever the traffic does and however bad the day is for everybody. We start with
//! one coin and bet it, at fair odds, on "treatment" a little more than that. While the change is harmless the wealth
//! cannot grow on average, so it reaches 1/alpha with a chance of at most alpha (Ville 1939); when the change harms, it
//! grows exponentially.
//!
//! Formula (research notes 2.1; Lindon & Malek 2022, eq. 4 with a discrete mixture): for a log rate ratio `d`,
//! `theta(d) = rho e^d / (rho e^d + 1 - rho)` is the chance that the next bad unit is in treatment, and
//! `E = Σ_j w_j Π_i theta_i(d0+d_j)^{T_i} (1-theta_i(d0+d_j))^{1-T_i} / (the same at d0)`.
//! The composite null `d ≤ d0` is covered because the likelihood ratio is monotone in `d`.

use serde::{Deserialize, Serialize};

use crate::math::log_sum_exp;

/// How many harms are bet on at once. 40 nodes from 1.05x to 100x lose at most ln 40 against the best single bet.
const NODES: usize = 40;

/// The state of the bet: 40 log likelihood ratios and two counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelBet {
    null_log_ratio: f64,
    /// Log likelihood ratio of each node against the null.
    node_log_lr: Vec<f64>,
    treatment: u64,
    baseline: u64,
    /// Counts by assignment probability, for the confidence sequence; as many as the experiment has stages.
    strata: Vec<Stratum>,
}

/// Units that were assigned with the same probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Stratum {
    rho: f64,
    treatment: u64,
    baseline: u64,
}

/// An interval of rate ratios, treatment over baseline; `upper` may be infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRatioBounds {
    /// At least 0.
    pub lower: f64,
    /// Above `lower`.
    pub upper: f64,
}

/// The log rate ratios bet on: geometric from 0.05 to ln 100.
fn nodes() -> [f64; NODES] {
    let (low, high) = (0.05_f64, 100.0_f64.ln());
    let step = (high / low).ln() / (NODES - 1) as f64;
    std::array::from_fn(|j| low * (step * j as f64).exp())
}

fn theta(rho: f64, log_ratio: f64) -> f64 {
    let odds = rho * log_ratio.exp();
    odds / (odds + 1.0 - rho)
}

impl LabelBet {
    /// A bet against "treatment's rate is at most `margin` times baseline's". `margin` ≥ 1; 1 for first bad units.
    pub fn new(margin: f64) -> LabelBet {
        LabelBet {
            null_log_ratio: margin.max(1.0).ln(),
            node_log_lr: vec![0.0; NODES],
            treatment: 0,
            baseline: 0,
            strata: Vec::new(),
        }
    }

    /// One more bad unit: in treatment or not, assigned to treatment with probability `rho`.
    /// A `rho` outside (0, 1) says nothing about harm and changes nothing.
    pub fn observe(&mut self, in_treatment: bool, rho: f64) {
        if !(rho > 0.0 && rho < 1.0) {
            return;
        }
        let null = theta(rho, self.null_log_ratio);
        for (log_lr, node) in self.node_log_lr.iter_mut().zip(nodes()) {
            let alternative = theta(rho, self.null_log_ratio + node);
            *log_lr += if in_treatment { (alternative / null).ln() } else { ((1.0 - alternative) / (1.0 - null)).ln() };
        }
        let stratum = match self.strata.iter_mut().find(|s| s.rho == rho) {
            Some(stratum) => stratum,
            None => {
                self.strata.push(Stratum { rho, treatment: 0, baseline: 0 });
                self.strata.last_mut().expect("just pushed")
            }
        };
        if in_treatment {
            self.treatment += 1;
            stratum.treatment += 1;
        } else {
            self.baseline += 1;
            stratum.baseline += 1;
        }
    }

    /// The natural logarithm of the e-value; 0 before the first unit. Alarm when it reaches ln(1/alpha).
    pub fn log_e(&self) -> f64 {
        log_sum_exp(&self.node_log_lr) - (NODES as f64).ln()
    }

    /// Where [`LabelBet::log_e`] stands after `n` units of which the share `in_treatment` is in treatment.
    pub(crate) fn expected_log_e(n: f64, in_treatment: f64, rho: f64) -> f64 {
        let terms = nodes().map(|node| {
            let alternative = theta(rho, node);
            n * (in_treatment * (alternative / rho).ln()
                + (1.0 - in_treatment) * ((1.0 - alternative) / (1.0 - rho)).ln())
        });
        log_sum_exp(&terms) - (NODES as f64).ln()
    }

    /// Bad units seen in treatment and baseline.
    pub fn counts(&self) -> (u64, u64) {
        (self.treatment, self.baseline)
    }

    /// The `1 - alpha` confidence sequence of the rate ratio: all ratios `r` that a two-sided mixture (the same grid on
    /// both sides) does not refute at level `alpha`. `0 < alpha < 1`. Before any data it is everything.
    pub fn rate_ratio_bounds(&self, alpha: f64) -> RateRatioBounds {
        let limit = (1.0 / alpha).ln();
        let log_lik = |d: f64| -> f64 {
            self.strata
                .iter()
                .map(|s| {
                    let p = theta(s.rho, d);
                    let t = if s.treatment > 0 { s.treatment as f64 * p.ln() } else { 0.0 };
                    let b = if s.baseline > 0 { s.baseline as f64 * (1.0 - p).ln() } else { 0.0 };
                    t + b
                })
                .sum()
        };
        let grid: Vec<f64> = nodes().iter().flat_map(|d| [*d, -*d]).map(log_lik).collect();
        let mixture = log_sum_exp(&grid) - (grid.len() as f64).ln();
        let refuted = |d: f64| mixture - log_lik(d) >= limit;
        // The likelihood is unimodal in d, so the set is an interval; walk out from the best d and bisect its ends.
        const FAR: f64 = 12.0;
        let mut best = 0.0;
        let mut best_lik = f64::NEG_INFINITY;
        for step in -240..=240 {
            let d = FAR * f64::from(step) / 240.0;
            let lik = log_lik(d);
            if lik > best_lik {
                (best, best_lik) = (d, lik);
            }
        }
        let bisect = |far: f64| -> Option<f64> {
            if !refuted(far) {
                return None;
            }
            let (mut kept, mut out) = (best, far);
            for _ in 0..60 {
                let middle = 0.5 * (kept + out);
                if refuted(middle) { out = middle } else { kept = middle }
            }
            Some(kept)
        };
        RateRatioBounds {
            lower: bisect(-FAR).map_or(0.0, f64::exp),
            upper: bisect(FAR).map_or(f64::INFINITY, f64::exp),
        }
    }
}
