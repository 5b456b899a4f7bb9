//! OFREP 0.3 over a snapshot of flags: bodies in, bodies out. The HTTP around it, authentication and time are the shell's.
//!
//! Every evaluation carries the metadata from which an OpenFeature telemetry hook makes an exposure. All values are text:
//!
//! | name | what | when |
//! |---|---|---|
//! | `contextId` | the targeting key | there is one |
//! | `flagSetId` | of the flag's metadata, else of the document's, else [`FLAG_SET`] | always |
//! | `version` | twelve digits of the ruleset's digest | always |
//! | `bucketing` | what the flag's own rules hash with; where they hash nobody, what its experiment does | either hashes |
//! | `experimentId`, `experimentArm` | the experiment that the subject takes part in | it does |
//! | `experimentBucketing` | what put the subject into it, and into its arm | it does |
//!
//! With both, `bucketing` stays the flag's: it is what a client that evaluates elsewhere has to agree with, for baseline subjects too,
//! and no experiment changes it. No value means "use the code default" (ADR-0006).

use std::sync::{Arc, OnceLock};

use flags::{Clock, Context, ErrorCode, Evaluation, EvaluationError, Flag, FlagSet, Reason};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use vocab::{Arm, Id, Timestamp};

/// The name of the set of flags that says none itself.
pub const FLAG_SET: &str = "seaworthy";

/// How experiments place subjects ([`flags::Slice`]).
const EXPERIMENT_BUCKETING: &str = flags::Bucketing::Native1.as_str();

/// Flags and what stands in front of them, at one version.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Compiled flags, and the experiments in front of them.
    pub flags: FlagSet,
    /// Whether evaluations carry what a telemetry hook needs to report exposures; without it only the flags' own metadata.
    pub telemetry: bool,
    summary: OnceLock<Summary>,
    watcher: Option<Arc<dyn Watcher>>,
    previews: Option<Arc<dyn Previews>>,
    /// What was served before counts from here on only.
    nonce: u64,
}

/// Who wants to know what is evaluated. It must be quick: it is asked on every evaluation.
pub trait Watcher: Send + Sync + std::fmt::Debug {
    /// One flag, or all (`key` is none), for a context; `known` is false if there is no such flag.
    fn evaluated(&self, key: Option<&str>, context: &Context, known: bool, now: Timestamp);

    /// A subject that takes part in an experiment was served a variant, or the code default.
    fn exposed(&self, key: &str, subject: &str, experiment: (Id, Arm), variant: Option<&str>);
}

/// The attribute of a context that carries a preview link's text.
pub const PREVIEW: &str = "sw-preview";

/// Knows previews: one person on one variant, for a while.
pub trait Previews: Send + Sync + std::fmt::Debug {
    /// The preview that a text names, and its variant, if it is of this flag and counts for this subject.
    fn variant(&self, text: &str, flag: &str, subject: &str, now: Timestamp) -> Option<(Id, Arc<str>)>;
}

/// What is worked out once.
#[derive(Clone, Debug)]
struct Summary {
    digest: [u8; 16],
    text: String,
    clock: Clock,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A status and a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON; none for 304.
    pub body: Option<Value>,
    /// For bulk answers.
    pub etag: Option<String>,
}

/// Reads the context of a request body.
pub fn context(body: &[u8]) -> Result<Context, Value> {
    let wrong = |detail: String| json!({"errorCode": "PARSE_ERROR", "errorDetails": detail});
    if body.is_empty() {
        return Ok(Context::default());
    }
    let mut value: Value = serde_json::from_slice(body)
        .map_err(|e| wrong(format!("the body is not JSON, at line {} column {}", e.line(), e.column())))?;
    match value.get_mut("context").map(Value::take) {
        None | Some(Value::Null) => Ok(Context::default()),
        Some(Value::Object(map)) => match map.get("targetingKey") {
            None | Some(Value::String(_)) => Ok(Context::new(map)),
            Some(_) => Err(json!({"errorCode": "INVALID_CONTEXT", "errorDetails": "targetingKey must be text"})),
        },
        Some(_) => Err(json!({"errorCode": "INVALID_CONTEXT", "errorDetails": "context must be an object"})),
    }
}

/// A flag's answer before it takes the form of a protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolution<'a> {
    /// None means the code default.
    pub value: Option<&'a Value>,
    /// The variant's name.
    pub variant: Option<&'a str>,
    /// Why.
    pub reason: Reason,
    /// Text, numbers and truth values.
    pub metadata: Map<String, Value>,
}

impl Snapshot {
    /// Flags and experiments in front of them; with `telemetry`, evaluations say what a telemetry hook needs.
    pub fn new(flags: FlagSet, telemetry: bool) -> Snapshot {
        Snapshot { flags, telemetry, summary: OnceLock::new(), watcher: None, previews: None, nonce: 0 }
    }

