//! One request: assign, maybe break, forward, record.
//!
//! An exposure is recorded in both arms at the same trigger, the request's arrival at the route that the experiment acts on,
//! before any fault acts. Errors say whose fault they are: `upstream` (down, slow), `us` (a fault we injected), `downstream`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue, SET_COOKIE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use rows::{Row, names};
use vocab::{Arm, Pseudonym, Timestamp, subject_key_fits};

use crate::baggage::{self, Part};
use crate::config::{Config, Route};
use crate::lease::{Plane, Ready};
use crate::record::Recorder;
use crate::snapshot::Active;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Parameter, cookie and header with a preview link's text.
const PREVIEW: &str = "sw-preview";
const PREVIEW_BYTES_MAX: usize = 256;
/// How often a delay under way looks whether it may still go on.
const RECHECK: Duration = Duration::from_millis(20);
/// Headers that belong to one connection (RFC 9110 7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "proxy-authenticate"];

pub(crate) type Body = Either<Incoming, Full<Bytes>>;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Forwarder {
    pub(crate) config: Config,
    pub(crate) plane: Arc<Plane>,
    pub(crate) recorder: Recorder,
    pub(crate) client: Client<HttpConnector, Incoming>,
}

/// Trace and span of this request at the proxy.
struct Trace {
    trace: u128,
    span: u64,
    parent: u64,
    flags: u8,
}

fn random64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // Without a random source a clock still tells spans apart.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
    })
}

impl Trace {
    fn of(headers: &HeaderMap) -> Trace {
        let parsed = headers.get(TRACEPARENT).and_then(|value| {
            let mut fields = value.to_str().ok()?.split('-');
            let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            if version.len() != 2 || trace.len() != 32 || parent.len() != 16 {
                return None;
            }
            let trace = u128::from_str_radix(trace, 16).ok().filter(|t| *t != 0)?;
            Some((trace, u64::from_str_radix(parent, 16).ok()?, u8::from_str_radix(flags, 16).ok()?))
        });
        let (trace, parent, flags) =
            parsed.unwrap_or_else(|| (u128::from(random64()) << 64 | u128::from(random64()), 0, 1));
        Trace { trace, span: random64(), parent, flags }
    }

    fn header(&self) -> HeaderValue {
        let text = format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags);
        HeaderValue::from_str(&text).expect("hex digits and dashes")
    }
}

/// A request's event until it is recorded. A client that goes away drops the request's future wherever it stands; the event
/// is recorded all the same, or the subjects whom a delay drives away would be missing from the treatment.
struct Pending {
    row: Row,
    recorder: Recorder,
    began: Instant,
    open: bool,
}

impl Pending {
    fn set(&mut self, name: &str, value: impl Into<rows::Value>) {
        self.row.set(name, value);
    }

    fn finish(mut self) {
        self.record();
    }

