//! `seaworthy profile`: rollout profiles.

use std::path::PathBuf;

use anyhow::Result;
use http::Method;
use serde_json::Value;

use crate::client::{Client, Server, cell, document, escaped, table};

/// Say how changes of flags are watched that become rollouts by themselves.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All profiles.
    List,
    /// One profile whole.
    Show {
        /// Its name.
        name: String,
    },
    /// Make or change one (admin).
    Put {
        /// Its name; flags name it in `metadata.profile`.
        name: String,
        /// What it says, YAML or JSON.
        file: PathBuf,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Remove one (admin).
    Delete {
        /// Its name.
        name: String,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let path = |name: &str, reason: &str| format!("/api/v1/profiles/{}?reason={}", escaped(name), escaped(reason));
    let (answer, said) = match args.command {
        Command::List => {
            let answer = client.get("/api/v1/profiles").await?;
            let list = answer["profiles"].as_array().into_iter().flatten();
            let rows: Vec<Vec<String>> = list
                .map(|p| {
                    let mut row = ["name", "owner", "version"].map(|k| cell(&p[k])).to_vec();
                    row.push(if p["default"] == true { "for flags that name none" } else { "" }.to_owned());
                    row
                })
                .collect();
            let text = table(&["profile", "owner", "audit index", ""], &rows);
            (answer, text)
        }
        Command::Show { name } => {
            let answer = client.get(&format!("/api/v1/profiles/{}", escaped(&name))).await?;
            let text = serde_json::to_string_pretty(&answer["definition"])? + "\n";
            (answer, text)
        }
        Command::Put { name, file, reason } => {
            let definition: Value = document(&file)?;
            let answer = client.call(Method::PUT, &path(&name, &reason), Some(&definition)).await?;
            let text = format!("{name} is in force, audit index {}\n", cell(&answer["audit_index"]));
            (answer, text)
        }
        Command::Delete { name, reason } => {
            let answer = client.call(Method::DELETE, &path(&name, &reason), None).await?;
            let text = format!("{name} is gone, audit index {}\n", cell(&answer["audit_index"]));
            (answer, text)
        }
    };
    if args.server.json {
        println!("{answer}");
    } else {
        print!("{said}");
    }
    Ok(0)
}
