//! `seaworthy query`, `trace`, `map`, `fields`: ask the events.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use crate::client::{Client, Server, cell, escaped, table};

/// Ask the events.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// Which events, e.g. "service.name = 'web' and duration_ms > 300".
    #[arg(long = "where", default_value = "")]
    filter: String,
    /// Fields or expressions to group by; several times, or separated by commas.
    #[arg(long)]
    group_by: Vec<String>,
    /// count, rate, concurrency, count_distinct(f), sum(f), avg(f), min(f), max(f), rate_sum(f), p99(f), histogram(f),
    /// heatmap(f), separated by commas; none gives raw rows.
    #[arg(long)]
    calculate: Vec<String>,
    /// A calculated field, e.g. "slow = if(duration_ms > 300, 'slow', 'fine')"; several times.
    #[arg(long = "let")]
    calculated: Vec<String>,
    /// Which groups, e.g. "count > 100 and p99(duration_ms) >= 250".
    #[arg(long)]
    having: Option<String>,
    /// In which order, e.g. "count desc" or -count; several times.
    #[arg(long, allow_hyphen_values = true)]
    order: Vec<String>,
    /// Fields or expressions of raw rows, separated by commas.
    #[arg(long)]
    fields: Vec<String>,
    /// From: a time, or -15m.
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// To: a time, or -5m.
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Width of time buckets, e.g. 10s.
    #[arg(long)]
    step: Option<String>,
    /// Lines for time buckets without events, too.
    #[arg(long)]
    fill: bool,
    /// The figures of the window that is so much earlier, beside, e.g. 1d.
    #[arg(long)]
    compare_to: Option<String>,
    /// Lines left out before the first.
    #[arg(long, default_value_t = 0)]
    offset: usize,
    /// Lines in the answer.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// table, json, csv or arrow (an Arrow IPC stream).
    #[arg(long, default_value = "table")]
    format: Format,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Json,
    Csv,
    Arrow,
}

impl Format {
    /// The media type of what the server makes and is printed as it is.
    pub fn media(self) -> Option<&'static str> {
        match self {
            Format::Csv => Some("text/csv"),
            Format::Arrow => Some("application/vnd.apache.arrow.stream"),
            Format::Table | Format::Json => None,
        }
    }
}

/// The rows of an answer under its columns; what is missing goes to standard error.
pub fn print(answer: &Value) {
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    let columns: Vec<&str> = answer["columns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if columns.is_empty() {
        rows.iter().for_each(|row| println!("{row}"));
    } else {
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| columns.iter().map(|k| shown(&row[*k])).collect()).collect();
        print!("{}", table(&columns, &cells));
    }
    for reason in answer["incomplete"].as_array().into_iter().flatten() {
        eprintln!("incomplete: {}", cell(reason));
    }
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let mut calculated = Vec::new();
    for text in &args.calculated {
        let Some((name, expression)) = text.split_once('=') else {
            anyhow::bail!("--let {text:?}: write it as name = expression");
        };
        calculated.push(json!({"name": name.trim(), "expression": expression.trim()}));
    }
    let body = json!({"where": args.filter, "group_by": listed(&args.group_by), "calculate": listed(&args.calculate),
        "calculated_fields": calculated, "having": Vec::from_iter(&args.having), "order": args.order, "fields": listed(&args.fields),
        "from": args.from, "to": args.to, "step": args.step, "fill": args.fill, "compare_to": args.compare_to,
        "offset": args.offset, "limit": args.limit});
    if let Some(media) = args.format.media() {
        let bytes = client.post_for("/api/v1/query", &body, media).await?;
        std::io::stdout().write_all(&bytes)?;
        return Ok(0);
    }
    let answer = client.post("/api/v1/query", &body).await?;
    if args.server.json || args.format == Format::Json {
        println!("{answer}");
        return Ok(0);
    }
    print(&answer);
    let number = |key: &str| answer.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let more = if answer["has_more"] == true { "; there is more: --limit, --offset" } else { "" };
    eprintln!("{} of {} events, {:.0} ms{more}", number("rows_matched"), number("rows_scanned"), number("elapsed_ms"));
    Ok(0)
}

