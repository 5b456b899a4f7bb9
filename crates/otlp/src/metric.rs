//! Metrics: each data point is a row with a value, so that questions to events are questions to metrics too.
//!
//! | data | columns |
//! |---|---|
//! | any | `metric.name`, `metric.unit`, `metric.kind`, `metric.start_time`, the attributes of resource, scope and point |
//! | gauge | `value` |
//! | sum | `value`, `metric.temporality`, `metric.monotonic` |
//! | histogram, exponential histogram | `metric.temporality`, `metric.count`, `metric.sum`, `metric.min`, `metric.max`, and from the buckets `metric.p50`, `metric.p90`, `metric.p99` |
//! | summary | `metric.count`, `metric.sum`, and each quantile it has, as `metric.p50` |
//!
//! A point that says that it has no value, and a value that is no number, is a row with `metric.no_value`. Exemplars are not kept.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    SummaryDataPoint,
};
use rows::{Draft, Value, names};
use vocab::Timestamp;

use crate::decode::{Decoded, put};
use crate::quantile::{Bucket, quantile};

/// The quantiles that are estimated from buckets.
const QUANTILES: [(f64, &str); 3] = [(0.5, "metric.p50"), (0.9, "metric.p90"), (0.99, "metric.p99")];
/// Quantiles kept of one point of a summary: each is a column.
const SUMMARY_QUANTILES_MAX: usize = 32;

/// What the points of one metric have in common.
struct Head<'a> {
    base: &'a Draft,
    metric: &'a Metric,
    kind: &'static str,
    temporality: Option<&'static str>,
    monotonic: Option<bool>,
    received: Timestamp,
}

pub(crate) fn take(decoded: &mut Decoded, base: &Draft, metric: &Metric, received: Timestamp) {
    let head = |kind, temporality: Option<i32>, monotonic| Head {
        base,
        metric,
        kind,
        temporality: temporality.and_then(temporality_word),
        monotonic,
        received,
    };
    match &metric.data {
        None => decoded.reject(format!("metric {:?} has no data that is known here", rows::draft::cut(&metric.name))),
        Some(Data::Gauge(gauge)) => {
            let head = head("gauge", None, None);
            gauge.data_points.iter().for_each(|point| _ = decoded.keep(number(&head, point)));
        }
        Some(Data::Sum(sum)) => {
            let head = head("sum", Some(sum.aggregation_temporality), Some(sum.is_monotonic));
            sum.data_points.iter().for_each(|point| _ = decoded.keep(number(&head, point)));
        }
        Some(Data::Histogram(histogram)) => {
            let head = head("histogram", Some(histogram.aggregation_temporality), None);
            histogram.data_points.iter().for_each(|point| _ = decoded.keep(explicit(&head, point)));
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            let head = head("exponential_histogram", Some(histogram.aggregation_temporality), None);
            histogram.data_points.iter().for_each(|point| _ = decoded.keep(exponential(&head, point)));
        }
        Some(Data::Summary(summary)) => {
            let head = head("summary", None, None);
            summary.data_points.iter().for_each(|point| _ = decoded.keep(summarised(&head, point)));
        }
    }
}

fn temporality_word(number: i32) -> Option<&'static str> {
    match AggregationTemporality::try_from(number) {
        Ok(AggregationTemporality::Delta) => Some("delta"),
        Ok(AggregationTemporality::Cumulative) => Some("cumulative"),
        _ => None,
    }
}

/// What every point has.
fn point(head: &Head<'_>, attributes: &[KeyValue], (start, at): (u64, u64), flags: u32) -> Draft {
    let mut draft = head.base.clone();
    put(&mut draft, attributes);
    draft.say_text("metric.name", &head.metric.name);
    if !head.metric.unit.is_empty() {
        draft.say_text("metric.unit", &head.metric.unit);
    }
    draft.say("metric.kind", head.kind);
    if let Some(temporality) = head.temporality {
        draft.say("metric.temporality", temporality);
    }
    if let Some(monotonic) = head.monotonic {
        draft.say("metric.monotonic", monotonic);
    }
    draft.say(names::SIGNAL, "metric");
    draft.at(at.into(), head.received);
    if let Some(start) = i64::try_from(start).ok().filter(|start| *start != 0) {
        draft.say("metric.start_time", Timestamp::from_nanos(start).to_string());
    }
    if flags & DataPointFlags::NoRecordedValueMask as u32 != 0 {
        draft.say("metric.no_value", true);
    }
    draft
}

fn say_number(draft: &mut Draft, name: &str, number: Option<f64>) {
    if let Some(number) = number.filter(|n| n.is_finite()) {
        draft.say(name, number);
    }
}

