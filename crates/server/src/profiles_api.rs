//! REST for rollout profiles: how changes of flags are watched that become rollouts by themselves.

use std::sync::Arc;

use auth::Role;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use control::{Command, ProfileRecord};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use vocab::Name;

use crate::api::{Answer, Shared, blocking, parse};
use crate::app::App;
use crate::problem::Problem;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/profiles", get(list))
        .route("/api/v1/profiles/{name}", get(one).put(put_profile).delete(delete_profile))
}

fn profile_json(name: &str, record: &ProfileRecord) -> Value {
    json!({"name": name, "default": record.profile.is_default(), "owner": record.profile.owner(), "version": record.version,
        "definition": record.profile.definition()})
}

async fn list(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let state = app.state.load();
    let list: Vec<Value> = state.profiles().iter().map(|(name, record)| profile_json(name, record)).collect();
    Ok(Json(json!({"profiles": list})).into_response())
}

async fn one(State(app): Shared, headers: HeaderMap, Path(name): Path<String>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let state = app.state.load();
    match state.profiles().get(&name) {
        Some(record) => Ok(Json(profile_json(&name, record)).into_response()),
        None => {
            let detail = format!("there is no rollout profile {name:?}");
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown-profile", detail, "see `seaworthy profile list`"))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    reason: String,
}

/// A profile decides how well later changes are watched, so it takes an admin.
async fn put_profile(
    State(app): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(why): Query<Why>,
    body: Bytes,
) -> Answer {
    let actor = app.authorize(&headers, Role::Admin)?;
    let definition: Value = parse(&body)?;
    let name = Name::parse(&name)
        .map_err(|error| Problem::bad_request("invalid-name", error.to_string(), "choose another name"))?;
    commit(app, Command::ProfilePut { name, definition }, actor, why.reason).await
}

async fn delete_profile(
    State(app): Shared,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(why): Query<Why>,
) -> Answer {
    let actor = app.authorize(&headers, Role::Admin)?;
    commit(app, Command::ProfileDelete(name), actor, why.reason).await
}

async fn commit(app: Arc<App>, command: Command, actor: String, reason: String) -> Answer {
    let index = blocking(move || app.commit(command, &actor, &reason)).await?;
    Ok(Json(json!({"audit_index": index})).into_response())
}
