//! Numbers as ranges: bins, and the cut or the range that separates two sides best.
//!
//! A bin is the upper 16 bits of the number's order-preserving form: sign, exponent and four bits of the fraction, so 16 bins
//! an octave, at most 6.25 % wide; whole numbers below 32 have a bin each. The edges are numbers that read well.

use rows::ValueRef;

/// A sign and the number behind it.
type Bound = (&'static str, f64);

/// In the order of the numbers.
pub(super) type Bin = u16;

const NEGATIVE_BELOW: Bin = 0x8000;

/// The bin of a number.
pub(super) fn bin(x: f64) -> Bin {
    // Both zeros are one.
    let bits = (x + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    (ordered >> 48) as Bin
}

/// The bin of a value, if it is a number.
pub(super) fn bin_of(value: Option<ValueRef<'_>>) -> Option<Bin> {
    value.and_then(ValueRef::as_f64).map(bin)
}

/// The edge below a bin: for positive bins the least number within, for negative ones the greatest number not within.
fn edge(bin: Bin) -> f64 {
    let ordered = u64::from(bin) << 48;
    if bin >= NEGATIVE_BELOW {
        f64::from_bits(ordered & !(1 << 63))
    } else {
        f64::from_bits((!ordered).wrapping_add(1))
    }
}

/// Bins from `low` to `high`, both within; none is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) low: Option<Bin>,
    pub(super) high: Option<Bin>,
}

impl Range {
    pub(super) fn holds(&self, bin: Bin) -> bool {
        self.low.is_none_or(|low| bin >= low) && self.high.is_none_or(|high| bin <= high)
    }

    fn bounds(&self) -> (Option<Bound>, Option<Bound>) {
        let low = self.low.map(|b| (if b >= NEGATIVE_BELOW { ">=" } else { ">" }, edge(b)));
        let high =
            self.high.and_then(|b| b.checked_add(1)).map(|b| (if b >= NEGATIVE_BELOW { "<" } else { "<=" }, edge(b)));
        (low, high)
    }

    /// For people: `>= 1179648`, `16 to 32`.
    pub(super) fn text(&self) -> String {
        match self.bounds() {
            (Some((_, low)), Some((_, high))) => format!("{low} to {high}"),
            (Some((op, edge)), None) | (None, Some((op, edge))) => format!("{op} {edge}"),
            (None, None) => "any number".to_owned(),
        }
    }

    /// As a filter of the field.
    pub(super) fn filter(&self, field: &str) -> String {
        let (low, high) = self.bounds();
        let tests: Vec<String> =
            [low, high].into_iter().flatten().map(|(op, edge)| format!("{field} {op} {edge}")).collect();
        if tests.is_empty() { format!("{field} exists") } else { tests.join(" and ") }
    }
}

/// Counts by bin, ascending: selection, baseline.
pub(super) type Histogram = Vec<(Bin, f64, f64)>;

/// A range and its counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub(super) range: Range,
    pub(super) selected: f64,
    pub(super) baseline: f64,
    /// How many were tried to find it.
    pub(super) tried: f64,
}

/// The one-sided cut and the range between two edges that the selection (of `s`) has most in excess of the baseline (of `b`).
/// Values that are in neither are not cut.
pub(super) fn best_cuts(histogram: &Histogram, (s, b): (f64, f64)) -> Vec<Cut> {
    let n = histogram.len();
    if n < 2 || s <= 0.0 || b <= 0.0 {
        return Vec::new();
    }
    let gain = |place: usize| histogram[place].1 / s - histogram[place].2 / b;
    let cut = |from: usize, to: usize, tried: f64| {
        let sum = |side: fn(&(Bin, f64, f64)) -> f64| histogram[from..=to].iter().map(side).sum::<f64>();
        let low = (from > 0).then(|| histogram[from].0);
        let high = (to + 1 < n).then(|| histogram[to].0);
        Cut { range: Range { low, high }, selected: sum(|h| h.1), baseline: sum(|h| h.2), tried }
    };
    // The best run by its gain (Kadane), and the best that begins or ends at the end of the scale.
    let (mut best, mut best_gain) = ((0, 0), f64::NEG_INFINITY);
    let (mut run, mut run_from) = (0.0, 0);
    let (mut prefix, mut best_prefix) = (0.0, (0, f64::NEG_INFINITY));
    for place in 0..n {
        if run <= 0.0 {
            (run, run_from) = (0.0, place);
        }
        run += gain(place);
        if run > best_gain {
            (best, best_gain) = ((run_from, place), run);
        }
        prefix += gain(place);
        if place + 1 < n && prefix > best_prefix.1 {
            best_prefix = (place, prefix);
        }
    }
    let (mut suffix, mut best_suffix) = (0.0, (n - 1, f64::NEG_INFINITY));
    for place in (1..n).rev() {
        suffix += gain(place);
        if suffix > best_suffix.1 {
            best_suffix = (place, suffix);
        }
    }
    let one_sided = 2.0 * (n - 1) as f64;
    let mut cuts = vec![if best_suffix.1 >= best_prefix.1 {
        cut(best_suffix.0, n - 1, one_sided)
    } else {
        cut(0, best_prefix.0, one_sided)
    }];
    // A range must be worth its second edge.
    if best.0 > 0 && best.1 + 1 < n && best_gain > 1.1 * best_suffix.1.max(best_prefix.1) {
        cuts.push(cut(best.0, best.1, (n * (n + 1)) as f64 / 2.0));
    }
    cuts
}
