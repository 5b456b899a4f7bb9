//! REST for flags and segments: list, change, kill, apply as a whole, explain, history, and how it was at any time.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::Role;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use control::{Command, Entry, FlagChange, FlagRecord};
use experiments::Spec;
use flags::Context;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vocab::{Id, Timestamp};

use crate::api::{Answer, Shared, blocking, broken, parse, reason, time};
use crate::app::{App, Changed, How, entry_json, lock, now};
use crate::lifecycle::{self, View};
use crate::problem::Problem;

/// Entries of a history that one answer holds.
const HISTORY_MAX: usize = 1_000;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/flags", get(list))
        .route("/api/v1/flags/{key}", get(one).put(put_flag).delete(delete_flag))
        .route("/api/v1/flags/{key}/kill", post(kill))
        .route("/api/v1/flags/{key}/revive", post(revive))
        .route("/api/v1/flags/{key}/history", get(history))
        .route("/api/v1/flags/{key}/explain", post(explain))
        .route("/api/v1/unknown-flags", get(unknown_flags))
        .route("/api/v1/reviews", get(reviews))
        .route("/api/v1/segments", get(segments))
        .route("/api/v1/segments/{key}", put(put_segment).delete(delete_segment))
        .route("/api/v1/apply", post(apply))
        .route("/api/v1/export", get(export))
}

fn summary(
    experiments: &BTreeMap<String, Id>,
    key: &str,
    record: &FlagRecord,
    at: Timestamp,
    lifecycle: Value,
) -> Value {
    let definition = record.flag.definition();
    json!({
        "key": key, "state": if record.flag.enabled_at(at) { "ENABLED" } else { "DISABLED" },
        "dialect": if record.flag.is_ours() { "seaworthy" } else { "flagd" },
        "kind": definition.get("kind"), "owner": definition.get("owner"), "description": definition.get("description"),
        "expires": definition.get("expires"), "tags": definition.get("tags"),
        "variants": definition["variants"], "default_variant": record.flag.default_variant(),
        "targeting": definition.get("targeting"), "has_rules": record.flag.has_rules(),
        "risk": record.flag.risk(), "version": record.version, "experiment": experiments.get(key),
        "last_evaluated": lifecycle["last_seen"], "evaluations": lifecycle["evaluations"], "lifecycle": lifecycle,
        "killed": record.before_kill.is_some(), "promoted": record.promoted.as_ref().map(|(_, v)| v.to_string()),
    })
}

fn unknown(key: &str) -> Problem {
    let remedy = "see `seaworthy flag list`; with --at, it may not have been there then";
    Problem::new(StatusCode::NOT_FOUND, "unknown-flag", format!("there is no flag {key:?}"), remedy)
}

/// All flags, as the API lists them.
pub(crate) fn summaries(app: &App) -> Vec<Value> {
    let state = app.state.load_full();
    let view = View::new(app, &state);
    let experiments = state.experiments_by_flag();
    let now = now();
    let one = |(key, record): (&String, &FlagRecord)| summary(&experiments, key, record, now, view.of(key, record));
    state.flags().iter().map(one).collect()
}

async fn list(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    blocking(move || Ok(Json(json!({"flags": summaries(&app)})).into_response())).await
}

/// Flags that clients ask for and that do not exist: seen before their code ships, or misspelled.
async fn unknown_flags(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let state = app.state.load();
    Ok(Json(json!({"flags": lifecycle::unknown_flags(&app, &state)})).into_response())
}

/// Changes that were made past the guard: somebody should look at each.
async fn reviews(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    blocking(move || {
        let state = app.state.load_full();
        Ok(Json(json!({"entries": read_entries(&app, state.reviews())?})).into_response())
    })
    .await
}

/// Entries by index, the newest first.
fn read_entries(app: &App, indexes: &[u64]) -> Result<Vec<Value>, Problem> {
    let mut entries = Vec::new();
    for index in indexes.iter().rev().take(HISTORY_MAX) {
        let Some(bytes) = lock(&app.plane).log.entry(*index).map_err(broken)? else { continue };
        if let Ok(entry) = Entry::from_bytes(&bytes) {
            entries.push(entry_json(*index, &entry));
        }
    }
    Ok(entries)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    at: Option<String>,
}

