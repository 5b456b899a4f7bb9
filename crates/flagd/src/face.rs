//! What the protocols share: who asks for which flags, in which context, and as which type.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flags::{Context, ErrorCode, EvaluationError};
use futures_util::stream::{self, Stream};
use hmac::{Hmac, Mac};
use http::HeaderMap;
use openfeature::Resolution;
use serde_json::{Map, Value, json};
use sha2::Sha256;
use tokio::sync::watch;
use tonic::{Code, Status};
use vocab::Timestamp;

use crate::hub::{Hub, Selector, View};
use crate::limit::Limiter;

/// A stream with nothing to say says so this often.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Changes that follow each other more closely are told as one.
const COALESCE: Duration = Duration::from_millis(50);
/// Where rules reckon with the time, clients are told to ask again this often.
const TURNS_MIN: Duration = Duration::from_secs(5);
/// A client whose connection broke waits this long, and a share of the spread.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_SPREAD_MS: u64 = 4_000;
/// Who listens for the first time so soon after a change is told to ask again.
const LATELY: Duration = Duration::from_secs(30);
const DAY_NANOS: i64 = 86_400_000_000_000;
/// Header of HTTP and gRPC requests.
pub(crate) const SELECTOR: &str = "flagd-selector";

/// How the hub shows itself to clients.
#[derive(Clone, Debug)]
pub struct Face {
    /// What is served.
    pub hub: Arc<Hub>,
    /// Headers whose values become attributes, by header name: they win over everything else.
    pub headers: BTreeMap<String, String>,
    /// A stream ends after this long; clients come back.
    pub stream_deadline: Option<Duration>,
    /// Whether `GetMetadata` is answered.
    pub sync_metadata: bool,
    /// The largest request.
    pub body_bytes_max: usize,
    /// What OFREP's change stream asks for; none lets everybody in.
    pub pass: Option<Pass>,
    /// How often one caller may ask by OFREP; none is without end.
    pub limiter: Option<Arc<Limiter>>,
}

impl Face {
    /// With flagd's defaults.
    pub fn new(hub: Arc<Hub>) -> Face {
        Face {
            hub,
            headers: BTreeMap::new(),
            stream_deadline: None,
            sync_metadata: true,
            body_bytes_max: 1_000_000,
            pass: None,
            limiter: None,
        }
    }

    /// The selector of a request; `fallback` is what its body says.
    pub(crate) fn selector(&self, headers: &HeaderMap, fallback: &str) -> Result<Selector, Status> {
        let text = match headers.get(SELECTOR) {
            Some(value) => value.to_str().map_err(|_| Status::invalid_argument("Flagd-Selector is no text"))?,
            None => fallback,
        };
        Selector::parse(text).map_err(Status::invalid_argument)
    }

    /// The caller's context under what the server knows better.
    pub(crate) fn enrich(&self, context: Context, headers: &HeaderMap) -> Context {
        let context = context.overridden(self.hub.context());
        if self.headers.is_empty() {
            return context;
        }
        let known: Map<String, Value> = self
            .headers
            .iter()
            .filter_map(|(header, name)| Some((name.clone(), json!(headers.get(header)?.to_str().ok()?))))
            .collect();
        context.overridden(&known)
    }

    pub(crate) fn view(&self, headers: &HeaderMap) -> Result<Arc<View>, Status> {
        Ok(self.hub.view(&self.selector(headers, "")?))
    }

    /// The stream of changes: ready at once, then which flags changed, and now and then that it is alive.
    pub(crate) fn events(&self, selector: Selector) -> impl Stream<Item = Result<Event, Status>> + use<> {
        let hub = self.hub.clone();
        let changes = hub.changes();
        let end = self.stream_deadline.map(|deadline| tokio::time::Instant::now() + deadline);
        stream::unfold(Some((hub, changes, None::<Arc<View>>)), move |state| {
            let selector = selector.clone();
            async move {
                let (hub, mut changes, seen) = state?;
                let Some(seen) = seen else {
                    // The view first: what changes from here on is told.
                    changes.mark_unchanged();
                    let view = hub.view(&selector);
                    let ready = Event { kind: "provider_ready", data: Map::new() };
                    return Some((Ok(ready), Some((hub, changes, Some(view)))));
                };
                loop {
                    tokio::select! {
                        changed = changes.changed() => {
                            changed.ok()?;
                            let view = hub.view(&selector);
                            let differing = view.changes(&seen);
                            if differing.is_empty() {
                                continue;
                            }
                            let data = Map::from_iter([("flags".to_owned(), Value::Object(differing))]);
                            let event = Event { kind: "configuration_change", data };
                            return Some((Ok(event), Some((hub, changes, Some(view)))));
                        }
                        () = tokio::time::sleep(KEEP_ALIVE) => {
                            let event = Event { kind: "keep_alive", data: Map::new() };
                            return Some((Ok(event), Some((hub, changes, Some(seen)))));
                        }
                        () = at(end) => return Some((Err(deadline()), None)),
                    }
                }
            }
        })
    }

