//! What the API shows, as docs/reference/api.md describes it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use control::State;
use events::compare::{Apart, compare_rows};
use experiments::{Experiment, Phase, Tally, Treatment, step};
use rows::Row;
use serde_json::{Value, json};
use vocab::{Arm, Millis, Pseudonym, Timestamp};

use crate::app::{App, lock, now};
use crate::watch::report_path;

/// Subjects per side of a comparison; more add nothing that a person could see.
const COMPARED_MAX: usize = 20_000;

pub(crate) fn status(app: &App) -> Value {
    let state = app.state.load();
    let current = app.proxy_snapshot.borrow().0;
    let proxies: Vec<Value> = lock(&app.proxies)
        .values()
        .map(|p| {
            json!({"name": p.name, "last_renewal_ms_ago": p.at.elapsed().as_millis() as u64, "snapshot_version": p.version,
                "connected": p.at.elapsed().as_secs_f64() < crate::app::LEASE_SECS, "current": p.version == current})
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"), "now": now(), "data_dir": app.data_dir, "environment": state.environment(), "halted": state.halted(),
        "epoch": state.epoch(), "audit_size": state.size(), "proxies": proxies,
        "events": {"rows": app.store.rows(), "rows_per_second": app.rows_per_second.load(Ordering::Relaxed)},
        "bucket": bucket(app),
        "disk_full": app.disk_full.load(Ordering::Relaxed),
        "flags": {"drift_alarms": app.lifecycle.alarms(), "known_share": app.recent.known_share(now()),
            "reports_lost": app.lifecycle.lost()},
    })
}

/// How events are shared; null if they are not.
fn bucket(app: &App) -> Value {
    let Some(standing) = app.mirror.get().map(bucket::Mirror::standing) else { return Value::Null };
    let waiting = app.store.next_batch().saturating_sub(standing.sent_to);
    json!({"batches_waiting": waiting, "other_servers": standing.others, "looked": standing.looked, "problem": standing.problem})
}

/// One experiment with its live numbers, or with those of its report.
pub(crate) fn experiment(app: &App, state: &State, experiment: &Experiment) -> Value {
    if let Some(tally) = lock(&app.tap).tally(experiment.id) {
        return with_tally(state, experiment, tally);
    }
    match stored_report(app, experiment) {
        Some(mut report) => {
            let mut view = report["experiment"].take();
            // What may change after the report was written.
            view["acknowledged"] = json!(experiment.acknowledged);
            view["needs_ack"] = json!(experiment.needs_ack());
            view["off_everywhere_at"] = json!(state.off_everywhere_at(experiment.id));
            view
        }
        None => with_tally(state, experiment, &Tally::new(&experiment.spec, experiment.era_began_at())),
    }
}

