use stats::share::wilson;

use crate::{Ending, World, run};

const ALPHA: f64 = 0.05;

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_123);
    println!("SEED={seed}");
    seed
}

fn world(rate_cv: f64) -> World {
    World { users: 3_000, rate_cv, failure_rate: 0.05, harm: 1.0, count_requests: false }
}

/// Share of runs that ended so, and the 99 % lower confidence limit of it.
fn share(world: World, runs: u64, ending: Ending) -> (f64, f64) {
    let base = seed();
    let count = (0..runs).filter(|n| run(world, ALPHA, base.wrapping_add(n * 7_919)) == ending).count() as f64;
    (count / runs as f64, wilson(count, runs as f64, 2.326).0)
}

/// Scenario: a harmless change; users whose failure rates differ (CV 1, 2, 5), heavy-tailed requests, an incident that hits
/// everybody, events late and out of order.
/// Guarantees: the share of runs stopped for harm is at most alpha, at every look.
#[test]
fn a_harmless_change_is_stopped_with_probability_at_most_alpha() {
    for rate_cv in [1.0, 2.0, 5.0] {
        let (stopped, lower) = share(world(rate_cv), 150, Ending::Stopped);
        println!("CV {rate_cv}: false stops {stopped:.3}");
        assert!(lower <= ALPHA, "CV {rate_cv}: {stopped} of runs stopped, alpha is {ALPHA}");
    }
}

/// Guarantees: the test above can fail. Counting requests instead of subjects breaks the promise, and it is seen.
#[test]
fn the_mutant_that_counts_requests_is_caught() {
    let mutant = World { count_requests: true, ..world(5.0) };
    let (stopped, lower) = share(mutant, 100, Ending::Stopped);
    println!("counting requests: false stops {stopped:.3}");
    assert!(lower > ALPHA, "the mutant stopped only {stopped} of harmless runs");
}

/// Guarantees: harm is found: six times as many failures stop nearly every run.
#[test]
fn harm_is_found() {
    let (stopped, _) = share(World { harm: 6.0, ..world(1.0) }, 30, Ending::Stopped);
    println!("six times as many failures: stopped {stopped:.3}");
    assert!(stopped >= 0.9, "{stopped}");
}
