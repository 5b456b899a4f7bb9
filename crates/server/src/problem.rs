//! Errors as RFC 9457 problem details: a stable code, a sentence, and what to do next.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// Findings of one answer.
const FINDINGS_MAX: usize = 1_000;

/// A refused or failed call.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    pub(crate) remedy: String,
    /// Where in a document, and why.
    pub(crate) findings: Vec<flags::Finding>,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem { status, code, detail: detail.into(), remedy: remedy.into(), findings: Vec::new() }
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, detail, remedy)
    }

    pub(crate) fn not_found(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, detail, "check the id")
    }
}

impl From<auth::Denied> for Problem {
    fn from(denied: auth::Denied) -> Problem {
        let (status, code) = match denied {
            auth::Denied::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            auth::Denied::Expired => (StatusCode::UNAUTHORIZED, "expired"),
            auth::Denied::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden"),
        };
        Problem::new(
            status,
            code,
            denied.to_string(),
            "`seaworthy token create` makes one with the role that is needed",
        )
    }
}

impl From<control::Refusal> for Problem {
    fn from(refusal: control::Refusal) -> Problem {
        let status = match refusal.code {
            "unknown-flag" | "unknown-segment" | "unknown-experiment" | "unknown-token" | "unknown-profile"
            | "unknown-preview" => StatusCode::NOT_FOUND,
            "invalid-flag" | "invalid-spec" | "unknown-variant" | "too-large" | "tangled-flags" | "named-twice"
            | "nothing-to-do" | "reason-needed" | "too-many-changes" | "invalid-profile" | "invalid-end"
            | "invalid-delegation" | "invalid-body" => StatusCode::UNPROCESSABLE_ENTITY,
            "not-yours-to-accept" | "outside-delegation" => StatusCode::FORBIDDEN,
            _ => StatusCode::CONFLICT,
        };
        Problem { findings: refusal.findings, ..Problem::new(status, refusal.code, refusal.detail, refusal.remedy) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:seaworthy:problem:{}", self.code), "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(), "detail": self.detail, "code": self.code, "remedy": self.remedy,
        });
        if !self.findings.is_empty() {
            let finding = |f: &flags::Finding| json!({"place": f.place, "reason": f.reason});
            body["findings"] = self.findings.iter().take(FINDINGS_MAX).map(finding).collect();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
