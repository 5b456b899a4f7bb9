//! REST for preview links.

use std::sync::Arc;

use auth::Role;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{delete, get};
use axum::{Json, Router};
use bytes::Bytes;
use control::{Command, Preview};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use vocab::{Id, Kind, Millis};

use crate::api::{Answer, Shared, blocking, parse};
use crate::app::{App, now};
use crate::problem::Problem;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/v1/previews", get(list).post(create)).route("/api/v1/previews/{id}", delete(revoke))
}

/// Without its text: that is a secret, and told once.
fn preview_json(preview: &Preview) -> Value {
    let bound = preview.subject.map(|subject| subject.to_string());
    json!({"id": preview.id, "flag": preview.flag, "variant": &*preview.variant, "ends": preview.ends, "by": preview.by,
        "subject": bound, "ended": now() >= preview.ends})
}

async fn list(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let state = app.state.load();
    let list: Vec<Value> = state.previews().rev().map(preview_json).collect();
    Ok(Json(json!({"previews": list})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    flag: String,
    variant: String,
    /// The targeting key of the person; none is whoever uses the link first.
    #[serde(default)]
    subject: Option<String>,
    /// How long it counts.
    #[serde(default = "an_hour")]
    lasts: Millis,
    #[serde(default)]
    reason: String,
}

fn an_hour() -> Millis {
    Millis::from_secs(3_600)
}

async fn create(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let wanted: Wanted = parse(&body)?;
    let subject = wanted.subject.as_deref().map(|subject| app.previews.pseudonym(subject));
    blocking(move || {
        let ends = now() + wanted.lasts;
        let command = Command::PreviewCreate { flag: wanted.flag, variant: wanted.variant, subject, ends };
        let index = app.commit(command, &actor, &wanted.reason)?;
        let state = app.state.load_full();
        let preview = state.preview(Id::new(Kind::Preview, index)).ok_or_else(|| {
            Problem::new(StatusCode::CONFLICT, "changed-meanwhile", "the preview was revoked already", "try again")
        })?;
        let mut answer = preview_json(preview);
        answer["audit_index"] = json!(index);
        answer["token"] = json!(app.previews.text(preview));
        Ok((StatusCode::CREATED, Json(answer)).into_response())
    })
    .await
}

async fn revoke(State(app): Shared, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let id = Id::parse(&id)
        .map_err(|error| Problem::bad_request("invalid-id", error.to_string(), "see `seaworthy preview list`"))?;
    let index = blocking(move || app.commit(Command::PreviewRevoke(id), &actor, "")).await?;
    Ok(Json(json!({"audit_index": index})).into_response())
}
