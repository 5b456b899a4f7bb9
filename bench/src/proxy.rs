//! Our proxy beside nginx as a proxy, each alone on the first core, before the same upstream. wrk, the upstream and our control
//! plane share the second core, so requests a CPU second of the proxy say more than requests a second.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Args;
use crate::figures::{Figures, median};
use crate::machine::{Process, api, cpu_seconds, pinned};

const ROUNDS: usize = 5;
const SECONDS: u64 = 6;
const UPSTREAM: &str = "127.0.0.1:18081";
const NGINX: &str = "127.0.0.1:18082";

/// Ends nginx with the measurement.
pub(crate) struct Nginx(Child);

impl Nginx {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-QUIT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// Starts nginx with a server of its own.
pub(crate) fn nginx(core: &str, dir: &Path, name: &str, server: &str) -> Result<Nginx> {
    let config = dir.join(format!("{name}.conf"));
    let text = format!(
        "daemon off; worker_processes 1; pid {dir}/{name}.pid; error_log {dir}/{name}.log;\n\
         events {{ worker_connections 2048; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;\n\
         fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         upstream up {{ server {UPSTREAM}; keepalive 256; keepalive_requests 1000000000; }}\n{server} }}\n",
        dir = dir.display(),
    );
    std::fs::write(&config, text)?;
    let child = pinned(core, Path::new("nginx"))
        .arg("-c")
        .arg(&config)
        .arg("-e")
        .arg(dir.join(format!("{name}.log")))
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start nginx")?;
    Ok(Nginx(child))
}

/// What one run of wrk says.
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) per_cpu_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Asks for a while; `server` is the process whose work is counted.
pub(crate) fn wrk(url: &str, script: &Path, server: u32, connections: u32) -> Result<Load> {
    let before = cpu_seconds(server)?;
    let output = pinned("1", Path::new("wrk"))
        .args(["-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), "-s"])
        .arg(script)
        .arg(url)
        .output()
        .context("cannot start wrk")?;
    let spent = cpu_seconds(server)? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|l| l.strip_prefix("result ")).with_context(|| format!("wrk said {text}"))?;
    let n: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [requests, micros, errors, p50, p99] = n[..] else { anyhow::bail!("wrk said {line}") };
    ensure!(errors == 0.0, "{errors} of {requests} requests failed at {url}");
    Ok(Load {
        per_second: requests / micros * 1e6,
        per_cpu_second: requests / spent,
        p50_ms: p50 / 1e3,
        p99_ms: p99 / 1e3,
    })
}

/// A user of 20,000 in each request, and a line that is easy to read at the end.
const SCRIPT: &str = r#"
local n = 0
local heads = {}
for i = 1, 20000 do heads[i] = wrk.format("GET", "/things", {["x-user-id"] = "user-" .. i, ["host"] = "bench"}) end
request = function() n = (n + 7919) % 20000; return heads[n + 1] end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("result %d %d %d %.0f %.0f\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"#;

fn config(dir: &Path, name: &str, control: Option<&str>) -> Result<String> {
    let path = dir.join(format!("{name}.yaml"));
    let control = control.map(|c| format!("control: http://{c}\nedge: true\nsubject: {{header: x-user-id}}\n"));
    let text = format!(
        "name: {name}\nlisten: 127.0.0.1:0\n{}routes:\n  - {{name: all, upstream: 'http://{UPSTREAM}', timeout: 5s}}\n",
        control.unwrap_or_default()
    );
    std::fs::write(&path, text)?;
    Ok(path.to_str().context("a path that is no text")?.to_owned())
}

/// Measures, round by round.
pub fn measure(args: &Args, figures: &mut Figures) -> Result<()> {
    let dir = tempfile::tempdir_in(&args.out)?;
    let path = std::path::absolute(dir.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let script = path.join("users.lua");
    std::fs::write(&script, SCRIPT)?;
    let body = "server { listen 127.0.0.1:18081 reuseport; location / { return 200 \"hello from upstream\\n\"; } }";
    let _upstream = nginx("1", &path, "upstream", body)?;
    let body = "server { listen 127.0.0.1:18082; location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; } }";
    let peer = nginx("0", &path, "peer", body)?;
    let bin = std::path::absolute(&args.bin)?;

    let plain =
        Process::start(pinned("0", &bin), &["proxy", "--json", "--config", &config(&path, "plain", None)?], "")?;
    let server = Process::serve(pinned("1", &bin), &path.join("data"))?;
    let (control, admin) = (server.address()?, server.admin()?);
    let start = |name: &str| {
        Process::start(
            pinned("0", &bin),
            &["proxy", "--json", "--config", &config(&path, name, Some(&control))?],
            &admin,
        )
    };
    let watched = start("watched")?;
    // Warm-up never ends here: arms are given and exposures recorded in every request of the slice, and no fault acts.
    let spec = json!({"name": "bench", "treatment": {"fault": {"route": "all", "delay_ms": 1}}, "baseline_ratio": 4,
        "stages": [{"share": 0.05, "min_ms": 3_600_000}], "window_ms": 10_000, "settle_ms": 6_000,
        "warm_up": {"min_exposures": 1_000_000_000, "min_ms": 600_000, "max_ms": 3_600_000},
        "kpi": {"success": "name = 'request' and http.response.status_code < 500", "failure": "name = 'request' and error = true"}});
    runtime.block_on(api(&control, &admin, "POST", "/api/v1/experiments", &spec))?;
    sleep(Duration::from_secs(3));

    let contestants = [
        ("nginx", NGINX.to_owned(), peer.id()),
        ("plain", plain.address()?, plain.id()),
        ("watched", watched.address()?, watched.id()),
    ];
    let mut loads: Vec<Vec<Load>> = contestants.iter().map(|_| Vec::new()).collect();
    let mut calm: Vec<Vec<Load>> = contestants.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (place, (_, address, id)) in contestants.iter().enumerate() {
            loads[place].push(wrk(&format!("http://{address}/things"), &script, *id, 64)?);
            calm[place].push(wrk(&format!("http://{address}/things"), &script, *id, 1)?);
        }
    }
    let middle = |loads: &[Load], of: fn(&Load) -> f64| median(loads.iter().map(of).collect());
    for (place, what) in [(1, "proxy, plain"), (2, "proxy, sticky split and an event for every request")] {
        let cpu = |place: usize| middle(&loads[place], |l| l.per_cpu_second);
        let rate = |place: usize| middle(&loads[place], |l| l.per_second);
        let text = |place: usize| format!("{:.0} requests a CPU second, {:.0} requests/s", cpu(place), rate(place));
        figures.beside(what, text(place), "nginx", text(0), cpu(place) / cpu(0));
        let wait = |place: usize| {
            format!(
                "p50 {:.2} ms, p99 {:.2} ms",
                middle(&calm[place], |l| l.p50_ms),
                middle(&calm[place], |l| l.p99_ms)
            )
        };
        let (ours, theirs) = (middle(&calm[place], |l| l.p99_ms), middle(&calm[0], |l| l.p99_ms));
        figures.beside(&format!("{what}, one connection"), wait(place), "nginx", wait(0), theirs / ours);
    }
    let health = runtime.block_on(api(&contestants[2].1, "", "GET", "/.seaworthy/healthz", &json!(null)))?;
    figures.ours("proxy, events given up under full load", health["events_dropped"].to_string());
    figures.ours("proxy, most memory held", format!("{:.0} MB", watched.peak_mb()?));
    figures.ours("control plane, most memory held meanwhile", format!("{:.0} MB", server.peak_mb()?));
    Ok(())
}
