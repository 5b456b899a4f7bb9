//! What proxies call: snapshot (long poll), renewal, events.

use std::sync::Arc;
use std::time::{Duration, Instant};

use auth::Role;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use crate::app::{App, ProxySeen, lock};
use crate::ingest::store_rows;
use crate::problem::Problem;

/// A waiting snapshot call is answered at the latest after this.
const WAIT: Duration = Duration::from_secs(10);
/// The watch loop turns four times a second; after this long without a turn leases lapse.
pub(crate) const WATCH_MAX: Duration = Duration::from_secs(5);
/// Instances remembered.
const PROXIES_MAX: usize = 10_000;

#[derive(Deserialize)]
pub(crate) struct After {
    #[serde(default)]
    after: u64,
}

pub(crate) async fn snapshot(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(query): Query<After>,
) -> Result<Response, Problem> {
    app.authorize(&headers, Role::Proxy)?;
    let mut receiver = app.proxy_snapshot.subscribe();
    let changed = receiver.wait_for(|snapshot| snapshot.0 != query.after);
    let snapshot = match tokio::time::timeout(WAIT, changed).await {
        Ok(Ok(snapshot)) => snapshot.clone(),
        _ => app.proxy_snapshot.borrow().clone(),
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], snapshot.1.clone()).into_response())
}

#[derive(Deserialize)]
struct Renewal {
    name: String,
    instance: String,
    version: u64,
}

pub(crate) async fn renew(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    app.authorize(&headers, Role::Proxy)?;
    let renewal: Renewal = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request("invalid-body", e.to_string(), "send name, instance and version"))?;
    let unwatched = lock(&app.watched_at).elapsed();
    if unwatched > WATCH_MAX {
        // Harm is allowed only while somebody watches it.
        let detail = format!("nobody has watched the experiments for {} s", unwatched.as_secs());
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unwatched", detail, "see the server's log"));
    }
    let mut proxies = lock(&app.proxies);
    if proxies.len() >= PROXIES_MAX && !proxies.contains_key(&renewal.instance) {
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-proxies", "too many proxies", "stop some"));
    }
    let seen = ProxySeen { name: renewal.name, at: Instant::now(), version: renewal.version };
    proxies.insert(renewal.instance, seen);
    drop(proxies);
    let version = app.proxy_snapshot.borrow().0;
    Ok(axum::Json(json!({"version": version})).into_response())
}

pub(crate) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    app.authorize(&headers, Role::Proxy)?;
    let rows = rows::codec::decode(&body)
        .map_err(|e| Problem::bad_request("invalid-events", e.to_string(), "send a batch in the form of version 1"))?;
    let key = xxhash_rust::xxh3::xxh3_128(&body);
    store_rows(&app, rows, Some(key)).await?;
    Ok(StatusCode::NO_CONTENT)
}
