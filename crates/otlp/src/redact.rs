//! Redaction, before anything is stored: secrets go, subjects get pseudonyms.

use hmac::{Hmac, Mac};
use rows::{Row, Value, names};
use sha2::Sha256;
use vocab::Pseudonym;

/// Parts of attribute names whose values are secrets.
const SECRET_PARTS: [&str; 10] = [
    "sw-preview",
    "sw_preview",
    "authorization",
    "cookie",
    "password",
    "passwd",
    "secret",
    "api_key",
    "apikey",
    "access_token",
];
/// Parameters of URLs whose values are secrets (OpenTelemetry semantic conventions, and what people add).
const SECRET_PARAMETERS: [&str; 9] = [
    "sw-preview",
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "awsaccesskeyid",
    "signature",
    "sig",
    "x-goog-signature",
    "token",
];

/// The pseudonym of a subject's key under the installation's key: HMAC-SHA-256, first 16 bytes.
pub fn pseudonym(key: &[u8; 32], subject: &str) -> Pseudonym {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(subject.as_bytes());
    let digest = mac.finalize().into_bytes();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Pseudonym::from_bytes(bytes)
}

/// Knows the installation's key.
#[derive(Clone)]
pub struct Redactor {
    key: [u8; 32],
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// With the installation's key.
    pub fn new(key: [u8; 32]) -> Redactor {
        Redactor { key }
    }

    /// The pseudonym of a subject's key.
    pub fn pseudonym(&self, subject: &str) -> Pseudonym {
        pseudonym(&self.key, subject)
    }

    /// Removes secrets and replaces what names a subject. The first of the known names becomes `user.id`. Rows of our own
    /// proxies carry a pseudonym already and say so by `meta.signal_type = request`.
    pub fn redact(&self, row: &mut Row) {
        let mut subject = None;
        let own = row.text(names::SIGNAL) == Some("request");
        for (name, value) in &mut row.attributes {
            let lower = name.to_ascii_lowercase();
            if let Some(place) = names::SUBJECT_SOURCES.iter().position(|s| *s == lower) {
                let text = value.as_ref().to_string();
                let hidden = if own { text } else { pseudonym(&self.key, &text).to_string() };
                if subject.as_ref().is_none_or(|(p, _)| place < *p) {
                    subject = Some((place, hidden.clone()));
                }
                *value = Value::Str(hidden);
            } else if SECRET_PARTS.iter().any(|part| lower.contains(part)) {
                *value = Value::Str("[REDACTED]".into());
            } else if let Value::Str(text) = value {
                if text.contains('?') || text.contains('@') {
                    *text = url(text);
                } else if lower.ends_with("query") {
                    *text = query(text);
                }
                if text.contains("sw_") || text.contains("swp_") {
                    *text = without_tokens(text);
                }
            }
        }
        // A captured baggage header names the subject by its pseudonym, put there by our proxy at the edge. Instrumentations
        // capture headers as arrays, which are JSON here.
        if subject.is_none() {
            let baggage = row.text("http.request.header.baggage").and_then(|text| {
                let mut members = text.split([',', '[', ']', '"']);
                members.find_map(|member| member.trim().strip_prefix("sw-s=")).map(str::to_owned)
            });
            subject = baggage.filter(|text| Pseudonym::parse(text).is_ok()).map(|text| (0, text));
        }
        if let Some((_, hidden)) = subject {
            row.set(names::SUBJECT, hidden);
        }
    }
}

/// A URL without user information and secret parameters; other text as it is.
fn url(text: &str) -> String {
    let (head, query) = text.split_once('?').map_or((text, None), |(h, q)| (h, Some(q)));
    let mut result = match head.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |n| rest.split_at(n));
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://REDACTED@{host}{path}"),
                None => head.to_owned(),
            }
        }
        None => head.to_owned(),
    };
    if let Some(text) = query {
        result.push('?');
        result.push_str(&self::query(text));
    }
    result
}

/// A query without the values of secret parameters.
fn query(text: &str) -> String {
    let pairs = text.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if SECRET_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) => {
            format!("{name}=REDACTED")
        }
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// Text without what looks like a token or a preview link of ours, wherever it stands in it.
fn without_tokens(text: &str) -> String {
    /// As many letters and digits as the shorter of the two has, after its prefix.
    const DIGITS_MIN: usize = 40;
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find("sw_").into_iter().chain(rest.find("swp_")).min() {
        let prefix = if rest[place..].starts_with("swp_") { 4 } else { 3 };
        let digits = rest[place + prefix..].bytes().take_while(u8::is_ascii_alphanumeric).count();
        let end = place + prefix + digits;
        if digits >= DIGITS_MIN {
            result.push_str(&rest[..place]);
            result.push_str("[REDACTED]");
        } else {
            result.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    result + rest
}
