//! `cargo xtask fuzz [SECONDS]`: the fuzz targets under libFuzzer, one after the other. Needs a nightly compiler and cargo-fuzz; the
//! tests of the crate fuzzing run the same functions without either.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::run;

/// For each target.
const SECONDS: u32 = 60;
/// An input that takes longer is a finding: an evaluation is bounded to some hundredths of a second, and the sanitizer slows it down.
const TIMEOUT_SECS: u32 = 10;
/// Longer inputs find nothing that shorter ones do not.
const BYTES_MAX: u32 = 8 << 10;

/// Runs every target of the crate fuzzing for so many seconds. What it finds it leaves in `fuzz/artifacts`: put it into `fuzz/seeds`.
pub fn run_targets(words: &[String]) -> Result<()> {
    let seconds = words.first().map_or(Ok(SECONDS), |word| word.parse())?;
    if !works(&["+nightly", "--version"]) || !works(&["fuzz", "--version"]) {
        println!(
            "fuzz: skipped: it needs a nightly compiler and cargo-fuzz (rustup toolchain install nightly; cargo install \
             cargo-fuzz). The tests of the crate fuzzing run the targets without them."
        );
        return Ok(());
    }
    let mut targets = Vec::new();
    for entry in std::fs::read_dir("fuzz/fuzz_targets")? {
        targets.extend(entry?.path().file_stem().and_then(|name| Some(name.to_str()?.to_owned())));
    }
    targets.sort();
    for target in &targets {
        let (corpus, seeds) = (format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}"));
        std::fs::create_dir_all(&corpus)?;
        let mut command = Command::new("cargo");
        command.args(["+nightly", "fuzz", "run", target.as_str(), &corpus, &seeds, "--"]).args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT_SECS}"),
            format!("-max_len={BYTES_MAX}"),
            "-print_final_stats=1".to_owned(),
        ]);
        run(&format!("fuzz {target}"), &mut command)?;
    }
    Ok(())
}

fn works(words: &[&str]) -> bool {
    let status = Command::new("cargo").args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