    /// With somebody who wants to know.
    #[must_use]
    pub fn watched(self, watcher: Option<Arc<dyn Watcher>>) -> Snapshot {
        Snapshot { watcher, ..self }
    }

    /// With previews.
    #[must_use]
    pub fn previewed(self, previews: Option<Arc<dyn Previews>>) -> Snapshot {
        Snapshot { previews, ..self }
    }

    /// With a number that is another one after a restart: while a change of flags is on trial its exposures are known since the start
    /// only, and clients have to be answered anew.
    #[must_use]
    pub fn since(self, nonce: u64) -> Snapshot {
        Snapshot { nonce, ..self }
    }

    /// See [`Snapshot::since`].
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Who knows previews.
    pub fn previews(&self) -> Option<Arc<dyn Previews>> {
        self.previews.clone()
    }

    /// Who wants to know.
    pub fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        self.watcher.clone()
    }

    fn summary(&self) -> &Summary {
        self.summary.get_or_init(|| {
            let mut digest = self.flags.digest();
            // Answers with and without telemetry are not the same.
            digest[0] ^= u8::from(self.telemetry);
            Summary { digest, text: hex(&digest), clock: self.flags.clock_of_all() }
        })
    }

    /// Names the ruleset: the same flags and experiments have the same digest, on every node and after every restart.
    pub fn digest(&self) -> &str {
        &self.summary().text
    }

    /// When answers may change by themselves.
    pub fn clock(&self) -> &Clock {
        &self.summary().clock
    }

    /// Decides one flag that a client asked for.
    pub fn resolve(&self, key: &str, context: &Context, now: Timestamp) -> Result<Resolution<'_>, EvaluationError> {
        if let Some(watcher) = &self.watcher {
            watcher.evaluated(Some(key), context, self.flags.flag(key).is_some(), now);
        }
        self.decide(key, context, now)
    }

    /// Notes that a client asked for all flags; [`Snapshot::decide_all`] then decides them.
    pub fn note_all(&self, context: &Context, now: Timestamp) {
        if let Some(watcher) = &self.watcher {
            watcher.evaluated(None, context, true, now);
        }
    }

    /// Decides one flag without noting that somebody asked for it.
    pub fn decide(&self, key: &str, context: &Context, now: Timestamp) -> Result<Resolution<'_>, EvaluationError> {
        let flag = self.flags.flag(key);
        let preview = flag.and_then(|flag| self.preview(flag, context, now));
        let evaluation = match &preview {
            Some((_, found)) => found.clone(),
            None => self.flags.evaluate(key, context, now)?,
        };
        Ok(self.resolution(key, flag, context, evaluation, preview.map(|(id, _)| id)))
    }

    /// Decides all flags, by key, without noting that somebody asked for them.
    pub fn decide_all<'a>(
        &'a self,
        context: &'a Context,
        now: Timestamp,
    ) -> impl Iterator<Item = (&'a str, Result<Resolution<'a>, EvaluationError>)> {
        self.flags.evaluate_all(context, now).map(move |(flag, evaluation)| {
            let preview = self.preview(flag, context, now);
            let (preview, evaluation) = match preview {
                Some((id, found)) => (Some(id), Ok(found)),
                None => (None, evaluation),
            };
            let found = evaluation.map(|found| self.resolution(flag.key(), Some(flag), context, found, preview));
            (flag.key(), found)
        })
    }

    /// What a preview link gives: its variant, whether or not the flag is on, and no part in an experiment.
    fn preview<'a>(&'a self, flag: &'a Flag, context: &Context, now: Timestamp) -> Option<(Id, Evaluation<'a>)> {
        let text = context.attributes().get(PREVIEW)?.as_str()?;
        let (id, variant) = self.previews.as_ref()?.variant(text, flag.key(), context.targeting_key()?, now)?;
        let (name, value) = flag.variants().iter().find(|(name, _)| **name == *variant)?;
        let (variant, value) = (Some(name.as_str()), Some(value));
        Some((id, Evaluation { variant, value, reason: Reason::TargetingMatch, experiment: None }))
    }

    /// What clients are told of an evaluation.
    fn resolution<'a>(
        &'a self,
        key: &str,
        flag: Option<&Arc<Flag>>,
        context: &Context,
        evaluation: Evaluation<'a>,
        preview: Option<Id>,
    ) -> Resolution<'a> {
        if let (Some(watcher), Some(experiment)) = (&self.watcher, evaluation.experiment) {
            watcher.exposed(key, context.targeting_key().unwrap_or_default(), experiment, evaluation.variant);
        }
        let own = flag.into_iter().flat_map(|flag| flag.metadata());
        let mut metadata: Map<String, Value> =
            own.filter(|(_, v)| !v.is_object() && !v.is_array()).map(|(k, v)| (k.clone(), v.clone())).collect();
        if self.telemetry {
            if let Some(id) = context.targeting_key() {
                metadata.insert("contextId".into(), json!(id));
            }
            if !metadata.contains_key("flagSetId") {
                let set = self.flags.metadata().get("flagSetId").filter(|id| id.is_string());
                metadata.insert("flagSetId".into(), set.cloned().unwrap_or_else(|| FLAG_SET.into()));
            }
            let mut bucketing = flag.and_then(|flag| flag.hashed_by());
            if let Some((experiment, arm)) = evaluation.experiment {
                metadata.insert("experimentId".into(), json!(experiment.to_string()));
                metadata.insert("experimentArm".into(), json!(arm.as_str()));
                metadata.insert("experimentBucketing".into(), json!(EXPERIMENT_BUCKETING));
                bucketing = bucketing.or(Some(EXPERIMENT_BUCKETING));
            }
            if let Some(bucketing) = bucketing {
                metadata.insert("bucketing".into(), json!(bucketing));
            }
            if let Some(id) = preview {
                metadata.insert("previewId".into(), json!(id.to_string()));
            }
            metadata.insert("version".into(), json!(&self.digest()[..12]));
        }
        Resolution { value: evaluation.value, variant: evaluation.variant, reason: evaluation.reason, metadata }
    }

    /// `POST /ofrep/v1/evaluate/flags/{key}`
    pub fn single(&self, key: &str, body: &[u8], now: Timestamp) -> Reply {
        self.single_in(key, context(body), now)
    }

    /// The same for a context that was read, and perhaps added to, before.
    pub fn single_in(&self, key: &str, context: Result<Context, Value>, now: Timestamp) -> Reply {
        let context = match context {
            Ok(context) => context,
            Err(mut error) => {
                error["key"] = json!(key);
                return Reply { status: 400, body: Some(error), etag: None };
            }
        };
        if let Some(watcher) = &self.watcher {
            watcher.evaluated(Some(key), &context, self.flags.flag(key).is_some(), now);
        }
        let found = self.decide(key, &context, now);
        let status = match &found {
            Ok(_) => 200,
            Err(error) if error.code == ErrorCode::FlagNotFound => 404,
            Err(_) => 400,
        };
        Reply { status, body: Some(answer(key, found)), etag: None }
    }

    /// `POST /ofrep/v1/evaluate/flags`: the ETag covers the ruleset, the context and, where rules read the time, the time until
    /// an answer may change, so a 304 costs no evaluation.
    pub fn bulk(&self, body: &[u8], if_none_match: Option<&str>, now: Timestamp) -> Reply {
        self.bulk_in(context(body), if_none_match, "", now)
    }

    /// The same for a context that was read, and perhaps added to, before. `beside` is what the caller adds to the answer: an
    /// answer with something else beside it has another ETag.
    pub fn bulk_in(
        &self,
        context: Result<Context, Value>,
        if_none_match: Option<&str>,
        beside: &str,
        now: Timestamp,
    ) -> Reply {
        let context = match context {
            Ok(context) => context,
            Err(error) => return Reply { status: 400, body: Some(error), etag: None },
        };
        let summary = self.summary();
        let mut hash = Sha256::new();
        hash.update(summary.digest);
        if self.flags.has_trials() {
            hash.update(self.nonce.to_le_bytes());
        }
        hash.update(summary.clock.period(now).to_le_bytes());
        hash.update(context.targeting_key().unwrap_or_default());
        hash.update([0]);
        hash.update(beside);
        hash.update([0]);
        hash.update(Value::Object(context.attributes().clone()).to_string());
        let etag = format!("\"{}\"", hex(&hash.finalize()[..12]));
        // A preview ends without a change of the flags.
        let previews = self.previews.is_some() && context.attributes().contains_key(PREVIEW);
        if if_none_match == Some(etag.as_str()) && !previews {
            self.note_all(&context, now);
            return Reply { status: 304, body: None, etag: Some(etag) };
        }
        self.note_all(&context, now);
        let flags: Vec<Value> = self.decide_all(&context, now).map(|(key, found)| answer(key, found)).collect();
        let body = json!({"flags": flags, "metadata": self.flags.metadata()});
        Reply { status: 200, body: Some(body), etag: (!previews).then_some(etag) }
    }
}

/// One flag of an answer.
fn answer(key: &str, found: Result<Resolution<'_>, EvaluationError>) -> Value {
    let found = match found {
        Ok(found) => found,
        Err(error) => return json!({"key": key, "errorCode": error.code.as_str(), "errorDetails": error.detail}),
    };
    let mut answer = json!({"key": key, "reason": found.reason.as_str()});
    answer["metadata"] = Value::Object(found.metadata);
    if let Some(value) = found.value {
        answer["value"] = value.clone();
    }
    // Stock clients index the variant, so it is there even where the code default is meant.
    answer["variant"] = found.variant.unwrap_or_default().into();
    answer
}

#[cfg(test)]
mod tests;
