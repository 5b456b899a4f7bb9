//! `seaworthy flag`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use http::Method;
use serde_json::{Value, json};

use crate::apply::{Why, impact, parts, rollout};
use crate::client::{Client, Server, cell, document, escaped, table};
use crate::{flag_life, flag_refs};

/// Make, show and switch off flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All flags.
    List,
    /// Make or change flags from a file: all flags and segments in it, or one definition with --key.
    Put {
        /// The file, in flagd's dialect or Seaworthy's, JSON or YAML.
        file: PathBuf,
        /// The file is the definition of this flag.
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        why: Why,
    },
    /// Flags that clients ask for or report and that do not exist.
    Unknown,
    /// Flags that should go: stale, expired, safe to remove; with the evidence.
    Stale,
    /// Clients that give users another variant than the pinned bucketing does. Exit code 1 if there is one.
    Drift,
    /// Changes that were made by breaking the glass.
    Reviews,
    /// One flag whole, now or as it was at a time.
    Show {
        /// The flag.
        key: String,
        /// A time such as 2026-11-24T14:32:00Z, or -15m.
        #[arg(long, allow_hyphen_values = true)]
        at: Option<String>,
    },
    /// Who changed a flag, when and why.
    History {
        /// The flag.
        key: String,
    },
    /// Why a subject gets what it gets: rule, clause, bucket.
    Explain {
        /// The flag.
        key: String,
        /// The subject.
        subject: String,
        /// An attribute: name=value; a value that is JSON counts as such.
        #[arg(long = "attr")]
        attributes: Vec<String>,
        /// A time such as 2026-11-24T14:32:00Z, or -15m.
        #[arg(long, allow_hyphen_values = true)]
        at: Option<String>,
    },
    /// All segments.
    Segments,
    /// All flags and segments as one document.
    Export {
        /// seaworthy, or flagd for clients that evaluate in process (what that cannot say is listed on standard error).
        #[arg(long, default_value = "seaworthy", value_parser = ["seaworthy", "flagd"])]
        form: String,
    },
    /// Switch a flag off for everybody, now.
    Kill {
        /// The flag.
        key: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Make a killed flag what it was before.
    Revive {
        /// The flag.
        key: String,
        #[command(flatten)]
        why: Why,
    },
    /// Remove a flag.
    Delete {
        /// The flag.
        key: String,
        #[command(flatten)]
        why: Why,
    },
    /// What a subject gets, and why.
    Evaluate {
        /// The flag.
        key: String,
        /// The subject.
        subject: String,
        /// An attribute: name=value; a value that is JSON counts as such.
        #[arg(long = "attr")]
        attributes: Vec<String>,
    },
    /// Where source code names flags; keys in code that are no flag; flags that no code names.
    Refs(flag_refs::Args),
}

