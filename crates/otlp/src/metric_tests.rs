//! What data points become.

use rows::{Row, Value};

use crate::quantile::{Bucket, quantile};
use crate::tests::RECEIVED;
use crate::{Encoding, metrics};

/// One metric as OTLP JSON; numbers as a stock SDK writes them, some as text.
fn rows_of(metric: &str) -> Vec<Row> {
    let body = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"web"}}}}]}},
        "scopeMetrics":[{{"scope":{{"name":"runtime"}},"metrics":[{{"name":"m","unit":"By",{metric}}}]}}]}}]}}"#
    );
    metrics(body.as_bytes(), Encoding::Json, RECEIVED).unwrap().rows
}

const TIMES: &str = r#""startTimeUnixNano":"1764000000000000000","timeUnixNano":"1764000000500000000""#;

#[test]
fn gauges_and_sums() {
    let attributes = r#""attributes":[{"key":"pool","value":{"stringValue":"a"}},{"key":"metric.name","value":{"stringValue":"no"}}]"#;
    let rows = rows_of(&format!(
        r#""gauge":{{"dataPoints":[{{{TIMES},"asInt":"7",{attributes}}},{{{TIMES},"asDouble":0.5}},{{{TIMES},"flags":1}}]}}"#
    ));
    let [int, double, none] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (int.get("value"), double.get("value"), none.get("value")),
        (Some(&Value::Int(7)), Some(&Value::Float(0.5)), None)
    );
    assert_eq!((none.get("metric.no_value"), int.get("metric.no_value")), (Some(&Value::Bool(true)), None));
    for (name, text) in [
        ("metric.name", "m"),
        ("metric.kind", "gauge"),
        ("metric.unit", "By"),
        ("metric.start_time", "2025-11-24T16:00:00Z"),
        ("meta.signal_type", "metric"),
        ("service.name", "web"),
        ("otel.scope.name", "runtime"),
        ("pool", "a"),
    ] {
        assert_eq!(int.text(name), Some(text), "{name}");
    }
    assert_eq!((int.time.nanos(), int.duration_nanos), (1_764_000_000_500_000_000, None));
    let rows = rows_of(&format!(
        r#""sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{{{TIMES},"asInt":"-3"}}]}}"#
    ));
    assert_eq!((rows[0].get("value"), rows[0].text("metric.temporality")), (Some(&Value::Int(-3)), Some("cumulative")));
    assert_eq!(rows[0].get("metric.monotonic"), Some(&Value::Bool(true)));
}

fn number(row: &Row, name: &str) -> f64 {
    row.get(name).and_then(|value| value.as_ref().as_f64()).unwrap_or(f64::NAN)
}

#[test]
fn histograms_are_summarised() {
    let rows = rows_of(&format!(
        r#""histogram":{{"aggregationTemporality":1,"dataPoints":[{{{TIMES},"count":"100","sum":1200.5,"min":1,"max":70,
        "bucketCounts":["50","40","10"],"explicitBounds":[10,20]}},
        {{{TIMES},"count":"3","bucketCounts":["1","2"],"explicitBounds":[10,20]}}]}}"#
    ));
    let row = &rows[0];
    assert_eq!((row.get("metric.count"), number(row, "metric.sum")), (Some(&Value::Int(100)), 1200.5));
    assert_eq!((number(row, "metric.min"), number(row, "metric.max")), (1.0, 70.0));
    // The median is at the end of the first bucket, the 90th percentile at the end of the second, the 99th nine tenths into 20 to 70.
    assert_eq!((number(row, "metric.p50"), number(row, "metric.p90"), number(row, "metric.p99")), (10.0, 20.0, 65.0));
    assert_eq!(row.text("metric.temporality"), Some("delta"));
    // Buckets that do not fit their bounds say nothing.
    assert_eq!((rows[1].get("metric.count"), rows[1].get("metric.p50")), (Some(&Value::Int(3)), None));
}

