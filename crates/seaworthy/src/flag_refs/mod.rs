//! `seaworthy flag refs`: where source code names flags, which keys in code are no flag, and which flags no code names.
//!
//! The flags come from the server or from a document. [`walk`] reads the files; what a text names is decided by [`scan`] with
//! the table of [`calls`], and told by [`report`]. Exit code 1 if code evaluates a flag that does not exist, for pipelines.

mod calls;
mod report;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use flags::FlagSet;
use regex::Regex;
use serde_json::Value;

use crate::client::{Client, Server, document};

/// Find flags in source code.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the code is. Hidden and binary files and what `.gitignore` or `.ignore` name are left out.
    dir: PathBuf,
    /// Take the flags from this document and ask no server.
    #[arg(long, value_name = "FILE")]
    flags: Option<PathBuf>,
    /// One more way code names a flag: a regular expression with one group, the key. Can be given several times.
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    pattern: Vec<Regex>,
}

/// A pattern with exactly one group.
fn pattern(text: &str) -> Result<Regex, String> {
    let regex = Regex::new(text).map_err(|error| error.to_string())?;
    match regex.captures_len() {
        2 => Ok(regex),
        n => Err(format!("expected one group, the key, e.g. 'flag_on\\(\"([^\"]+)\"\\)'; this has {}", n - 1)),
    }
}

pub async fn run(args: &Args, server: &Server) -> Result<u8> {
    std::fs::metadata(&args.dir).with_context(|| format!("cannot read {}", args.dir.display()))?;
    let (definitions, place) = match &args.flags {
        Some(path) => (of_file(path)?, format!("in {}", path.display())),
        None => (of_server(server).await?, "on the server".to_owned()),
    };
    let scanner = scan::Scanner::new(definitions.keys, args.pattern.clone());
    let report = report::Report::new(scanner.keys(), definitions.needed).with_stages(definitions.stages);
    let (dir, file) = (args.dir.clone(), args.flags.clone());
    let report = tokio::task::spawn_blocking(move || walk::walk(&dir, file.as_deref(), &scanner, report)).await?;
    if server.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text(&place));
    }
    Ok(u8::from(report.has_unknown()))
}

struct Definitions {
    keys: Vec<String>,
    /// Keys that other flags or segments name.
    needed: BTreeSet<String>,
    /// How they stand; of those on a server.
    stages: BTreeMap<String, String>,
}

/// The document is read as strictly as a server reads it.
fn of_file(path: &Path) -> Result<Definitions> {
    let document = document(path)?;
    match FlagSet::parse(&document.to_string()) {
        Ok(set) => {
            let keys = set.flags().into_iter().map(|(key, _)| key.to_owned()).collect();
            Ok(Definitions { keys, needed: report::needed(&document), stages: BTreeMap::new() })
        }
        Err(findings) => {
            let lines: Vec<String> = findings.iter().map(|finding| format!("\n  {finding}")).collect();
            bail!("{} cannot be used:{}", path.display(), lines.concat())
        }
    }
}

async fn of_server(server: &Server) -> Result<Definitions> {
    let answer = Client::of(server)?.get("/api/v1/flags").await?;
    let flags = answer["flags"].as_array().context("the server's answer has no `flags`")?;
    let key = |flag: &Value| flag["key"].as_str().map(str::to_owned);
    let needed = flags.iter().filter(|flag| flag["lifecycle"]["needed_by"].as_array().is_some_and(|by| !by.is_empty()));
    let stage = |flag: &Value| Some((key(flag)?, flag["lifecycle"]["state"].as_str()?.to_owned()));
    Ok(Definitions {
        keys: flags.iter().filter_map(key).collect(),
        needed: needed.filter_map(key).collect(),
        stages: flags.iter().filter_map(stage).collect(),
    })
}
