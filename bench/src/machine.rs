//! The server under test as a process, and what it used.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A process that ends with the measurement.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Its line of readiness.
    pub ready: Value,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command pinned to one core.
pub fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

impl Process {
    /// Starts a subcommand of the binary and reads its line of readiness.
    pub fn start(mut command: Command, words: &[&str], token: &str) -> Result<Process> {
        let mut child = command
            .args(words)
            .env("SEAWORTHY_TOKEN", token)
            .env("SEAWORTHY_LOG", "warn")
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut out = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        out.read_line(&mut line)?;
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let ready = serde_json::from_str(&line).with_context(|| format!("{words:?} said {line:?}"))?;
        Ok(Process { child, ready })
    }

    /// A control plane on a data directory.
    pub fn serve(command: Command, data: &Path) -> Result<Process> {
        let data = data.to_str().context("a path that is no text")?;
        Process::start(command, &["serve", "--json", "--listen", "127.0.0.1:0", "--data", data], "")
    }

    /// Where it listens.
    pub fn address(&self) -> Result<String> {
        Ok(self.ready["address"].as_str().context("no address")?.to_owned())
    }

    /// Its first token.
    pub fn admin(&self) -> Result<String> {
        Ok(self.ready["admin_token"].as_str().context("no admin token")?.to_owned())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it ever held, in MB.
    pub fn peak_mb(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).context("no VmHWM")?;
        let kb: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kb / 1e3)
    }
}

/// CPU seconds that a process and its living children used.
pub fn cpu_seconds(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().context("stat")?.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let below: f64 = children.split_whitespace().filter_map(|id| cpu_seconds(id.parse().ok()?).ok()).sum();
    Ok(ticks / 100.0 + below)
}

/// A JSON call with a token.
pub async fn api(address: &str, token: &str, method: &str, path: &str, body: &Value) -> Result<Value> {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = hyper::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))?;
    let response = client.request(request).await?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}
