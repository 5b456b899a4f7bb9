//! The lifecycle of flags, carried out: reported evaluations into the tables of the crate `lifecycle`, these tables to the disk and back,
//! and what they say for the API.
//!
//! A report is read while the subject's key is in clear text, held until its rows are durable, then counted and judged, and forgotten:
//! what is kept of a subject is a hash of its pseudonym, in memory. `usage.json` holds keys of flags, names of services, times and counts.
//! It is written every [`SAVE`] and when the server goes down, so a crash forgets half a minute of counting; a damaged file is set aside
//! under [`DAMAGED`], named, and counting begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use auth::Role;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use control::FlagRecord;
use files::Files;
use http::HeaderMap;
use lifecycle::usage::Evaluated;
use lifecycle::{Drift, Exposure, Facts, Finding, Usage, standing};
use rows::{Row, names};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vocab::{Id, Timestamp};

use crate::api::{Answer, Shared, blocking};
use crate::app::{App, lock, now};
use crate::recent::{Kept, Recent};

/// How often the tables are written.
const SAVE: Duration = Duration::from_secs(30);
/// How often alarms are counted.
const LOOK: Duration = Duration::from_secs(1);
const PATH: &str = "usage.json";
/// Where a file that cannot be read is set aside; a later one replaces it.
const DAMAGED: &str = "usage.json.damaged";
/// Of the file. A file of another format is not read.
const FORMAT: u32 = 1;
/// Unknown flags that one answer holds.
const UNKNOWN_LISTED_MAX: usize = 1_000;

/// `feature_flag.result.variant` and what it was called before.
const VARIANT: [&str; 2] = ["feature_flag.result.variant", "feature_flag.variant"];
const SUBJECT: &str = "feature_flag.context.id";
const RULESET: &str = "feature_flag.version";

/// The file.
#[derive(Serialize, Deserialize)]
struct Saved {
    format: u32,
    recent: Kept,
    usage: Usage,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    usage: Mutex<Usage>,
    drift: Mutex<Drift>,
    alarms: AtomicUsize,
}

/// One reported evaluation, until it is counted. It holds a subject in clear text, so it cannot be printed.
#[allow(missing_debug_implementations)]
pub(crate) struct Report {
    key: String,
    variant: Option<String>,
    subject: Option<String>,
    service: String,
    version: String,
    ruleset: Option<String>,
    failed: bool,
    at: Timestamp,
}

impl Report {
    /// What a row reports, before it is redacted.
    pub(crate) fn of(row: &Row) -> Option<Report> {
        let key = row.text(names::FLAG)?.to_owned();
        if row.is_aside() {
            return None;
        }
        // The exception that a hook wrote beside a failed evaluation, on the span of the request; the evaluation is an event of its own.
        if row.get("exception.type").is_some() && row.get("feature_flag.result.reason").is_none() {
            return None;
        }
        let text = |name: &str| row.text(name).map(str::to_owned);
        Some(Report {
            key,
            variant: VARIANT.iter().find_map(|name| text(name)),
            subject: text(SUBJECT),
            service: text(names::SERVICE).unwrap_or_default(),
            version: text("service.version").unwrap_or_default(),
            ruleset: text(RULESET),
            failed: row.get("error.type").is_some(),
            at: row.time,
        })
    }

    /// The same without the subject: it counts as use, and its variant is not judged.
    pub(crate) fn of_nobody(self) -> Report {
        Report { subject: None, ..self }
    }
}

impl Lifecycle {
    /// Reads what was kept; what is damaged is a finding.
    pub(crate) fn open(files: &dyn Files, recent: &Recent, has_flags: bool, findings: &mut Vec<String>) -> Lifecycle {
        let Ok(bytes) = files.read(PATH) else {
            if has_flags {
                recent.know_nothing(now());
                findings.push(format!(
                    "{PATH} is not there: for a day each flag counts as used by users who are not known"
                ));
            }
            return Lifecycle::default();
        };
        match serde_json::from_slice::<Saved>(&bytes) {
            Ok(saved) if saved.format == FORMAT => {
                recent.restore(saved.recent);
                Lifecycle { usage: Mutex::new(saved.usage.restored()), ..Lifecycle::default() }
            }
            read => {
                let why = read.map_or_else(|e| e.to_string(), |saved| format!("it has the format {}", saved.format));
                let aside = match files.replace(DAMAGED, &bytes) {
                    Ok(()) => format!("it is now {DAMAGED}"),
                    Err(error) => format!("it cannot be set aside ({error})"),
                };
                recent.know_nothing(now());
                findings.push(format!("{PATH} cannot be read: {why}; {aside}, and what uses flags is counted anew"));
                Lifecycle::default()
            }
        }
    }

