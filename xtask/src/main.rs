//! Chores of the workspace: `cargo xtask ci | tidy | bench | fuzz`. Every step prints its time.

mod bench;
mod browser;
mod fuzz;
mod tidy;

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The binary that `cargo test --profile ci` leaves behind.
const BIN: &str = "target/ci/seaworthy";

fn main() -> Result<()> {
    // Paths below are relative to the workspace, wherever cargo was called.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
    match std::env::args().nth(1).as_deref() {
        Some("ci") => ci(),
        Some("tidy") => tidy::check(),
        Some("bench") => bench::measure(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("fuzz") => fuzz::run_targets(&std::env::args().skip(2).collect::<Vec<_>>()),
        other => {
            eprintln!(
                "usage: cargo xtask ci | tidy | bench [flags audit ingest comparison proxy watchers ofrep] | fuzz [SECONDS] \
                 (got {other:?})"
            );
            std::process::exit(2);
        }
    }
}

fn run(name: &str, command: &mut Command) -> Result<()> {
    let began = Instant::now();
    println!("== {name}");
    let status = command.status().with_context(|| format!("failed to start {name}"))?;
    println!("== {name}: {:.0} s", began.elapsed().as_secs_f64());
    if !status.success() {
        bail!("{name} failed");
    }
    Ok(())
}

fn cargo(words: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(words.split_whitespace());
    command
}

fn ci() -> Result<()> {
    run("format", &mut cargo("fmt --all --check"))?;
    let began = Instant::now();
    tidy::check()?;
    println!("== tidy: {:.0} s", began.elapsed().as_secs_f64());
    run(
        "clippy",
        &mut cargo("clippy --profile ci --workspace --all-targets --features seaworthy/sql --quiet -- -D warnings"),
    )?;
    // Most people build without SQL.
    let without = "clippy --profile ci --workspace --all-targets --quiet -- -D warnings";
    run("clippy without SQL", &mut cargo(without))?;
    run("tests", &mut cargo("test --profile ci --workspace --features seaworthy/sql"))?;
    bench::small()?;
    run(
        "several servers over one bucket",
        Command::new("python3").args(["tests/events/bucket.py", "--bin", BIN, "--venv", "target/bucket-venv"]),
    )?;
    run(
        "queries agree with DuckDB's",
        // The same questions each time; without a seed they are others, which is for by hand.
        Command::new("python3").args([
            "tests/events/run.py",
            "--bin",
            BIN,
            "--venv",
            "target/events-venv",
            "--seed",
            "11",
        ]),
    )?;
    run(
        "a real app",
        Command::new("python3").args(["tests/realapp/run.py", "--bin", BIN, "--venv", "target/realapp-venv"]),
    )?;
    run(
        "flagd's clients",
        Command::new("python3").args(["tests/flagd/run.py", "--bin", BIN, "--venv", "target/flagd-venv"]),
    )?;
    run(
        "Rust's providers",
        Command::new("python3").args(["tests/flagd/rust.py", "--bin", BIN, "--target", "target/rust-clients"]),
    )?;
    let mut sdks = Command::new("python3");
    sdks.args(["tests/otel/run.py", "--bin", BIN, "--venv", "target/otel-venv", "--rust", "target/rust-clients"]);
    run("OpenTelemetry's SDKs", &mut sdks)?;
    // The step for flagd's clients makes the environment; where it was skipped for want of the suite, so is this.
    let python = "target/flagd-venv/python/bin/python";
    if std::path::Path::new(python).exists() {
        let words = ["tests/flagd/agreement.py", "--bin", BIN, "--js", "target/flagd-venv/js"];
        run("flags in process and on the server agree", Command::new(python).args(words))?;
    }
    browser::installed_by_the_build()?;
    run("types and words of the console", &mut browser::check_the_console())?;
    run("install a browser", &mut browser::install())?;
    let began = Instant::now();
    println!("== browser");
    browser::drive_the_flags(BIN)?;
    browser::watch_the_demo(BIN)?;
    println!("== browser: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
