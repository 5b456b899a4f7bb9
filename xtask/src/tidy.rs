//! House rules that the compiler does not know: the crate graph of ARCHITECTURE.md, and `//!` on top of every file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Checks all rules and names every breach.
pub fn check() -> Result<()> {
    let mut breaches = graph()?;
    let mut files = Vec::new();
    for dir in ["crates", "bench/src", "fuzz/fuzz_targets", "xtask"] {
        files.extend(rust_files(Path::new(dir))?);
    }
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let is_test = file.ends_with("tests.rs");
        if !is_test && !text.starts_with("//!") {
            breaches.push(format!("{}: does not open with //!", file.display()));
        }
        let lines = text.lines().count();
        if lines > 1_000 {
            breaches.push(format!("{}: {lines} lines; is it two ideas?", file.display()));
        }
    }
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n  {}", breaches.join("\n  "))
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The table rows of ARCHITECTURE.md that begin with "| `crate` | may depend on".
fn allowed() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let text = std::fs::read_to_string("ARCHITECTURE.md").context("ARCHITECTURE.md")?;
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 4 {
            continue;
        }
        let name = cells[1].trim_matches('`').to_owned();
        let words = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        table.insert(name, words);
    }
    Ok(table)
}

fn graph() -> Result<Vec<String>> {
    let allowed = allowed()?;
    let output = Command::new("cargo").args(["metadata", "--format-version=1", "--no-deps", "--offline"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut breaches = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        if name == "xtask" {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            breaches.push(format!("crate {name} is not in the table of ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let shipped = dependency["kind"].is_null();
            if shipped && ours.contains(used) && !may.contains(used) {
                breaches.push(format!("{name} depends on {used}, which the table of ARCHITECTURE.md does not allow"));
            }
        }
    }
    Ok(breaches)
}
