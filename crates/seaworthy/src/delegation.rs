//! `seaworthy delegation`: control points for people who are no engineers.

use anyhow::{Context, Result, anyhow};
use http::Method;
use serde_json::{Value, json};

use crate::apply::{impact, rollout};
use crate::client::{Client, Server, cell, escaped, table};

/// Let somebody set one flag within bounds.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All delegations.
    List,
    /// Make one; its token is shown once, for whoever shall hold it.
    Create {
        /// For people; the holder acts under this name.
        name: String,
        /// The flag.
        #[arg(long)]
        flag: String,
        /// Variants that may be served.
        #[arg(long, value_delimiter = ',')]
        variants: Vec<String>,
        /// Numbers that may be served: LOW..HIGH.
        #[arg(long, conflicts_with = "values")]
        between: Option<String>,
        /// Values that may be served; a value that is JSON counts as such.
        #[arg(long, value_delimiter = ',')]
        values: Vec<String>,
        /// Only subjects of this segment.
        #[arg(long)]
        audience: Option<String>,
        /// To at most this share of them, such as 10%.
        #[arg(long)]
        largest_share: Option<String>,
        /// Only at these hours: 09:00-17:30.
        #[arg(long)]
        hours: Option<String>,
        /// Only on these days: mon,tue.
        #[arg(long, value_delimiter = ',', requires = "hours")]
        days: Vec<String>,
        /// Time zone of the hours, minutes east of Greenwich.
        #[arg(long, default_value_t = 0, allow_hyphen_values = true, requires = "hours")]
        utc_offset_minutes: i64,
        /// How long it counts, e.g. 30d; without it until it is revoked.
        #[arg(long = "for")]
        lasts: Option<String>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take one back; what its holder had served stays until somebody changes the flag.
    Revoke {
        /// Its id.
        id: String,
    },
    /// As its holder: what may be done, and what is served.
    Show,
    /// As its holder: serve a variant, or a value.
    Set {
        /// The variant.
        #[arg(required_unless_present = "value")]
        variant: Option<String>,
        /// A value instead; one that is JSON counts as such.
        #[arg(long, conflicts_with = "variant")]
        value: Option<String>,
        /// To this share of the audience.
        #[arg(long)]
        share: Option<String>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// As its holder: take back what was set.
    Clear,
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn changed(answer: &Value, done: &str) -> String {
    let mut lines = impact(answer);
    let in_force = format!("{done}, audit index {}", cell(&answer["audit_index"]));
    lines.push(if answer["rollout"].is_null() { in_force } else { rollout(answer) });
    lines.join("\n") + "\n"
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let (answer, said) = match args.command {
        Command::List => {
            let answer = client.get("/api/v1/delegations").await?;
            let list = answer["delegations"].as_array().into_iter().flatten();
            let rows: Vec<Vec<String>> = list
                .map(|d| {
                    let serve = d["served"].get("serve").map_or("nothing".to_owned(), cell);
                    vec![cell(&d["id"]), cell(&d["name"]), cell(&d["bounds"]["flag"]), cell(&d["expires"]), serve]
                })
                .collect();
            let text = table(&["delegation", "name", "flag", "expires", "serves"], &rows);
            (answer, text)
        }
        Command::Create {
            name,
            flag,
            variants,
            between,
            values,
            audience,
            largest_share,
            hours,
            days,
            utc_offset_minutes,
            lasts,
            reason,
        } => {
            let mut bounds = json!({"flag": flag, "variants": variants, "audience": audience});
            if let Some(between) = between {
                let (low, high) = between.split_once("..").ok_or_else(|| anyhow!("{between:?} is not LOW..HIGH"))?;
                let number = |text: &str| text.parse::<f64>().with_context(|| format!("{text:?} is no number"));
                bounds["values"] = json!({"between": [number(low)?, number(high)?]});
            } else if !values.is_empty() {
                bounds["values"] = json!({"any": values.iter().map(|text| value(text)).collect::<Vec<_>>()});
            }
            if let Some(share) = largest_share {
                bounds["largest_share"] = share.into();
            }
            if let Some(hours) = hours {
                let (from, to) =
                    hours.split_once('-').ok_or_else(|| anyhow!("{hours:?} is not such as 09:00-17:30"))?;
                bounds["hours"] =
                    json!({"from": from, "to": to, "days": days, "utc_offset_minutes": utc_offset_minutes});
            }
            let body = json!({"name": name, "bounds": bounds, "lasts": lasts, "reason": reason});
            let answer = client.post("/api/v1/delegations", &body).await?;
            if !args.server.json {
                eprintln!("{} for {name}; its token, shown once:", cell(&answer["id"]));
            }
            let text = format!("{}\n", cell(&answer["secret"]));
            (answer, text)
        }
        Command::Revoke { id } => {
            let answer = client.call(Method::DELETE, &format!("/api/v1/delegations/{}", escaped(&id)), None).await?;
            let text = format!("{id} counts no more, audit index {}\n", cell(&answer["audit_index"]));
            (answer, text)
        }
        Command::Show => {
            let answer = client.get("/api/v1/delegated").await?;
            let text = serde_json::to_string_pretty(&answer)? + "\n";
            (answer, text)
        }
        Command::Set { variant, value: wanted, share, reason } => {
            let wanted = wanted.as_deref().map(value);
            let body = json!({"variant": variant, "value": wanted, "share": share, "reason": reason});
            let answer = client.call(Method::PUT, "/api/v1/delegated", Some(&body)).await?;
            let text = changed(&answer, "in force");
            (answer, text)
        }
        Command::Clear => {
            let answer = client.call(Method::DELETE, "/api/v1/delegated", None).await?;
            let text = changed(&answer, "taken back");
            (answer, text)
        }
    };
    if args.server.json {
        println!("{answer}");
    } else {
        print!("{said}");
    }
    Ok(0)
}