fn say_count(draft: &mut Draft, count: u64) {
    draft.say("metric.count", i64::try_from(count).unwrap_or(i64::MAX));
}

fn number(head: &Head<'_>, data: &NumberDataPoint) -> Draft {
    let times = (data.start_time_unix_nano, data.time_unix_nano);
    let mut draft = point(head, &data.attributes, times, data.flags);
    let value = match data.value {
        Some(Number::AsInt(n)) => Some(Value::Int(n)),
        Some(Number::AsDouble(n)) if n.is_finite() => Some(Value::Float(n)),
        _ => None,
    };
    match value {
        Some(value) => draft.say("value", value),
        None => draft.say("metric.no_value", true),
    }
    draft
}

fn explicit(head: &Head<'_>, data: &HistogramDataPoint) -> Draft {
    let times = (data.start_time_unix_nano, data.time_unix_nano);
    let mut draft = point(head, &data.attributes, times, data.flags);
    say_count(&mut draft, data.count);
    say_number(&mut draft, "metric.sum", data.sum);
    say_number(&mut draft, "metric.min", data.min);
    say_number(&mut draft, "metric.max", data.max);
    let bounds = &data.explicit_bounds;
    let ordered = bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds.iter().all(|bound| bound.is_finite());
    // One bucket more than bounds; without that nobody knows what was counted where.
    if ordered && data.bucket_counts.len() == bounds.len() + 1 {
        let buckets: Vec<Bucket> = data
            .bucket_counts
            .iter()
            .enumerate()
            .map(|(n, count)| Bucket {
                low: n.checked_sub(1).and_then(|n| bounds.get(n)).copied().unwrap_or(f64::NEG_INFINITY),
                high: bounds.get(n).copied().unwrap_or(f64::INFINITY),
                count: *count,
            })
            .collect();
        say_quantiles(&mut draft, &buckets, data.min, data.max);
    }
    draft
}

fn exponential(head: &Head<'_>, data: &ExponentialHistogramDataPoint) -> Draft {
    let times = (data.start_time_unix_nano, data.time_unix_nano);
    let mut draft = point(head, &data.attributes, times, data.flags);
    say_count(&mut draft, data.count);
    say_number(&mut draft, "metric.sum", data.sum);
    say_number(&mut draft, "metric.min", data.min);
    say_number(&mut draft, "metric.max", data.max);
    // A bucket i of the scale s holds what is above 2^(i / 2^s) and up to 2^((i + 1) / 2^s).
    let bound = |index: f64| (index * (-f64::from(data.scale)).exp2()).exp2();
    let sized = |buckets: &Buckets, sign: f64| -> Vec<Bucket> {
        let first = f64::from(buckets.offset);
        let bucket = |(n, count): (usize, &u64)| {
            let (inner, outer) = (bound(first + n as f64), bound(first + n as f64 + 1.0));
            let (low, high) = if sign < 0.0 { (-outer, -inner) } else { (inner, outer) };
            Bucket { low, high, count: *count }
        };
        buckets.bucket_counts.iter().enumerate().map(bucket).collect()
    };
    let mut buckets = data.negative.as_ref().map(|negative| sized(negative, -1.0)).unwrap_or_default();
    buckets.reverse();
    let zero = data.zero_threshold.abs();
    buckets.push(Bucket { low: -zero, high: zero, count: data.zero_count });
    buckets.extend(data.positive.as_ref().map(|positive| sized(positive, 1.0)).unwrap_or_default());
    say_quantiles(&mut draft, &buckets, data.min, data.max);
    draft
}

fn say_quantiles(draft: &mut Draft, buckets: &[Bucket], min: Option<f64>, max: Option<f64>) {
    for (share, name) in QUANTILES {
        say_number(draft, name, quantile(buckets, share, min, max));
    }
}

fn summarised(head: &Head<'_>, data: &SummaryDataPoint) -> Draft {
    let times = (data.start_time_unix_nano, data.time_unix_nano);
    let mut draft = point(head, &data.attributes, times, data.flags);
    say_count(&mut draft, data.count);
    say_number(&mut draft, "metric.sum", Some(data.sum));
    let quantiles = data.quantile_values.iter().filter(|q| (0.0..=1.0).contains(&q.quantile));
    for quantile in quantiles.take(SUMMARY_QUANTILES_MAX) {
        // 0.999 times 100 is not 99.9 in binary: a thousandth of a percent is exact enough for a name.
        let percent = (quantile.quantile * 100_000.0).round() / 1_000.0;
        say_number(&mut draft, &format!("metric.p{percent}"), Some(quantile.value));
    }
    draft
}