    fn record(&mut self) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let mut row = std::mem::take(&mut self.row);
        row.duration_nanos = Some(i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX));
        self.recorder.record(row);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.open {
            self.set("http.response.status_code", 499_i64);
            self.set("error", false);
            self.set("error.whose", "downstream");
            self.set("error.detail", "the client went away");
            self.record();
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Forwarder {
    fn route(&self, request: &Request<Incoming>) -> Option<&Route> {
        let host = request.uri().host().or_else(|| {
            request.headers().get(HOST).and_then(|h| h.to_str().ok()).map(|h| h.split(':').next().unwrap_or(h))
        });
        let path = request.uri().path();
        self.config.routes.iter().find(|route| {
            path.starts_with(&route.path) && route.host.as_deref().is_none_or(|wanted| host == Some(wanted))
        })
    }

    fn subject_key(&self, headers: &HeaderMap) -> Option<String> {
        let source = &self.config.subject;
        let from_header = source.header.as_ref().and_then(|name| headers.get(name)?.to_str().ok());
        let from_cookie = || {
            let name = source.cookie.as_ref()?;
            headers.get_all(COOKIE).iter().filter_map(|c| c.to_str().ok()).flat_map(|c| c.split(';')).find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then_some(value)
            })
        };
        from_header.or_else(from_cookie).filter(|key| subject_key_fits(key)).map(str::to_owned)
    }

    /// Who it is and which arms he is in; at the edge by hash, behind it by what the edge wrote.
    fn parts(&self, ready: &Ready, headers: &HeaderMap) -> Option<(Pseudonym, Vec<Part>)> {
        let key = ready.key.as_ref()?;
        if !self.config.edge {
            return baggage::read(headers.get(BAGGAGE)?.to_str().ok()?, key);
        }
        let subject = self.subject_key(headers)?;
        let parts = ready.experiments.iter().filter_map(|(experiment, slice)| {
            let arm = slice.arm(&subject)?;
            Some(Part { experiment: experiment.id.clone(), epoch: experiment.epoch, arm })
        });
        Some((key.pseudonym(&subject), parts.collect()))
    }

    /// Answers one request.
    pub(crate) async fn handle(&self, mut request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/.seaworthy/healthz" {
            return self.health();
        }
        let began = Instant::now();
        let trace = Trace::of(request.headers());
        let row = Row { time: now(), trace: trace.trace, span: trace.span, parent: trace.parent, ..Row::default() }
            .with(names::NAME, "request")
            .with(names::SIGNAL, "request")
            .with(names::SERVICE, "seaworthy-proxy")
            .with("proxy.name", self.config.name.as_str())
            .with("http.request.method", request.method().as_str())
            .with("url.path", request.uri().path());
        let mut row = Pending { row, recorder: self.recorder.clone(), began, open: true };
        let Some(route) = self.route(&request) else {
            return self.answer(row, StatusCode::NOT_FOUND, "no route", "downstream", false);
        };
        row.set("route", route.name.as_str());
        let ready = self.plane.ready().clone();
        let parts = self.parts(&ready, request.headers());
        self.dress(&mut request, &ready, parts.as_ref(), &trace);
        let mut preview = preview(&mut request);
        if let Some((text, from_link)) = &mut preview {
            let id = ready.key.as_ref().and_then(|key| auth::read_preview(key.bytes(), text, now()));
            // A text that nobody signed takes no place of one that counts.
            *from_link &= id.is_some();
            id.into_iter().for_each(|id| row.set(names::PREVIEW, id.to_string()));
        }
        let mut acting = None;
        if let Some((subject, parts)) = &parts {
            row.set(names::SUBJECT, subject.to_string());
            let met = ready.experiments.iter().find_map(|(experiment, _)| {
                let part = parts.iter().find(|p| p.experiment == experiment.id && p.epoch == experiment.epoch)?;
                (experiment.route == route.name.as_str()).then_some((experiment, part.arm))
            });
            if let Some((experiment, arm)) = met {
                row.set(names::EXPERIMENT, experiment.id.as_str());
                row.set(names::ARM, arm.as_str());
                row.set(names::EXPOSURE, true);
                acting = (arm == Arm::Treatment && self.plane.may_harm(&experiment.id)).then(|| experiment.clone());
            }
        }
        if let Some(fault) = acting {
            row.set(names::FAULT, if fault.delay_ms.is_some() { "delay" } else { "abort" });
            if let Some(status) = fault.abort.and_then(|s| StatusCode::from_u16(s).ok()) {
                return self.answer(row, status, "fault injected by an experiment", "us", false);
            }
            row.set("fault.delay_ms", self.delay(&fault).await);
        }
        let mut response = self.send(route, request, row).await;
        // From a link: the person stays on it.
        if let Some(cookie) = preview.and_then(|(text, from_link)| from_link.then(|| cookie(&text))) {
            response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
        }
        response
    }

    /// Waits, but no longer than the fault may act.
    async fn delay(&self, fault: &Active) -> i64 {
        let began = Instant::now();
        let wanted = Duration::from_millis(fault.delay_ms.unwrap_or(0));
        while began.elapsed() < wanted && self.plane.may_harm(&fault.id) {
            tokio::time::sleep(RECHECK.min(wanted.saturating_sub(began.elapsed()))).await;
        }
        began.elapsed().as_millis() as i64
    }

    /// Trace context and baggage for the way on.
    fn dress(
        &self,
        request: &mut Request<Incoming>,
        ready: &Ready,
        parts: Option<&(Pseudonym, Vec<Part>)>,
        trace: &Trace,
    ) {
        let headers = request.headers_mut();
        headers.insert(TRACEPARENT, trace.header());
        if !self.config.edge {
            return;
        }
        let others: Vec<&str> = headers.get_all(BAGGAGE).iter().filter_map(|v| v.to_str().ok()).collect();
        let others = baggage::strip(&others.join(","));
        let written = match (parts, &ready.key) {
            // Who takes part in nothing carries nothing of ours.
            (Some((subject, parts)), Some(key)) if !parts.is_empty() => {
                Some(baggage::write(others.as_deref(), key, *subject, parts))
            }
            _ => others,
        };
        headers.remove(BAGGAGE);
        if let Some(value) = written.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(BAGGAGE, value);
        }
    }

    async fn send(&self, route: &Route, mut request: Request<Incoming>, mut row: Pending) -> Response<Body> {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let Ok(uri) = format!("{}{path}", route.upstream.trim_end_matches('/')).parse::<Uri>() else {
            return self.answer(row, StatusCode::BAD_REQUEST, "the path cannot be forwarded", "downstream", false);
        };
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_11;
        HOP_BY_HOP.iter().for_each(|name| {
            request.headers_mut().remove(*name);
        });
        row.set("upstream", route.upstream.as_str());
        let retry_is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        match tokio::time::timeout(route.timeout.duration(), self.client.request(request)).await {
            Ok(Ok(mut response)) => {
                HOP_BY_HOP.iter().for_each(|name| {
                    response.headers_mut().remove(*name);
                });
                let status = response.status();
                row.set("http.response.status_code", i64::from(status.as_u16()));
                row.set("error", status.is_server_error());
                if status.is_server_error() {
                    row.set("error.whose", "upstream");
                }
                row.finish();
                response.map(Either::Left)
            }
            Ok(Err(error)) => {
                let detail =
                    if error.is_connect() { "the upstream cannot be reached" } else { "the upstream broke off" };
                self.answer(row, StatusCode::BAD_GATEWAY, detail, "upstream", retry_is_safe || error.is_connect())
            }
            Err(_) => {
                self.answer(row, StatusCode::GATEWAY_TIMEOUT, "the upstream took too long", "upstream", retry_is_safe)
            }
        }
    }

    fn answer(&self, mut row: Pending, status: StatusCode, detail: &str, whose: &str, retry: bool) -> Response<Body> {
        row.set("http.response.status_code", i64::from(status.as_u16()));
        row.set("error", status.is_server_error());
        row.set("error.whose", whose);
        row.set("error.detail", detail);
        row.finish();
        let body =
            serde_json::json!({"title": detail, "status": status.as_u16(), "whose": whose, "retry_is_safe": retry});
        json_response(status, &body)
    }

    fn health(&self) -> Response<Body> {
        let ready = self.plane.ready();
        let body = serde_json::json!({
            "name": self.config.name, "snapshot_version": ready.version, "epoch": ready.epoch,
            "lease_is_valid": self.plane.lease_is_valid(),
            "faults_on": ready.experiments.iter().filter(|(e, _)| self.plane.may_harm(&e.id)).count(),
            "events_dropped": self.recorder.dropped(),
        });
        json_response(StatusCode::OK, &body)
    }
}

/// A preview link's text, from the query or else the cookie, and whether it was in the query. Goes on as a header, for the context of
/// flag evaluations.
fn preview(request: &mut Request<Incoming>) -> Option<(String, bool)> {
    let fits =
        |text: &&str| text.len() <= PREVIEW_BYTES_MAX && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let named = |pair: &str| pair.trim().strip_prefix(PREVIEW)?.strip_prefix('=').map(str::to_owned);
    let in_query = request.uri().query().and_then(|query| query.split('&').find_map(named));
    let from_link = in_query.is_some();
    let cookies = request.headers().get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let text = in_query.or_else(|| cookies.flat_map(|cookies| cookies.split(';')).find_map(named))?;
    fits(&text.as_str()).then_some(())?;
    request.headers_mut().insert(HeaderName::from_static(PREVIEW), HeaderValue::from_str(&text).ok()?);
    Some((text, from_link))
}

/// Pages may read it, to put it into the context of their own evaluations; it gives one variant of one flag to one person.
fn cookie(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{PREVIEW}={text}; Path=/; SameSite=Lax")).ok()
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
