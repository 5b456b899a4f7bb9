//! `seaworthy experiment`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::client::{Client, Server, cell, document, table};

/// Plan, start, watch, stop and acknowledge experiments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All experiments, newest first.
    List,
    /// One experiment.
    Show {
        /// Its id or name.
        id: String,
    },
    /// The price before the start: how long until harm is seen, how many users are hurt by then.
    Plan {
        /// The spec, YAML or JSON.
        file: PathBuf,
    },
    /// Start; with --wait stay until it ends.
    Start {
        /// The spec, YAML or JSON.
        file: PathBuf,
        /// Stay until it ends: exit code 0 if it was not stopped, 1 if it was.
        #[arg(long)]
        wait: bool,
    },
    /// Stop now.
    Stop {
        /// Its id or name.
        id: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Acknowledge a stop, so that the same change may be tried again.
    Ack {
        /// Its id or name.
        id: String,
        /// What was found.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Say whether a rollout that asks you works as wanted; if not, it is reverted.
    Accept {
        /// Its id or name.
        id: String,
        /// It works as coded, not as wanted.
        #[arg(long)]
        not_as_wanted: bool,
        /// In words.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Every fault is off, now, and none can start; flag rollouts go on.
    Halt {
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lift the halt (admin).
    Resume {
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let json = args.server.json;
    let path = |id: &str, call: &str| format!("/api/v1/experiments/{id}{call}");
    match args.command {
        Command::List => {
            let answer = client.get("/api/v1/experiments").await?;
            if json {
                println!("{answer}");
                return Ok(0);
            }
            let rows: Vec<Vec<String>> = answer["experiments"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| ["id", "name", "kind", "state", "state_reason"].map(|k| cell(&e[k])).to_vec())
                .collect();
            print!("{}", table(&["id", "name", "kind", "state", "why"], &rows));
            Ok(0)
        }
        Command::Show { id } => {
            let answer = client.get(&path(&id, "")).await?;
            if json {
                println!("{answer}");
            } else {
                print!("{}", text(&answer));
                if let Ok(comparison) = client.get(&path(&id, "/comparison")).await {
                    print!("\n{}", crate::compare::text(&comparison));
                }
            }
            Ok(0)
        }
        Command::Plan { file } => {
            let answer = client.post("/api/v1/experiments/plan", &document(&file)?).await?;
            if json {
                println!("{answer}");
                return Ok(0);
            }
            let rows: Vec<Vec<String>> = answer["rows"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|r| {
                    let seconds = r["seconds"].as_f64().map_or("not seen".to_owned(), |s| format!("{s:.0} s"));
                    vec![
                        cell(&r["rate_ratio"]),
                        cell(&r["events"]),
                        seconds,
                        cell(&r["subjects_exposed"]),
                        cell(&r["subjects_hurt"]),
                    ]
                })
                .collect();
            print!(
                "{}",
                table(
                    &["times as many failures", "bad users until stop", "time", "users exposed", "users hurt"],
                    &rows
                )
            );
            Ok(0)
        }
        Command::Start { file, wait } => {
            let mut answer = client.post("/api/v1/experiments", &document(&file)?).await?;
            let id = cell(&answer["id"]);
            if !json {
                println!("{} started as {id}, audit index {}", cell(&answer["name"]), answer["audit_index"]);
            }
            if wait {
                answer = follow(&client, &id, json).await?;
            }
            if json {
                println!("{answer}");
            } else if wait {
                print!("{}", text(&answer));
            }
            Ok(u8::from(wait && !matches!(answer["state"].as_str(), Some("completed" | "promoted"))))
        }
        Command::Stop { id, reason } => shown(&client, &path(&id, "/stop"), &reason, json).await,
        Command::Ack { id, reason } => shown(&client, &path(&id, "/ack"), &reason, json).await,
        Command::Accept { id, not_as_wanted, reason } => {
            let body = json!({"as_wanted": !not_as_wanted, "reason": reason});
            let answer = client.post(&path(&id, "/accept"), &body).await?;
            if json {
                println!("{answer}");
            } else {
                let said = if not_as_wanted { "not as wanted: it is reverted" } else { "as wanted" };
                println!("{id} is on record as {said}");
            }
            Ok(0)
        }
        Command::Halt { reason } => {
            let answer = client.post("/api/v1/halt", &json!({"reason": reason})).await?;
            println!(
                "{}",
                if json {
                    answer.to_string()
                } else {
                    "halted: every fault is off and none can start; flag rollouts go on".into()
                }
            );
            Ok(0)
        }
        Command::Resume { reason } => {
            let answer = client.post("/api/v1/resume", &json!({"reason": reason})).await?;
            println!("{}", if json { answer.to_string() } else { "the halt is lifted".into() });
            Ok(0)
        }
    }
}

async fn shown(client: &Client, path: &str, reason: &str, json: bool) -> Result<u8> {
    let answer = client.post(path, &json!({"reason": reason})).await?;
    if json {
        println!("{answer}");
    } else {
        print!("{}", text(&answer));
    }
    Ok(0)
}

/// Whether an experiment of this state can still change by itself.
pub fn is_live(state: &Value) -> bool {
    matches!(state.as_str(), Some("warm-up" | "running" | "held"))
}

async fn follow(client: &Client, id: &str, quiet: bool) -> Result<Value> {
    let mut last = String::new();
    loop {
        let answer = client.get(&format!("/api/v1/experiments/{id}")).await?;
        let line = progress(&answer);
        if !quiet && line != last {
            eprintln!("{line}");
            last = line;
        }
        if !is_live(&answer["state"]) {
            return Ok(answer);
        }
        if answer["id"].is_null() {
            return Err(anyhow!("the experiment {id} is gone"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The evidence against the stopping line, 0 to 1 and above.
pub fn evidence(experiment: &Value) -> (f64, f64) {
    let guardrail = experiment["guardrails"].as_array().into_iter().flatten().find(|g| g["name"] == "failures");
    let number = |key: &str| guardrail.and_then(|g| g[key].as_f64()).unwrap_or(0.0);
    (number("log_e"), number("log_threshold"))
}

/// One line of where it stands.
pub fn progress(e: &Value) -> String {
    let (log_e, line) = evidence(e);
    let arm = |name: &str| {
        let a = &e["arms"][name];
        format!("{} users, {} hurt", a["exposed"], a["hurt"])
    };
    format!(
        "{:8} stage {}  evidence {:5.2} of {:.2}  treatment {}  baseline {}",
        cell(&e["state"]),
        e["stage"],
        log_e,
        line,
        arm("treatment"),
        arm("baseline")
    )
}

/// What a treatment changes, in words.
fn changed(treatment: &Value) -> String {
    let flags = treatment["flags"].as_array().into_iter().flatten().map(|change| {
        let (what, of) =
            change.as_object().and_then(|map| map.iter().next()).map_or(("", &Value::Null), |(k, v)| (k, v));
        let kind = if what.ends_with("segment") { "segment" } else { "flag" };
        format!("{kind} {}", of.get("key").map_or_else(|| cell(of), cell))
    });
    let listed: Vec<String> = flags.collect();
    if !listed.is_empty() {
        return listed.join(", ");
    }
    match (treatment["flag"]["key"].as_str(), treatment["fault"]["route"].as_str()) {
        (Some(key), _) => format!("flag {key} to {}", cell(&treatment["flag"]["variant"])),
        (_, Some(route)) => format!("route {route}: a fault"),
        _ => String::new(),
    }
}

/// An experiment for people.
pub fn text(e: &Value) -> String {
    let mut text =
        format!("{} {}, {}\n{}\n", cell(&e["id"]), cell(&e["name"]), cell(&e["state"]), cell(&e["state_reason"]));
    text.push_str(&format!("changes {}\n", changed(&e["treatment"])));
    if let Some(person) = e["acceptance"]["by"].as_str() {
        let said = match e["acceptance"]["as_wanted"].as_bool() {
            None => "has not said yet whether it works as wanted",
            Some(true) => "says that it works as wanted",
            Some(false) => "says that it works as coded, not as wanted",
        };
        text.push_str(&format!("{person} {said}\n"));
    }
    let rows: Vec<Vec<String>> = ["treatment", "baseline"]
        .iter()
        .map(|name| {
            let arm = &e["arms"][*name];
            let mut row = vec![(*name).to_owned()];
            row.extend(["exposed", "windows", "hurt", "attempts", "successes", "failures"].map(|k| cell(&arm[k])));
            row
        })
        .collect();
    text.push_str(&table(&["arm", "users", "windows", "hurt", "attempts", "successes", "failures"], &rows));
    let rows: Vec<Vec<String>> = e["guardrails"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|g| ["name", "state", "log_e", "log_threshold", "detail"].map(|k| cell(&g[k])).to_vec())
        .collect();
    text.push_str(&table(&["guardrail", "state", "evidence", "line", "detail"], &rows));
    if !e["verdict"].is_null() {
        let v = &e["verdict"];
        text.push_str(&format!(
            "verdict: {}, audit index {}; {} users exposed, {} hurt ({} more than baseline lets expect), {:.1} s after the start of harm\n",
            cell(&v["outcome"]),
            v["audit_index"],
            v["subjects_exposed"],
            v["subjects_hurt"],
            v["excess_hurt"],
            v["seconds_to_stop"].as_f64().unwrap_or(0.0)
        ));
    }
    text
}
