//! A client of the public API: what every subcommand that talks to a server uses.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Nothing the API answers is longer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the server is and how to show answers.
#[derive(Clone, Debug, clap::Args)]
pub struct Server {
    /// The server.
    #[arg(long, env = "SEAWORTHY_URL", default_value = "http://127.0.0.1:7777", global = true)]
    pub server: String,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Could not be reached, or refused with a problem.
#[derive(Debug)]
pub enum Failure {
    /// No answer.
    Unreachable(String),
    /// Problem details.
    Problem(StatusCode, Value),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Unreachable(reason) => f.write_str(reason),
            Failure::Problem(status, body) => {
                let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
                match text("detail") {
                    "" => write!(f, "the server answered {status}"),
                    detail => write!(f, "{detail} ({})\n  what to do: {}", text("code"), text("remedy")),
                }
            }
        }
    }
}

impl std::error::Error for Failure {}

/// The exit code that fits an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Unreachable(_)) => 69,
        Some(Failure::Problem(status, _)) if matches!(*status, StatusCode::CONFLICT | StatusCode::ACCEPTED) => 1,
        Some(Failure::Problem(status, _)) if status.is_server_error() => 69,
        Some(Failure::Problem(..)) => 2,
        None => 64,
    }
}

/// A client with a token.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    token: String,
    patience: Duration,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

/// The file that holds the token for a server: one per URL, readable by the owner only.
pub fn token_path(server: &str) -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    let name: String = server.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Some(home.join("seaworthy").join(format!("{name}.token")))
}

impl Client {
    /// With this token.
    pub fn new(base: &str, token: &str) -> Client {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Client { base: base.trim_end_matches('/').to_owned(), token: token.to_owned(), patience: PATIENCE, http }
    }

    /// With the token of the environment or of the file for this server.
    pub fn of(server: &Server) -> Result<Client> {
        Client::at(&server.server, "SEAWORTHY_TOKEN")
    }

    /// The same for an address, with the token of this variable.
    pub fn at(address: &str, variable: &str) -> Result<Client> {
        if !address.starts_with("http://") {
            return Err(anyhow!(
                "{address} is not http://host:port: TLS comes later; tunnel to the server's loopback until then"
            ));
        }
        let token = match std::env::var(variable) {
            Ok(token) => token,
            Err(_) => token_path(address).and_then(|path| std::fs::read_to_string(path).ok()).ok_or_else(|| {
                anyhow!("no token: set {variable}, or `seaworthy token login` to store one for {address}")
            })?,
        };
        Ok(Client::new(address, token.trim()))
    }

    /// Which waits this long for an answer.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    /// Calls and gives the JSON answer (null for an empty one).
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = self.bytes(method, path, body).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("the server's answer is not JSON")
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// POST, for an answer of this media type. What the answer's headers say of what is missing goes to standard error.
    pub async fn post_for(&self, path: &str, body: &Value, media: &str) -> Result<Bytes> {
        let (headers, bytes) = self.bytes_as(Method::POST, path, Some(body), media).await?;
        if let Some(reasons) = headers.get("seaworthy-incomplete").and_then(|reasons| reasons.to_str().ok()) {
            eprintln!("incomplete: {reasons}");
        }
        if headers.contains_key("seaworthy-has-more") {
            eprintln!("there is more: --limit");
        }
        Ok(bytes)
    }

    /// Calls and gives the answer as it is.
    pub async fn bytes(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes> {
        Ok(self.bytes_as(method, path, body, "*/*").await?.1)
    }

    /// POST of JSON lines.
    pub async fn post_lines(&self, path: &str, lines: Bytes) -> Result<Value> {
        let request = self.request(Method::POST, path).header("content-type", "application/x-ndjson");
        let (_, answer) = self.send(request.body(Full::new(lines))?).await?;
        serde_json::from_slice(&answer).context("the server's answer is not JSON")
    }

    async fn bytes_as(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        media: &str,
    ) -> Result<(HeaderMap, Bytes)> {
        let request = self.request(method, path).header("content-type", "application/json").header("accept", media);
        let body = Bytes::from(body.map(Value::to_string).unwrap_or_default());
        self.send(request.body(Full::new(body))?).await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let address = format!("{}{path}", self.base);
        Request::builder().method(method).uri(address).header("authorization", format!("Bearer {}", self.token))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(HeaderMap, Bytes)> {
        let unreachable = |reason: String| Failure::Unreachable(format!("{} cannot be reached: {reason}", self.base));
        let whole = async {
            let response = self.http.request(request).await.map_err(|e| unreachable(e.to_string()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok::<_, Failure>((head, body.map_err(|e| unreachable(e.to_string()))?.to_bytes()))
        };
        let late = |_| unreachable(format!("no answer within {} s", self.patience.as_secs()));
        let (head, bytes) = tokio::time::timeout(self.patience, whole).await.map_err(late)??;
        let media = head.headers.get("content-type").and_then(|media| media.to_str().ok());
        let is_problem = media.is_some_and(|media| media.starts_with("application/problem+json"));
        // A problem may come with 202: it is off, but not on record yet; that is said, not passed over.
        if head.status.is_success() && !is_problem {
            return Ok((head.headers, bytes));
        }
        Err(Failure::Problem(head.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)).into())
    }
}

/// A table with aligned columns; the header is bold on a terminal.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(w, cell)| *w = (*w).max(cell.chars().count()));
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let head = line(header.to_vec());
    let mut text =
        if std::io::stdout().is_terminal() { format!("\x1b[1m{head}\x1b[0m\n") } else { format!("{head}\n") };
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
        text.push('\n');
    }
    text
}

/// A JSON value as a cell.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(s) => s.clone(),
        Value::Number(n) => match n.as_f64() {
            Some(x) if x.fract() != 0.0 => format!("{x:.3}"),
            _ => n.as_f64().map_or(n.to_string(), |x| format!("{x:.0}")),
        },
        other => other.to_string(),
    }
}

/// A name as part of a path.
pub fn escaped(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => _ = write!(out, "%{byte:02X}"),
        }
        out
    })
}

/// Reads a YAML or JSON file.
pub fn document(path: &std::path::Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|e| anyhow!("{}: {e}", path.display()))
}

/// Ready when the process is asked to go: Ctrl-C or SIGTERM.
pub async fn asked_to_go() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
