//! REST, OFREP, audit tiles, health, console.

use std::convert::Infallible;
use std::sync::Arc;

use audit::Log;
use auth::{Role, TokenHash, token_text};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use control::{Command, Entry};
use events::query::Calculation;
use experiments::{Experiment, Spec, Turn};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::LogsServiceServer;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsServiceServer;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use rows::Filter;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::BroadcastStream;
use tonic::codec::CompressionEncoding;
use vocab::{Id, Millis, Timestamp};

use crate::app::{App, draw, entry_json, lock, now};
use crate::body::BODY_BYTES_MAX;
use crate::otlp_api::{Grpc, http_logs, http_metrics, http_traces};
use crate::problem::Problem;
use crate::{delegations_api, flags_api, lines_api, previews_api, profiles_api, proxies, view};

pub(crate) type Shared = State<Arc<App>>;
pub(crate) type Answer = Result<Response, Problem>;

/// Everything on one port.
pub(crate) fn router(app: Arc<App>) -> Router {
    let traces = TraceServiceServer::new(Grpc(app.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(BODY_BYTES_MAX);
    let logs = LogsServiceServer::new(Grpc(app.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(BODY_BYTES_MAX);
    let metrics = MetricsServiceServer::new(Grpc(app.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(BODY_BYTES_MAX);
    let face = app.face(Some(app.pass.clone()));
    let for_clients = flagd::http::ofrep(&face)
        .merge(flagd::http::evaluation(&face))
        .merge(flagd::http::sync(&face))
        .layer(axum::middleware::from_fn_with_state(app.clone(), may_evaluate));
    // Outside: a browser's question comes without the token.
    let for_clients = app.open_to_pages(for_clients);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/api/v1/status", get(status))
        .route("/api/v1/experiments", get(experiments).post(start))
        .route("/api/v1/experiments/plan", post(plan))
        .route("/api/v1/experiments/{id}", get(experiment))
        .route("/api/v1/experiments/{id}/stop", post(stop))
        .route("/api/v1/experiments/{id}/ack", post(ack))
        .route("/api/v1/experiments/{id}/accept", post(accept))
        .route("/api/v1/experiments/{id}/timeline", get(timeline))
        .route("/api/v1/experiments/{id}/comparison", get(comparison))
        .route("/api/v1/halt", post(halt))
        .route("/api/v1/resume", post(resume))
        .route("/api/v1/audit", get(audit_entries))
        .route("/api/v1/audit/{index}/proof", get(audit_proof))
        .route("/audit/{*path}", get(audit_file))
        .merge(flags_api::routes())
        .merge(delegations_api::routes())
        .merge(profiles_api::routes())
        .merge(previews_api::routes())
        .merge(crate::lifecycle::routes())
        .merge(crate::query_api::routes())
        .merge(crate::sql_api::routes())
        .route("/api/v1/tokens", get(tokens).post(create_token))
        .route("/api/v1/tokens/{id}", delete(revoke_token))
        .route("/api/v1/stream", get(stream))
        .route("/api/v1/proxy/snapshot", get(proxies::snapshot))
        .route("/api/v1/proxy/renew", post(proxies::renew))
        .route("/api/v1/proxy/events", post(proxies::events))
        .route("/v1/traces", post(http_traces))
        .route("/v1/logs", post(http_logs))
        .route("/v1/metrics", post(http_metrics))
        .route("/api/v1/events", post(lines_api::post))
        .route_service("/opentelemetry.proto.collector.trace.v1.TraceService/Export", traces)
        .route_service("/opentelemetry.proto.collector.logs.v1.LogsService/Export", logs)
        .route_service("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", metrics)
        .fallback(console_or_nothing)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
        .merge(for_clients)
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|e| {
        Problem::bad_request("invalid-body", format!("the body is not as expected: {e}"), "see docs/reference/api.md")
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

pub(crate) fn reason(body: &Bytes) -> Result<String, Problem> {
    if body.is_empty() {
        return Ok(String::new());
    }
    parse::<Reason>(body).map(|r| r.reason)
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let remedy = "this is a fault of ours: see the server's log";
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the call broke off", remedy))
    })
}

fn find(app: &App, id: &str) -> Result<Experiment, Problem> {
    let state = app.state.load();
    state
        .experiment(id)
        .cloned()
        .ok_or_else(|| Problem::not_found("unknown-experiment", format!("there is no experiment {id:?}")))
}

async fn status(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    Ok(Json(view::status(&app)).into_response())
}

async fn experiments(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let list = blocking(move || {
        let state = app.state.load_full();
        Ok(state.experiments().rev().take(200).map(|e| view::experiment(&app, &state, e)).collect::<Vec<_>>())
    });
    Ok(Json(json!({"experiments": list.await?})).into_response())
}

async fn experiment(State(app): Shared, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let found = find(&app, &id)?;
    Ok(Json(view::experiment(&app, &app.state.load_full(), &found)).into_response())
}

async fn start(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let spec: Spec = parse(&body)?;
    let (arm_salt, offset) = draw()?;
    blocking(move || {
        let why = spec.hypothesis.clone();
        let index = app.commit(Command::Start { spec: Box::new(spec), arm_salt, offset }, &actor, &why)?;
        let id = Id::new(vocab::Kind::Experiment, index);
        let state = app.state.load_full();
        let started = find(&app, &id.to_string())?;
        {
            let mut tap = lock(&app.tap);
            // The watch loop may have been quicker.
            if tap.tally(id).is_none() {
                tap.watch(&started, None);
            }
        }
        crate::watch::checkpoint(&app);
        Ok((StatusCode::CREATED, Json(view::experiment(&app, &state, &started))).into_response())
    })
    .await
}

async fn plan(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let spec: Spec = parse(&body)?;
    let findings: Vec<String> = spec.findings().iter().map(ToString::to_string).collect();
    if !findings.is_empty() {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-spec",
            findings.join("; "),
            "mend the spec",
        ));
    }
    blocking(move || {
        // Present traffic: distinct subjects with an outcome in the last five minutes, and how many of them failed.
        let (to, span) = (now(), Millis::from_secs(300));
        let distinct = |filter: &Filter| {
            let query = events::Query {
                filter: filter.clone(),
                calculate: vec![Calculation::CountDistinct(rows::names::SUBJECT.into())],
                ..events::Query::new(to - span, to)
            };
            app.store.query(&query).ok().and_then(|found| found.rows.first()?.first()?.number()).unwrap_or(0.0)
        };
        let (fine, failed) = (distinct(&spec.kpi.success), distinct(&spec.kpi.failure));
        let subjects = fine.max(failed);
        // Nobody seen failing is not nobody ever failing: half a subject, as usual for a share of none.
        let share = if subjects > 0.0 { failed.max(0.5) / subjects } else { 0.0 };
        let rows: Vec<Value> = experiments::plan(&spec, subjects / span.secs(), share)
            .iter()
            .map(|p| {
                json!({"rate_ratio": if p.rate_ratio.is_finite() { json!(p.rate_ratio) } else { json!("outage") },
                    "events": p.events, "seconds": p.seconds, "subjects_exposed": p.subjects_exposed, "subjects_hurt": p.subjects_hurt})
            })
            .collect();
        Ok(Json(json!({"rows": rows, "traffic_per_second": subjects / span.secs(), "failure_share": share})).into_response())
    })
    .await
}

async fn stop(State(app): Shared, headers: HeaderMap, Path(id): Path<String>, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let reason = reason(&body)?;
    blocking(move || {
        let experiment = find(&app, &id)?;
        if experiment.phase.is_live() {
            app.off_now(experiment.id);
        }
        let transition = {
            let tap = lock(&app.tap);
            let empty = experiments::Tally::new(&experiment.spec, experiment.era_began_at());
            Turn::veto(&experiment, tap.tally(experiment.id).unwrap_or(&empty), now(), &reason)
        };
        app.commit(Command::Phase { id: experiment.id, transition }, &actor, &reason)?;
        let state = app.state.load_full();
        Ok(Json(view::experiment(&app, &state, &find(&app, &id)?)).into_response())
    })
    .await
}

async fn ack(State(app): Shared, headers: HeaderMap, Path(id): Path<String>, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let reason = reason(&body)?;
    blocking(move || {
        let experiment = find(&app, &id)?;
        app.commit(Command::Ack(experiment.id), &actor, &reason)?;
        let state = app.state.load_full();
        Ok(Json(view::experiment(&app, &state, &find(&app, &id)?)).into_response())
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    as_wanted: bool,
    #[serde(default)]
    reason: String,
}

/// Whoever is asked may be no engineer: it takes a token that may read, and bears his name.
async fn accept(State(app): Shared, headers: HeaderMap, Path(id): Path<String>, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Read)?;
    let said: Accepted = parse(&body)?;
    blocking(move || {
        let experiment = find(&app, &id)?;
        let command = Command::Accept { id: experiment.id, as_wanted: said.as_wanted };
        app.commit(command, &actor, &said.reason)?;
        let state = app.state.load_full();
        Ok(Json(view::experiment(&app, &state, &find(&app, &id)?)).into_response())
    })
    .await
}

async fn timeline(State(app): Shared, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let experiment = find(&app, &id)?;
    Ok(Json(blocking(move || Ok(view::timeline(&app, &experiment))).await?).into_response())
}

async fn comparison(State(app): Shared, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let experiment = find(&app, &id)?;
    let found = blocking(move || Ok(view::comparison(&app, &experiment))).await?;
    match found {
        Some(comparison) => Ok(Json(comparison).into_response()),
        None => Err(Problem::not_found("not-yet", "nobody was hurt so far, so there is nothing to compare")),
    }
}

async fn halt(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Operate)?;
    let reason = reason(&body)?;
    blocking(move || {
        let index = app.commit(Command::Halt, &actor, &reason)?;
        // What harms on purpose ends; the halt itself has switched it off already.
        let live: Vec<Experiment> = app.state.load().live().filter(|e| e.spec.harms()).cloned().collect();
        for experiment in live {
            let transition = {
                let tap = lock(&app.tap);
                let empty = experiments::Tally::new(&experiment.spec, experiment.era_began_at());
                Turn::veto(&experiment, tap.tally(experiment.id).unwrap_or(&empty), now(), "halt")
            };
            let _ = app.commit(Command::Phase { id: experiment.id, transition }, &actor, "halt");
        }
        Ok(Json(json!({"halted": true, "audit_index": index})).into_response())
    })
    .await
}

async fn resume(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Admin)?;
    let reason = reason(&body)?;
    let index = blocking(move || app.commit(Command::Resume, &actor, &reason)).await?;
    Ok(Json(json!({"halted": false, "audit_index": index})).into_response())
}

#[derive(Deserialize)]
struct Page {
    from: Option<u64>,
    limit: Option<u64>,
}

pub(crate) fn broken(error: impl std::fmt::Display) -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "audit-unreadable",
        error.to_string(),
        "run `seaworthy audit verify`",
    )
}

async fn audit_entries(State(app): Shared, headers: HeaderMap, Query(page): Query<Page>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    blocking(move || {
        let plane = lock(&app.plane);
        let size = plane.log.size();
        let limit = page.limit.unwrap_or(50).clamp(1, 1_000);
        let from = page.from.unwrap_or(size.saturating_sub(limit)).min(size);
        let mut entries = Vec::new();
        for index in (from..(from + limit).min(size)).rev() {
            let Some(bytes) = plane.log.entry(index).map_err(broken)? else { continue };
            entries.push(match Entry::from_bytes(&bytes) {
                Ok(entry) => entry_json(index, &entry),
                Err(_) => json!({"index": index, "action": "unreadable"}),
            });
        }
        Ok(Json(json!({"size": size, "entries": entries})).into_response())
    })
    .await
}

async fn audit_proof(State(app): Shared, headers: HeaderMap, Path(index): Path<u64>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let text = |log: &Log| log.proof(index);
    match text(&lock(&app.plane).log) {
        Some(proof) => Ok(proof.into_response()),
        None => Err(Problem::not_found(
            "no-proof",
            format!("no checkpoint covers entry {index} (yet): it takes about a second"),
        )),
    }
}

/// Checkpoint and tiles for anybody's verifier.
async fn audit_file(State(app): Shared, headers: HeaderMap, Path(path): Path<String>) -> Answer {
    app.authorize(&headers, Role::Read)?;
    let plain = path
        .split('/')
        .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') && p != "..");
    let public = path == "checkpoint" || path == "vkey" || path.starts_with("tile/");
    let none = || Problem::not_found("no-such-file", "the log has no such file");
    if !(plain && public) {
        return Err(none());
    }
    app.files.read(&format!("audit/{path}")).map(IntoResponse::into_response).map_err(|_| none())
}

pub(crate) fn time(text: Option<&str>, default: Timestamp) -> Result<Timestamp, Problem> {
    let wrong = || {
        let remedy = "write 2026-11-23T09:00:00Z, or -15m for a time before now";
        Problem::bad_request("invalid-time", format!("{:?} is not a time", text.unwrap_or_default()), remedy)
    };
    match text {
        None => Ok(default),
        Some(text) => match text.strip_prefix('-') {
            Some(ago) => Millis::parse(ago).map(|ago| now() - ago).map_err(|_| wrong()),
            None => Timestamp::parse(text).map_err(|_| wrong()),
        },
    }
}

async fn tokens(State(app): Shared, headers: HeaderMap) -> Answer {
    app.authorize(&headers, Role::Admin)?;
    let state = app.state.load();
    let list: Vec<Value> = state
        .tokens()
        .map(|t| json!({"id": t.id, "name": t.token.name, "role": t.token.role, "expires": t.token.expires}))
        .collect();
    Ok(Json(json!({"tokens": list})).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    role: Role,
    expires_ms: Option<u64>,
}

/// A fresh token's text.
pub(crate) fn fresh_token() -> Result<String, Problem> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|e| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-randomness", e.to_string(), "try again"))?;
    Ok(token_text(&random))
}

async fn create_token(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let actor = app.authorize(&headers, Role::Admin)?;
    let wanted: NewToken = parse(&body)?;
    if wanted.name.is_empty() || wanted.name.len() > 100 {
        return Err(Problem::bad_request("invalid-name", "a token's name has 1 to 100 bytes", "choose another name"));
    }
    let secret = fresh_token()?;
    let expires = wanted.expires_ms.map(|ms| now() + Millis(ms));
    let command = Command::TokenCreate { name: wanted.name, role: wanted.role, hash: TokenHash::of(&secret), expires };
    let index = blocking(move || app.commit(command, &actor, "")).await?;
    let id = Id::new(vocab::Kind::Token, index);
    Ok((StatusCode::CREATED, Json(json!({"id": id, "secret": secret, "role": wanted.role, "audit_index": index})))
        .into_response())
}

async fn revoke_token(State(app): Shared, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    let actor = app.authorize(&headers, Role::Admin)?;
    let id =
        Id::parse(&id).map_err(|e| Problem::bad_request("invalid-id", e.to_string(), "see `seaworthy token list`"))?;
    let index = blocking(move || app.commit(Command::TokenRevoke(id), &actor, "")).await?;
    Ok(Json(json!({"audit_index": index})).into_response())
}

async fn stream(
    State(app): Shared,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    app.authorize(&headers, Role::Read)?;
    let first = Event::default().event("status").data(view::status(&app).to_string());
    // A client that is too slow loses events in between; what it gets next is whole and newer.
    let news = BroadcastStream::new(app.news.subscribe())
        .filter_map(|news| async { news.ok().map(|n| Ok(Event::default().event(n.event).data(n.data))) });
    let all = futures_util::stream::once(async { Ok(first) }).chain(news);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(std::time::Duration::from_secs(5))))
}