/// The state of the control plane as the log had it at a time: what was on at 14:32.
fn state_at(app: &App, at: Timestamp) -> Result<control::State, Problem> {
    let mut state = control::State::default();
    loop {
        // The lock is taken for each bundle, so that no commit waits for the whole.
        let entries = lock(&app.plane).log.entries_from(state.size()).map_err(broken)?;
        if entries.is_empty() {
            return Ok(state);
        }
        for bytes in entries {
            if Entry::from_bytes(&bytes).is_ok_and(|entry| entry.time() > at) {
                return Ok(state);
            }
            state.apply(state.size(), &bytes);
        }
    }
}

async fn one(State(app): Shared, headers: HeaderMap, Path(key): Path<String>, Query(when): Query<When>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let at = match when.at {
        Some(text) => Some(time(Some(&text), now())?),
        None => None,
    };
    blocking(move || {
        let state = match at {
            Some(at) => Arc::new(state_at(&app, at)?),
            None => app.state.load_full(),
        };
        let record = state.flags().get(&key).ok_or_else(|| unknown(&key))?;
        // What is used is known of now only.
        let lifecycle = if at.is_none() { View::new(&app, &state).of(&key, record) } else { Value::Null };
        let mut answer = summary(&state.experiments_by_flag(), &key, record, at.unwrap_or_else(now), lifecycle);
        answer["definition"] = record.flag.definition().clone();
        answer["at"] = json!(at);
        Ok(Json(answer).into_response())
    })
    .await
}

/// Why, in the body of a change or in its `reason` parameter.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    reason: String,
    /// Past the guard on unwatched jumps; needs a reason.
    break_glass: bool,
    /// The audit index of the last change that the caller knows of; 0 is none.
    if_version: Option<u64>,
}

async fn changed(app: Arc<App>, actor: String, changes: Vec<FlagChange>, asked: Asked) -> Answer {
    blocking(move || {
        let expected = asked.if_version.map(|version| (changes[0].target(), version)).into_iter().collect();
        let how = How { break_glass: asked.break_glass, expected, ..How::default() };
        let changed = app.commit_flags(changes, &how, &actor, &asked.reason)?;
        Ok(changed_answer(&app, &changed, json!({})))
    })
    .await
}

/// A change is made (200), or is a rollout now that will make it (202).
pub(crate) fn changed_answer(app: &App, changed: &Changed, mut answer: Value) -> Response {
    answer["audit_index"] = json!(changed.index);
    answer["impact"] = json!(impact_json(app, &changed.impacts));
    answer["applied"] = json!(changed.rollout.is_none());
    let status = match changed.rollout {
        None => StatusCode::OK,
        Some(id) => {
            let state = app.state.load();
            answer["rollout"] = state.experiment(&id.to_string()).map_or(Value::Null, |e| rollout_json(id, &e.spec));
            StatusCode::ACCEPTED
        }
    };
    (status, Json(answer)).into_response()
}

fn rollout_json(id: impl Serialize, spec: &Spec) -> Value {
    json!({"id": id, "name": spec.name, "stages": spec.stages, "owner": spec.owner})
}

/// What a change does to subjects seen lately, flag by flag.
fn impact_json(app: &App, impacts: &[flags::Impact]) -> Vec<Value> {
    let now = now();
    impacts
        .iter()
        .map(|impact| {
            json!({"key": impact.key, "subjects": impact.subjects, "changed": impact.changed, "later": impact.later,
                "safer": impact.safer,
                "unclear": impact.unclear,
                "asked_lately": app.recent.asked_lately(&impact.key, now)})
        })
        .collect()
}

async fn put_flag(
    State(app): Shared,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(asked): Query<Asked>,
    body: Bytes,
) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let definition: Value = parse(&body)?;
    changed(app, actor, vec![FlagChange::Put { key, definition }], asked).await
}

async fn delete_flag(
    State(app): Shared,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(asked): Query<Asked>,
) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    changed(app, actor, vec![FlagChange::Delete(key)], asked).await
}

async fn kill(State(app): Shared, headers: HeaderMap, Path(key): Path<String>, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let reason = reason(&body)?;
    let index = blocking(move || app.commit(Command::FlagKill(key), &actor, &reason)).await?;
    Ok(Json(json!({"audit_index": index})).into_response())
}

