//! The watch loop: four times a second each live experiment is asked what comes next, on a thread of its own.
//!
//! The loop carries out and records; it decides nothing. When an experiment has ended and its last window has closed, its
//! report (numbers, chart, who was hurt) is written down for good.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use control::Command;
use experiments::{Phase, Turn, step};
use vocab::{Id, Millis};

use crate::app::{App, News, lock, now};
use crate::view;

const TICK: Duration = Duration::from_millis(250);
const CHECKPOINT: Duration = Duration::from_secs(5);
/// After a start every proxy that holds a lease has been heard from by then.
const SETTLED: Duration = Duration::from_millis(3_500);
const PUBLISH_LOG: Duration = Duration::from_millis(1_000);

pub(crate) fn tally_path(id: Id) -> String {
    format!("tallies/{id}.json")
}

pub(crate) fn report_path(id: Id) -> String {
    format!("reports/{id}.json")
}

/// Runs until `stop` says so.
pub(crate) fn work(app: &Arc<App>, stop: &std::sync::atomic::AtomicBool) {
    let started = Instant::now();
    let mut last_checkpoint = Instant::now();
    let mut last_publish = Instant::now();
    let mut last_count = (Instant::now(), 0_u64);
    // The snapshot version that an ended experiment's faults are off in.
    let mut off_in: HashMap<Id, u64> = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        app.retry_spool();
        for (id, subject) in app.previews.to_record() {
            // What cannot be recorded now counts all the same, and is tried again.
            let _ = app.commit(Command::PreviewBind { id, subject }, "system:previews", "used for the first time");
        }
        turn(app, &mut off_in, started.elapsed() >= SETTLED);
        *lock(&app.watched_at) = Instant::now();
        let state = app.state.load_full();
        for experiment in state.experiments().rev().take(50) {
            if lock(&app.tap).tally(experiment.id).is_some() {
                let data = view::experiment(app, &state, experiment).to_string();
                let _ = app.news.send(News { event: "experiment", data });
            }
        }
        if last_checkpoint.elapsed() >= CHECKPOINT {
            last_checkpoint = Instant::now();
            checkpoint(app);
        }
        if last_publish.elapsed() >= PUBLISH_LOG {
            last_publish = Instant::now();
            if let Err(error) = lock(&app.plane).log.publish() {
                tracing::error!(error = %error, "the audit log's checkpoint cannot be written; entries are durable all the same");
            }
            let rows = app.rows_in.load(Ordering::Relaxed);
            let rate = (rows - last_count.1) as f64 / last_count.0.elapsed().as_secs_f64().max(0.1);
            app.rows_per_second.store(rate.round() as u64, Ordering::Relaxed);
            last_count = (Instant::now(), rows);
            let _ = app.news.send(News { event: "status", data: view::status(app).to_string() });
        }
        std::thread::sleep(TICK.saturating_sub(began.elapsed()));
    }
    checkpoint(app);
}

fn turn(app: &Arc<App>, off_in: &mut HashMap<Id, u64>, proxies_are_known: bool) {
    let state = app.state.load_full();
    for experiment in state.live() {
        let turn = {
            let mut tap = lock(&app.tap);
            if tap.tally(experiment.id).is_none() {
                tap.watch(experiment, None);
                drop(tap);
                checkpoint(app);
                continue;
            }
            let now = now();
            let Some(tally) = tap.advance(experiment.id, now) else { continue };
            let mut turn = step(experiment, tally, now);
            if experiment.spec.harms() && experiment.epoch < state.epoch() {
                // A halt that was recorded but not carried out to the end: what it switched off stays off.
                turn.next = Some(Turn::veto(experiment, tally, now, "halt"));
            }
            if let Some(key) = state.cut(experiment.id) {
                turn.next = Some(Turn::veto(experiment, tally, now, &format!("flag {key:?} was killed")));
            }
            turn
        };
        let Some(transition) = turn.next else { continue };
        let to = transition.to;
        tracing::info!(experiment = %experiment.id, name = %experiment.spec.name, to = to.as_str(), reason = %transition.reason, "phase");
        let command = Command::Phase { id: experiment.id, transition };
        if let Err(problem) = app.commit(command, "system:guard", "") {
            tracing::error!(experiment = %experiment.id, detail = %problem.detail, "a decision could not be recorded");
            continue;
        }
        if experiment.phase == Phase::WarmUp && to.is_live() {
            if let Some(begun) = app.state.load().experiment(&experiment.id.to_string()) {
                lock(&app.tap).begin_test(begun);
            }
            checkpoint(app);
        }
    }
    let state = app.state.load_full();
    let now = now();
    let watched = lock(&app.tap).ids();
    for id in watched {
        let Some(experiment) = state.experiment(&id.to_string()) else { continue };
        if experiment.phase.is_live() {
            continue;
        }
        if proxies_are_known {
            confirm_off(app, &state, experiment, off_in);
        }
        let settled = Millis(experiment.spec.window.0 + experiment.spec.settle.0 + 2_000);
        lock(&app.tap).advance(id, now);
        if experiment.ended_at.is_some_and(|ended| now.since(ended) >= settled) {
            let report = view::report(app, &state, experiment);
            if let Err(error) = app.files.replace(&report_path(id), report.to_string().as_bytes()) {
                tracing::error!(error = %error, experiment = %id, "the report cannot be written; tried again");
                continue;
            }
            lock(&app.tap).forget(id);
            let _ = app.files.remove(&tally_path(id));
        }
    }
}

/// Records when every proxy that holds a lease confirmed a snapshot without the fault.
fn confirm_off(
    app: &Arc<App>,
    state: &control::State,
    experiment: &experiments::Experiment,
    off_in: &mut HashMap<Id, u64>,
) {
    if experiment.harm_began_at.is_none() || state.off_everywhere_at(experiment.id).is_some() {
        return;
    }
    // The present snapshot is without it; so is every later one.
    let version = *off_in.entry(experiment.id).or_insert_with(|| app.proxy_snapshot.borrow().0);
    let connected = app.connected();
    if connected.values().all(|proxy| proxy.version >= version) {
        let command = Command::OffEverywhere { id: experiment.id, proxies: connected.len() as u64 };
        let _ = app.commit(command, "system:guard", "every connected proxy confirmed");
        off_in.remove(&experiment.id);
    }
}

/// Tallies to disk; what of the event log is older than all of them may go.
pub(crate) fn checkpoint(app: &Arc<App>) {
    let _one = lock(&app.checkpointing);
    let (saved, next): (Vec<_>, u64) = {
        let tap = lock(&app.tap);
        let saved =
            tap.ids().into_iter().filter_map(|id| tap.checkpoint(id).map(|(bytes, next)| (id, bytes, next))).collect();
        (saved, app.store.next_batch())
    };
    let mut keep_from = next;
    for (id, bytes, next) in saved {
        keep_from = keep_from.min(next);
        if let Err(error) = app.files.replace(&tally_path(id), &bytes) {
            tracing::warn!(error = %error, experiment = %id, "a tally's checkpoint cannot be written; the event log is kept instead");
            keep_from = 0;
        }
    }
    app.keep_from.store(keep_from, Ordering::Release);
}
