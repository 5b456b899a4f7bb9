//! `seaworthy compare`: what is different about these.

use anyhow::Result;
use serde_json::{Value, json};

use crate::client::{Client, Server, cell, table};

/// What is different about the events that match.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// Which events, e.g. "duration_ms > 1000".
    #[arg(long = "where", required_unless_present = "experiment")]
    filter: Option<String>,
    /// Compared with these; the rest if not given.
    #[arg(long)]
    baseline_where: Option<String>,
    /// Compare the hurt and the unhurt users of this experiment instead.
    #[arg(long, conflicts_with = "filter")]
    experiment: Option<String>,
    /// From: a time, or -15m.
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// To: a time, or -5m.
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let answer = match &args.experiment {
        Some(id) => client.get(&format!("/api/v1/experiments/{id}/comparison")).await?,
        None => {
            let body =
                json!({"where": args.filter, "baseline_where": args.baseline_where, "from": args.from, "to": args.to});
            client.post("/api/v1/compare", &body).await?
        }
    };
    if args.server.json {
        println!("{answer}");
    } else {
        print!("{}", text(&answer));
    }
    Ok(0)
}

/// The comparison for people.
pub fn text(comparison: &Value) -> String {
    let side = |key: &str| format!("{} {}", cell(&comparison[key]["n"]), cell(&comparison[key]["name"]));
    let percent = |value: &Value| format!("{:.0} %", value.as_f64().unwrap_or(0.0) * 100.0);
    let mut text = format!(
        "{} beside {}, {} attributes: {}\n",
        side("selected"),
        side("baseline"),
        comparison["attributes_compared"],
        cell(&comparison["summary"])
    );
    for cause in comparison["causes"].as_array().into_iter().flatten() {
        let shares = format!("{} beside {}", percent(&cause["selected_share"]), percent(&cause["baseline_share"]));
        text.push_str(&format!("  {}  {shares}\n", cell(&cause["filter"])));
        let same: Vec<String> = cause["aliases"].as_array().into_iter().flatten().map(|a| cell(&a["filter"])).collect();
        if !same.is_empty() {
            text.push_str(&format!("      says the same: {}\n", same.join(", ")));
        }
    }
    for note in comparison["notes"].as_array().into_iter().flatten() {
        text.push_str(&format!("  note: {}\n", cell(note)));
    }
    for left_out in comparison["incomplete"].as_array().into_iter().flatten() {
        text.push_str(&format!("  left out: {}\n", cell(left_out)));
    }
    let rows: Vec<Vec<String>> = comparison["ranked"]
        .as_array()
        .into_iter()
        .flatten()
        .take(8)
        .map(|r| {
            let score = format!("{:.2}", r["score"].as_f64().unwrap_or(0.0));
            vec![
                cell(&r["attribute"]),
                cell(&r["value"]),
                percent(&r["selected_share"]),
                percent(&r["baseline_share"]),
                score,
                r["explained_by"].as_str().map(|by| format!("explained by {by}")).unwrap_or_default(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(&["attribute", "value", "selected", "baseline", "score", ""], &rows));
    }
    let apart: Vec<String> = comparison["apart"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|a| format!("{} ({})", cell(&a["attribute"]), cell(&a["why"])))
        .collect();
    if !apart.is_empty() {
        text.push_str(&format!("apart, never ranked: {}\n", apart.join(", ")));
    }
    text
}
