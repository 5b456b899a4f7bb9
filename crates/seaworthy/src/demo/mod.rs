//! `seaworthy demo`: the main job, end to end, on real traffic.
//!
//! Starts the shipped binary's own subcommands as processes (control plane, two proxies, four services, users), drives them
//! through the public API with tokens, watches a fault stop itself, asks who was hurt, promotes a harmless rollout and
//! verifies the audit log. Nothing is scripted: what happens follows from `--seed`, `--latency-ms` and `--weak`.

mod processes;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::client::{Client, asked_to_go, cell};
use crate::compare;
use crate::experiment::{evidence, is_live};
use processes::World;

/// Chance that a harmless fault is ever stopped; low, since this demo is run often and in public.
const ALPHA: f64 = 0.001;
const WINDOW_MS: u64 = 3_000;
/// Longer than the longest timeout of the shop's players (1 s).
const SETTLE_MS: u64 = 1_500;
/// A demo that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// How to run the demo.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Do not wait for a person at the end.
    #[arg(long)]
    headless: bool,
    /// Print one JSON object at the end, and nothing else on standard output.
    #[arg(long)]
    json: bool,
    /// Seed of users and plays.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Latency that is injected into calls to license, in milliseconds.
    #[arg(long, default_value_t = 300)]
    latency_ms: u64,
    /// Whose app has the short timeout: device=…,app.version=…, random=15%, or none.
    #[arg(long, default_value = "device=tv,app.version=4.2.0")]
    weak: String,
    /// Divides the lengths of stages; never alpha, windows or minimum counts.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Simulated users.
    #[arg(long, default_value_t = 20_000)]
    users: u64,
    /// Plays begun per second.
    #[arg(long, default_value_t = 300.0)]
    rate: f64,
    /// Only the fault or only the rollout.
    #[arg(long)]
    only: Option<Part>,
    /// Where the control plane listens; the next free port if it is taken.
    #[arg(long, default_value_t = 7777)]
    port: u16,
    /// Keep data here instead of in a temporary directory.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// A half of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The chaos experiment.
    Fault,
    /// The flag rollout.
    Rollout,
}

/// Prints for people; silent with `--json`.
struct Show {
    quiet: bool,
    live: bool,
}

impl Show {
    fn say(&self, text: &str) {
        if !self.quiet {
            println!("{text}");
        }
    }

    /// A line that replaces itself on a terminal and appears at most every few seconds elsewhere.
    fn progress(&self, text: &str, last: &mut Instant) {
        if self.quiet {
            return;
        }
        if self.live {
            use std::io::Write;
            print!("\r\x1b[2K{text}");
            let _ = std::io::stdout().flush();
        } else if last.elapsed() >= Duration::from_secs(3) {
            *last = Instant::now();
            println!("{text}");
        }
    }

    fn end_progress(&self) {
        if self.live && !self.quiet {
            println!();
        }
    }
}

pub async fn run(args: Args) -> Result<u8> {
    if !(args.speed >= 0.1 && args.speed <= 100.0) {
        bail!("--speed {}: expected 0.1 to 100", args.speed);
    }
    use std::io::IsTerminal;
    let show = Show { quiet: args.json, live: std::io::stdout().is_terminal() && !args.json };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(PATIENCE, story(&args, &show)) => outcome.context("the demo took too long")?,
        () = asked_to_go() => bail!("interrupted"),
    };
    let (mut world, result, link) = outcome?;
    let came_true = judge(&result, args.only);
    if args.json {
        println!("{result}");
    } else {
        show.say(if came_true { "\nAll of it came true." } else { "\nNot all of it came true." });
    }
    if !args.headless && !args.json {
        show.say(&format!("The console stays up at {link}\nPress Ctrl-C to end."));
        asked_to_go().await;
    }
    world.end().await;
    Ok(u8::from(!came_true))
}

/// Whether everything that was asked for came true.
fn judge(result: &Value, only: Option<Part>) -> bool {
    let fault = || {
        let named = |place: usize| result["comparison"][place]["attribute"].as_str().unwrap_or_default().to_owned();
        let mut top = [named(0), named(1)];
        top.sort();
        result["fault"]["stopped"] == true && top == ["app.version", "device"]
    };
    let rollout = || result["rollout"]["completed"] == true && result["rollout"]["false_stops"] == 0;
    result["audit"]["verified"] == true
        && (only == Some(Part::Rollout) || fault())
        && (only == Some(Part::Fault) || rollout())
}

