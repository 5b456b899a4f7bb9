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

use flags::{Clock, Context, ErrorCode, EvaluationError, FlagSet, Reason};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use vocab::Timestamp;

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
}

/// Who wants to know what is evaluated. It must be quick: it is asked on every evaluation.
pub trait Watcher: Send + Sync + std::fmt::Debug {
    /// One flag, or all (`key` is none), for a context; `known` is false if there is no such flag.
    fn evaluated(&self, key: Option<&str>, context: &Context, known: bool, now: Timestamp);
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
    let value: Value = serde_json::from_slice(body)
        .map_err(|e| wrong(format!("the body is not JSON, at line {} column {}", e.line(), e.column())))?;
    match value.get("context") {
        None | Some(Value::Null) => Ok(Context::default()),
        Some(Value::Object(map)) => match map.get("targetingKey") {
            None | Some(Value::String(_)) => Ok(Context::new(map.clone())),
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
        Snapshot { flags, telemetry, summary: OnceLock::new(), watcher: None }
    }

    /// With somebody who wants to know.
    #[must_use]
    pub fn watched(self, watcher: Option<Arc<dyn Watcher>>) -> Snapshot {
        Snapshot { watcher, ..self }
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

    /// Notes that a client asked for all flags; each is then decided with [`Snapshot::decide`].
    pub fn note_all(&self, context: &Context, now: Timestamp) {
        if let Some(watcher) = &self.watcher {
            watcher.evaluated(None, context, true, now);
        }
    }

    /// Decides one flag without noting that somebody asked for it.
    pub fn decide(&self, key: &str, context: &Context, now: Timestamp) -> Result<Resolution<'_>, EvaluationError> {
        let evaluation = self.flags.evaluate(key, context, now)?;
        let flag = self.flags.flag(key);
        let mut metadata: Map<String, Value> = flag
            .into_iter()
            .flat_map(|flag| flag.metadata())
            .filter(|(_, v)| !v.is_object() && !v.is_array())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
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
            metadata.insert("version".into(), json!(&self.digest()[..12]));
        }
        Ok(Resolution { value: evaluation.value, variant: evaluation.variant, reason: evaluation.reason, metadata })
    }

    fn evaluate(&self, key: &str, context: &Context, now: Timestamp) -> Result<Value, EvaluationError> {
        let found = self.decide(key, context, now)?;
        let mut answer = json!({"key": key, "reason": found.reason.as_str(), "metadata": found.metadata});
        if let Some(value) = found.value {
            answer["value"] = value.clone();
        }
        // Stock clients index the variant, so it is there even where the code default is meant.
        answer["variant"] = json!(found.variant.unwrap_or_default());
        Ok(answer)
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
        match self.evaluate(key, &context, now) {
            Ok(answer) => Reply { status: 200, body: Some(answer), etag: None },
            Err(error) => Reply {
                status: if error.code == ErrorCode::FlagNotFound { 404 } else { 400 },
                body: Some(json!({"key": key, "errorCode": error.code.as_str(), "errorDetails": error.detail})),
                etag: None,
            },
        }
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
        hash.update(summary.clock.period(now).to_le_bytes());
        hash.update(context.targeting_key().unwrap_or_default());
        hash.update([0]);
        hash.update(beside);
        hash.update([0]);
        hash.update(Value::Object(context.attributes().clone()).to_string());
        let etag = format!("\"{}\"", hex(&hash.finalize()[..12]));
        if if_none_match == Some(etag.as_str()) {
            self.note_all(&context, now);
            return Reply { status: 304, body: None, etag: Some(etag) };
        }
        self.note_all(&context, now);
        let flags: Vec<Value> = self
            .flags
            .flags()
            .into_keys()
            .map(|key| match self.evaluate(key, &context, now) {
                Ok(answer) => answer,
                Err(error) => json!({"key": key, "errorCode": error.code.as_str(), "errorDetails": error.detail}),
            })
            .collect();
        let body = json!({"flags": flags, "metadata": self.flags.metadata()});
        Reply { status: 200, body: Some(body), etag: Some(etag) }
    }
}

#[cfg(test)]
mod tests;
