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

/// The two-sided p-value of Fisher's exact test (twice the smaller tail) of `a` of `n_a` against `b` of `n_b`. Exact at any
/// size, so it holds where intervals built on the normal distribution give out: a few cases, many values tried. 1 if a side
/// is empty. Costs a few hundred multiplications at most, since the terms of a tail fall faster than geometrically.
pub fn fisher_p(a: u64, n_a: u64, b: u64, n_b: u64) -> f64 {
    if n_a == 0 || n_b == 0 || a > n_a || b > n_b {
        return 1.0;
    }
    let (k, n) = (a + b, n_a + n_b);
    let ln_choose = |n: u64, k: u64| {
        let ln_factorial = |m: u64| crate::ln_gamma(m as f64 + 1.0);
        ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
    };
    let at = (ln_choose(n_a, a) + ln_choose(n_b, k - a) - ln_choose(n, k)).exp();
    let up = a as f64 * n_b as f64 >= b as f64 * n_a as f64;
    // Hypergeometric recurrence, from the observed table outwards.
    let (mut x, mut term, mut tail) = (a as f64, at, at);
    let (na, nb, k) = (n_a as f64, n_b as f64, k as f64);
    loop {
        let ratio = if up {
            (na - x) * (k - x) / ((x + 1.0) * (nb - k + x + 1.0))
        } else {
            x * (nb - k + x) / ((na - x + 1.0) * (k - x + 1.0))
        };
        term *= ratio.max(0.0);
        tail += term;
        x += if up { 1.0 } else { -1.0 };
        if term <= tail * 1e-12 {
            return (2.0 * tail).min(1.0);
        }
    }
}

/// The smallest [`fisher_p`] that `total` occurrences in both sides together could ever give. What cannot reach the level
/// need not be counted as tried (Tarone 1990): a value that occurs once among millions proves nothing wherever it lies.
pub fn least_fisher_p(total: f64, n_a: f64, n_b: f64) -> f64 {
    if n_a <= 0.0 || n_b <= 0.0 {
        return 1.0;
    }
    let ln_all_in = |side: f64, other: f64| {
        // C(side, total) / C(side + other, total); what does not fit overflows to the other side.
        let k = total.min(side);
        let ln_factorial = |m: f64| crate::ln_gamma(m + 1.0);
        ln_factorial(side) - ln_factorial(side - k) - ln_factorial(side + other) + ln_factorial(side + other - k)
    };
    (2.0 * ln_all_in(n_a, n_b).min(ln_all_in(n_b, n_a)).exp()).min(1.0)
}

/// Of one stratum: `a` of `n_a` beside `b` of `n_b`.
pub type Stratum = (f64, f64, f64, f64);

/// The standard score of Mantel and Haenszel (1959): how far the occurrences in side a lie from what each stratum's own mix
/// lets expect, summed over the strata. About 0 where a difference of the whole comes from the mix of the strata alone; it is
/// positive where side a has more. 0 if no stratum can tell.
pub fn mantel_haenszel_z(strata: &[Stratum]) -> f64 {
    let (mut excess, mut variance) = (0.0, 0.0);
    for (a, n_a, b, n_b) in strata {
        let (n, k) = (n_a + n_b, a + b);
        if *n_a <= 0.0 || *n_b <= 0.0 || n <= 1.0 {
            continue;
        }
        excess += a - k * n_a / n;
        variance += n_a * n_b * k * (n - k).max(0.0) / (n * n * (n - 1.0));
    }
    if variance > 0.0 { excess / variance.sqrt() } else { 0.0 }
}
