//! `seaworthy apply` and `seaworthy import`: whole documents of flags and segments, all or nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::client::{Client, Server, cell, document, table};

/// Files of one directory that are read.
const FILES_MAX: usize = 10_000;

/// Make flags and segments as documents say, all or nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// A document (`{"flags", "segments"}`, YAML or JSON), or a directory of them. What is in none of them stays as it is.
    #[arg(short, long)]
    file: PathBuf,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

/// Why a change is made, and how urgent it is.
#[derive(Clone, Debug, clap::Args)]
pub struct Why {
    /// Why.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Change more users at once than the flag's risk allows; needs a reason, and leaves a review item.
    #[arg(long)]
    pub break_glass: bool,
}

/// Take over flags from another system, so that every user keeps the variant he has.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    #[command(flatten)]
    server: Server,
    /// The other system.
    #[arg(value_parser = ["launchdarkly", "unleash", "growthbook", "flipt", "goff", "flagd"])]
    from: String,
    /// Its export or flag file, JSON or YAML.
    file: PathBuf,
    /// Which environment of an export that holds several.
    #[arg(long)]
    environment: Option<String>,
    /// Write the document there (`-` for the screen) instead of to the server.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

/// Flags and segments of a document that was checked by itself (what it refers to may be on the server); references of flagd's to
/// shared rules are written out.
pub fn parts(name: &str, document: &Value) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let set = flags::FlagSet::parse_part(&document.to_string()).map_err(|findings| {
        let listed: Vec<String> = findings.iter().take(20).map(|f| format!("  {f}")).collect();
        let more = findings.len().saturating_sub(20);
        let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
        anyhow!("{name} cannot be used:\n{}{more}", listed.join("\n"))
    })?;
    let flag = |(key, flag): (&str, &std::sync::Arc<flags::Flag>)| {
        let own = flag.definition().clone();
        (key.to_owned(), if flag.is_ours() { own } else { set.portable(key).unwrap_or(own) })
    };
    let flags = set.flags().into_iter().map(flag).collect();
    let segments = set.segments().into_iter().map(|(key, s)| (key.to_owned(), s.definition().clone())).collect();
    Ok((flags, segments))
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml") {
                found.push(path);
            }
        }
        if found.len() > FILES_MAX {
            bail!("{} holds more than {FILES_MAX} documents", path.display());
        }
    }
    found.sort();
    Ok(found)
}

pub async fn run(args: Args) -> Result<u8> {
    let mut merged: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut from: BTreeMap<(String, String), PathBuf> = BTreeMap::new();
    for path in files(&args.file)? {
        let value = document(&path)?;
        for name in ["flags", "segments"] {
            let Some(map) = value.get(name).and_then(Value::as_object) else { continue };
            for key in map.keys() {
                if let Some(other) = from.insert((name.to_owned(), key.clone()), path.clone()) {
                    bail!("{} and {} both define {name} {key:?}", other.display(), path.display());
                }
            }
        }
        // References to shared rules hold within a document; flags and segments may refer to each other across documents.
        let shared = json!({"$evaluators": value.get("$evaluators"), "metadata": value.get("metadata")});
        for (name, into) in [("flags", "flags"), ("segments", "segments")] {
            for (key, definition) in value.get(name).and_then(Value::as_object).into_iter().flatten() {
                let mut definition = definition.clone();
                if name == "flags" && definition.get("on").is_none() {
                    let mut alone = shared.clone();
                    alone["flags"] = json!({key.clone(): definition});
                    alone.as_object_mut().into_iter().for_each(|map| map.retain(|_, v| !v.is_null()));
                    let (flags, _) = parts(&path.display().to_string(), &alone)?;
                    definition = flags.get(key).cloned().unwrap_or(definition);
                }
                merged.entry(into).or_default().insert(key.clone(), definition);
            }
        }
    }
    if merged.is_empty() {
        bail!("{} holds no flags and no segments", args.file.display());
    }
    let whole = json!({"flags": merged.get("flags"), "segments": merged.get("segments")});
    send(&args.server, &whole, args.dry_run, &args.why).await
}

