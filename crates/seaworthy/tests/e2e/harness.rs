//! Processes and calls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const BIN: &str = env!("CARGO_BIN_EXE_seaworthy");
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Two cores do not hold two demos.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that is killed with the test.
pub struct Process {
    pub child: Child,
    pub ready: Value,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts a subcommand and reads its line of readiness.
    pub fn start(words: &[&str], token: &str) -> Process {
        let mut command = Command::new(BIN);
        command.args(words);
        Process::spawn(command, token)
    }

    /// The same for a command that ends up being a subcommand.
    pub fn spawn(mut command: Command, token: &str) -> Process {
        let mut child = command
            .env("SEAWORTHY_TOKEN", token)
            .env("SEAWORTHY_LOG", "warn")
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let ready = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{command:?} said {line:?}: {e}"));
        Process { child, ready }
    }

    pub fn address(&self) -> String {
        self.ready["address"].as_str().unwrap().to_owned()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A control plane on a data directory.
pub fn serve(data: &Path, listen: &str) -> Process {
    Process::start(&["serve", "--json", "--listen", listen, "--data", data.to_str().unwrap()], "")
}

/// One HTTP call: status and body.
pub fn call(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&answer[..split]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    let mut body = answer[split + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Ok((status, body))
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&bytes[..end]).trim(), 16).unwrap_or(0);
        if size == 0 || bytes.len() < end + 2 + size {
            break;
        }
        whole.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    whole
}

/// A JSON call with a token.
pub fn api(address: &str, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let (status, answer) = call(address, method, path, &headers, &body).unwrap();
    (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
}

/// Asks until the answer is some, at most `secs`.
pub fn until<T>(secs: u64, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(secs);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {secs} s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How often a slow scenario is repeated: fewer times where a person waits. `SEAWORTHY_E2E_RUNS` overrides.
pub fn runs(default: u64) -> u64 {
    std::env::var("SEAWORTHY_E2E_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}