    /// The stream of documents: the present one at once, then each that differs.
    pub(crate) fn documents(&self, selector: Selector) -> impl Stream<Item = Result<Arc<str>, Status>> + use<> {
        let hub = self.hub.clone();
        let changes = hub.changes();
        let end = self.stream_deadline.map(|deadline| tokio::time::Instant::now() + deadline);
        stream::unfold(Some((hub, changes, None::<Arc<str>>)), move |state| {
            let selector = selector.clone();
            async move {
                let (hub, mut changes, mut sent) = state?;
                loop {
                    if sent.is_some() {
                        tokio::select! {
                            changed = changes.changed() => changed.ok()?,
                            () = at(end) => return Some((Err(deadline()), None)),
                        }
                    } else {
                        changes.mark_unchanged();
                    }
                    let document = hub.view(&selector).document.clone();
                    if sent.replace(document.clone()).is_none_or(|before| before != document) {
                        return Some((Ok(document), Some((hub, changes, sent))));
                    }
                }
            }
        })
    }
}

/// What a watcher of OFREP's change stream is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refetch {
    /// Names the answers of this moment: the ruleset, and the period of time between two turns of its rules.
    pub(crate) mark: String,
    /// Of the ruleset alone.
    pub(crate) digest: String,
    /// When the watcher is told.
    pub(crate) at_secs: i64,
    /// Whether to ask again; if not, the watcher only learns the mark, so that it can say what it missed when it comes back.
    pub(crate) again: bool,
    /// Only at first: come back after this long if the connection breaks. Another for each client, or all come at once.
    pub(crate) retry: Option<Duration>,
}

fn mark(view: &View, now: Timestamp) -> String {
    match view.snapshot.clock().period(now) {
        i64::MIN => view.snapshot.digest().to_owned(),
        period => format!("{}.{period}", view.snapshot.digest()),
    }
}

/// One who watches OFREP's change stream.
struct Watcher {
    hub: Arc<Hub>,
    changes: watch::Receiver<Option<Instant>>,
    selector: Selector,
    /// The last mark the client knows.
    heard: Option<String>,
    /// When it was last told to ask again.
    told: Option<Instant>,
    begun: bool,
}

impl Watcher {
    fn refetch(&mut self, retry: Option<Duration>) -> Option<Refetch> {
        self.changes.mark_unchanged();
        let now = now();
        let view = self.hub.view(&self.selector);
        let mark = mark(&view, now);
        let again = self.heard.replace(mark.clone()).is_some_and(|before| before != mark);
        if again {
            self.told = Some(Instant::now());
        }
        let (digest, at_secs) = (view.snapshot.digest().to_owned(), now.nanos() / 1_000_000_000);
        (again || retry.is_some()).then_some(Refetch { mark, digest, at_secs, again, retry })
    }

    /// How long until answers may change by themselves.
    fn turn(&self) -> Option<Duration> {
        let now = now();
        let turn = self.hub.view(&self.selector).snapshot.clock().next_turn(now)?;
        let until = turn.saturating_mul(1_000_000_000).saturating_sub(now.nanos());
        let rest = self.told.map_or(Duration::ZERO, |told| TURNS_MIN.saturating_sub(told.elapsed()));
        Some(Duration::from_nanos(u64::try_from(until).unwrap_or(0)).max(rest))
    }

    async fn next(&mut self) -> Option<Refetch> {
        if !self.begun {
            self.begun = true;
            let spread = now().nanos().unsigned_abs() / 1_000 % RETRY_SPREAD_MS;
            return self.refetch(Some(RETRY + Duration::from_millis(spread)));
        }
        loop {
            let turn = self.turn();
            tokio::select! {
                changed = self.changes.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(COALESCE).await;
                }
                () = sleep(turn) => {}
            }
            if let Some(refetch) = self.refetch(None) {
                return Some(refetch);
            }
        }
    }
}