#[test]
fn exponential_histograms_are_summarised() {
    let rows = rows_of(&format!(
        r#""exponentialHistogram":{{"aggregationTemporality":2,"dataPoints":[{{{TIMES},"count":"4","sum":9,"scale":0,"zeroCount":"1",
        "positive":{{"offset":0,"bucketCounts":["1","2"]}}}},
        {{{TIMES},"count":"2","scale":0,"negative":{{"offset":1,"bucketCounts":["2"]}}}},
        {{{TIMES},"count":"2","scale":-2147483648,"positive":{{"offset":2147483647,"bucketCounts":["2"]}}}}]}}"#
    ));
    // One 0, one in (1, 2], two in (2, 4].
    assert_eq!((number(&rows[0], "metric.p50"), number(&rows[0], "metric.count")), (2.0, 4.0));
    assert!((3.9..=4.0).contains(&number(&rows[0], "metric.p99")));
    // Two in [-4, -2).
    assert_eq!(number(&rows[1], "metric.p50"), -3.0);
    // No number is that large.
    assert_eq!((rows[2].get("metric.p50"), number(&rows[2], "metric.count")), (None, 2.0));
}

#[test]
fn summaries_keep_their_quantiles() {
    let rows = rows_of(&format!(
        r#""summary":{{"dataPoints":[{{{TIMES},"count":"9","sum":4.5,"quantileValues":[{{"quantile":0.5,"value":1}},
        {{"quantile":0.999,"value":3}},{{"quantile":7,"value":3}}]}}]}}"#
    ));
    let row = &rows[0];
    assert_eq!((number(row, "metric.p50"), number(row, "metric.p99.9"), number(row, "metric.sum")), (1.0, 3.0, 4.5));
    assert!(row.attributes.iter().filter(|(name, _)| name.starts_with("metric.p")).count() == 2, "{row:?}");
}

#[test]
fn a_metric_without_data_is_refused_by_name() {
    let body = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"strange"},{"name":"empty","gauge":{"dataPoints":[]}}]}]}]}"#;
    let decoded = metrics(body.as_bytes(), Encoding::Json, RECEIVED).unwrap();
    assert_eq!((decoded.rows.len(), decoded.rejected), (0, 1));
    assert_eq!(decoded.reason, "metric \"strange\" has no data that is known here");
}

/// Guarantees: an estimate lies in the bucket that holds the true quantile.
#[test]
fn quantiles_lie_in_their_bucket() {
    arbtest::arbtest(|u| {
        let mut values: Vec<f64> = (0..u.int_in_range(1..=50)?)
            .map(|_| Ok(f64::from(u.int_in_range(-100..=100)?)))
            .collect::<Result<_, _>>()?;
        values.sort_by(f64::total_cmp);
        let bounds = [-50.0, 0.0, 10.0, 75.0];
        let edge = |n: usize| if n == 0 { f64::NEG_INFINITY } else { bounds[n - 1] };
        let buckets: Vec<Bucket> = (0..=bounds.len())
            .map(|n| {
                let (low, high) = (edge(n), bounds.get(n).copied().unwrap_or(f64::INFINITY));
                Bucket { low, high, count: values.iter().filter(|v| **v > low && **v <= high).count() as u64 }
            })
            .collect();
        let (min, max) = (values.first().copied(), values.last().copied());
        for share in [0.01, 0.5, 0.9, 0.99] {
            let rank = ((share * values.len() as f64).ceil() as usize).max(1);
            let truth = values[rank - 1];
            let found = quantile(&buckets, share, min, max).unwrap();
            let bucket = buckets.iter().find(|b| truth > b.low && truth <= b.high).unwrap();
            assert!(found >= bucket.low && found <= bucket.high, "{share} of {values:?}: {found}, is {truth}");
        }
        Ok(())
    });
    let none = Bucket { low: f64::NEG_INFINITY, high: f64::INFINITY, count: 0 };
    assert_eq!((quantile(&[], 0.5, None, None), quantile(&[none], 0.5, None, None)), (None, None));
    // One bucket without bounds, and nothing known of its values.
    assert_eq!(quantile(&[Bucket { count: 3, ..none }], 0.5, None, None), None);
}
