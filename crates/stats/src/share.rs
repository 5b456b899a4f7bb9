//! Bounds of shares and of differences of shares, for comparisons where many values are tried.
//!
//! Wilson's interval (1927) of one share behaves at the ends (0 of n, n of n) where the textbook one collapses; Newcombe's
//! hybrid (1998, method 10) builds the interval of a difference from two of them.

/// Wilson's interval for `successes` of `n` with normal quantile `z`, as (lower, upper); (0, 1) for `n` = 0.
pub fn wilson(successes: f64, n: f64, z: f64) -> (f64, f64) {
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let p = successes / n;
    let z2 = z * z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// The lower bound of `|p - q|` for `a` of `n_a` and `b` of `n_b`: positive only if the shares differ at quantile `z`.
pub fn difference_lower_bound(a: f64, n_a: f64, b: f64, n_b: f64, z: f64) -> f64 {
    if n_a <= 0.0 || n_b <= 0.0 {
        return -1.0;
    }
    let (p, q) = (a / n_a, b / n_b);
    let (p_low, p_high) = wilson(a, n_a, z);
    let (q_low, q_high) = wilson(b, n_b, z);
    if p >= q {
        p - q - ((p - p_low).powi(2) + (q_high - q).powi(2)).sqrt()
    } else {
        q - p - ((q - q_low).powi(2) + (p_high - p).powi(2)).sqrt()
    }
}
