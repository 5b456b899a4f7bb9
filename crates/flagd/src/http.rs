//! Routers for flagd's four ports. Listening, TLS and sockets are the caller's.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::json;
pub use tower_http::cors::CorsLayer as Cors;
use tower_http::cors::{AllowHeaders, AllowOrigin};

use crate::connect;
use crate::face::{Face, SELECTOR, now};
use crate::limit::Limiter;
use crate::listen::Peer;
use crate::sync_v1::flag_sync_service_server::FlagSyncServiceServer;
use crate::{v1, v2};

/// Where OFREP's change stream is.
const EVENTS: &str = "/ofrep/v1/events";
/// A client that hears nothing for so long asks again by itself.
const INACTIVITY: Duration = Duration::from_secs(120);
/// A browser asks whether a page may call at most this often.
const PREFLIGHT_HOLDS: Duration = Duration::from_secs(600);

/// Port 8013: evaluation by gRPC, gRPC-web and Connect JSON.
pub fn evaluation(face: &Face) -> Router {
    let max = face.body_bytes_max;
    let first = v1::service_server::ServiceServer::new(face.clone()).max_decoding_message_size(max);
    let second = v2::service_server::ServiceServer::new(face.clone()).max_decoding_message_size(max);
    Router::new()
        .route_service("/flagd.evaluation.v1.Service/{method}", first)
        .route_service("/flagd.evaluation.v2.Service/{method}", second)
        .layer(tonic_web::GrpcWebLayer::new())
        .layer(from_fn_with_state(Arc::new(face.clone()), connect_first))
}

async fn connect_first(State(face): State<Arc<Face>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = path.strip_prefix("/flagd.evaluation.").and_then(|rest| rest.split_once(".Service/"));
    match method {
        Some((version @ ("v1" | "v2"), method)) if connect::is_connect(request.headers()) => {
            let (head, body) = request.into_parts();
            match axum::body::to_bytes(body, face.body_bytes_max).await {
                Ok(body) => connect::answer(&face, version, method, &head.headers, &body),
                Err(_) => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long").into_response(),
            }
        }
        _ => next.run(request).await,
    }
}

/// Port 8015: documents for clients that evaluate in process.
pub fn sync(face: &Face) -> Router {
    let service = FlagSyncServiceServer::new(face.clone()).max_decoding_message_size(face.body_bytes_max);
    Router::new().route_service("/flagd.sync.v1.FlagSyncService/{method}", service)
}

/// For gRPC ports: what is not there is said in gRPC's way.
pub async fn unimplemented() -> Response {
    tonic::Status::unimplemented("no such method").into_http::<Body>()
}

/// Port 8016: OFREP.
pub fn ofrep(face: &Face) -> Router {
    let router = Router::new()
        .route("/ofrep/v1/evaluate/flags", post(ofrep_bulk))
        .route("/ofrep/v1/evaluate/flags/{key}", post(ofrep_single))
        .route(EVENTS, get(ofrep_events))
        .layer(DefaultBodyLimit::max(face.body_bytes_max))
        .with_state(Arc::new(face.clone()));
    match &face.limiter {
        Some(limiter) => router.layer(from_fn_with_state(limiter.clone(), limit)),
        None => router,
    }
}

async fn limit(State(limiter): State<Arc<Limiter>>, request: Request, next: Next) -> Response {
    let from = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(Peer(address))| address.ip());
    let caller = limiter.caller(request.headers(), from);
    let Err(wait) = limiter.take(caller, Instant::now()) else { return next.run(request).await };
    // Whole seconds, and not before there is room.
    let secs = wait.as_secs_f64().ceil().max(1.0) as u64;
    let detail = format!("more than {} requests a second; ask again in {secs} s", limiter.rate());
    let body = axum::Json(json!({"errorDetails": detail}));
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, secs)], body).into_response()
}

/// Lets pages of these origins call; `*` lets those of all. Without origins there is nothing to add to a router: browsers
/// then keep pages of other origins out.
pub fn cors(origins: &[String]) -> Result<Option<Cors>, BadOrigin> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(|origin| checked(origin)).collect::<Result<Vec<_>, _>>()?)
    };
    let exposed = [header::ETAG, header::RETRY_AFTER].into_iter();
    let exposed = exposed.chain(["grpc-status", "grpc-message"].map(HeaderName::from_static));
    let cors = Cors::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        // Not `*`: browsers do not take that to mean Authorization.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.collect::<Vec<_>>())
        .max_age(PREFLIGHT_HOLDS);
    Ok(Some(cors))
}

/// As a browser writes it: scheme, host, perhaps a port; no path.
fn checked(origin: &str) -> Result<HeaderValue, BadOrigin> {
    let bad = || BadOrigin(origin.to_owned());
    let (_, host) = origin.split_once("://").ok_or_else(bad)?;
    if host.is_empty() || host.contains(['/', '?', '#', '*', ' ']) {
        return Err(bad());
    }
    origin.parse().map_err(|_| bad())
}

/// An origin that no browser would send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: expected https://host, https://host:port or *")]
pub struct BadOrigin(String);