fn kpi() -> Value {
    json!({"attempt": "name = 'play.attempt'", "success": "name = 'play.started'", "failure": "name = 'play.failed'"})
}

fn fault_spec(args: &Args) -> Value {
    json!({
        "name": "license-latency", "hypothesis": format!("plays start although license answers {} ms late", args.latency_ms),
        "owner": "playback team", "service": "license",
        "treatment": {"fault": {"route": "license", "delay_ms": args.latency_ms}},
        "stages": [{"share": 0.05, "min_ms": (40_000.0 / args.speed) as u64}],
        "baseline_ratio": 4, "kpi": kpi(), "window_ms": WINDOW_MS, "settle_ms": SETTLE_MS, "alpha": ALPHA,
        // Only play outcomes may stop the demo, and only by the test with the guarantee.
        "guardrails": {"failures": 1.0, "latency": 0.0, "ceiling_share": 0.0},
        "warm_up": {"min_exposures": 100, "min_ms": 3_000, "max_ms": 120_000},
        "max_duration_ms": 300_000,
    })
}

fn rollout_spec(args: &Args) -> Value {
    let stage = |share: f64, ms: f64| json!({"share": share, "min_ms": (ms / args.speed) as u64});
    json!({
        "name": "new-player", "hypothesis": "the new player starts as many plays as the classic one",
        "owner": "player team", "service": "web",
        "treatment": {"flag": {"key": "new-player", "variant": "new"}},
        "stages": [stage(0.10, 8_000.0), stage(0.25, 8_000.0), stage(0.5, 10_000.0)],
        "baseline_ratio": 1, "kpi": kpi(), "window_ms": WINDOW_MS, "settle_ms": SETTLE_MS, "alpha": ALPHA,
        "guardrails": {"failures": 1.0, "latency": 0.0, "ceiling_share": 0.0},
        "warm_up": {"min_exposures": 100, "min_ms": 3_000, "max_ms": 120_000},
        "margin": 0.01, "max_duration_ms": 300_000, "on_success": "promote",
    })
}

async fn story(args: &Args, show: &Show) -> Result<(World, Value, String)> {
    show.say("Seaworthy demo: a change that stops itself, on real traffic.\n");
    let (world, client, admin) = World::start(args, &|text: &str| show.say(text)).await?;
    let link = format!("{}/#token={admin}", world.base);
    show.say(&format!("\nWatch it in the console:  {link}\n"));
    wait_for_traffic(&client).await?;
    let mut result = json!({"seed": args.seed, "fault": null, "comparison": [], "rollout": null, "audit": null});
    if args.only != Some(Part::Rollout) {
        fault(args, show, &client, &mut result).await?;
    }
    if args.only != Some(Part::Fault) {
        rollout(args, show, &client, &mut result).await?;
    }
    // The checkpoint follows an entry within a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    result["audit"] = world.verify_audit().await?;
    show.say(&format!(
        "\nAudit log: {} entries, {}.  Verify it yourself:  seaworthy audit verify --data {}{}",
        result["audit"]["size"],
        if result["audit"]["verified"] == true { "verified" } else { "NOT VERIFIED" },
        world.data.display(),
        if args.data.is_none() { "  (until the demo ends; --data DIR keeps it)" } else { "" }
    ));
    Ok((world, result, link))
}

