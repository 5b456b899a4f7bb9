//! Which services call which: from spans whose parent is of another service.
//!
//! A call is a span of the callee whose parent span is one of the caller; its duration and error are those of the callee's
//! span. Each counts as often as its `meta.sample_rate` says.

use std::collections::HashMap;

use rows::{Filter, Value, ValueRef, names};
use vocab::Timestamp;

use super::budget::{Budget, share_out};
use super::group::WEIGHT;
use super::lane::{Interner, Lane, Names, Numbers, Source};
use super::select::{Check, resolve, select};
use super::sketch::{Sketch, bucket};
use super::{QueryError, RELATED};
use crate::chunk::Chunk;

/// Bytes for a span whose service is remembered.
const SPAN_BYTES: usize = 40;

/// Numbers of services by trace and span.
type ServiceBySpan = HashMap<(u128, u64), u32>;

/// One edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The service that calls.
    pub caller: String,
    /// The service that is called.
    pub callee: String,
    /// Calls, weighted.
    pub calls: f64,
    /// Calls that failed, weighted.
    pub errors: f64,
    /// Median of the duration.
    pub p50_ms: Option<f64>,
    /// 99th percentile of the duration.
    pub p99_ms: Option<f64>,
}

/// The map.
#[derive(Clone, Debug, Default)]
pub struct ServiceMap {
    /// Services with at least one span, by name, and their spans, weighted.
    pub services: Vec<(String, f64)>,
    /// Edges, most calls first.
    pub calls: Vec<Call>,
    /// Spans whose parent was not found, and which are therefore on no edge.
    pub parents_missing: u64,
    /// How long it took.
    pub elapsed_ms: f64,
    /// Why the answer is not whole.
    pub incomplete: Vec<String>,
}

#[derive(Default)]
struct Edge {
    calls: f64,
    errors: f64,
    durations: Sketch,
}

fn failed(error: &Lane<'_>, status: &Lane<'_>, row: usize) -> bool {
    let is_error = |value: ValueRef<'_>| match value {
        ValueRef::Bool(b) => b,
        ValueRef::Str(text) => text.eq_ignore_ascii_case("error") || text == "STATUS_CODE_ERROR" || text == "true",
        // OTLP's number for an error.
        ValueRef::Int(n) => n == 2,
        ValueRef::Float(_) => false,
    };
    [error, status].into_iter().any(|lane| lane.value(row).is_some_and(|v| is_error(v.as_ref())))
}

pub(crate) fn service_map(
    chunks: &[&Chunk],
    filter: &Filter,
    (from, to): (Timestamp, Timestamp),
    budget: &Budget,
) -> Result<ServiceMap, QueryError> {
    let names = Names::new(chunks, &[])?;
    let check = resolve(filter, &names, chunks, budget, (from, to))?;
    let service = Source::Attribute(names::SERVICE.to_owned());
    type Spans = (Interner, HashMap<(u128, u64), u32>);
    // First the service of every span that may be a parent.
    let parts = share_out(chunks, Spans::default, |(services, spans): &mut Spans, _, chunk| {
        let lane = Lane::of(chunk, &service);
        select(chunk, &Check::All, from - RELATED, to).blocks(|rows| {
            budget.check()?;
            let before = spans.capacity();
            for row in rows.iter().map(|row| *row as usize) {
                if chunk.span[row] != 0 && chunk.duration[row] >= 0 && chunk.trace(row) != 0 {
                    let (number, _) = services.intern(lane.value(row).as_ref().map(|v| v.as_ref()));
                    spans.insert((chunk.trace(row), chunk.span[row]), number);
                }
            }
            budget.take((spans.capacity() - before) * SPAN_BYTES);
            Ok(())
        })
    });
    let mut all = Interner::default();
    let mut spans: Vec<(Vec<u32>, ServiceBySpan)> = Vec::new();
    for (services, part) in parts {
        let map = services.values().iter().map(|v| all.intern(v.as_ref().map(Value::as_ref)).0).collect();
        spans.push((map, part));
    }
    let service_of = |trace: u128, span: u64| {
        spans.iter().find_map(|(map, part)| part.get(&(trace, span)).map(|number| map[*number as usize]))
    };
    let (error, status, weight) = (
        Source::Attribute("error".to_owned()),
        Source::Attribute("status_code".to_owned()),
        Source::Attribute(WEIGHT.to_owned()),
    );
    type Edges = (HashMap<(u32, u32), Edge>, HashMap<u32, f64>, u64);
    let parts = share_out(chunks, Edges::default, |(edges, seen, missing): &mut Edges, _, chunk| {
        let (lane, error, status) = (Lane::of(chunk, &service), Lane::of(chunk, &error), Lane::of(chunk, &status));
        let weight_lane = Lane::of(chunk, &weight);
        let weights = Numbers::of(&weight_lane);
        let mut weighed = Vec::new();
        select(chunk, &check, from, to).blocks(|rows| {
            budget.check()?;
            weights.read(rows, &mut weighed);
            for (row, weight) in rows.iter().zip(&weighed) {
                let row = *row as usize;
                if chunk.span[row] == 0 || chunk.duration[row] < 0 {
                    continue;
                }
                let weight = if *weight > 0.0 && weight.is_finite() { *weight } else { 1.0 };
                let Some(callee) = all.find(lane.value(row).as_ref().map(|v| v.as_ref())).filter(|n| *n != 0) else {
                    continue;
                };
                *seen.entry(callee).or_default() += weight;
                if chunk.parent[row] == 0 {
                    continue;
                }
                let Some(caller) = service_of(chunk.trace(row), chunk.parent[row]) else {
                    *missing += 1;
                    continue;
                };
                if caller == callee || caller == 0 {
                    continue;
                }
                let edge = edges.entry((caller, callee)).or_default();
                edge.calls += weight;
                if failed(&error, &status, row) {
                    edge.errors += weight;
                }
                budget.take(edge.durations.add(bucket(chunk.duration[row] as f64 / 1e6), weight));
            }
            Ok(())
        })
    });
    let mut map = ServiceMap::default();
    let mut edges: HashMap<(u32, u32), Edge> = HashMap::new();
    let mut seen: HashMap<u32, f64> = HashMap::new();
    for (part, services, missing) in parts {
        map.parents_missing += missing;
        services.into_iter().for_each(|(service, n)| *seen.entry(service).or_default() += n);
        for (key, edge) in part {
            let ours = edges.entry(key).or_default();
            ours.calls += edge.calls;
            ours.errors += edge.errors;
            ours.durations.merge(&edge.durations);
        }
    }
    let name = |number: u32| all.value(number).map_or(String::new(), |v| v.as_ref().to_string());
    map.services = seen.into_iter().map(|(service, n)| (name(service), n)).collect();
    map.services.sort_by(|a, b| a.0.cmp(&b.0));
    map.calls = edges
        .into_iter()
        .map(|((caller, callee), edge)| Call {
            caller: name(caller),
            callee: name(callee),
            calls: edge.calls,
            errors: edge.errors,
            p50_ms: edge.durations.percentile(0.5),
            p99_ms: edge.durations.percentile(0.99),
        })
        .collect();
    map.calls
        .sort_by(|a, b| b.calls.total_cmp(&a.calls).then_with(|| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee))));
    Ok(map)
}
