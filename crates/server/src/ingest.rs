//! Rows from all ways in, on their way to the intake: flag evaluations get their arm, names without end are left out, secrets go.

use std::sync::Arc;

use flags::Serves;
use http::StatusCode;
use rows::{Row, Value, names};
use serde_json::json;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::Xxh3;

use crate::app::App;
use crate::intake::{Job, Refused, Taken};
use crate::lifecycle::Report;
use crate::problem::Problem;

/// Gives a flag evaluation reported by an OpenFeature hook its arm: by the variant that was reported, for subjects of a
/// running experiment's slice. Here, since only here the subject's key is still in clear text.
fn stamp_flag_exposure(app: &App, row: &mut Row) {
    let Some(key) = row.text(names::FLAG) else { return };
    if row.get(names::EXPOSURE).is_some() || row.is_aside() {
        return;
    }
    let subject = names::SUBJECT_SOURCES.iter().rev().find_map(|name| row.text(name));
    if let Some(id) = subject.and_then(|subject| app.previews.of(key, subject, row.time)) {
        return row.set(names::PREVIEW, id.to_string());
    }
    let snapshot = app.flags.load();
    let Some(overlay) = snapshot.flags.overlay(key) else { return };
    let Some(subject) = subject else { return };
    let reported = row.text("feature_flag.result.variant").or_else(|| row.text("feature_flag.variant"));
    let arm = overlay.slice.arm(subject).filter(|arm| match &overlay.serves {
        // In warm-up nobody is treated. A client that reports another variant than its subject should have proves nothing.
        Serves::Rules => true,
        Serves::Variant(variant) => (reported == Some(&**variant)) == arm.is_treatment(),
        Serves::Change { .. } => app.recent.exposed.arm(overlay.experiment, key, subject, reported) == Some(*arm),
    });
    if let Some(arm) = arm {
        row.set(names::EXPERIMENT, overlay.experiment.to_string());
        row.set(names::ARM, arm.as_str());
        row.set(names::EXPOSURE, true);
    }
}

/// The same for the same rows, so that a client that did not hear our answer may send them again.
pub(crate) fn key_of(rows: &[Row]) -> u128 {
    let mut hash = Xxh3::new();
    for row in rows {
        hash.update(&row.trace.to_le_bytes());
        hash.update(&row.span.to_le_bytes());
        hash.update(&row.parent.to_le_bytes());
        let mut is_its_own_time = true;
        for (name, value) in &row.attributes {
            is_its_own_time &= name != names::TIME_PROBLEM;
            hash.update(name.as_bytes());
            match value {
                Value::Str(text) => {
                    hash.update(&[0]);
                    hash.update(text.as_bytes());
                }
                Value::Int(n) => {
                    hash.update(&[1]);
                    hash.update(&n.to_le_bytes());
                }
                Value::Float(n) => {
                    hash.update(&[2]);
                    hash.update(&n.to_bits().to_le_bytes());
                }
                Value::Bool(b) => hash.update(&[3, u8::from(*b)]),
            }
        }
        // A time that was not believed is another one each time the row is sent; what was sent is an attribute.
        if is_its_own_time {
            hash.update(&row.time.nanos().to_le_bytes());
            hash.update(&row.duration_nanos.unwrap_or(-1).to_le_bytes());
        }
        hash.update(&[0xff]);
    }
    hash.digest128()
}

/// What became of rows.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) taken: Taken,
    /// What the sender should know although nothing was refused.
    pub(crate) warning: Option<String>,
}

/// Redacts and stores; returns when the rows are durable. Of two calls with one key within 15 minutes the second stores nothing.
pub(crate) async fn store_rows(app: &Arc<App>, mut rows: Vec<Row>, key: Option<u128>) -> Result<Stored, Problem> {
    if rows.is_empty() {
        return Ok(Stored { taken: Taken::Stored, warning: None });
    }
    let warning = app.known_names.admit(&mut rows);
    let mut reports = Vec::new();
    for row in &mut rows {
        let report = Report::of(row);
        stamp_flag_exposure(app, row);
        // Who is on a preview gets what no rule gives.
        reports
            .extend(report.map(|report| if row.get(names::PREVIEW).is_some() { report.of_nobody() } else { report }));
        app.redactor.redact(row);
    }
    app.log_templates.stamp(&mut rows);
    let (done, answer) = oneshot::channel();
    let broken = || {
        let detail = "the event store takes nothing until a restart";
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "events-unavailable",
            detail,
            "see the server's log, then restart it",
        )
    };
    app.intake.send(Job { rows, key, done }).await.map_err(|_| broken())?;
    let outcome = answer.await;
    // What was stored before was counted before.
    if let (false, Ok(Ok(Taken::Stored) | Err(Refused::NotInBucket(Taken::Stored)))) = (reports.is_empty(), &outcome) {
        // What is durable counts; a sender that comes again because it was refused does not count twice.
        let app = app.clone();
        let _ = tokio::task::spawn_blocking(move || app.lifecycle.take(&app, &reports)).await;
    }
    match outcome {
        Ok(Ok(taken)) => Ok(Stored { taken, warning }),
        Ok(Err(Refused::NotInBucket(_))) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "bucket-unavailable",
            "the events are on this server's disk, but the bucket did not take them in time",
            "send the same request again: it is not stored twice",
        )),
        Ok(Err(Refused::Full)) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "disk-full",
            "the disk under the event store is full; nothing of this request was stored",
            "make room, then send it again",
        )),
        Ok(Err(Refused::Broken)) | Err(_) => Err(broken()),
    }
}

/// An attribute as JSON.
pub(crate) fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Str(s) => json!(s),
        Value::Int(n) => json!(n),
        Value::Float(n) => json!(n),
        Value::Bool(b) => json!(b),
    }
}