    /// Counts and judges what was reported, in the order it came.
    pub(crate) fn take(&self, app: &App, reports: &[Report]) {
        let (state, served, now) = (app.state.load_full(), app.flags.load_full(), now());
        let ruleset = &served.digest()[..12];
        {
            let mut usage = lock(&self.usage);
            for report in reports {
                let record = state.flags().get(&report.key);
                let has = |name: &&str| record.is_some_and(|r| r.flag.variants().iter().any(|(own, _)| own == name));
                usage.take(&Evaluated {
                    key: &report.key,
                    known: record.is_some(),
                    service: &report.service,
                    version: &report.version,
                    variant: report.variant.as_deref().filter(has),
                    failed: report.failed,
                    // A clock that runs ahead makes nothing younger than it is.
                    at: report.at.min(now),
                });
            }
        }
        let mut drift = lock(&self.drift);
        for report in reports.iter().filter(|report| !report.failed) {
            let (Some(variant), Some(subject)) = (&report.variant, &report.subject) else { continue };
            // A name that is too long is no key; the proxy's own rows have none in clear text.
            if !vocab::subject_key_fits(subject) {
                continue;
            }
            let exposure = Exposure {
                key: &report.key,
                variant,
                subject,
                hash: app.redactor.pseudonym(subject).hash64(),
                service: &report.service,
                version: &report.version,
                ruleset: report.ruleset.as_deref(),
                at: report.at,
            };
            drift.take(&served.flags, ruleset, &exposure, now);
        }
    }

    /// Drift alarms, as of the last second.
    pub(crate) fn alarms(&self) -> usize {
        self.alarms.load(Ordering::Relaxed)
    }

    /// Reports of which some part was not taken for want of room.
    pub(crate) fn lost(&self) -> u64 {
        lock(&self.usage).lost()
    }

    fn findings(&self, app: &App) -> Vec<Finding> {
        lock(&self.drift).findings(&app.flags.load().flags, now())
    }

    fn bytes(&self, app: &App) -> Vec<u8> {
        let (state, now) = (app.state.load_full(), now());
        let mut usage = lock(&self.usage);
        usage.exist(state.flags().iter().map(|(key, record)| (key.as_str(), record.version)), now);
        let saved = Saved { format: FORMAT, recent: app.recent.kept(now), usage: usage.clone() };
        drop(usage);
        serde_json::to_vec(&saved).unwrap_or_default()
    }

    /// Writes the tables.
    pub(crate) fn save(&self, app: &App) {
        let bytes = self.bytes(app);
        if let Err(error) = app.files.replace(PATH, &bytes) {
            tracing::warn!(error = %error, "what uses flags cannot be written down; it is tried again");
        }
    }
}

/// Counts alarms and writes the tables now and then; runs until `stop` says so.
pub(crate) fn work(app: &Arc<App>, stop: &AtomicBool) {
    let mut saved: Option<Instant> = None;
    let mut told: BTreeSet<(String, String, String)> = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let alarms: Vec<Finding> = app.lifecycle.findings(app).into_iter().filter(|finding| finding.alarm).collect();
        app.lifecycle.alarms.store(alarms.len(), Ordering::Relaxed);
        let name = |finding: &Finding| (finding.flag.clone(), finding.service.clone(), finding.version.clone());
        for finding in alarms.iter().filter(|finding| !told.contains(&name(finding))) {
            tracing::warn!("drift: {}", finding.sentence());
        }
        told = alarms.iter().map(name).collect();
        if saved.is_none_or(|at| at.elapsed() >= SAVE) {
            saved = Some(Instant::now());
            lock(&app.lifecycle.drift).sweep(now());
            app.lifecycle.save(app);
            app.log_templates.save(&*app.files);
        }
        std::thread::park_timeout(LOOK);
    }
    app.lifecycle.save(app);
    app.log_templates.save(&*app.files);
}

/// The tables as of one moment, for all flags of one answer. Counting waits as long as it is held.
pub(crate) struct View<'a> {
    usage: MutexGuard<'a, Usage>,
    findings: Vec<Finding>,
    /// By key: flags and segments that need it.
    needed_by: BTreeMap<&'a str, Vec<String>>,
    all: Option<Timestamp>,
    app: &'a App,
    experiments: BTreeMap<String, Id>,
    now: Timestamp,
}