/// Attributes given as name=value.
fn context(subject: &str, attributes: &[String]) -> Result<Value> {
    let mut context = serde_json::Map::from_iter([("targetingKey".to_owned(), subject.into())]);
    for attribute in attributes {
        let (name, value) = attribute.split_once('=').ok_or_else(|| anyhow!("{attribute:?} is not name=value"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        context.insert(name.to_owned(), value);
    }
    Ok(Value::Object(context))
}

/// The address of a change of one flag that is guarded.
fn guarded(key: &str, what: &str, why: &Why) -> String {
    let (key, reason) = (escaped(key), escaped(&why.reason));
    format!("/api/v1/flags/{key}{what}?reason={reason}&break_glass={}", why.break_glass)
}

fn answered(answer: &Value) -> String {
    let value = answer.get("value").filter(|v| !v.is_null()).map_or("the code default".to_owned(), cell);
    let variant = answer["variant"].as_str().filter(|name| !name.is_empty()).unwrap_or("-");
    format!("{value} (variant {variant}, {})", cell(&answer["reason"]))
}

/// Entries of the audit log as a table.
fn entries(answer: &Value) {
    let entries = answer["entries"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = entries
        .map(|e| {
            let mut row = ["index", "ts", "actor", "action", "resource", "reason"].map(|k| cell(&e[k])).to_vec();
            if e["break_glass"] == true {
                row[3].push_str(" (glass broken)");
            }
            row
        })
        .collect();
    print!("{}", table(&["audit index", "time", "who", "what", "on", "why"], &rows));
}

/// One step of an explanation, as a line.
fn step(step: &Value) -> String {
    let at = match (step["at"].as_str(), step["within"].as_str()) {
        (Some(at), Some(within)) => format!("({within}) {at}"),
        (at, _) => at.unwrap_or_default().to_owned(),
    };
    let mut said: Vec<String> = Vec::new();
    match step["holds"].as_bool() {
        Some(true) => said.push("yes".to_owned()),
        Some(false) => said.push("no".to_owned()),
        None => {}
    }
    for (name, value) in step.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "at" | "holds" | "within") {
            said.push(format!("{name} {}", cell(value)));
        }
    }
    format!("  {at:<32} {}", said.join(", ")).trim_end().to_owned()
}

pub async fn run(args: Args) -> Result<u8> {
    if let Command::Refs(refs) = &args.command {
        // With a document it needs neither server nor token.
        return flag_refs::run(refs, &args.server).await;
    }
    let client = Client::of(&args.server)?;
    let answer = match args.command {
        Command::Refs(_) => Value::Null, // answered above
        Command::List => {
            let answer = client.get("/api/v1/flags").await?;
            if !args.server.json {
                let rows: Vec<Vec<String>> = answer["flags"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|f| {
                        let mut row =
                            ["key", "state", "default_variant", "experiment", "version"].map(|k| cell(&f[k])).to_vec();
                        row.extend(flag_life::columns(f));
                        row
                    })
                    .collect();
                print!(
                    "{}",
                    table(
                        &["flag", "state", "default", "experiment", "audit index", "lifecycle", "last evaluated"],
                        &rows
                    )
                );
                return Ok(0);
            }
            answer
        }
        Command::Put { file, key, why } => {
            let document = document(&file)?;
            let document = match (key, document.get("flags")) {
                (Some(key), _) => json!({"flags": {key: document}}),
                (None, Some(_)) => document,
                (None, None) => return Err(anyhow!("{} has no `flags`; name the flag with --key", file.display())),
            };
            let (flags, segments) = parts(&file.display().to_string(), &document)?;
            let body =
                json!({"flags": flags, "segments": segments, "reason": why.reason, "break_glass": why.break_glass});
            let answer = client.post("/api/v1/apply", &body).await?;
            if !args.server.json {
                impact(&answer).iter().for_each(|line| println!("{line}"));
                for step in answer["plan"].as_array().into_iter().flatten() {
                    let key = cell(&step["key"]);
                    match step["action"].as_str() {
                        Some("same") => println!("{key} is the same already"),
                        _ if !answer["rollout"].is_null() => println!("{key} is not changed yet"),
                        _ => println!("{key} is in force, audit index {}", cell(&answer["audit_index"])),
                    }
                }
                if !answer["rollout"].is_null() {
                    println!("{}", rollout(&answer));
                }
            }
            answer
        }
        Command::Show { key, at } => {
            let at = at.map_or(String::new(), |at| format!("?at={}", escaped(&at)));
            let answer = client.get(&format!("/api/v1/flags/{}{at}", escaped(&key))).await?;
            if !args.server.json {
                for name in
                    ["key", "state", "kind", "owner", "description", "expires", "experiment", "promoted", "version"]
                {
                    if !answer[name].is_null() {
                        println!(
                            "{:<12} {}",
                            if name == "version" { "audit index" } else { name },
                            cell(&answer[name])
                        );
                    }
                }
                flag_life::lines(&answer["lifecycle"]).iter().for_each(|line| println!("{line}"));
                println!("{}", serde_json::to_string_pretty(&answer["definition"])?);
            }
            answer
        }
        Command::Stale => {
            let answer = client.get("/api/v1/stale-flags").await?;
            if !args.server.json {
                flag_life::stale(&answer);
            }
            answer
        }
        Command::Drift => {
            let answer = client.get("/api/v1/drift").await?;
            if args.server.json {
                println!("{answer}");
            } else {
                flag_life::drift(&answer);
            }
            return Ok(u8::from(answer["alarms"].as_u64() != Some(0)));
        }
        Command::History { key } => {
            let answer = client.get(&format!("/api/v1/flags/{}/history", escaped(&key))).await?;
            if !args.server.json {
                entries(&answer);
                return Ok(0);
            }
            answer
        }
        Command::Explain { key, subject, attributes, at } => {
            let body = json!({"context": context(&subject, &attributes)?, "at": at});
            let answer = client.post(&format!("/api/v1/flags/{}/explain", escaped(&key)), &body).await?;
            if !args.server.json {
                match answer.get("error").and_then(Value::as_str) {
                    Some(error) => println!("{}: {error}", cell(&answer["error_code"])),
                    None => println!("{}", answered(&answer)),
                }
                answer["steps"].as_array().into_iter().flatten().for_each(|s| println!("{}", step(s)));
            }
            answer
        }
        Command::Unknown => {
            let answer = client.get("/api/v1/unknown-flags").await?;
            if !args.server.json {
                let list = answer["flags"].as_array().into_iter().flatten();
                let rows: Vec<Vec<String>> =
                    list.map(|f| ["key", "evaluations", "last_evaluated"].map(|k| cell(&f[k])).to_vec()).collect();
                print!("{}", table(&["flag", "evaluations", "last"], &rows));
                return Ok(0);
            }
            answer
        }
        Command::Reviews => {
            let answer = client.get("/api/v1/reviews").await?;
            if !args.server.json {
                entries(&answer);
                return Ok(0);
            }
            answer
        }
        Command::Segments => {
            let answer = client.get("/api/v1/segments").await?;
            if !args.server.json {
                let rows: Vec<Vec<String>> = answer["segments"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|s| {
                        let count = |name: &str| s["definition"][name].as_array().map_or(0, Vec::len).to_string();
                        vec![cell(&s["key"]), count("include"), count("exclude"), cell(&s["definition"]["when"])]
                    })
                    .collect();
                print!("{}", table(&["segment", "included", "excluded", "when"], &rows));
                return Ok(0);
            }
            answer
        }
        Command::Export { form } => {
            let mut answer = client.get(&format!("/api/v1/export?form={form}")).await?;
            let left_out = answer.as_object_mut().and_then(|map| map.remove("left_out"));
            for (key, reason) in left_out.iter().filter_map(Value::as_object).flatten() {
                eprintln!("left out: {key}: {}", cell(reason));
            }
            println!("{}", serde_json::to_string_pretty(&answer)?);
            return Ok(0);
        }
        Command::Kill { key, reason } => {
            let answer =
                client.post(&format!("/api/v1/flags/{}/kill", escaped(&key)), &json!({"reason": reason})).await?;
            if !args.server.json {
                println!("{key} is off for everybody, audit index {}", answer["audit_index"]);
            }
            answer
        }
        Command::Revive { key, why } => {
            let answer = client.post(&guarded(&key, "/revive", &why), &json!({})).await?;
            if !args.server.json {
                impact(&answer).iter().for_each(|line| println!("{line}"));
                match answer["rollout"].is_null() {
                    true => println!("{key} is as it was before, audit index {}", answer["audit_index"]),
                    false => println!("{}", rollout(&answer)),
                }
            }
            answer
        }
        Command::Delete { key, why } => {
            let answer = client.call(Method::DELETE, &guarded(&key, "", &why), None).await?;
            if !args.server.json {
                match answer["rollout"].is_null() {
                    true => println!("{key} is gone, audit index {}", answer["audit_index"]),
                    false => println!("{}", rollout(&answer)),
                }
            }
            answer
        }
        Command::Evaluate { key, subject, attributes } => {
            let body = json!({"context": context(&subject, &attributes)?});
            let answer = client.post(&format!("/ofrep/v1/evaluate/flags/{}", escaped(&key)), &body).await?;
            if !args.server.json {
                println!("{}", answered(&answer));
            }
            answer
        }
    };
    if args.server.json {
        println!("{answer}");
    }
    Ok(0)
}
