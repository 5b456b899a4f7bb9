//! `seaworthy ingest`: JSON lines and JUnit reports into the events, in batches, so that a file of any length takes little memory.
//!
//! A batch is known by its lines, its place in the input and what is set for each line: the server stores it once within 15 minutes.
//! So a run that broke off is simply run again.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use records::junit;
use records::lines::{LINE_BYTES_MAX, LineError};
use serde_json::{Value, json};

use crate::client::{Client, Server, cell, escaped};

/// Lines of one request.
const BATCH_LINES: u64 = 2_000;
/// Bytes of one request; a line more may be in it.
const BATCH_BYTES: usize = 1 << 20;
/// Refused lines that are shown; further ones are counted.
const REFUSALS_SHOWN: usize = 100;

/// Store events from a file.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// The file; `-` is standard input.
    file: PathBuf,
    /// jsonl (one JSON object a line) or junit (a report of tests); by the file's name unless told: .xml is junit.
    #[arg(long)]
    format: Option<Format>,
    /// The field that is the time; `time`, `timestamp` or `@timestamp` unless told.
    #[arg(long)]
    time_field: Option<String>,
    /// An attribute for every event, as name=value; several times.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// The service that every event is of (`service.name`).
    #[arg(long)]
    service: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Jsonl,
    Junit,
}

/// What became of the events so far.
#[derive(Default)]
struct Outcome {
    stored: u64,
    known_already: u64,
    refused: u64,
    refusals: Vec<Value>,
    warnings: u64,
}

impl Outcome {
    fn refuse(&mut self, line: u64, reason: &str) {
        self.refused += 1;
        self.show(json!({"line": line, "reason": reason}));
    }

    fn show(&mut self, refusal: Value) {
        if self.refusals.len() < REFUSALS_SHOWN {
            self.refusals.push(refusal);
        }
    }

    /// Takes in an answer of the server.
    fn add(&mut self, answer: &Value) {
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.stored += count("stored");
        self.known_already += count("known_already");
        self.refused += count("refused");
        answer["refusals"].as_array().into_iter().flatten().for_each(|refusal| self.show(refusal.clone()));
        if let Some(warning) = answer["warning"].as_str() {
            // The same again for each batch would say no more.
            if self.warnings == 0 {
                eprintln!("warning: {warning}");
            }
            self.warnings += 1;
        }
    }
}

/// Sends lines; knows their numbers.
struct Sender<'a> {
    client: &'a Client,
    /// Parameters of every request.
    shape: String,
    lines: Vec<u8>,
    n_lines: u64,
    first: u64,
    outcome: Outcome,
}

impl Sender<'_> {
    async fn push(&mut self, number: u64, line: &[u8]) -> Result<()> {
        if self.n_lines == 0 {
            self.first = number;
        }
        self.lines.extend_from_slice(line);
        self.lines.push(b'\n');
        self.n_lines += 1;
        if self.n_lines >= BATCH_LINES || self.lines.len() >= BATCH_BYTES {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        if self.n_lines == 0 {
            return Ok(());
        }
        let body = Bytes::from(std::mem::take(&mut self.lines));
        self.n_lines = 0;
        let path = format!("/api/v1/events?first_line={}{}", self.first, self.shape);
        let answer = self.client.post_lines(&path, body).await.inspect_err(|_| {
            let stored = self.outcome.stored + self.outcome.known_already;
            eprintln!(
                "broken off before line {}, with {stored} events stored: run it again within 15 minutes, and none is stored twice",
                self.first
            );
        })?;
        self.outcome.add(&answer);
        Ok(())
    }
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let mut shape = String::new();
    for pair in &args.set {
        if pair.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            bail!("--set {pair:?}: write it as name=value");
        }
        shape.push_str(&format!("&set={}", escaped(pair)));
    }
    for (name, value) in [("time_field", &args.time_field), ("service", &args.service)] {
        if let Some(value) = value {
            shape.push_str(&format!("&{name}={}", escaped(value)));
        }
    }
    let format = args.format.unwrap_or_else(|| match args.file.extension() {
        Some(ending) if ending.eq_ignore_ascii_case("xml") => Format::Junit,
        _ => Format::Jsonl,
    });
    let mut sender =
        Sender { client: &client, shape, lines: Vec::new(), n_lines: 0, first: 1, outcome: Outcome::default() };
    let input = open(&args.file)?;
    match format {
        Format::Jsonl => send_lines(input, &mut sender, &args.file).await?,
        Format::Junit => send_report(input, &mut sender, &args.file).await?,
    }
    sender.send().await?;
    let Outcome { stored, known_already, refused, refusals, .. } = sender.outcome;
    if args.server.json {
        let answer =
            json!({"stored": stored, "known_already": known_already, "refused": refused, "refusals": refusals});
        println!("{answer}");
        return Ok(u8::from(refused > 0));
    }
    let place = if format == Format::Junit { " case " } else { "" };
    for refusal in &refusals {
        eprintln!("{}:{place}{}: {}", args.file.display(), cell(&refusal["line"]), cell(&refusal["reason"]));
    }
    if refused > refusals.len() as u64 {
        eprintln!("and {} more", refused - refusals.len() as u64);
    }
    let known = if known_already > 0 { format!(", {known_already} known already") } else { String::new() };
    println!("{stored} events stored{known}, {refused} refused");
    Ok(u8::from(refused > 0))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

async fn send_lines(mut input: Box<dyn BufRead>, sender: &mut Sender<'_>, path: &Path) -> Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let unreadable = || format!("cannot read {} beyond line {}", path.display(), number - 1);
        // One byte more tells a line that is too long from one that just fits.
        let read = input.by_ref().take(LINE_BYTES_MAX as u64 + 2).read_until(b'\n', &mut line);
        if read.with_context(unreadable)? == 0 {
            return Ok(());
        }
        let ended = line.pop_if(|byte| *byte == b'\n').is_some();
        if line.len() > LINE_BYTES_MAX {
            // Numbers within a batch are counted from its first.
            sender.send().await?;
            sender.outcome.refuse(number, &LineError::TooLong.to_string());
            if !ended {
                input.skip_until(b'\n').with_context(unreadable)?;
            }
            continue;
        }
        sender.push(number, &line).await?;
    }
    Ok(())
}

async fn send_report(input: Box<dyn BufRead>, sender: &mut Sender<'_>, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    let read = input.take(junit::REPORT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    let report = junit::read(&bytes);
    drop(bytes);
    for (number, case) in (1..).zip(report.cases) {
        sender.push(number, Value::Object(case).to_string().as_bytes()).await?;
    }
    if let Some(error) = report.error {
        eprintln!("{}: {error}; what came before is kept", path.display());
        sender.outcome.refused += 1;
    }
    Ok(())
}