impl<'a> View<'a> {
    pub(crate) fn new(app: &'a App, state: &'a control::State) -> View<'a> {
        let mut needed_by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (key, record) in state.flags() {
            // What a killed flag was may come back.
            let before = record.before_kill.iter().flat_map(|flag| flag.needs_flags());
            for needed in record.flag.needs_flags().chain(before) {
                needed_by.entry(needed).or_default().push(key.clone());
            }
        }
        let segments = state.segments().iter();
        let by_segment: Vec<(String, Vec<Box<str>>)> =
            segments.map(|(key, record)| (key.clone(), record.segment.needs_flags())).collect();
        for (key, needed) in by_segment {
            for needed in needed {
                if let Some((flag, _)) = state.flags().get_key_value(&*needed) {
                    needed_by.entry(flag).or_default().push(format!("segment {key}"));
                }
            }
        }
        needed_by.values_mut().for_each(|keys| keys.dedup());
        let (findings, all, now) = (app.lifecycle.findings(app), app.recent.asked_all(), now());
        let experiments = state.experiments_by_flag();
        View { usage: lock(&app.lifecycle.usage), findings, needed_by, all, app, experiments, now }
    }

    fn standing(&self, key: &str, record: &FlagRecord) -> (lifecycle::Standing, Option<lifecycle::Asked>) {
        let flag = &record.flag;
        let (kind, expires) = standing::said(flag);
        let experiment = self.experiments.get(key).map(ToString::to_string);
        let asked = self.app.recent.asked(key);
        let facts = Facts {
            kind,
            expires,
            same_for_all: experiment.is_none() && (!flag.has_rules() || record.promoted.is_some()),
            placed: self.usage.placed(key, record.version, self.now),
            needed_by: self.needed_by.get(key).cloned().unwrap_or_default(),
            experiment,
            asked,
            reported: self.usage.reported(key),
            all: self.all,
            heard: self.usage.heard(),
        };
        (standing::standing(&facts, self.now), asked)
    }

    /// A flag's lifecycle for the API.
    pub(crate) fn of(&self, key: &str, record: &FlagRecord) -> Value {
        let (standing, asked) = self.standing(key, record);
        let reported = self.usage.reported(key);
        let mut callers: Vec<_> = reported.iter().flat_map(|reported| &reported.callers).collect();
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.last));
        let drift: Vec<Value> = self.findings.iter().filter(|f| f.alarm && f.flag == key).map(finding_json).collect();
        json!({
            "state": standing.stage.as_str(), "why": standing.why,
            "first_seen": standing.first_seen, "last_seen": standing.last_seen, "evaluations": standing.evaluations,
            "resolved": asked.map_or(0, |asked| asked.count), "reported": reported.map_or(0, |reported| reported.count),
            "services": callers, "variants": reported.map(|reported| &reported.variants).unwrap_or(&BTreeMap::new()),
            "needed_by": self.needed_by.get(key).map(Vec::as_slice).unwrap_or_default(), "drift": drift,
        })
    }
}

fn finding_json(finding: &Finding) -> Value {
    let explained_by: Vec<&str> = finding.explained_by.iter().map(|generation| generation.as_str()).collect();
    json!({
        "flag": finding.flag, "service": finding.service, "version": finding.version, "pinned": finding.pinned,
        "explained_by": explained_by, "subjects": finding.judged, "misassigned": finding.misassigned,
        "share": finding.share(), "sampled": finding.sampled, "last": finding.last, "alarm": finding.alarm,
        "sentence": finding.sentence(),
    })
}

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/v1/stale-flags", get(stale_flags)).route("/api/v1/drift", get(drift))
}

/// Flags that should go: what is safe to remove first.
async fn stale_flags(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    blocking(move || {
        let state = app.state.load_full();
        let view = View::new(&app, &state);
        let mut list = Vec::new();
        for (key, record) in state.flags() {
            let (stands, _) = view.standing(key, record);
            if stands.stage.is_overdue() {
                let definition = record.flag.definition();
                let flag = json!({"key": key, "kind": standing::said(&record.flag).0, "owner": definition.get("owner"),
                    "lifecycle": view.of(key, record)});
                list.push((std::cmp::Reverse(stands.stage), flag));
            }
        }
        list.sort_by_key(|(stage, _)| *stage);
        let list: Vec<Value> = list.into_iter().map(|(_, flag)| flag).collect();
        Ok(Json(json!({"flags": list})).into_response())
    })
    .await
}

/// Clients whose reports were judged, alarms first.
async fn drift(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    blocking(move || {
        let findings = app.lifecycle.findings(&app);
        let alarms = findings.iter().filter(|finding| finding.alarm).count();
        let judged: Vec<Value> = findings.iter().map(finding_json).collect();
        Ok(Json(json!({"alarms": alarms, "judged": judged})).into_response())
    })
    .await
}

/// Flags that clients ask for or report and that do not exist, the most used first.
pub(crate) fn unknown_flags(app: &App, state: &control::State) -> Vec<Value> {
    let mut by_key: BTreeMap<String, (Timestamp, u64, Vec<Value>)> = BTreeMap::new();
    for (key, asked) in app.recent.unknown(|key| state.flags().contains_key(key)) {
        by_key.insert(key, (asked.last, asked.count, Vec::new()));
    }
    let usage = lock(&app.lifecycle.usage);
    for (key, reported) in usage.unknown().filter(|(key, _)| !state.flags().contains_key(*key)) {
        let entry = by_key.entry(key.to_owned()).or_default();
        *entry = (
            entry.0.max(reported.last),
            entry.1.max(reported.count),
            reported.callers.iter().map(|c| json!(c)).collect(),
        );
    }
    drop(usage);
    let mut list: Vec<_> = by_key.into_iter().collect();
    list.sort_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| a.0.cmp(&b.0)));
    let one = |(key, (last, count, services)): (String, (Timestamp, u64, Vec<Value>))| {
        let deleted = !state.flag_history(&key).is_empty();
        json!({"key": key, "last_evaluated": last, "evaluations": count, "deleted": deleted, "services": services})
    };
    list.into_iter().take(UNKNOWN_LISTED_MAX).map(one).collect()
}

#[cfg(test)]
mod tests;