impl Face {
    /// The stream of changes for OFREP; `missed` is the last mark that the client heard of.
    pub(crate) fn refetches(&self, selector: Selector, missed: Option<String>) -> impl Stream<Item = Refetch> + use<> {
        let (hub, changes) = (self.hub.clone(), self.hub.changes());
        // A client asks for flags first and listens then. If they changed lately, perhaps in between.
        let lately = changes.borrow().is_some_and(|at| at.elapsed() < LATELY);
        let heard = missed.or_else(|| lately.then(String::new));
        let watcher = Watcher { hub, changes, selector, heard, told: None, begun: false };
        stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await?, watcher)) })
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Lets those in to OFREP's change stream who were given its address: a browser cannot send a token with it.
#[derive(Clone)]
pub struct Pass(pub [u8; 32]);

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pass")
    }
}

impl Pass {
    fn sign(&self, until: i64) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("any length will do");
        mac.update(b"ofrep-events/");
        mac.update(&until.to_le_bytes());
        mac
    }

    /// One that holds until the end of tomorrow. The same all day, so that answers with an ETag stay the same.
    pub(crate) fn issue(&self, now: Timestamp) -> String {
        let until = now.nanos().div_euclid(DAY_NANOS) + 2;
        let mac = self.sign(until).finalize().into_bytes();
        format!("{until}.{}", mac[..16].iter().map(|b| format!("{b:02x}")).collect::<String>())
    }

    pub(crate) fn admits(&self, pass: &str, now: Timestamp) -> bool {
        let Some((until, mac)) = pass.split_once('.') else { return false };
        let Ok(until) = until.parse::<i64>() else { return false };
        let bytes: Option<Vec<u8>> = (0..16).map(|n| u8::from_str_radix(mac.get(2 * n..2 * n + 2)?, 16).ok()).collect();
        let plain = mac.len() == 32 && mac.bytes().all(|b| b.is_ascii_hexdigit());
        let Some(bytes) = bytes.filter(|_| plain) else { return false };
        now.nanos().div_euclid(DAY_NANOS) < until && self.sign(until).verify_truncated_left(&bytes).is_ok()
    }
}

fn deadline() -> Status {
    Status::deadline_exceeded("the stream ended after the server's stream deadline; connect again")
}

async fn at(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Something that watchers are told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) data: Map<String, Value>,
}

/// The type a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Bool,
    Text,
    Number,
    Object,
}

impl Wanted {
    fn fits(self, value: &Value) -> bool {
        match self {
            Wanted::Bool => value.is_boolean(),
            Wanted::Text => value.is_string(),
            Wanted::Number => value.is_number(),
            Wanted::Object => value.is_object(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Wanted::Bool => "a boolean",
            Wanted::Text => "a string",
            Wanted::Number => "a number",
            Wanted::Object => "an object",
        }
    }
}

/// Decides one flag for a client that wants a type.
pub(crate) fn resolve<'a>(
    view: &'a View,
    key: &str,
    context: &Context,
    wanted: Wanted,
) -> Result<Resolution<'a>, Status> {
    let found = view.snapshot.resolve(key, context, now()).map_err(|error| status(&error))?;
    match found.value {
        Some(value) if !wanted.fits(value) => {
            let detail = format!("flag {key:?} has variants of another type than {}", wanted.word());
            Err(status(&EvaluationError { code: ErrorCode::TypeMismatch, detail }))
        }
        _ => Ok(found),
    }
}

/// flagd's codes for evaluation errors.
pub(crate) fn status(error: &EvaluationError) -> Status {
    let code = match error.code {
        ErrorCode::FlagNotFound => Code::NotFound,
        ErrorCode::ParseError => Code::DataLoss,
        ErrorCode::TypeMismatch | ErrorCode::TargetingKeyMissing | ErrorCode::InvalidContext => Code::InvalidArgument,
        _ => Code::Unknown,
    };
    Status::new(code, format!("{}: {}", error.code.as_str(), error.detail))
}

/// For clients that could not tell no value from a zero.
pub(crate) fn no_value(key: &str, found: &Resolution<'_>) -> Status {
    let detail = format!("flag {key:?} has no value here ({}): use the code default", found.reason.as_str());
    status(&EvaluationError { code: ErrorCode::FlagNotFound, detail })
}

pub(crate) fn bad_context() -> Status {
    Status::invalid_argument("INVALID_CONTEXT: the context is nested too deeply")
}

/// The shell's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
