//! `seaworthy audit`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use files::Disk;
use serde_json::json;

use crate::client::{Client, Server, cell, table};

/// Read and verify the audit log.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The newest entries.
    List {
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// A proof that an entry is in the log (C2SP tlog-proof).
    Proof {
        /// The entry.
        index: u64,
    },
    /// Verify a log offline, from its directory alone.
    Verify {
        /// The data directory.
        #[arg(long, default_value = "./seaworthy-data")]
        data: PathBuf,
        /// The key to trust; the log's own `vkey` file if not given.
        #[arg(long)]
        key: Option<String>,
    },
}

pub async fn run(args: Args) -> Result<u8> {
    match args.command {
        Command::List { limit } => {
            let answer = Client::of(&args.server)?.get(&format!("/api/v1/audit?limit={limit}")).await?;
            if args.server.json {
                println!("{answer}");
                return Ok(0);
            }
            let rows: Vec<Vec<String>> = answer["entries"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| ["index", "ts", "actor", "action", "resource", "reason"].map(|k| cell(&e[k])).to_vec())
                .collect();
            print!("{}", table(&["index", "time", "actor", "action", "resource", "reason"], &rows));
            Ok(0)
        }
        Command::Proof { index } => {
            let path = format!("/api/v1/audit/{index}/proof");
            let bytes = Client::of(&args.server)?.bytes(http::Method::GET, &path, None).await?;
            print!("{}", String::from_utf8_lossy(&bytes));
            Ok(0)
        }
        Command::Verify { data, key } => {
            let key = key.as_deref().map(audit::VerifyingKey::parse).transpose()?;
            if !data.join("audit").is_dir() {
                anyhow::bail!("{} holds no audit log: name the data directory with --data", data.display());
            }
            let files = Disk::open(&data).with_context(|| format!("cannot open {}", data.display()))?;
            let outcome = audit::verify(&files, "audit", key.as_ref(), |_, _| ());
            let (report, code) = match &outcome {
                Ok(report) => {
                    let root: String = report.root.iter().map(|b| format!("{b:02x}")).collect();
                    (
                        json!({"verified": true, "size": report.size, "origin": report.origin, "root": root, "tiles": report.tiles}),
                        0,
                    )
                }
                Err(error) => {
                    let detail = format!("{:#}", anyhow::anyhow!("{error}"));
                    (json!({"verified": false, "reason": detail}), 1)
                }
            };
            if args.server.json {
                println!("{report}");
            } else {
                match outcome {
                    Ok(found) => println!(
                        "verified: {} entries, {} tiles, root {}",
                        found.size,
                        found.tiles,
                        cell(&report["root"])
                    ),
                    Err(error) => println!("NOT verified: {error}"),
                }
            }
            Ok(code)
        }
    }
}
