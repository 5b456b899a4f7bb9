//! Speed and memory beside the peers, in one run on one machine: `cargo xtask bench`.
//!
//! Not part of the workspace's build: the peers' crates stay out of what is shipped. `--small` runs everything that needs
//! no peer outside this program for a moment, to see that the benchmarks themselves work; its figures mean nothing.

mod audit_log;
mod comparison;
mod figures;
mod flags_beside_peers;
mod ingest;
mod machine;
mod ofrep;
mod proxy;
mod watchers;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::figures::Figures;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Flag evaluation beside LaunchDarkly's and Unleash's evaluators.
    Flags,
    /// Audit log: append, publish, verify.
    Audit,
    /// OTLP into the running server.
    Ingest,
    /// Comparison and queries beside DuckDB.
    Comparison,
    /// Proxy beside nginx.
    Proxy,
    /// From a flag's commit to who watches.
    Watchers,
    /// One flag by OFREP beside nginx and, if it is there, Unleash's edge.
    Ofrep,
}

/// Measures.
#[derive(Debug, Parser)]
pub struct Args {
    /// What to measure; everything if nothing is named.
    parts: Vec<Part>,
    /// A moment of everything that needs no other program.
    #[arg(long)]
    small: bool,
    /// The binary under test.
    #[arg(long, default_value = "target/release/seaworthy")]
    bin: PathBuf,
    /// Wide events for the comparison.
    #[arg(long, default_value_t = 5_000_000)]
    events: usize,
    /// The directory with `generate_wide_events.py` and `query_peers.py`.
    #[arg(long, default_value = "../shared/bench")]
    generator: PathBuf,
    /// Python with duckdb and pyarrow.
    #[arg(long, default_value = "target/bench/venv/bin/python")]
    python: PathBuf,
    /// Where data and results go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.out)?;
    let wanted = |part: Part| args.parts.is_empty() || args.parts.contains(&part);
    let mut figures = Figures::default();
    if wanted(Part::Flags) {
        flags_beside_peers::measure(&args, &mut figures)?;
    }
    if wanted(Part::Audit) {
        audit_log::measure(&args, &mut figures)?;
    }
    if wanted(Part::Ingest) {
        ingest::measure(&args, &mut figures)?;
    }
    if wanted(Part::Comparison) {
        comparison::measure(&args, &mut figures)?;
    }
    if wanted(Part::Watchers) {
        watchers::measure(&args, &mut figures)?;
    }
    if wanted(Part::Ofrep) && !args.small {
        ofrep::measure(&args, &mut figures)?;
    }
    if wanted(Part::Proxy) && !args.small {
        proxy::measure(&args, &mut figures)?;
    }
    figures.write(&args.out.join("figures.md"))?;
    Ok(())
}