async fn revive(State(app): Shared, headers: HeaderMap, Path(key): Path<String>, Query(asked): Query<Asked>) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    changed(app, actor, vec![FlagChange::Revive(key)], asked).await
}

async fn history(State(app): Shared, headers: HeaderMap, Path(key): Path<String>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    blocking(move || {
        let state = app.state.load_full();
        let indexes = state.flag_history(&key);
        if indexes.is_empty() {
            return Err(unknown(&key));
        }
        let entries = read_entries(&app, indexes)?;
        Ok(Json(json!({"key": key, "entries": entries})).into_response())
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    context: Map<String, Value>,
    at: Option<String>,
}

/// Why this subject gets this variant: every step with its place in the definition.
async fn explain(State(app): Shared, headers: HeaderMap, Path(key): Path<String>, body: Bytes) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let asked: Question = parse(&body)?;
    let at = asked.at.as_deref().map(|text| time(Some(text), now())).transpose()?;
    blocking(move || {
        let (flags, version, when) = match at {
            None => {
                let state = app.state.load_full();
                (app.flags.load().flags.clone(), state.flags().get(&key).map(|record| record.version), now())
            }
            Some(at) => {
                let state = state_at(&app, at)?;
                let version = state.flags().get(&key).map(|record| record.version);
                (state.served(), version, at)
            }
        };
        if flags.flag(&key).is_none() {
            return Err(unknown(&key));
        }
        let (found, steps) = flags.explain(&key, &Context::new(asked.context), when);
        let mut answer = json!({"key": key, "at": when, "version": version, "steps": steps});
        match found {
            Ok(found) => {
                answer["reason"] = json!(found.reason.as_str());
                answer["variant"] = json!(found.variant);
                answer["value"] = json!(found.value);
                answer["experiment"] = json!(found.experiment.map(|(id, _)| id));
                answer["arm"] = json!(found.experiment.map(|(_, arm)| arm.as_str()));
            }
            Err(error) => {
                answer["error_code"] = json!(error.code.as_str());
                answer["error"] = json!(error.detail);
            }
        }
        Ok(Json(answer).into_response())
    })
    .await
}

async fn segments(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let state = app.state.load();
    let list: Vec<Value> = state
        .segments()
        .iter()
        .map(|(key, record)| json!({"key": key, "version": record.version, "definition": record.segment.definition()}))
        .collect();
    Ok(Json(json!({"segments": list})).into_response())
}

async fn put_segment(
    State(app): Shared,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(asked): Query<Asked>,
    body: Bytes,
) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let definition: Value = parse(&body)?;
    changed(app, actor, vec![FlagChange::PutSegment { key, definition }], asked).await
}

async fn delete_segment(
    State(app): Shared,
    headers: HeaderMap,
    Path(key): Path<String>,
    Query(asked): Query<Asked>,
) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    changed(app, actor, vec![FlagChange::DeleteSegment(key)], asked).await
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Versions {
    flags: BTreeMap<String, u64>,
    segments: BTreeMap<String, u64>,
}

/// A whole document: what is in it is made or changed, what is the same is left alone, what is not in it stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Applied {
    #[serde(default)]
    flags: BTreeMap<String, Value>,
    #[serde(default)]
    segments: BTreeMap<String, Value>,
    #[serde(default)]
    delete_flags: Vec<String>,
    #[serde(default)]
    delete_segments: Vec<String>,
    /// Audit indexes of the last changes that the caller knows of; 0 is none.
    #[serde(default)]
    if_version: Versions,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    break_glass: bool,
    #[serde(default)]
    reason: String,
}

