//! REST for delegated control points: for those who delegate, and for those who hold one.

use std::sync::Arc;

use auth::{Role, TokenHash};
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{delete, get};
use axum::{Json, Router};
use bytes::Bytes;
use control::{Command, Delegation, FlagChange, Wish};
use experiments::{Treatment, Turn};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use vocab::{Id, Kind, Millis, Share};

use crate::api::{Answer, Shared, blocking, fresh_token, parse};
use crate::app::{App, How, lock, now};
use crate::flags_api::changed_answer;
use crate::problem::Problem;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/delegations", get(list).post(create))
        .route("/api/v1/delegations/{id}", delete(revoke))
        .route("/api/v1/delegated", get(held).put(wish).delete(take_back))
}

async fn list(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let state = app.state.load();
    let mut held: Vec<&control::TokenRecord> = state.tokens().filter(|record| record.delegation.is_some()).collect();
    held.sort_by_key(|record| record.id);
    let list: Vec<Value> = held
        .into_iter()
        .filter_map(|record| {
            let bounds = record.delegation.as_ref()?;
            Some(
                json!({"id": record.id, "name": record.token.name, "expires": record.token.expires, "bounds": **bounds,
                "served": served(&app, bounds, record.id)}),
            )
        })
        .collect();
    Ok(Json(json!({"delegations": list})).into_response())
}

fn served(app: &App, bounds: &Delegation, id: Id) -> Value {
    let state = app.state.load();
    let record = state.flags().get(&bounds.flag);
    record.and_then(|record| Delegation::served(&record.flag, &id.to_string())).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// For people; the holder acts under it.
    name: String,
    bounds: Delegation,
    /// How long it counts.
    #[serde(default)]
    lasts: Option<Millis>,
    #[serde(default)]
    reason: String,
}

async fn create(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let wanted: Wanted = parse(&body)?;
    if wanted.name.is_empty() || wanted.name.len() > 100 {
        return Err(Problem::bad_request("invalid-name", "a name has 1 to 100 bytes", "choose another name"));
    }
    let secret = fresh_token()?;
    let hash = TokenHash::of(&secret);
    let expires = wanted.lasts.map(|lasts| now() + lasts);
    let command = Command::Delegate { name: wanted.name, hash, expires, bounds: Box::new(wanted.bounds) };
    let index = blocking(move || app.commit(command, &actor, &wanted.reason)).await?;
    let id = Id::new(Kind::Token, index);
    let answer = json!({"id": id, "secret": secret, "expires": expires, "audit_index": index});
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Whoever may delegate may take it back, and nothing else that is a token.
async fn revoke(State(app): Shared, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let known = |record: &&control::TokenRecord| record.delegation.is_some() && record.id.to_string() == id;
    let Some(id) = app.state.load().tokens().find(known).map(|record| record.id) else {
        let detail = format!("there is no delegation {id}");
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-delegation",
            detail,
            "see `seaworthy delegation list`",
        ));
    };
    let index = blocking(move || app.commit(Command::TokenRevoke(id), &actor, "")).await?;
    Ok(Json(json!({"audit_index": index})).into_response())
}

/// Who holds which delegation.
fn holder(app: &App, headers: &HeaderMap) -> Result<(String, Id, Arc<Delegation>), Problem> {
    let (actor, record) = app.known(headers, Role::Delegate)?;
    match record.delegation {
        Some(bounds) => Ok((actor, record.id, bounds)),
        None => {
            let detail = "this token holds no delegation";
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail, "call `PUT /api/v1/flags/{key}` with it"))
        }
    }
}

async fn held(State(app): Shared, headers: HeaderMap) -> Answer {
    let (actor, id, bounds) = holder(&app, &headers)?;
    let rollout = app.state.load().experiments_by_flag().get(&bounds.flag).copied();
    let name = actor.strip_prefix("delegation:").unwrap_or(&actor);
    let answer =
        json!({"id": id, "name": name, "bounds": *bounds, "served": served(&app, &bounds, id), "rollout": rollout});
    Ok(Json(answer).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    share: Option<Share>,
    #[serde(default)]
    reason: String,
}

async fn wish(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let asked: Asked = parse(&body)?;
    let wish = Wish { variant: asked.variant, value: asked.value, share: asked.share };
    change(app, headers, Some(wish), asked.reason).await
}

async fn take_back(State(app): Shared, headers: HeaderMap) -> Answer {
    change(app, headers, None, "taken back".to_owned()).await
}

/// Within the bounds it is a change of the flag like any other: what is too much at once becomes a rollout. Taking back is free, and
/// ends a rollout of one's own.
async fn change(app: Arc<App>, headers: HeaderMap, wish: Option<Wish>, reason: String) -> Answer {
    const TRIES: usize = 5;
    let (actor, id, bounds) = holder(&app, &headers)?;
    let id = id.to_string();
    blocking(move || {
        if wish.is_none() {
            stop_own_rollout(&app, &bounds, &id, &actor)?;
        }
        let mut tries = 0;
        loop {
            let state = app.state.load_full();
            let record = state.flags().get(&bounds.flag).ok_or_else(|| {
                let detail = format!("flag {:?} is gone", bounds.flag);
                Problem::new(StatusCode::NOT_FOUND, "unknown-flag", detail, "ask whoever delegated")
            })?;
            if record.before_kill.is_some() {
                let detail = format!("flag {:?} was killed and stays off", bounds.flag);
                return Err(Problem::new(StatusCode::CONFLICT, "killed", detail, "ask whoever delegated"));
            }
            let change = bounds.change(&record.flag, &id, wish.as_ref(), now())?;
            // What its owner changes meanwhile is not overwritten: the change is made anew from that.
            let how = How { back: wish.is_none(), expected: vec![(change.target(), record.version)], ..How::default() };
            tries += 1;
            match app.commit_flags(vec![change], &how, &actor, &reason) {
                Err(problem) if problem.code == "changed-meanwhile" && tries < TRIES => {}
                Err(problem) => return Err(problem),
                Ok(changed) => return Ok(changed_answer(&app, &changed, json!({}))),
            }
        }
    })
    .await
}

/// Stops a rollout of this flag that has the holder's rule in it.
fn stop_own_rollout(app: &App, bounds: &Delegation, id: &str, actor: &str) -> Result<(), Problem> {
    let state = app.state.load_full();
    let own = state.live().find(|experiment| match &experiment.spec.treatment {
        Treatment::Flags(changes) => match changes.as_slice() {
            [FlagChange::Put { key, definition }] if *key == bounds.flag => definition["rules"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|rule| rule["id"] == format!("delegation {id}")),
            _ => false,
        },
        _ => false,
    });
    let Some(experiment) = own else { return Ok(()) };
    app.off_now(experiment.id);
    let transition = {
        let tap = lock(&app.tap);
        let empty = experiments::Tally::new(&experiment.spec, experiment.era_began_at());
        Turn::veto(experiment, tap.tally(experiment.id).unwrap_or(&empty), now(), "taken back by its holder")
    };
    app.commit(Command::Phase { id: experiment.id, transition }, actor, "taken back").map(|_| ())
}
