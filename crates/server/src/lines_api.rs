//! JSON lines over HTTP: what `seaworthy ingest` and any script sends. Acknowledged means durable.

use std::sync::Arc;

use auth::Role;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use records::lines::{self, Shape};
use rows::names;
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use crate::api::blocking;
use crate::app::{App, now};
use crate::body::unpack;
use crate::ingest::store_rows;
use crate::intake::Taken;
use crate::problem::Problem;

const SEE: &str = "see docs/reference/intake.md";

/// What the address says of the lines.
fn shape(parameters: Vec<(String, String)>) -> Result<(u64, Shape), Problem> {
    let wrong = |detail: String| Problem::bad_request("invalid-parameter", detail, SEE);
    let (mut first_line, mut shape) = (1, Shape::default());
    for (name, value) in parameters {
        match name.as_str() {
            "first_line" => {
                first_line = value.parse().map_err(|_| wrong(format!("first_line: {value:?} is no number")))?;
            }
            "time_field" => shape.time_field = Some(value),
            "service" => shape.set.push((names::SERVICE.to_owned(), value)),
            "set" => match value.split_once('=') {
                Some((name, text)) if !name.is_empty() => shape.set.push((name.to_owned(), text.to_owned())),
                _ => return Err(wrong(format!("set: write {value:?} as name=value"))),
            },
            other => return Err(wrong(format!("there is no parameter {other:?}"))),
        }
    }
    let bytes: usize = shape.set.iter().map(|(name, text)| name.len() + text.len()).sum();
    if bytes > lines::SET_BYTES_MAX {
        let max = lines::SET_BYTES_MAX;
        return Err(wrong(format!("what is set for each line has {bytes} bytes, and may have {max}")));
    }
    Ok((first_line, shape))
}

/// The same for the same lines in the same place of the same input, so that it may be sent again.
fn key(body: &[u8], first_line: u64, shape: &Shape) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(b"lines");
    hash.update(&first_line.to_le_bytes());
    hash.update(json!([shape.time_field, shape.set]).to_string().as_bytes());
    hash.update(body);
    hash.digest128()
}

pub(crate) async fn post(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(parameters): Query<Vec<(String, String)>>,
    body: Bytes,
) -> Result<Response, Problem> {
    app.authorize(&headers, Role::Ingest)?;
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !matches!(media, "application/x-ndjson" | "application/jsonl" | "application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            format!("content type {media:?}"),
            "send application/x-ndjson: one JSON object a line",
        ));
    }
    let (first_line, shape) = shape(parameters)?;
    let (read, key) = blocking(move || {
        let body = unpack(&headers, body)?;
        let key = key(&body, first_line, &shape);
        Ok((lines::read(&body, first_line, &shape, now()), key))
    })
    .await?;
    let n_rows = read.rows.len();
    let stored = store_rows(&app, read.rows, Some(key)).await?;
    let (new, known) = if stored.taken == Taken::Stored { (n_rows, 0) } else { (0, n_rows) };
    let refusals: Vec<Value> =
        read.refusals.iter().map(|refusal| json!({"line": refusal.line, "reason": refusal.reason})).collect();
    Ok(axum::Json(json!({"stored": new, "known_already": known, "refused": read.refused, "refusals": refusals,
        "warning": stored.warning}))
    .into_response())
}