/// What is separated by commas, but for those within parentheses, quotes and backticks: `region,bucket(duration_ms, 100)`.
fn listed(texts: &[String]) -> Vec<&str> {
    let mut parts = Vec::new();
    for text in texts {
        let (mut from, mut depth, mut quote) = (0, 0_i32, None);
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (Some('\'' | '"'), '\\') => _ = chars.next(),
                (Some(open), c) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"' | '`') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, ')') => depth -= 1,
                (None, ',') if depth == 0 => {
                    parts.push(&text[from..at]);
                    from = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[from..]);
    }
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// A cell; a histogram as a row of bars over its range.
fn shown(value: &Value) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const WIDTH: usize = 32;
    let Some(buckets) = value.as_array() else { return cell(value) };
    let number = |bucket: &Value, key: &str| bucket[key].as_f64().unwrap_or(0.0);
    let (Some(first), Some(last)) = (buckets.first(), buckets.last()) else { return "-".to_owned() };
    let chunk = buckets.len().div_ceil(WIDTH);
    let counts: Vec<f64> = buckets.chunks(chunk).map(|part| part.iter().map(|b| number(b, "count")).sum()).collect();
    let most = counts.iter().copied().fold(1.0, f64::max);
    let bar = |count: &f64| match *count {
        n if n <= 0.0 => ' ',
        n => BARS[((n / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    let bars: String = counts.iter().map(bar).collect();
    format!("{:.3} {bars} {:.3}", number(first, "low"), number(last, "high"))
}

/// One trace, callers before those they call.
#[derive(Debug, clap::Args)]
pub struct TraceArgs {
    #[command(flatten)]
    server: Server,
    /// The trace id: 32 hex digits.
    id: String,
}

pub async fn trace(args: TraceArgs) -> Result<u8> {
    let answer = Client::of(&args.server)?.get(&format!("/api/v1/traces/{}", escaped(&args.id))).await?;
    if args.server.json {
        println!("{answer}");
        return Ok(0);
    }
    let none = Vec::new();
    let spans = answer["spans"].as_array().unwrap_or(&none);
    let mut rows = Vec::new();
    for span in spans {
        let indent = "  ".repeat(span["depth"].as_u64().unwrap_or(0).min(40) as usize);
        let row = &span["row"];
        let mark = if span["parent_missing"] == true { "? " } else { "" };
        let failed = if row["error"] == true { "failed" } else { "" };
        let ms = row["duration_ms"].as_f64().map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let name = format!("{indent}{mark}{}", cell(&row["name"]));
        rows.push(vec![name, cell(&row["service.name"]), ms, cell(&row["time"]), failed.to_owned()]);
        for event in span["events"].as_array().into_iter().flatten() {
            let name = format!("{indent}  · {}", cell(&event["name"]));
            rows.push(vec![name, String::new(), String::new(), cell(&event["time"]), String::new()]);
        }
        for link in span["links"].as_array().into_iter().flatten() {
            let name = format!("{indent}  → trace {}", cell(&link["link.trace_id"]));
            rows.push(vec![name, String::new(), String::new(), cell(&link["time"]), String::new()]);
        }
    }
    print!("{}", table(&["name", "service", "ms", "time", ""], &rows));
    for missing in answer["missing"].as_array().into_iter().flatten() {
        println!("span {} is named as a parent and is not there (marked ?)", cell(missing));
    }
    Ok(0)
}

/// A time, and which events of it.
#[derive(Debug, clap::Args)]
pub struct WindowArgs {
    #[command(flatten)]
    server: Server,
    /// From: a time, or -15m.
    #[arg(long, allow_hyphen_values = true)]
    from: Option<String>,
    /// To: a time, or -5m.
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
}

impl WindowArgs {
    async fn ask(&self, path: &str) -> Result<Value> {
        let given = [("from", &self.from), ("to", &self.to)];
        let parameters: Vec<String> =
            given.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value.as_deref()?)))).collect();
        Client::of(&self.server)?.get(&format!("{path}?{}", parameters.join("&"))).await
    }
}

/// Which services call which.
pub async fn map(args: WindowArgs) -> Result<u8> {
    let answer = args.ask("/api/v1/services/map").await?;
    if args.server.json {
        println!("{answer}");
        return Ok(0);
    }
    let ms = |value: &Value| value.as_f64().map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    let calls = answer["calls"].as_array().cloned().unwrap_or_default();
    let row = |call: &Value| {
        let [caller, callee] = ["caller", "callee"].map(|key| cell(&call[key]));
        vec![caller, callee, cell(&call["calls"]), cell(&call["errors"]), ms(&call["p50_ms"]), ms(&call["p99_ms"])]
    };
    let rows: Vec<Vec<String>> = calls.iter().map(row).collect();
    print!("{}", table(&["caller", "callee", "calls", "errors", "p50 ms", "p99 ms"], &rows));
    Ok(0)
}

/// Which fields events have.
pub async fn fields(args: WindowArgs) -> Result<u8> {
    let answer = args.ask("/api/v1/fields").await?;
    if args.server.json {
        println!("{answer}");
        return Ok(0);
    }
    let list = |value: &Value| -> String {
        value.as_array().into_iter().flatten().map(cell).collect::<Vec<_>>().join(", ").chars().take(60).collect()
    };
    let fields = answer["fields"].as_array().cloned().unwrap_or_default();
    let row = |f: &Value| vec![cell(&f["name"]), list(&f["types"]), cell(&f["rows"]), list(&f["samples"])];
    let rows: Vec<Vec<String>> = fields.iter().map(row).collect();
    print!("{}", table(&["field", "types", "events", "values"], &rows));
    let refused = &answer["names_refused"];
    if refused["count"].as_u64().is_some_and(|count| count > 0) {
        let (count, max) = (cell(&refused["count"]), cell(&refused["max"]));
        let examples = list(&refused["examples"]);
        eprintln!("{count} attributes were left out since the start: more than {max} names, such as {examples}");
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
