//! `seaworthy serve`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::client::{asked_to_go, token_path};

/// How to run the control plane.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data directory.
    #[arg(long, default_value = "./seaworthy-data")]
    data: PathBuf,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7777")]
    listen: SocketAddr,
    /// Also listen on OTLP's standard ports 4317 and 4318, and on 127.0.0.1 on flagd's 8013 to 8016 (without tokens: whoever
    /// reaches these reads all flags).
    #[arg(long)]
    standard_ports: bool,
    /// Requests a second that one token may make by OFREP (on 8016: one address); above it, 429. 0 is without end.
    #[arg(long, default_value_t = 10_000)]
    ofrep_rate_limit: u32,
    /// An origin whose pages may evaluate flags, e.g. `https://shop.example`; may be given several times. `*`: all pages.
    #[arg(long)]
    cors_origin: Vec<String>,
    /// For development: changes of flags are not refused for moving many users at once; the answer still says how many.
    #[arg(long)]
    dev: bool,
    /// Events older than this become Parquet files, which are smaller and slower to ask.
    #[arg(long, default_value = "3d", value_parser = vocab::Millis::parse)]
    events_cold_after: vocab::Millis,
    /// Events older than this are removed; without it they are kept.
    #[arg(long, value_parser = vocab::Millis::parse)]
    events_drop_after: Option<vocab::Millis>,
    /// While the events of before take more than so many GiB on disk, the oldest are removed; with --events-bucket only from
    /// this disk: they are read from the bucket then.
    #[arg(long)]
    events_max_gib: Option<u64>,
    /// Events that make a segment. Fewer make small files sooner, for tests of what happens to files.
    #[arg(long, hide = true, default_value_t = server::SEGMENT_ROWS)]
    events_segment_rows: usize,
    /// Share events with other servers over a bucket: `s3://bucket/prefix`, `gs://…`, `az://…` or `file:///directory`. Credentials
    /// come from the environment, such as AWS_ACCESS_KEY_ID.
    #[arg(long)]
    events_bucket: Option<String>,
    /// Events are acknowledged when they are on this disk, or when they are in the bucket, too, which takes longer.
    #[arg(long, value_enum, default_value_t = Acknowledge::Disk)]
    events_ack: Acknowledge,
    /// Files of other servers that are kept on this disk, in GiB at most.
    #[arg(long, default_value_t = 10)]
    events_cache_gib: u64,
    /// Different names of attributes that are taken; attributes with further ones are left out of their events, and counted.
    #[arg(long, default_value_t = 10_000)]
    events_names_max: usize,
    /// Which environment this is: `project/name`, such as `shop/production`. Its flags are the flag set of that name; the data
    /// directory is bound to it from the first start on.
    #[arg(long)]
    environment: Option<String>,
    /// What kind of environment: production, staging, or dev, where changes of flags are made at once.
    #[arg(long, requires = "environment", default_value = "production")]
    kind: String,
    /// Print one line of JSON when ready: address, and the admin token on the first start.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Acknowledge {
    Disk,
    Bucket,
}

pub async fn run(args: Args) -> Result<u8> {
    let bucket = match &args.events_bucket {
        Some(text) => Some(server::Bucket {
            place: server::Place::open(text)?,
            acknowledge: matches!(args.events_ack, Acknowledge::Bucket),
            cache_bytes_max: args.events_cache_gib.saturating_mul(1 << 30),
        }),
        None if matches!(args.events_ack, Acknowledge::Bucket) => bail!("--events-ack bucket needs --events-bucket"),
        None => None,
    };
    let (mut also_listen, mut flagd_ports) = (Vec::new(), Vec::new());
    if args.standard_ports {
        also_listen = [4317, 4318].map(|port| SocketAddr::new(args.listen.ip(), port)).to_vec();
        flagd_ports = vec![8013, 8014, 8015, 8016];
    }
    let options = server::Options {
        data: args.data.clone(),
        listen: args.listen,
        also_listen,
        flagd_ports,
        ofrep_rate: NonZeroU32::new(args.ofrep_rate_limit),
        cors: flagd::http::cors(&args.cors_origin)?,
        dev: args.dev,
        keep: server::Keep {
            cold_after: Some(args.events_cold_after),
            drop_after: args.events_drop_after,
            bytes_max: args.events_max_gib.map(|gib| gib.saturating_mul(1 << 30)),
        },
        segment_rows: args.events_segment_rows,
        bucket,
        names_max: args.events_names_max,
        environment: args
            .environment
            .as_deref()
            .map(|text| server::Environment::parse(text, &args.kind))
            .transpose()?,
    };
    let json = args.json;
    let started = move |started: server::Started| {
        if json {
            println!(
                "{}",
                json!({"address": started.address, "admin_token": started.admin_token, "findings": started.findings})
            );
            return;
        }
        let base = format!("http://{}", started.address);
        for finding in &started.findings {
            eprintln!("damaged: {finding}");
        }
        println!("seaworthy serves at {base}, data in {}", args.data.display());
        if let Some(token) = started.admin_token {
            println!("\n  log in:  {base}/#token={token}\n\nThis link is shown once; it carries the admin token.");
            if let Some(path) = store_token(&base, &token) {
                println!("The command line uses the same token, from {}.", path.display());
            }
        }
    };
    server::run(options, started, asked_to_go()).await.context("serve")?;
    Ok(0)
}

/// Keeps the token for the command line; fine if it cannot.
pub fn store_token(server: &str, token: &str) -> Option<PathBuf> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = token_path(server)?;
    std::fs::create_dir_all(path.parent()?).ok()?;
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path).ok()?;
    writeln!(file, "{token}").ok()?;
    Some(path)
}
