//! `seaworthy proxy`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;

use crate::client::asked_to_go;

/// How to run the data plane.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file (docs/reference/proxy.md).
    #[arg(long)]
    config: PathBuf,
    /// Only check the configuration.
    #[arg(long)]
    check: bool,
    /// Print one line of JSON when ready: the address.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<u8> {
    let config = proxy::Config::load(&args.config)?;
    if args.check {
        println!("{} is fine: {} routes", args.config.display(), config.routes.len());
        return Ok(0);
    }
    let token = match &config.token_file {
        Some(path) => {
            Some(std::fs::read_to_string(path).with_context(|| format!("cannot read token_file {}", path.display()))?)
        }
        None => std::env::var("SEAWORTHY_TOKEN").ok(),
    };
    let name = config.name.clone();
    let started = |address: std::net::SocketAddr| {
        if args.json {
            println!("{}", json!({"address": address}));
        } else {
            println!("seaworthy proxy {name} listens on http://{address}");
        }
    };
    proxy::serve(config, token.map(|t| t.trim().to_owned()), started, asked_to_go()).await?;
    Ok(0)
}
