//! The four services. Each call makes a span; context headers are passed on as they came.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Args;
use super::telemetry::{Signal, Telemetry, attributes, nanos};
use crate::client::asked_to_go;

const PATIENCE: Duration = Duration::from_secs(5);

struct Service {
    part: String,
    next: String,
    control: String,
    token: String,
    client: Client<HttpConnector, Full<Bytes>>,
    telemetry: Telemetry,
}

pub async fn run(args: &Args, telemetry: Telemetry, token: &str) -> Result<u8> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("{}", json!({"address": listener.local_addr()?}));
    let service = Arc::new(Service {
        part: args.part.clone(),
        next: args.next.clone(),
        control: args.control.clone(),
        token: token.to_owned(),
        client: Client::builder(TokioExecutor::new()).build_http(),
        telemetry,
    });
    let serving = async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let service = service.clone();
            tokio::spawn(async move {
                let handle = service_fn(move |request| {
                    let service = service.clone();
                    async move { Ok::<_, Infallible>(service.handle(request).await) }
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), handle).await;
            });
        }
    };
    tokio::select! {
        () = serving => {}
        () = asked_to_go() => {}
    }
    Ok(0)
}

/// The trace context of a call: (trace, parent span), in hex.
fn context(headers: &HeaderMap) -> (String, String) {
    let header = headers.get("traceparent").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut fields = header.split('-').skip(1);
    (fields.next().unwrap_or_default().to_owned(), fields.next().unwrap_or_default().to_owned())
}

impl Service {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let began = SystemTime::now();
        let (trace, parent) = context(request.headers());
        let span = format!("{:016x}", getrandom::u64().unwrap_or(1));
        let path = request.uri().path().to_owned();
        let mut facts: Vec<(&str, Value)> = vec![("http.request.method", json!("GET")), ("url.path", json!(path))];
        let outcome = match self.part.as_str() {
            "web" => self.web(request.headers(), &trace, &span, &mut facts).await,
            "playback" => self.next("/license/grant", request.headers(), &trace, &span).await,
            "catalog" => Ok(json!({"title": "Harbour Lights", "minutes": 97})),
            _ => Ok(json!({"license": "granted"})),
        };
        let (status, body) = match outcome {
            Ok(body) => (StatusCode::OK, body),
            Err(detail) => (StatusCode::BAD_GATEWAY, json!({"error": detail})),
        };
        facts.push(("http.response.status_code", json!(i64::from(status.as_u16()))));
        let error = if status.is_server_error() { 2 } else { 0 };
        self.telemetry.send(Signal::Span(json!({
            "traceId": trace, "spanId": span, "parentSpanId": parent, "name": format!("GET {path}"), "kind": 2,
            "startTimeUnixNano": nanos(began), "endTimeUnixNano": nanos(SystemTime::now()),
            "attributes": attributes(facts), "status": {"code": error},
        })));
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response
    }

    /// Calls another service, passing context on.
    async fn next(&self, path: &str, headers: &HeaderMap, trace: &str, span: &str) -> Result<Value, String> {
        let mut request =
            Request::get(format!("{}{path}", self.next)).header("traceparent", format!("00-{trace}-{span}-01"));
        for baggage in headers.get_all("baggage") {
            request = request.header("baggage", baggage);
        }
        let request = request.body(Full::default()).map_err(|e| e.to_string())?;
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Value, String> {
        let call = async {
            let response = self.client.request(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            if !status.is_success() {
                return Err(format!("answered {status}"));
            }
            serde_json::from_slice(&body).map_err(|e| e.to_string())
        };
        tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| Err("no answer".into()))
    }

    async fn web(
        &self,
        headers: &HeaderMap,
        trace: &str,
        span: &str,
        facts: &mut Vec<(&str, Value)>,
    ) -> Result<Value, String> {
        let user = headers.get("x-user-id").and_then(|v| v.to_str().ok()).unwrap_or_default();
        facts.push(("enduser.id", json!(user)));
        // OFREP: which player. Whatever goes wrong, the code default plays.
        let body = json!({"context": {"targetingKey": user}}).to_string();
        let request = Request::post(format!("{}/ofrep/v1/evaluate/flags/new-player", self.control))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)));
        let mut player = "classic".to_owned();
        if let Ok(request) = request {
            if let Ok(flag) = self.answer(request).await {
                player = flag["value"].as_str().unwrap_or("classic").to_owned();
                facts.push(("feature_flag.key", json!("new-player")));
                facts.push(("feature_flag.result.variant", flag["variant"].clone()));
                facts.push((
                    "feature_flag.result.reason",
                    json!(flag["reason"].as_str().unwrap_or_default().to_lowercase()),
                ));
                facts.push(("feature_flag.context.id", json!(user)));
            }
        }
        let title = self.next("/catalog/title", headers, trace, span).await?;
        let license = self.next("/playback/start", headers, trace, span).await?;
        Ok(json!({"title": title["title"], "license": license["license"], "player": player}))
    }
}
