//! `seaworthy flag stale`, `flag drift`, and the lifecycle in `flag list` and `flag show`: answers of the API in words.

use serde_json::Value;

use crate::client::{cell, table};

/// A time without fractions of a second.
fn short(at: &Value) -> String {
    at.as_str().map_or("never".to_owned(), |at| at.chars().take(19).collect())
}

/// Who uses a flag: `checkout 1.4.2, web 2.0 and 3 more`.
fn users(lifecycle: &Value) -> String {
    const NAMED_MAX: usize = 2;
    let services = lifecycle["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |service: &Value| {
        let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
        let name = if text("service").is_empty() { "(no name)".to_owned() } else { text("service") };
        format!("{name} {}", text("version")).trim_end().to_owned()
    };
    let mut names = services.iter().take(NAMED_MAX).map(name).collect::<Vec<_>>().join(", ");
    if services.len() > NAMED_MAX {
        names.push_str(&format!(" and {} more", services.len() - NAMED_MAX));
    }
    if names.is_empty() { "-".to_owned() } else { names }
}

/// State and last evaluation, for a table of flags.
pub fn columns(flag: &Value) -> [String; 2] {
    [cell(&flag["lifecycle"]["state"]), short(&flag["last_evaluated"])]
}

/// A flag's lifecycle, line by line.
pub fn lines(lifecycle: &Value) -> Vec<String> {
    if lifecycle.is_null() {
        return Vec::new();
    }
    let mut lines = vec![
        format!("{:<12} {}: {}", "lifecycle", cell(&lifecycle["state"]), cell(&lifecycle["why"])),
        format!(
            "{:<12} {} (first {}, last {})",
            "evaluations",
            cell(&lifecycle["evaluations"]),
            short(&lifecycle["first_seen"]),
            short(&lifecycle["last_seen"])
        ),
    ];
    for service in lifecycle["services"].as_array().into_iter().flatten() {
        let name = users(&serde_json::json!({"services": [service]}));
        lines.push(format!("  {name}: {}, last {}", cell(&service["count"]), short(&service["last"])));
    }
    let variants = lifecycle["variants"].as_object().into_iter().flatten();
    let variants: Vec<String> = variants
        .map(|(name, count)| format!("{} {}", if name.is_empty() { "(code default)" } else { name }, cell(count)))
        .collect();
    if !variants.is_empty() {
        lines.push(format!("  reported variants: {}", variants.join(", ")));
    }
    for finding in lifecycle["drift"].as_array().into_iter().flatten() {
        lines.push(format!("{:<12} {}", "drift", cell(&finding["sentence"])));
    }
    lines
}

/// Flags that should go.
pub fn stale(answer: &Value) {
    let flags = answer["flags"].as_array().map(Vec::as_slice).unwrap_or_default();
    if flags.is_empty() {
        println!("no flag is stale, expired or safe to remove");
        return;
    }
    let rows: Vec<Vec<String>> = flags
        .iter()
        .map(|flag| {
            let life = &flag["lifecycle"];
            let mut row = vec![cell(&flag["key"]), cell(&life["state"]), cell(&flag["kind"]), cell(&flag["owner"])];
            row.extend([short(&life["last_seen"]), users(life), cell(&life["why"])]);
            row
        })
        .collect();
    print!("{}", table(&["flag", "state", "kind", "owner", "last evaluated", "by", "why"], &rows));
}

/// Clients whose reports were judged.
pub fn drift(answer: &Value) {
    let judged = answer["judged"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (alarms, quiet): (Vec<&Value>, Vec<&Value>) = judged.iter().partition(|finding| finding["alarm"] == true);
    alarms.iter().for_each(|finding| println!("{}", cell(&finding["sentence"])));
    if alarms.is_empty() && quiet.is_empty() {
        println!("no report could be judged: clients report no evaluations, or of no flag that the key alone decides");
    } else {
        let some = alarms.len();
        println!("clients that drift: {some} of {} that were judged", judged.len());
    }
}
