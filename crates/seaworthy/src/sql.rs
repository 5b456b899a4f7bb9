//! `seaworthy sql`: ask with SQL. A client: the server must have been built with the cargo feature `sql`.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::client::{Client, Server};
use crate::query::{Format, print};

/// Statements are shorter; the server says so of a longer one.
const STATEMENT_BYTES_MAX: u64 = 1 << 20;
/// How much longer than the server one waits.
const WAY: u64 = 10;

/// Ask with SQL.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// One statement that reads, e.g. 'SELECT "service.name", count(*) FROM events GROUP BY 1'; - reads standard input.
    #[arg(allow_hyphen_values = true)]
    statement: String,
    /// Events from: a time, -15m, or all; the last two hours if it is not given.
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// Events to: a time, or -5m.
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Rows in the answer; at most 100,000.
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    /// Seconds that it may take; at most 300.
    #[arg(long, default_value_t = 25)]
    timeout: u64,
    /// table, json, csv or arrow (an Arrow IPC stream).
    #[arg(long, default_value = "table")]
    format: Format,
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?.patient(Duration::from_secs(args.timeout.saturating_add(WAY)));
    let statement = match args.statement.as_str() {
        "-" => {
            let mut text = String::new();
            let mut input = std::io::stdin().lock().take(STATEMENT_BYTES_MAX);
            input.read_to_string(&mut text).context("standard input")?;
            text
        }
        text => text.to_owned(),
    };
    let body =
        json!({"sql": statement, "from": args.from, "to": args.to, "limit": args.limit, "timeout_s": args.timeout});
    if let Some(media) = args.format.media() {
        let bytes = client.post_for("/api/v1/sql", &body, media).await?;
        std::io::stdout().write_all(&bytes)?;
        return Ok(0);
    }
    let answer = client.post("/api/v1/sql", &body).await?;
    if args.server.json || args.format == Format::Json {
        println!("{answer}");
        return Ok(0);
    }
    print(&answer);
    let rows = answer["rows"].as_array().map_or(0, Vec::len);
    let more = if answer["has_more"] == true { "; there is more: --limit" } else { "" };
    let ms = answer.get("elapsed_ms").and_then(Value::as_f64).unwrap_or(0.0);
    eprintln!("{rows} rows, {ms:.0} ms{more}");
    Ok(0)
}