async fn apply(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let asked: Applied = parse(&body)?;
    blocking(move || {
        let state = app.state.load_full();
        let (mut changes, mut plan) = (Vec::new(), Vec::new());
        let mut note = |kind: &str, key: &str, before: Option<&Value>, after: Option<&Value>| {
            let action = match (before, after) {
                (None, _) => "create",
                (Some(before), Some(after)) if before == after => "same",
                (Some(_), Some(_)) => "change",
                (Some(_), None) => "delete",
            };
            plan.push(json!({"kind": kind, "key": key, "action": action}));
            action != "same"
        };
        for (key, definition) in asked.segments {
            let before = state.segments().get(&key).map(|record| record.segment.definition());
            if note("segment", &key, before, Some(&definition)) {
                changes.push(FlagChange::PutSegment { key, definition });
            }
        }
        for (key, definition) in asked.flags {
            let before = state.flags().get(&key).map(|record| record.flag.definition());
            if note("flag", &key, before, Some(&definition)) {
                changes.push(FlagChange::Put { key, definition });
            }
        }
        for key in asked.delete_flags {
            note("flag", &key, Some(&Value::Null), None);
            changes.push(FlagChange::Delete(key));
        }
        for key in asked.delete_segments {
            note("segment", &key, Some(&Value::Null), None);
            changes.push(FlagChange::DeleteSegment(key));
        }
        let nothing = |impact: Vec<Value>, refusal: Value, rollout: Value| {
            let answer = json!({"plan": plan, "applied": false, "audit_index": null, "impact": impact, "refusal": refusal,
                "rollout": rollout});
            Ok(Json(answer).into_response())
        };
        let flags = asked.if_version.flags.into_iter().map(|(key, version)| (format!("flag {key}"), version));
        let segments = asked.if_version.segments.into_iter().map(|(key, version)| (format!("segment {key}"), version));
        let expected = flags.chain(segments).collect();
        let how = How { break_glass: asked.break_glass, expected, ..How::default() };
        how.check(&state)?;
        if changes.is_empty() {
            return nothing(Vec::new(), Value::Null, Value::Null);
        }
        if asked.dry_run {
            let (impacts, jumps) = app.judge(&state, &changes)?;
            let impact = impact_json(&app, &impacts);
            let would = |refusal: control::Refusal| {
                json!({"code": refusal.code, "detail": refusal.detail, "remedy": refusal.remedy})
            };
            let Some((jumps, after)) = jumps.filter(|_| !asked.break_glass && !app.is_dev(&state)) else {
                let command = Command::Flags { changes, break_glass: asked.break_glass };
                let refused = state.decide(command, &actor, &asked.reason, now()).err().map(would);
                return nothing(impact, json!(refused), Value::Null);
            };
            let staged = state.staged(changes, &jumps, &after, &asked.reason).and_then(|spec| {
                let spec = Box::new(spec);
                let start = Command::Start { spec: spec.clone(), arm_salt: "0".repeat(32), offset: 0 };
                state.decide(start, &actor, &asked.reason, now()).map(|_| spec)
            });
            return match staged {
                Ok(spec) => nothing(impact, Value::Null, rollout_json(Value::Null, &spec)),
                Err(refusal) => nothing(impact, would(refusal), Value::Null),
            };
        }
        let changed = app.commit_flags(changes, &how, &actor, &asked.reason)?;
        Ok(changed_answer(&app, &changed, json!({"plan": plan, "refusal": null})))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    form: Option<String>,
}

/// All flags and segments as one document: as they are, or in flagd's form with a list of what that cannot say.
async fn export(State(app): Shared, headers: HeaderMap, Query(asked): Query<Form>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    blocking(move || {
        let state = app.state.load_full();
        let set = state.flag_set();
        let answer: Response = match asked.form.as_deref() {
            None | Some("seaworthy") => {
                let flags: Map<String, Value> =
                    set.flags().into_iter().map(|(key, flag)| (key.to_owned(), flag.definition().clone())).collect();
                let segments: Map<String, Value> =
                    set.segments().into_iter().map(|(key, s)| (key.to_owned(), s.definition().clone())).collect();
                Json(json!({"flags": flags, "segments": segments})).into_response()
            }
            Some("flagd") => {
                let (mut flags, mut left_out) = (Map::new(), Map::new());
                for (key, flag) in set.flags() {
                    match set.to_flagd(flag) {
                        Ok(definition) => _ = flags.insert(key.to_owned(), definition),
                        Err(reason) => _ = left_out.insert(key.to_owned(), reason.into()),
                    }
                }
                Json(json!({"flags": flags, "metadata": {}, "left_out": left_out})).into_response()
            }
            Some(other) => {
                let detail = format!("there is no form {other:?}");
                return Err(Problem::bad_request("unknown-form", detail, "ask for seaworthy or flagd"));
            }
        };
        Ok(answer)
    })
    .await
}
