//! The price before the start: at this traffic, how long until a harm of a given size is seen, and how many users will have
//! been hurt by then.

use crate::spec::Spec;

/// One row of the price table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// How many times as many bad windows the treatment causes; infinite for an outage.
    pub rate_ratio: f64,
    /// Bad subjects of both arms until the stop; none if it is not seen within a million.
    pub events: Option<u64>,
    /// How long that takes, window and settle time included.
    pub seconds: Option<f64>,
    /// Treatment subjects exposed by then.
    pub subjects_exposed: Option<u64>,
    /// Of them hurt.
    pub subjects_hurt: Option<u64>,
}

/// The price of `spec` where `subjects_per_second` new subjects arrive (all of the service's) and `bad_share` (in (0, 1)) of
/// them have a bad window anyway. Rows for 1.5, 2, 5 times as many bad windows, and an outage.
pub fn plan(spec: &Spec, subjects_per_second: f64, bad_share: f64) -> Vec<Price> {
    let rho = spec.rho();
    let alpha = spec.alpha * spec.guardrails.failures;
    let population = spec.population(0).fraction();
    let bad_share = bad_share.clamp(1e-6, 0.5);
    let outage = 1.0 / bad_share;
    [1.5, 2.0, 5.0, outage]
        .into_iter()
        .map(|rate_ratio| {
            let events = stats::power::events_until_stop(rate_ratio, rho, alpha);
            let arriving = subjects_per_second * population;
            // Of each arriving subject of the slice, the chance to have a bad window.
            let bad = bad_share * (rho * rate_ratio + 1.0 - rho);
            let waits = (spec.window.0 + spec.settle.0) as f64 / 1e3;
            let seconds = events.filter(|_| arriving > 0.0).map(|n| n as f64 / (arriving * bad.min(1.0)) + waits);
            let exposed = seconds.map(|s| (arriving * rho * s).round() as u64);
            Price {
                rate_ratio: if rate_ratio == outage { f64::INFINITY } else { rate_ratio },
                events,
                seconds,
                subjects_exposed: exposed,
                subjects_hurt: exposed.map(|n| (n as f64 * (bad_share * rate_ratio).min(1.0)).round() as u64),
            }
        })
        .collect()
}
