//! `seaworthy copy`: flags from one environment to another.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::apply::{Why, send};
use crate::client::{Client, Server};

/// Make flags as they are on another server: from staging to production.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    /// The server to copy from; its token is in SEAWORTHY_FROM_TOKEN, or stored by `token login`.
    #[arg(long)]
    from: String,
    /// The flags.
    #[arg(required = true)]
    flags: Vec<String>,
    /// Say what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    why: Why,
}

fn part<'a>(export: &'a Value, name: &str) -> impl Fn(&str) -> Option<&'a Value> {
    let part = export.get(name);
    move |key| part?.get(key)
}

/// What somebody was allowed to set there is not set here.
fn without_delegations(definition: &Value) -> Value {
    let mut own = definition.clone();
    if let Some(rules) = own.get_mut("rules").and_then(Value::as_array_mut) {
        rules.retain(|rule| !rule["id"].as_str().is_some_and(|id| id.starts_with("delegation tok_")));
    }
    own
}

pub async fn run(args: Args) -> Result<u8> {
    let from = Client::at(&args.from, "SEAWORTHY_FROM_TOKEN")?.get("/api/v1/export").await?;
    let to = Client::of(&args.server)?.get("/api/v1/export").await?;
    let set = flags::FlagSet::parse_part(&from.to_string())
        .map_err(|findings| anyhow!("the flags of {} cannot be read: {}", args.from, findings[0]))?;
    let (there, here) = (part(&from, "flags"), part(&to, "flags"));
    let (segments_there, segments_here) = (part(&from, "segments"), part(&to, "segments"));
    let mut flags = Map::new();
    let mut segments = Map::new();
    let mut kept = BTreeSet::new();
    for key in &args.flags {
        let Some(definition) = there(key) else { bail!("{} has no flag {key:?}", args.from) };
        flags.insert(key.clone(), without_delegations(definition));
        // What it needs comes along where it is missing; what is there already is this environment's own.
        let (needed, in_segments) = set.needed_by(key);
        for key in needed.iter().filter(|key| !args.flags.contains(key)) {
            match (here(key), there(key)) {
                (None, Some(definition)) => _ = flags.insert(key.clone(), definition.clone()),
                _ => _ = kept.insert(format!("flag {key}")),
            }
        }
        for key in &in_segments {
            match (segments_here(key), segments_there(key)) {
                (None, Some(definition)) => _ = segments.insert(key.clone(), definition.clone()),
                _ => _ = kept.insert(format!("segment {key}")),
            }
        }
    }
    if !kept.is_empty() && !args.server.json {
        let kept: Vec<String> = kept.into_iter().collect();
        eprintln!("needed, and left as it is here: {}", kept.join(", "));
    }
    let mut why = args.why;
    if why.reason.is_empty() && !why.break_glass {
        why.reason = format!("copied from {}", args.from);
    }
    send(&args.server, &json!({"flags": flags, "segments": segments}), args.dry_run, &why).await
}
