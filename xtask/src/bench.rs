//! `cargo xtask bench`: builds the binary and the benchmarks, fetches what stands beside us, measures.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{cargo, run};

const VENV: &str = "target/bench/venv";

/// The benchmark program on a profile; `words` go to it.
fn program(profile: &str, words: &[String]) -> Command {
    let mut command = cargo("run --quiet --locked --manifest-path bench/Cargo.toml --target-dir target");
    command.args(["--profile", profile, "--"]).args(words);
    command
}

/// Measures. Without words everything.
pub fn measure(words: &[String]) -> Result<()> {
    run("build", &mut cargo("build --release --locked"))?;
    let wanted = |part: &str| words.iter().all(|w| w.starts_with('-')) || words.iter().any(|w| w == part);
    if wanted("comparison") && !Path::new(VENV).is_dir() {
        run("python", Command::new("python3").args(["-m", "venv", VENV]))?;
        run(
            "peers from Python",
            Command::new(format!("{VENV}/bin/pip")).args(["install", "--quiet", "duckdb", "pyarrow"]),
        )?;
    }
    if (wanted("proxy") || wanted("ofrep")) && (missing("nginx") || missing("wrk")) {
        let install = "apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light wrk >/dev/null";
        run("nginx and wrk (Debian, as root)", Command::new("sh").args(["-c", install]))?;
    }
    run("measure", &mut program("release", words))
}

fn missing(name: &str) -> bool {
    Command::new(name).arg("-v").output().is_err()
}

/// A moment of each, so that the benchmarks themselves stay true.
pub fn small() -> Result<()> {
    let words = ["--small", "--bin", crate::BIN, "--out", "target/bench/small"].map(str::to_owned);
    run("benchmarks, small", &mut program("ci", &words))
}
