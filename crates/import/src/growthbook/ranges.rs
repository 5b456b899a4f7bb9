//! GrowthBook's arithmetic of weights and coverage: which part of hash space, from 0 to 1, is whose.

/// A part of hash space: `from ≤ place < below`.
pub(super) type Range = (f64, f64);

/// Weights that follow each other; of each only the first part that `coverage` says. Weights that are not one for each variation, or do
/// not add up to one, become equal.
pub(super) fn of_weights(variations: usize, coverage: f64, weights: Option<&[f64]>) -> Vec<Range> {
    let coverage = coverage.clamp(0.0, 1.0);
    let equal = || vec![1.0 / variations as f64; variations];
    let weights = match weights {
        Some(weights) if weights.len() == variations => {
            let total = weights.iter().fold(0.0, |sum, weight| sum + weight);
            if (0.99..=1.01).contains(&total) { weights.to_vec() } else { equal() }
        }
        _ => equal(),
    };
    let mut from = 0.0;
    weights
        .into_iter()
        .map(|weight| {
            let range = (from, from + coverage * weight);
            from += weight;
            range
        })
        .collect()
}

/// What a rollout covers: GrowthBook counts the end in.
pub(super) fn of_coverage(coverage: f64) -> Range {
    (0.0, if coverage < 0.0 { 0.0 } else { coverage.next_up() })
}

/// Each range without what those before it have, inside 0 to 1; the first that has a place counts.
pub(super) fn apart(ranges: &[Range]) -> Vec<(usize, Range)> {
    let mut found: Vec<(usize, Range)> = Vec::new();
    for (n, (from, below)) in ranges.iter().enumerate() {
        let mut left = vec![(from.max(0.0), below.min(1.0))];
        for (_, (taken_from, taken_below)) in found.clone() {
            left = left
                .into_iter()
                .flat_map(|(from, below)| [(from, below.min(taken_from)), (from.max(taken_below), below)])
                .filter(|(from, below)| from < below)
                .collect();
        }
        found.extend(left.into_iter().filter(|(from, below)| from < below).map(|range| (n, range)));
    }
    found
}
