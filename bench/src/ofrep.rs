//! One flag by OFREP over connections that are kept: our server beside nginx, which gives the same bytes without deciding anything,
//! and beside Unleash's edge if it is installed. The server is alone on the first core, wrk on the second.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Args;
use crate::figures::{Figures, median};
use crate::machine::{Process, api, pinned};
use crate::proxy::{Load, nginx, wrk};

const ROUNDS: usize = 5;
const NGINX: &str = "127.0.0.1:18083";
const PATH: &str = "/ofrep/v1/evaluate/flags/checkout";
const EDGE: &str = "127.0.0.1:18084";
const EDGE_PATH: &str = "/api/frontend/features/checkout";
/// What Unleash's edge takes for the environment of its file.
const EDGE_TOKEN: &str = "*:development.bench";
/// Until a peer answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Another user in each request, and a line that is easy to read at the end.
fn script(path: &str, token: &str, body: &str) -> String {
    format!(
        r#"
local n = 0
local countries = {{"DE", "AT", "FR", "US"}}
local asked = {{}}
for i = 1, 20000 do
  local body = string.format([[{body}]], "user-" .. i, countries[i % 4 + 1])
  asked[i] = wrk.format("POST", "{path}", {{["content-type"] = "application/json", ["authorization"] = "{token}",
    ["host"] = "bench"}}, body)
end
request = function() n = (n + 7919) % 20000; return asked[n + 1] end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("result %d %d %d %.0f %.0f\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"#
    )
}

/// Measures, round by round.
pub fn measure(args: &Args, figures: &mut Figures) -> Result<()> {
    let dir = tempfile::tempdir_in(&args.out)?;
    let path = std::path::absolute(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let data = path.join("data").display().to_string();
    // One token asks for everything here, more often than the limit for one caller.
    let words = ["serve", "--json", "--listen", "127.0.0.1:0", "--data", &data, "--ofrep-rate-limit", "0"];
    let server = Process::start(pinned("0", &std::path::absolute(&args.bin)?), &words, "")?;
    let (address, admin) = (server.address()?, server.admin()?);
    let flag = json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": "off",
        "rules": [{"when": {"attr": "country", "op": "in", "values": ["DE", "AT"]},
            "serve": {"split": {"weights": [["on", 10], ["off", 90]]}}}]});
    let call = |method: &str, path: &str, body: &Value| runtime.block_on(api(&address, &admin, method, path, body));
    call("PUT", "/api/v1/flags/checkout?break_glass=true&reason=bench", &flag)?;
    let token = call("POST", "/api/v1/tokens?reason=bench", &json!({"name": "bench", "role": "evaluate"}))?;
    let token = format!("Bearer {}", token["secret"].as_str().with_context(|| format!("no secret in {token}"))?);
    let context = json!({"context": {"targetingKey": "user-10000", "country": "DE"}});
    let answer = call("POST", PATH, &context)?.to_string();

    let ours = path.join("ours.lua");
    let body = r#"{"context":{"targetingKey":"%s","country":"%s"}}"#;
    std::fs::write(&ours, script(PATH, &token, body))?;
    let fixed = format!(
        "server {{ listen {NGINX}; location / {{ default_type application/json; return 200 '{}'; }} }}",
        answer.replace('\'', "")
    );
    let peer = nginx("0", &path, "peer", &fixed)?;
    let mut contestants = vec![
        ("ours", address.clone(), PATH, server.id(), ours.clone()),
        ("nginx", NGINX.to_owned(), PATH, peer.id(), ours),
    ];
    let edge = edge(&path)?;
    match &edge {
        Some(edge) => {
            let script_path = path.join("edge.lua");
            let body = r#"{"context":{"userId":"%s","properties":{"country":"%s"}}}"#;
            std::fs::write(&script_path, script(EDGE_PATH, EDGE_TOKEN, body))?;
            contestants.push(("unleash-edge", EDGE.to_owned(), EDGE_PATH, edge.0.id(), script_path));
        }
        None => println!("ofrep: unleash-edge is not installed (cargo install unleash-edge); beside nginx only"),
    }
    let mut loads: Vec<Vec<Load>> = contestants.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (place, (_, address, path, id, script)) in contestants.iter().enumerate() {
            loads[place].push(wrk(&format!("http://{address}{path}"), script, *id, 64)?);
        }
    }
    let middle = |place: usize, of: fn(&Load) -> f64| median(loads[place].iter().map(of).collect());
    let text = |place: usize| {
        format!(
            "{:.0} requests/s, {:.0} a CPU second, p99 {:.2} ms",
            middle(place, |l| l.per_second),
            middle(place, |l| l.per_cpu_second),
            middle(place, |l| l.p99_ms)
        )
    };
    for (place, (name, ..)) in contestants.iter().enumerate().skip(1) {
        let ratio = middle(0, |l| l.per_second) / middle(place, |l| l.per_second);
        figures.beside("OFREP, one flag, kept connections", text(0), name, text(place), ratio);
    }
    Ok(())
}

/// Ends Unleash's edge with the measurement.
struct Edge(std::process::Child);

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Unleash's edge over a file with the same flag; none if it is not installed.
fn edge(dir: &std::path::Path) -> Result<Option<Edge>> {
    if Command::new("unleash-edge").arg("--version").output().is_err() {
        return Ok(None);
    }
    let features = json!({"version": 2, "features": [{"name": "checkout", "enabled": true, "type": "release", "project": "default",
        "strategies": [{"name": "flexibleRollout",
            "constraints": [{"contextName": "country", "operator": "IN", "values": ["DE", "AT"]}],
            "parameters": {"rollout": "10", "stickiness": "userId", "groupId": "checkout"}}]}]});
    let file = dir.join("features.json");
    std::fs::write(&file, features.to_string())?;
    let (host, port) = EDGE.split_once(':').context("host and port")?;
    let child = pinned("0", std::path::Path::new("unleash-edge"))
        .args([
            "--interface",
            host,
            "--port",
            port,
            "--workers",
            "1",
            "offline",
            "--tokens",
            EDGE_TOKEN,
            "--bootstrap-file",
        ])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start unleash-edge")?;
    let edge = Edge(child);
    let began = Instant::now();
    while std::net::TcpStream::connect(EDGE).is_err() {
        ensure!(began.elapsed() < PATIENCE, "unleash-edge does not listen");
        sleep(Duration::from_millis(50));
    }
    Ok(Some(edge))
}
