//! `seaworthy query`.

use anyhow::Result;
use serde_json::{Value, json};

use crate::client::{Client, Server, cell, table};

/// Ask the events.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// Which events, e.g. "service.name = 'web' and duration_ms > 300".
    #[arg(long = "where", default_value = "")]
    filter: String,
    /// Attributes to group by, separated by commas.
    #[arg(long, value_delimiter = ',')]
    group_by: Vec<String>,
    /// count, count_distinct(f), sum(f), avg(f), min(f), max(f), p99(f), separated by commas; none gives raw rows.
    #[arg(long, value_delimiter = ',')]
    calculate: Vec<String>,
    /// From: a time, or -15m.
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// To: a time, or -5m.
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Width of time buckets, e.g. 10s.
    #[arg(long)]
    step: Option<String>,
    /// Lines in the answer.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let step = args.step.as_deref().map(vocab::Millis::parse).transpose()?;
    let body = json!({"where": args.filter, "group_by": args.group_by, "calculate": args.calculate, "from": args.from,
        "to": args.to, "step_ms": step, "limit": args.limit});
    let answer = client.post("/api/v1/query", &body).await?;
    if args.server.json {
        println!("{answer}");
        return Ok(0);
    }
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    if args.calculate.is_empty() {
        for row in &rows {
            println!("{row}");
        }
    } else {
        let mut header: Vec<&str> = if step.is_some() { vec!["time"] } else { vec![] };
        header.extend(args.group_by.iter().chain(&args.calculate).map(String::as_str));
        let cells: Vec<Vec<String>> = rows.iter().map(|row| header.iter().map(|k| cell(&row[*k])).collect()).collect();
        print!("{}", table(&header, &cells));
    }
    let number = |key: &str| answer.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    eprintln!("{} of {} events, {:.0} ms", number("rows_matched"), number("rows_scanned"), number("elapsed_ms"));
    Ok(0)
}