async fn wait_for_traffic(client: &Client) -> Result<()> {
    let body = json!({"where": "name = 'play.started'", "calculate": ["count"], "from": "-1m"});
    for _ in 0..150 {
        let answer = client.post("/api/v1/query", &body).await?;
        if answer["rows"][0]["count"].as_f64().unwrap_or(0.0) >= 50.0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Err(anyhow!("no plays arrive: see the log in the data directory"))
}

/// Starts an experiment and shows it until it has ended.
async fn watch(show: &Show, client: &Client, spec: &Value) -> Result<Value> {
    let started = client.post("/api/v1/experiments", spec).await?;
    let id = cell(&started["id"]);
    let mut last = Instant::now() - Duration::from_secs(10);
    loop {
        let now = client.get(&format!("/api/v1/experiments/{id}")).await?;
        show.progress(&line(&now), &mut last);
        if !is_live(&now["state"]) {
            show.end_progress();
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn line(e: &Value) -> String {
    let (log_e, threshold) = evidence(e);
    let part = if threshold > 0.0 { (log_e / threshold).clamp(0.0, 1.0) } else { 0.0 };
    let filled = (part * 20.0).round() as usize;
    let arm = |name: &str| {
        let a = &e["arms"][name];
        let number = |key: &str| a[key].as_f64().unwrap_or(0.0);
        format!("{:5.1} starts/s {:4.1} failures/s", number("successes_per_second"), number("failures_per_second"))
    };
    format!(
        "{:8} {:3.0} %  treatment {}  baseline {}  evidence [{}{}] {:.1} of {:.1}",
        cell(&e["state"]),
        e["share"].as_f64().unwrap_or(0.0) * 100.0,
        arm("treatment"),
        arm("baseline"),
        "█".repeat(filled),
        "·".repeat(20 - filled),
        log_e,
        threshold
    )
}

async fn fault(args: &Args, show: &Show, client: &Client, result: &mut Value) -> Result<()> {
    show.say(&format!(
        "1. Chaos: {} ms of latency on calls to license for 5 % of users, beside a fresh baseline of 20 %.\n   (starts per second of the baseline are scaled to the treatment's share)",
        args.latency_ms
    ));
    let ended = watch(show, client, &fault_spec(args)).await?;
    let id = cell(&ended["id"]);
    let stopped = ended["state"] == "stopped";
    show.say(&format!("   {}", cell(&ended["state_reason"])));
    if !matches!(ended["state"].as_str(), Some("stopped" | "completed")) {
        show.say(&format!("   the experiment is {}", cell(&ended["state"])));
    }
    // The last windows close, proxies confirm.
    tokio::time::sleep(Duration::from_millis(WINDOW_MS + SETTLE_MS + 500)).await;
    let settled = client.get(&format!("/api/v1/experiments/{id}")).await?;
    let seconds = |key: &str| -> Value {
        let (from, to) = (time(&settled["harm_began_at"]), time(&settled[key]));
        from.zip(to).map_or(Value::Null, |(from, to)| json!((to - from) as f64 / 1e9))
    };
    let verdict = &settled["verdict"];
    result["fault"] = json!({
        "stopped": stopped, "state": ended["state"],
        "seconds_to_stop": if stopped { seconds("ended_at") } else { Value::Null },
        "seconds_to_off_everywhere": seconds("off_everywhere_at"),
        "subjects_exposed": settled["arms"]["treatment"]["exposed"], "subjects_hurt": settled["arms"]["treatment"]["hurt"],
        "guardrail": verdict["guardrail"], "e_value": verdict["e_value"], "audit_index": verdict["audit_index"],
    });
    if stopped {
        let f = &result["fault"];
        let number = |key: &str| f[key].as_f64().unwrap_or(f64::NAN);
        show.say(&format!(
            "   {:.1} s after the start of harm; off at every proxy after {:.1} s. {} users met the fault, {} were hurt. Audit index {}.",
            number("seconds_to_stop"),
            number("seconds_to_off_everywhere"),
            f["subjects_exposed"],
            f["subjects_hurt"],
            f["audit_index"]
        ));
    }
    show.say("\n2. Who was hurt, and what is different about them?");
    match client.get(&format!("/api/v1/experiments/{id}/comparison")).await {
        Ok(comparison) => {
            show.say(&indent(&compare::text(&comparison)));
            result["comparison"] = comparison["ranked"].clone();
            result["comparison_summary"] = comparison["summary"].clone();
        }
        Err(error) => show.say(&format!("   {error}")),
    }
    let now = client.get(&format!("/api/v1/experiments/{id}")).await?;
    show.say(&format!(
        "   Faults are off; the treatment's failures are back to {:.1} per second.",
        now["arms"]["treatment"]["failures_per_second"].as_f64().unwrap_or(0.0)
    ));
    Ok(())
}

async fn rollout(args: &Args, show: &Show, client: &Client, result: &mut Value) -> Result<()> {
    show.say("\n3. Rollout: flag new-player, from 10 % to everybody, each stage beside a baseline.");
    let ended = watch(show, client, &rollout_spec(args)).await?;
    show.say(&format!("   {}", cell(&ended["state_reason"])));
    let flags = client.get("/api/v1/flags").await?;
    let promoted = ended["state"] == "promoted" && flags["flags"][0]["default_variant"] == "new";
    result["rollout"] = json!({
        "completed": promoted, "state": ended["state"], "false_stops": u8::from(ended["state"] == "stopped"),
        "audit_index": ended["verdict"]["audit_index"],
    });
    Ok(())
}

fn time(value: &Value) -> Option<i64> {
    vocab::Timestamp::parse(value.as_str()?).ok().map(vocab::Timestamp::nanos)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect::<String>().trim_end().to_owned()
}
