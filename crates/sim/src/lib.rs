//! A seeded world for simulations of the guarantee: users who differ, traffic that clusters, bad luck that is shared.
//!
//! Traffic enters where real traffic does, as OTLP bytes, and goes through the shipped decode, redaction, join, tally and
//! step. Not shipped. Knows nothing of HTTP and disks.

use std::sync::Arc;

use experiments::{Experiment, Phase, Spec, Tally, step};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use otlp::{Encoding, Redactor};
use prost::Message;
use server::Joiner;
use vocab::{Arm, Id, Kind, Millis, Timestamp};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let (u, v) = (self.unit().max(1e-12), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// What kind of world.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Users who come.
    pub users: u64,
    /// Coefficient of variation of the users' own failure rates (lognormal).
    pub rate_cv: f64,
    /// Average failure rate of a request.
    pub failure_rate: f64,
    /// Times as many failures in treatment; 1 for a harmless change.
    pub harm: f64,
    /// Count each request as if it were a subject: the mistake that the guarantee does not survive.
    pub count_requests: bool,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Stopped for harm.
    Stopped,
    /// Ended as invalid.
    Invalid,
    /// Still running at the end.
    Ran,
}

fn spec(alpha: f64) -> Spec {
    serde_json::from_value(serde_json::json!({
        "name": "sim", "treatment": {"fault": {"route": "r", "delay": "300ms"}}, "alpha": alpha,
        "stages": [{"share": "5%", "min": "1h"}], "baseline_ratio": 4, "window": "3s", "settle": "1s",
        "guardrails": {"ceiling_share": 0.0}, "max_duration": "24h",
        "kpi": {"attempt": "name = 'attempt'", "success": "name = 'success'", "failure": "name = 'failure'"}
    }))
    .expect("the spec is right")
}

fn record(name: &str, time: i64, user: &str, trace: u64, more: &[(&str, Any)]) -> LogRecord {
    let value = |v: Any| Some(AnyValue { value: Some(v) });
    let mut attributes =
        vec![KeyValue { key: "user.id".into(), value: value(Any::StringValue(user.into())), ..Default::default() }];
    attributes.extend(more.iter().map(|(key, v)| KeyValue {
        key: (*key).into(),
        value: value(v.clone()),
        ..Default::default()
    }));
    let mut id = vec![1; 8];
    id.extend_from_slice(&trace.to_be_bytes());
    LogRecord { time_unix_nano: time as u64, event_name: name.into(), attributes, trace_id: id, ..Default::default() }
}

/// One experiment in a world, from a seed: 60 s of traffic.
pub fn run(world: World, alpha: f64, seed: u64) -> Ending {
    let mut rng = Rng(seed);
    let spec = spec(alpha);
    let start = 1_764_000_000_000_000_000_i64;
    let id = Id::new(Kind::Experiment, 1);
    let experiment = Experiment {
        id,
        spec: Arc::new(spec.clone()),
        layer_salt: "layer".into(),
        arm_salt: format!("{seed:016x}"),
        offset: 0,
        phase: Phase::Running { stage: 0 },
        reached: Some(0),
        reason: String::new(),
        started_at: Timestamp::from_nanos(start),
        phase_at: Timestamp::from_nanos(start),
        harm_began_at: Some(Timestamp::from_nanos(start)),
        ended_at: None,
        acknowledged: false,
        acceptance: None,
        verdict: None,
        epoch: 0,
    };
    let slice = experiment.slice();
    let mut records: Vec<(i64, LogRecord)> = Vec::new();
    let sigma = (1.0 + world.rate_cv * world.rate_cv).ln().sqrt();
    // An incident that hits everybody alike for ten seconds.
    let incident = (rng.unit() * 50.0, 10.0);
    for n in 0..world.users {
        let user = format!("user-{n}");
        let Some(arm) = slice.arm(&user) else { continue };
        let own_rate = world.failure_rate * (sigma * rng.normal() - sigma * sigma / 2.0).exp();
        // Pareto with index 1: most come once or twice, some all the time.
        let requests = (rng.unit().max(1e-6).recip()).min(200.0) as u64;
        let mut at = rng.unit() * 50.0;
        for request in 0..requests {
            let trace = rng.bits();
            let time = start + (at * 1e9) as i64;
            let in_incident = at > incident.0 && at < incident.0 + incident.1;
            let harm = if arm == Arm::Treatment { world.harm } else { 1.0 };
            let failed = rng.unit() < own_rate * harm * if in_incident { 10.0 } else { 1.0 };
            let subject = if world.count_requests { format!("{user}/{request}") } else { user.clone() };
            let exposure = [
                ("experiment.id", Any::StringValue(id.to_string())),
                ("experiment.arm", Any::StringValue(arm.as_str().into())),
                ("experiment.exposure", Any::BoolValue(true)),
                ("fault.type", Any::StringValue("delay".into())),
            ];
            let exposure = if arm.is_treatment() { &exposure[..] } else { &exposure[..3] };
            records.push((time, record("attempt", time, &subject, trace, &[])));
            // Late and out of order, as batches from many processes are.
            let late = (rng.unit() * 4e8) as i64;
            records.push((time + late, record("request", time + 1_000_000, &subject, trace, exposure)));
            let outcome = if failed { "failure" } else { "success" };
            records.push((time + 60_000_000, record(outcome, time + 50_000_000, &subject, trace, &[])));
            at += rng.unit() * 0.6;
            if at > 58.0 {
                break;
            }
        }
    }
    records.sort_by_key(|(arrival, _)| *arrival);
    let redactor = Redactor::new([7; 32]);
    let mut joiner = Joiner::default();
    let mut tally = Tally::new(&spec, experiment.era_began_at());
    let mut now = Timestamp::from_nanos(start);
    let judge = |tally: &Tally, now: Timestamp| match step(&experiment, tally, now).next {
        Some(next) if next.to == Phase::Stopped => Some(Ending::Stopped),
        Some(next) if next.to == Phase::Invalid => Some(Ending::Invalid),
        _ => None,
    };
    let mut rest = records.as_slice();
    while let Some((first, _)) = rest.first() {
        let end = rest.iter().position(|(at, _)| *at > first + 200_000_000).unwrap_or(rest.len());
        let (batch, later) = rest.split_at(end);
        rest = later;
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                scope_logs: vec![ScopeLogs {
                    log_records: batch.iter().map(|(_, r)| r.clone()).collect(),
                    ..Default::default()
                }],
                ..Default::default()
            }],
        };
        let decoded = otlp::logs(&request.encode_to_vec(), Encoding::Protobuf, now).expect("our own bytes");
        now = Timestamp::from_nanos(batch.last().map_or(start, |(at, _)| *at)) + Millis(100);
        tally.advance(now);
        for mut row in decoded.rows {
            redactor.redact(&mut row);
            for observation in joiner.observations(&row, id, &spec) {
                tally.observe(observation);
            }
        }
        if let Some(ending) = judge(&tally, now) {
            return ending;
        }
    }
    now = now + Millis(10_000);
    tally.advance(now);
    judge(&tally, now).unwrap_or(Ending::Ran)
}

#[cfg(test)]
mod tests;
