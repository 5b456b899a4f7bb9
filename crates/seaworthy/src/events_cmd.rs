//! `seaworthy events`: what is stored, looked at without a server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::json;

/// How to look.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare every stored event with its checksum; exit code 1 if something is damaged. A server may run meanwhile.
    Check {
        /// The data directory.
        #[arg(long, default_value = "./seaworthy-data")]
        data: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub fn run(args: &Args) -> Result<u8> {
    let Command::Check { data, json } = &args.command;
    if !data.join("events").is_dir() {
        bail!("there are no events in {}: name the data directory with --data", data.display());
    }
    let files = files::Disk::open(data).with_context(|| format!("failed to open {}", data.display()))?;
    let checked = server::check_events(Arc::new(files), "events").context("failed to read the events")?;
    if *json {
        let damage = &checked.damage;
        println!(
            "{}",
            json!({"files": checked.files, "rows": checked.rows, "batches": checked.batches, "damage": damage})
        );
        return Ok(u8::from(!damage.is_empty()));
    }
    println!(
        "{} files with {} events, {} batches in the write-ahead log",
        checked.files, checked.rows, checked.batches
    );
    for damage in &checked.damage {
        println!("damaged  {damage}");
    }
    if checked.damage.is_empty() {
        println!("all of it is as it was written");
        return Ok(0);
    }
    println!("Restore these files from a copy, or move them away: answers leave them out meanwhile, and say so.");
    Ok(1)
}
