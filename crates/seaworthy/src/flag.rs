//! `seaworthy flag`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use http::Method;
use serde_json::{Value, json};

use crate::client::{Client, Server, cell, document, table};
use crate::flag_refs;

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
    /// Make or change flags from a flagd file: all flags in it, or one definition with --key.
    Put {
        /// The file.
        file: PathBuf,
        /// The file is the definition of this flag.
        #[arg(long)]
        key: Option<String>,
    },
    /// Switch a flag off for everybody, now.
    Kill {
        /// The flag.
        key: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Remove a flag.
    Delete {
        /// The flag.
        key: String,
    },
    /// What a subject gets, and why.
    Evaluate {
        /// The flag.
        key: String,
        /// The subject.
        subject: String,
    },
    /// Where source code names flags; keys in code that are no flag; flags that no code names.
    Refs(flag_refs::Args),
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
                    .map(|f| ["key", "state", "default_variant", "experiment", "version"].map(|k| cell(&f[k])).to_vec())
                    .collect();
                print!("{}", table(&["flag", "state", "default", "experiment", "audit index"], &rows));
                return Ok(0);
            }
            answer
        }
        Command::Put { file, key } => {
            let document = document(&file)?;
            let flags: Vec<(String, Value)> = match (key, document.get("flags").and_then(Value::as_object)) {
                (Some(key), _) => vec![(key, document)],
                (None, Some(flags)) => flags.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
                (None, None) => return Err(anyhow!("{} has no `flags`; name the flag with --key", file.display())),
            };
            let mut indexes = serde_json::Map::new();
            for (key, definition) in flags {
                let answer = client.call(Method::PUT, &format!("/api/v1/flags/{key}"), Some(&definition)).await?;
                if !args.server.json {
                    println!("{key} is in force, audit index {}", answer["audit_index"]);
                }
                indexes.insert(key, answer["audit_index"].clone());
            }
            Value::Object(indexes)
        }
        Command::Kill { key, reason } => {
            let answer = client.post(&format!("/api/v1/flags/{key}/kill"), &json!({"reason": reason})).await?;
            if !args.server.json {
                println!("{key} is off for everybody, audit index {}", answer["audit_index"]);
            }
            answer
        }
        Command::Delete { key } => {
            let answer = client.call(Method::DELETE, &format!("/api/v1/flags/{key}"), None).await?;
            if !args.server.json {
                println!("{key} is gone, audit index {}", answer["audit_index"]);
            }
            answer
        }
        Command::Evaluate { key, subject } => {
            let body = json!({"context": {"targetingKey": subject}});
            let answer = client.post(&format!("/ofrep/v1/evaluate/flags/{key}"), &body).await?;
            if !args.server.json {
                let value = answer.get("value").map_or("the code default".to_owned(), cell);
                println!("{value} (variant {}, {})", cell(&answer["variant"]), cell(&answer["reason"]));
            }
            answer
        }
    };
    if args.server.json {
        println!("{answer}");
    }
    Ok(0)
}