/// Sends a document and shows the plan.
pub async fn send(server: &Server, document: &Value, dry_run: bool, why: &Why) -> Result<u8> {
    let part = |name: &str| document.get(name).filter(|v| v.is_object()).cloned().unwrap_or_else(|| json!({}));
    let body = json!({"flags": part("flags"), "segments": part("segments"), "dry_run": dry_run,
        "reason": why.reason, "break_glass": why.break_glass});
    let answer = Client::of(server)?.post("/api/v1/apply", &body).await?;
    if server.json {
        println!("{answer}");
        return Ok(0);
    }
    let plan: Vec<&Value> = answer["plan"].as_array().into_iter().flatten().collect();
    let same = plan.iter().filter(|step| step["action"] == "same").count();
    let rows: Vec<Vec<String>> = plan
        .iter()
        .filter(|step| step["action"] != "same")
        .map(|step| ["action", "kind", "key"].map(|name| cell(&step[name])).to_vec())
        .collect();
    if !rows.is_empty() {
        print!("{}", table(&["action", "what", "key"], &rows));
    }
    impact(&answer).iter().for_each(|line| println!("{line}"));
    if let Some(refusal) = answer["refusal"].as_object() {
        println!("it would be refused: {}; {}", cell(&refusal["detail"]), cell(&refusal["remedy"]));
    }
    if same > 0 {
        println!("{same} are the same already");
    }
    match answer["audit_index"].as_u64() {
        _ if !answer["rollout"].is_null() => println!("{}", rollout(&answer)),
        Some(index) => println!("in force, audit index {index}"),
        None if rows.is_empty() => println!("nothing to do"),
        None => println!("a dry run: nothing was changed"),
    }
    Ok(0)
}

/// What to say of a change that is too much at once and becomes a rollout.
pub fn rollout(answer: &Value) -> String {
    let rollout = &answer["rollout"];
    let shares = rollout["stages"].as_array().into_iter().flatten().map(|stage| {
        let share = stage["share"].as_f64().unwrap_or_default() * 100.0;
        format!("{} %", (share * 1e4).round() / 1e4)
    });
    let stages = shares.collect::<Vec<_>>().join(", ");
    match rollout["id"].as_str() {
        Some(id) => format!(
            "too much at once: it is a rollout now, {id} ({}), watched and in stages of {stages} of users, then for all; see \
             `seaworthy experiment show {id}`",
            cell(&rollout["name"]),
        ),
        None => format!(
            "too much at once: it would become a rollout, watched and in stages of {stages} of users, then for all"
        ),
    }
}

/// What a change does to the users seen lately, a line for each flag that moves somebody.
pub fn impact(answer: &Value) -> Vec<String> {
    let impacts = answer["impact"].as_array().into_iter().flatten();
    let count = |impact: &Value, name: &str| impact[name].as_u64().unwrap_or(0);
    impacts
        .filter(|impact| count(impact, "changed") + count(impact, "safer") > 0)
        .map(|impact| {
            let moved = count(impact, "changed") + count(impact, "safer");
            format!("{} changes for {moved} of {} users seen lately", cell(&impact["key"]), count(impact, "subjects"))
        })
        .collect()
}

pub async fn import(args: ImportArgs) -> Result<u8> {
    let mut value = document(&args.file)?;
    if let Some(environment) = &args.environment {
        if !["launchdarkly", "unleash"].contains(&args.from.as_str()) {
            bail!("an export of {} holds no environments: leave --environment out", args.from);
        }
        let map = value.as_object_mut().ok_or_else(|| anyhow!("{} is no object", args.file.display()))?;
        map.insert("environment".to_owned(), environment.clone().into());
    }
    let name = args.file.display().to_string();
    let read = match args.from.as_str() {
        "launchdarkly" => import::launchdarkly(&value),
        "unleash" => import::unleash(&value),
        "growthbook" => import::growthbook(&value),
        "flipt" => import::flipt(&value),
        "goff" => import::goff(&value),
        _ => {
            let (flags, segments) = parts(&name, &value)?;
            Ok(import::Import { flags, segments, notes: Vec::new() })
        }
    };
    let read = read.map_err(|error| anyhow!("{name}: {error}"))?;
    let whole = read.document();
    if let Err(findings) = flags::FlagSet::parse(&whole.to_string()) {
        let listed: Vec<String> = findings.iter().take(20).map(|f| format!("  {f}")).collect();
        bail!("the imported document does not hold together; this is a fault of ours:\n{}", listed.join("\n"));
    }
    let notes: Vec<Value> = read
        .notes
        .iter()
        .map(|note| json!({"place": note.place, "weight": note.weight.as_str(), "text": note.text}))
        .collect();
    // The report goes to standard error, so that `--out -` and `--json` leave the output to programs.
    if !args.server.json {
        eprintln!("{}: {} flags, {} segments, {} notes", name, read.flags.len(), read.segments.len(), notes.len());
        for note in &read.notes {
            eprintln!("  {:<8}  {}  {}", note.weight.as_str(), note.place, note.text);
        }
    }
    match &args.out {
        Some(path) => {
            let text = serde_json::to_string_pretty(&whole)? + "\n";
            if path == Path::new("-") {
                print!("{text}");
            } else {
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
                if args.server.json {
                    println!("{}", json!({"flags": read.flags.len(), "segments": read.segments.len(), "notes": notes}));
                }
            }
            Ok(0)
        }
        None if read.flags.is_empty() => bail!("{name} gave no flag to import"),
        None => {
            let mut why = args.why;
            if why.reason.is_empty() && !why.break_glass {
                why.reason = format!("import from {}", args.from);
            }
            send(&args.server, &whole, args.dry_run, &why).await
        }
    }
}
