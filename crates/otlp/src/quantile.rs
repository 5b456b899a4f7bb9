//! Quantiles from the buckets of a histogram.
//!
//! The rank that is asked for falls into one bucket; within it values are taken to lie evenly. So the estimate is never further away than
//! the bucket is wide, and it is never beyond the smallest and largest value where the histogram says them.

/// So many values in `(low, high]`; the first and the last may be open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) count: u64,
}

/// The value below which `share` of all lie, in `[0, 1]`. None without values, or if a bucket has no bound at all.
pub(crate) fn quantile(buckets: &[Bucket], share: f64, min: Option<f64>, max: Option<f64>) -> Option<f64> {
    // As numbers: counts from outside may add up to more than fits.
    let total: f64 = buckets.iter().map(|bucket| bucket.count as f64).sum();
    if total <= 0.0 {
        return None;
    }
    let rank = share * total;
    let mut below = 0.0;
    let mut last = None;
    for bucket in buckets.iter().filter(|bucket| bucket.count > 0) {
        let count = bucket.count as f64;
        last = Some((bucket, 1.0));
        if below + count >= rank {
            last = Some((bucket, ((rank - below) / count).clamp(0.0, 1.0)));
            break;
        }
        below += count;
    }
    let (bucket, part) = last?;
    let (min, max) = (min.filter(|n| n.is_finite()), max.filter(|n| n.is_finite()));
    // An open bucket ends where its values do, if that is known; else its other end is all that is known of it.
    let low = if bucket.low.is_finite() {
        bucket.low
    } else {
        min.unwrap_or(if bucket.high > 0.0 { 0.0 } else { bucket.high })
    };
    let high = if bucket.high.is_finite() { bucket.high } else { max.unwrap_or(bucket.low) };
    let found = low + (high - low) * part;
    let found = min.map_or(found, |min| found.max(min));
    let found = max.map_or(found, |max| found.min(max));
    found.is_finite().then_some(found)
}
