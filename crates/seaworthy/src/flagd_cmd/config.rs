//! Options from a file and from the command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Start;

/// More than this is read from nobody, whatever the options say.
const BODY_BYTES_MAX: usize = 64 << 20;

/// The file: flagd's names.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct ConfigFile {
    sources: Vec<Source>,
    uri: Vec<String>,
    port: Option<u16>,
    management_port: Option<u16>,
    sync_port: Option<u16>,
    ofrep_port: Option<u16>,
    bind: Option<IpAddr>,
    socket_path: Option<PathBuf>,
    sync_socket_path: Option<PathBuf>,
    server_cert_path: Option<PathBuf>,
    server_key_path: Option<PathBuf>,
    cors_origin: Vec<String>,
    context_value: Map<String, Value>,
    context_from_header: BTreeMap<String, String>,
    stream_deadline: Option<String>,
    disable_sync_metadata: bool,
    ofrep_rate_limit: Option<u32>,
    max_request_body: Option<usize>,
    // What does nothing. In a file these are numbers and truth values, too.
    debug: Value,
    log_format: Value,
    keep_alive_min_time: Value,
    keep_alive_permit_without_stream: Value,
    max_request_header: Value,
    metrics_exporter: Value,
    otel_collector_uri: Value,
    otel_ca_path: Value,
    otel_cert_path: Value,
    otel_key_path: Value,
    otel_reload_interval: Value,
}

impl ConfigFile {
    fn idle(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("debug", &self.debug),
            ("log-format", &self.log_format),
            ("keep-alive-min-time", &self.keep_alive_min_time),
            ("keep-alive-permit-without-stream", &self.keep_alive_permit_without_stream),
            ("max-request-header", &self.max_request_header),
            ("metrics-exporter", &self.metrics_exporter),
            ("otel-collector-uri", &self.otel_collector_uri),
            ("otel-ca-path", &self.otel_ca_path),
            ("otel-cert-path", &self.otel_cert_path),
            ("otel-key-path", &self.otel_key_path),
            ("otel-reload-interval", &self.otel_reload_interval),
        ];
        all.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name)
    }
}

/// One source, as flagd's `--sources` has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// A path or an address.
    pub uri: String,
    /// `file`, `fsnotify`, `fileinfo`, `http` or `grpc`.
    pub provider: String,
    /// Seconds between two looks.
    #[serde(default)]
    pub interval: Option<u64>,
    /// What is sent as `Authorization`.
    #[serde(default)]
    pub auth_header: Option<String>,
    /// What is asked of a gRPC source.
    #[serde(default)]
    pub selector: Option<String>,
}

impl Source {
    /// From `-f`: the scheme says what it is.
    fn of_uri(uri: &str) -> Result<Source> {
        let source = |uri: &str, provider: &str| Source {
            uri: uri.to_owned(),
            provider: provider.to_owned(),
            interval: None,
            auth_header: None,
            selector: None,
        };
        if let Some(path) = uri.strip_prefix("file:") {
            return Ok(source(path.strip_prefix("//").unwrap_or(path), "file"));
        }
        if uri.starts_with("http://") || uri.starts_with("https://") {
            return Ok(source(uri, "http"));
        }
        if let Some(address) = uri.strip_prefix("grpc://") {
            return Ok(source(address, "grpc"));
        }
        bail!("--uri {uri:?}: expected file:PATH, http://… or grpc://HOST:PORT")
    }
}

/// Everything decided.
#[derive(Clone, Debug)]
pub struct Options {
    pub sources: Vec<Source>,
    /// Evaluation, management, sync, OFREP.
    pub ports: [u16; 4],
    /// Evaluation, sync.
    pub sockets: [Option<PathBuf>; 2],
    pub bind: IpAddr,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub origins: Vec<String>,
    pub context: Map<String, Value>,
    pub headers: BTreeMap<String, String>,
    pub stream_deadline: Option<Duration>,
    pub disable_sync_metadata: bool,
    /// The largest request.
    pub body_bytes_max: usize,
    /// Names of options that were given and do nothing.
    pub idle: Vec<&'static str>,
    /// Requests a second of one address.
    pub ofrep_rate: Option<NonZeroU32>,
    pub json: bool,
}

fn pair(option: &str, text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').ok_or_else(|| anyhow!("{option} {text:?}: expected name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn read(path: &Path) -> Result<ConfigFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // JSON is YAML.
    serde_saphyr::from_str(&text).map_err(|e| anyhow!("{}: {e}", path.display()))
}

/// Durations as flagd writes them: 90s, 10m, 1h.
fn duration(text: &str) -> Result<Duration> {
    let millis = vocab::Millis::parse(text).map_err(|e| anyhow!("stream-deadline {text:?}: {e}"))?;
    Ok(millis.duration())
}

impl Options {
    pub fn of(start: &Start) -> Result<Options> {
        let file = start.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let idle = start.idle.given().into_iter().chain(file.idle()).collect();
        let mut sources = file.sources;
        for uri in file.uri.iter().chain(&start.uri) {
            sources.push(Source::of_uri(uri)?);
        }
        if let Some(text) = &start.sources {
            let more: Vec<Source> = serde_json::from_str(text)
                .map_err(|e| anyhow!("--sources, line {} column {}: {e}", e.line(), e.column()))?;
            sources.extend(more);
        }
        if sources.is_empty() {
            bail!("no flags: name at least one source, e.g. --uri file:flags.json");
        }
        let mut context = file.context_value;
        for text in &start.context_value {
            let (name, value) = pair("--context-value", text)?;
            context.insert(name, value.into());
        }
        let mut headers = file.context_from_header;
        for text in &start.context_from_header {
            let (header, name) = pair("--context-from-header", text)?;
            headers.insert(header, name);
        }
        let headers = headers.into_iter().map(|(header, name)| (header.to_ascii_lowercase(), name)).collect();
        let deadline = start.stream_deadline.as_ref().or(file.stream_deadline.as_ref());
        let origins = if start.cors_origin.is_empty() { file.cors_origin } else { start.cors_origin.clone() };
        Ok(Options {
            sources,
            ports: [
                start.port.or(file.port).unwrap_or(8013),
                start.management_port.or(file.management_port).unwrap_or(8014),
                start.sync_port.or(file.sync_port).unwrap_or(8015),
                start.ofrep_port.or(file.ofrep_port).unwrap_or(8016),
            ],
            sockets: [
                start.socket_path.clone().or(file.socket_path),
                start.sync_socket_path.clone().or(file.sync_socket_path),
            ],
            bind: start.bind.or(file.bind).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            certificate: start.server_cert_path.clone().or(file.server_cert_path),
            key: start.server_key_path.clone().or(file.server_key_path),
            origins,
            context,
            headers,
            stream_deadline: deadline.map(|text| duration(text)).transpose()?.filter(|d| !d.is_zero()),
            body_bytes_max: match start.max_request_body.or(file.max_request_body).unwrap_or(1_000_000) {
                0 => BODY_BYTES_MAX,
                bytes => bytes.min(BODY_BYTES_MAX),
            },
            idle,
            disable_sync_metadata: start.disable_sync_metadata || file.disable_sync_metadata,
            ofrep_rate: NonZeroU32::new(start.ofrep_rate_limit.or(file.ofrep_rate_limit).unwrap_or(10_000)),
            json: start.json,
        })
    }
}