fn replied(reply: openfeature::Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match reply.body {
        Some(body) => (status, axum::Json(body)).into_response(),
        None => status.into_response(),
    };
    if let Some(etag) = reply.etag.and_then(|etag| etag.parse().ok()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn bad_selector(status: &tonic::Status) -> Response {
    let body = json!({"errorCode": "GENERAL", "errorDetails": status.message()});
    (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
}

async fn ofrep_single(
    State(face): State<Arc<Face>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let view = match face.view(&headers) {
        Ok(view) => view,
        Err(status) => return bad_selector(&status),
    };
    let context = openfeature::context(&body).map(|context| face.enrich(context, &headers));
    replied(view.snapshot.single_in(&key, context, now()))
}

async fn ofrep_bulk(State(face): State<Arc<Face>>, headers: HeaderMap, body: Bytes) -> Response {
    let view = match face.view(&headers) {
        Ok(view) => view,
        Err(status) => return bad_selector(&status),
    };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let context = openfeature::context(&body).map(|context| face.enrich(context, &headers));
    let selector = headers.get(SELECTOR).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut uri = format!("{EVENTS}?selector={}", percent(selector));
    if let Some(pass) = &face.pass {
        let _ = write!(uri, "&pass={}", pass.issue(now()));
    }
    // The address is part of what the ETag names: a client whose pass ran out gets a fresh one, not a 304.
    let mut reply = view.snapshot.bulk_in(context, known, &uri, now());
    if let (200, Some(body)) = (reply.status, &mut reply.body) {
        body["eventStreams"] =
            json!([{"type": "sse", "endpoint": {"requestUri": uri}, "inactivityDelaySec": INACTIVITY.as_secs()}]);
    }
    replied(reply)
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => _ = write!(out, "%{byte:02X}"),
        }
        out
    })
}

#[derive(serde::Deserialize)]
struct Watching {
    #[serde(default)]
    selector: String,
    #[serde(default)]
    pass: String,
}

/// The change stream of OFREP: it says that something changed, never what. What was missed while away is told at once, as one
/// event: changes that follow each other closely are one for a client, too.
async fn ofrep_events(State(face): State<Arc<Face>>, Query(asked): Query<Watching>, headers: HeaderMap) -> Response {
    if face.pass.as_ref().is_some_and(|pass| !pass.admits(&asked.pass, now())) {
        return (StatusCode::UNAUTHORIZED, "ask for flags again: the answer has a fresh address").into_response();
    }
    let selector = match crate::Selector::parse(&asked.selector) {
        Ok(selector) => selector,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason).into_response(),
    };
    let missed = headers.get("last-event-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let stream = face.refetches(selector, missed).map(|told| {
        let event = Event::default().id(&told.mark);
        let event = if told.again {
            let data = json!({"type": "refetchEvaluation", "etag": told.digest, "lastModified": told.at_secs});
            event.event("message").data(data.to_string())
        } else {
            // Nobody listens for this one, but from it the client knows what to say when it comes back.
            event.event("listening").data(json!({"type": "listening"}).to_string())
        };
        Ok::<_, std::convert::Infallible>(match told.retry {
            Some(after) => event.retry(after),
            None => event,
        })
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(INACTIVITY / 4)).into_response()
}

/// Whether it is up, whether it has flags, and how much it did.
#[derive(Debug, Default)]
pub struct Health {
    /// Set once every source was read.
    pub ready: AtomicBool,
    requests: AtomicU64,
}

/// Counts the requests of a router for `/metrics`.
pub fn counted(router: Router, health: &Arc<Health>) -> Router {
    let health = health.clone();
    router.layer(from_fn(move |request: Request<Body>, next: Next| {
        let health = health.clone();
        async move {
            health.requests.fetch_add(1, Ordering::Relaxed);
            next.run(request).await
        }
    }))
}

/// Port 8014: health by HTTP and by gRPC, and metrics.
pub fn management(face: &Face, health: &Arc<Health>) -> Router {
    // Where this port answers, the daemon is up; whether it has flags is for /readyz.
    let (_, grpc) = tonic_health::server::health_reporter();
    Router::new()
        .route_service("/grpc.health.v1.Health/{method}", grpc)
        .fallback(unimplemented_or_not_found)
        .route("/healthz", get(|| async { "" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state((health.clone(), Arc::new(face.clone())))
}

async fn unimplemented_or_not_found(headers: HeaderMap) -> Response {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if media.starts_with("application/grpc") { unimplemented().await } else { StatusCode::NOT_FOUND.into_response() }
}

type Managed = State<(Arc<Health>, Arc<Face>)>;

async fn readyz(State((health, _)): Managed) -> StatusCode {
    if health.ready.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::PRECONDITION_FAILED }
}

async fn metrics(State((health, face)): Managed) -> Response {
    let view = face.hub.view(&crate::Selector::Everything);
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    let count = health.requests.load(Ordering::Relaxed);
    metric("seaworthy_flag_requests_total", "counter", "Requests for evaluations, streams and documents.", count);
    let flags = view.snapshot.flags.flags().len() as u64;
    metric("seaworthy_flags", "gauge", "Flags in force.", flags);
    metric("seaworthy_flag_changes_total", "counter", "Changes of the flags since the start.", view.version);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
