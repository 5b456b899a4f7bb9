//! OFREP 0.3 over a snapshot of flags: bodies in, bodies out. The HTTP around it, authentication and time are the shell's.
//!
//! Every evaluation carries the metadata from which an OpenFeature telemetry hook makes an exposure: `contextId`,
//! `experimentId`, `experimentArm`, `bucketing`, `version`. No value means "use the code default" (ADR-0006).

use std::collections::BTreeMap;

use flags::{Context, ErrorCode, EvaluationError, FlagSet, Overlay};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use vocab::Timestamp;

/// Flags and what stands in front of them, at one version.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Compiled flags.
    pub flags: FlagSet,
    /// Experiments in front of flags, by key.
    pub overlays: BTreeMap<String, Overlay>,
    /// Changes whenever flags or overlays do.
    pub version: u64,
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

impl Snapshot {
    fn evaluate(&self, key: &str, context: &Context, now: Timestamp) -> Result<Value, EvaluationError> {
        let flag = self.flags.flag(key).ok_or_else(|| EvaluationError {
            code: ErrorCode::FlagNotFound,
            detail: format!("there is no flag {key:?}"),
        })?;
        let evaluation = flag.evaluate(context, self.overlays.get(key), now)?;
        let mut metadata: Map<String, Value> = flag
            .metadata()
            .iter()
            .filter(|(_, v)| !v.is_object() && !v.is_array())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if let Some(id) = context.targeting_key() {
            metadata.insert("contextId".into(), json!(id));
        }
        if let Some((experiment, arm)) = evaluation.experiment {
            metadata.insert("experimentId".into(), json!(experiment.to_string()));
            metadata.insert("experimentArm".into(), json!(arm.as_str()));
            metadata.insert("bucketing".into(), json!("native-1"));
        }
        metadata.insert("version".into(), json!(self.version.to_string()));
        let mut answer = json!({"key": key, "reason": evaluation.reason.as_str(), "metadata": metadata});
        if let Some(value) = evaluation.value {
            answer["value"] = value.clone();
        }
        // Stock clients index the variant, so it is there even where the code default is meant.
        answer["variant"] = json!(evaluation.variant.unwrap_or_default());
        Ok(answer)
    }

    /// `POST /ofrep/v1/evaluate/flags/{key}`
    pub fn single(&self, key: &str, body: &[u8], now: Timestamp) -> Reply {
        let context = match context(body) {
            Ok(context) => context,
            Err(mut error) => {
                error["key"] = json!(key);
                return Reply { status: 400, body: Some(error), etag: None };
            }
        };
        match self.evaluate(key, &context, now) {
            Ok(answer) => Reply { status: 200, body: Some(answer), etag: None },
            Err(error) => Reply {
                status: if error.code == ErrorCode::FlagNotFound { 404 } else { 400 },
                body: Some(json!({"key": key, "errorCode": error.code.as_str(), "errorDetails": error.detail})),
                etag: None,
            },
        }
    }

    /// `POST /ofrep/v1/evaluate/flags`: the ETag covers version, context and the minute (rules may read the clock), so a 304
    /// costs no evaluation.
    pub fn bulk(&self, body: &[u8], if_none_match: Option<&str>, now: Timestamp) -> Reply {
        let context = match context(body) {
            Ok(context) => context,
            Err(error) => return Reply { status: 400, body: Some(error), etag: None },
        };
        let mut hash = Sha256::new();
        hash.update(self.version.to_le_bytes());
        hash.update(now.nanos().div_euclid(60_000_000_000).to_le_bytes());
        hash.update(context.targeting_key().unwrap_or_default());
        hash.update([0]);
        hash.update(Value::Object(context.attributes().clone()).to_string());
        let digest = hash.finalize();
        let etag = format!("\"{}\"", digest[..12].iter().map(|b| format!("{b:02x}")).collect::<String>());
        if if_none_match == Some(etag.as_str()) {
            return Reply { status: 304, body: None, etag: Some(etag) };
        }
        let flags: Vec<Value> = self
            .flags
            .flags()
            .into_keys()
            .map(|key| match self.evaluate(key, &context, now) {
                Ok(answer) => answer,
                Err(error) => json!({"key": key, "errorCode": error.code.as_str(), "errorDetails": error.detail}),
            })
            .collect();
        Reply { status: 200, body: Some(json!({"flags": flags})), etag: Some(etag) }
    }
}

#[cfg(test)]
mod tests;