/// Whoever evaluates needs a token. OFREP's change stream has a pass in its address instead, which it checks itself.
async fn may_evaluate(State(app): Shared, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    if request.uri().path() == "/ofrep/v1/events" {
        return next.run(request).await;
    }
    match app.authorize(request.headers(), Role::Evaluate) {
        Ok(_) => next.run(request).await,
        Err(problem) if is_grpc(request.headers()) => {
            let detail = problem.detail.clone();
            let status = match problem.status {
                StatusCode::FORBIDDEN => tonic::Status::permission_denied(detail),
                _ => tonic::Status::unauthenticated(detail),
            };
            status.into_http::<Body>()
        }
        Err(problem) => problem.into_response(),
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    media.is_some_and(|v| v.starts_with("application/grpc"))
}

async fn console_or_nothing(uri: http::Uri, headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        return tonic::Status::unimplemented("no such method").into_http::<Body>();
    }
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    match console::file(path) {
        Some((bytes, media)) => {
            let cache = if path == "index.html" { "no-cache" } else { "public, max-age=31536000, immutable" };
            let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'";
            let head = [
                (header::CONTENT_TYPE, media),
                (header::CACHE_CONTROL, cache),
                (header::CONTENT_SECURITY_POLICY, policy),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            (head, bytes).into_response()
        }
        None if path == "index.html" => {
            "This binary was built without the web console: install Node.js with npm and build again.\nThe API is at /api/v1.\n"
                .into_response()
        }
        None => Problem::not_found("no-such-path", format!("there is nothing at {}", uri.path())).into_response(),
    }
}