pub(crate) fn stored_report(app: &App, experiment: &Experiment) -> Option<Value> {
    let bytes = app.files.read(&report_path(experiment.id)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn with_tally(state: &State, e: &Experiment, tally: &Tally) -> Value {
    let spec = &e.spec;
    let turn = step(e, tally, now());
    let guardrails: Vec<Value> = turn
        .report
        .guardrails
        .iter()
        .map(|g| {
            json!({"name": g.name, "kind": g.kind, "log_e": g.log_e, "e_value": g.log_e.min(700.0).exp(),
                "log_threshold": g.log_threshold, "alpha": g.alpha, "detail": g.detail,
                "state": g.state.as_str()})
        })
        .collect();
    let treatment = match &spec.treatment {
        Treatment::Fault(f) => match f.abort {
            Some(status) => json!({"fault": {"route": f.route, "abort": status}}),
            None => json!({"fault": {"route": f.route, "delay_ms": f.delay}}),
        },
        Treatment::Flag(c) => json!({"flag": {"key": c.key, "variant": c.variant}}),
        Treatment::Flags(changes) => json!({"flags": changes}),
    };
    let (share, baseline) = match e.phase {
        Phase::Running { stage } | Phase::Held { stage } => {
            let share = spec.stages.get(stage).map_or(0.0, |s| s.share.fraction());
            (share, share * f64::from(spec.baseline_ratio))
        }
        Phase::Promoted => (1.0, 0.0),
        _ => (0.0, 0.0),
    };
    let arm = |arm: Arm| {
        let c = tally.arm(arm);
        let scale = if arm.is_treatment() { 1.0 } else { f64::from(spec.baseline_ratio) };
        let place = usize::from(arm.is_treatment());
        let until = now().nanos().div_euclid(1_000_000_000);
        let (mut successes, mut failures) = (0, 0);
        for (at, second) in tally.seconds().filter(|(at, _)| (until - 6..until - 1).contains(at)) {
            let _ = at;
            successes += second.successes[place];
            failures += second.failures[place];
        }
        json!({"exposed": c.exposed, "windows": c.windows, "hurt": c.hurt, "attempts": c.attempts, "successes": c.successes,
            "failures": c.failures, "successes_per_second": successes as f64 / 5.0 / scale,
            "failures_per_second": failures as f64 / 5.0 / scale,
            "rate_per_subject": if c.exposed == 0 { 0.0 } else { c.hurt as f64 / c.exposed as f64 }})
    };
    let bounds = tally.rate_ratio(0.05);
    let verdict = e.verdict.as_ref().map(|v| {
        let log_e = v.log_e_milli as f64 / 1e3;
        json!({"outcome": v.outcome, "guardrail": v.guardrail, "log_e": log_e, "e_value": log_e.min(700.0).exp(),
            "log_threshold": v.log_threshold_milli as f64 / 1e3, "audit_index": state.verdict_index(e.id),
            "subjects_exposed": v.subjects_exposed, "subjects_hurt": v.subjects_hurt, "excess_hurt": v.excess_hurt,
            "baseline_exposed": v.baseline_exposed, "baseline_hurt": v.baseline_hurt,
            "seconds_to_stop": v.ms_to_stop as f64 / 1e3, "at": v.at, "sentence": v.sentence})
    });
    let reason = if e.phase.is_live() && !turn.report.waiting_for.is_empty() {
        format!("{}; waiting for {}", e.reason, turn.report.waiting_for)
    } else {
        e.reason.clone()
    };
    let stages: Vec<Value> = spec.stages.iter().map(|s| json!({"share": s.share, "min_ms": s.min})).collect();
    json!({
        "id": e.id, "name": spec.name, "kind": if spec.harms() { "fault" } else { "flag" }, "hypothesis": spec.hypothesis,
        "owner": spec.owner, "service": spec.service, "treatment": treatment, "state": e.phase.as_str(),
        "state_reason": reason, "stage": e.reached.map_or(0, |s| s + 1), "stages": stages, "share": share,
        "baseline_share": baseline, "baseline_ratio": spec.baseline_ratio, "acknowledged": e.acknowledged,
        "needs_ack": e.needs_ack(), "started_at": e.started_at, "stage_started_at": e.phase_at, "ended_at": e.ended_at,
        "harm_began_at": e.harm_began_at, "off_everywhere_at": state.off_everywhere_at(e.id),
        "arms": {"treatment": arm(Arm::Treatment), "baseline": arm(Arm::Baseline)}, "guardrails": guardrails,
        "rate_ratio": {"lower": bounds.lower, "upper": if bounds.upper.is_finite() { json!(bounds.upper) } else { Value::Null }, "confidence": 0.95},
        "audit_index": e.id.index(), "verdict": verdict,
        "acceptance": if spec.acceptance.is_empty() { Value::Null } else {
            let said = e.acceptance.as_ref();
            json!({"by": spec.acceptance, "as_wanted": said.map(|s| s.as_wanted), "note": said.map(|s| &s.note), "at": said.map(|s| s.at)})
        },
    })
}

pub(crate) fn timeline(app: &App, e: &Experiment) -> Value {
    let tap = lock(&app.tap);
    let Some(tally) = tap.tally(e.id) else {
        drop(tap);
        return stored_report(app, e)
            .map_or(json!({"step_ms": 1000, "points": [], "markers": []}), |mut r| r["timeline"].take());
    };
    timeline_of(e, tally)
}

fn timeline_of(e: &Experiment, tally: &Tally) -> Value {
    let evidence: std::collections::BTreeMap<i64, f64> = tally.evidence().collect();
    let seconds: std::collections::BTreeMap<i64, experiments::Second> =
        tally.seconds().map(|(at, s)| (at, *s)).collect();
    let first = seconds.keys().next().or(evidence.keys().next()).copied();
    let last = seconds.keys().last().max(evidence.keys().last()).copied();
    let time = |at: i64| Timestamp::from_nanos(at * 1_000_000_000);
    let points: Vec<Value> = match first.zip(last) {
        None => Vec::new(),
        Some((first, last)) => (first.max(last - 899)..=last)
            .map(|at| {
                let s = seconds.get(&at).copied().unwrap_or_default();
                let arm = |p: usize| json!({"successes": s.successes[p], "failures": s.failures[p], "exposed": s.exposed[p]});
                json!({"t": time(at), "treatment": arm(1), "baseline": arm(0), "log_e": {"failures": evidence.get(&at)}})
            })
            .collect(),
    };
    let mut markers = vec![json!({"t": e.started_at, "label": "warm-up"})];
    if let Some(at) = e.harm_began_at {
        markers.push(json!({"t": at, "label": if e.spec.harms() { "fault on" } else { "rollout on" }}));
    }
    if let Some(at) = e.ended_at {
        markers.push(json!({"t": at, "label": e.phase.as_str()}));
    }
    json!({"step_ms": 1000, "from": first.map(time), "points": points, "markers": markers})
}

/// Hurt beside unhurt treatment subjects; none while nobody was hurt.
pub(crate) fn comparison(app: &App, e: &Experiment) -> Option<Value> {
    let (hurt, unhurt) = {
        let tap = lock(&app.tap);
        let Some(tally) = tap.tally(e.id) else {
            drop(tap);
            return stored_report(app, e).map(|mut r| r["comparison"].take()).filter(|c| !c.is_null());
        };
        let side = |hurt| {
            let mut ids: Vec<u64> = tally.subjects(Arm::Treatment, hurt).collect();
            // The same subjects each time: ids are hashes, so the smallest are a fair sample.
            ids.sort_unstable();
            ids.truncate(COMPARED_MAX);
            ids
        };
        (side(true), side(false))
    };
    if hurt.is_empty() {
        return None;
    }
    let wanted: HashSet<u64> = hurt.iter().chain(&unhurt).copied().collect();
    let from = e.era_began_at() - e.spec.window;
    let to = e.ended_at.unwrap_or_else(now) + Millis(e.spec.window.0 + e.spec.settle.0);
    let hash = |text: &str| Pseudonym::parse(text).ok().map(|p| p.hash64());
    let kpi = &e.spec.kpi;
    let mut rows = app.store.subject_rows(&wanted, &hash, (from, to), kpi.attempt.as_ref());
    let mut take = |ids: &[u64]| -> Vec<Row> { ids.iter().filter_map(|id| rows.remove(id)).collect() };
    let (hurt, unhurt) = (take(&hurt), take(&unhurt));
    let filters = [Some(&kpi.success), Some(&kpi.failure), kpi.attempt.as_ref()];
    let mut attributes: Vec<&str> = filters.into_iter().flatten().flat_map(|f| f.fields()).collect();
    // What a subject did is an outcome too: which of its events came first decides these.
    attributes.extend([
        "name",
        "url.path",
        "route",
        "upstream",
        "body",
        "kind",
        "proxy.name",
        "http.request.method",
        "severity",
    ]);
    let compared = compare_rows(("hurt users", &hurt), ("unhurt users", &unhurt), &Apart { attributes });
    serde_json::to_value(compared).ok()
}

/// Everything about an ended experiment, for good.
pub(crate) fn report(app: &Arc<App>, state: &State, e: &Experiment) -> Value {
    json!({"experiment": experiment(app, state, e), "timeline": timeline(app, e), "comparison": comparison(app, e)})
}
