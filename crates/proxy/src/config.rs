//! The proxy's configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use serde::Deserialize;
use vocab::{Millis, Name};

/// What a proxy does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name, for people and for confirmations.
    pub name: Name,
    /// Where it listens. Port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The control plane, e.g. http://127.0.0.1:7777; none runs as a plain proxy.
    pub control: Option<String>,
    /// A file that holds the token; `SEAWORTHY_TOKEN` is used otherwise.
    pub token_file: Option<PathBuf>,
    /// Whether requests come from outside: our baggage is stripped and arms are given here.
    #[serde(default)]
    pub edge: bool,
    /// Where an edge proxy finds the subject.
    #[serde(default)]
    pub subject: SubjectSource,
    /// Where requests go; the first that matches.
    pub routes: Vec<Route>,
}

/// Where the subject's key stands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectSource {
    /// A header's name.
    pub header: Option<String>,
    /// A cookie's name.
    pub cookie: Option<String>,
}

/// One route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What faults refer to.
    pub name: Name,
    /// Host without port; none matches all.
    pub host: Option<String>,
    /// Beginning of the path.
    #[serde(default = "default_path")]
    pub path: String,
    /// Where it goes, e.g. http://127.0.0.1:9001.
    pub upstream: String,
    /// How long the upstream may take to begin its answer.
    #[serde(default = "default_timeout")]
    pub timeout: Millis,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}
fn default_path() -> String {
    "/".to_owned()
}
fn default_timeout() -> Millis {
    Millis::from_secs(30)
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not as expected; names line and key.
    #[error("{path}: {detail}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What and where.
        detail: String,
    },
    /// A value makes no sense.
    #[error("{path}, {key}: {detail}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What is wrong and what is expected.
        detail: String,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text, path)
    }

    /// Checks a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let config: Config = serde_saphyr::from_str(text)
            .map_err(|error| ConfigError::Form { path: path.to_owned(), detail: error.to_string() })?;
        let wrong =
            |key: String, detail: &str| ConfigError::Value { path: path.to_owned(), key, detail: detail.to_owned() };
        if config.routes.is_empty() {
            return Err(wrong("routes".into(), "expected at least one route"));
        }
        for (place, route) in config.routes.iter().enumerate() {
            let plain = route.upstream.parse::<Uri>().is_ok_and(|uri| {
                uri.scheme_str() == Some("http") && uri.authority().is_some() && matches!(uri.path(), "" | "/")
            });
            if !plain {
                return Err(wrong(format!("routes[{place}].upstream"), "expected http://host:port"));
            }
            if !route.path.starts_with('/') {
                return Err(wrong(format!("routes[{place}].path"), "expected a path that begins with /"));
            }
        }
        if let Some(control) = &config.control {
            if !control.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some()) {
                return Err(wrong("control".into(), "expected http://host:port (put TLS in front for other machines)"));
            }
        }
        if config.edge && config.subject.header.is_none() && config.subject.cookie.is_none() {
            return Err(wrong(
                "subject".into(),
                "an edge proxy needs subject.header or subject.cookie: no subject, no arm",
            ));
        }
        Ok(config)
    }
}
