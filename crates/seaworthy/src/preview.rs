//! `seaworthy preview`: preview links.

use anyhow::Result;
use http::Method;
use serde_json::json;

use crate::client::{Client, Server, cell, escaped, table};

/// Put one person on one variant in production, for a while.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All previews, newest first.
    List,
    /// Make one; prints the link, or its text without --url.
    Create {
        /// The flag.
        flag: String,
        /// What the person gets.
        variant: String,
        /// The person's targeting key; without it, whoever uses the link first.
        #[arg(long)]
        subject: Option<String>,
        /// How long it counts: 90s, 2h, at most 31 days.
        #[arg(long = "for", default_value = "1h")]
        lasts: String,
        /// The page to look at.
        #[arg(long)]
        url: Option<String>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// End one.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// The page with the link's text in its query, before a fragment.
fn link(url: &str, text: &str) -> String {
    let (page, fragment) = url.split_once('#').map_or((url, String::new()), |(page, rest)| (page, format!("#{rest}")));
    format!("{page}{}sw-preview={text}{fragment}", if page.contains('?') { '&' } else { '?' })
}

pub async fn run(args: Args) -> Result<u8> {
    let client = Client::of(&args.server)?;
    let (answer, said) = match args.command {
        Command::List => {
            let answer = client.get("/api/v1/previews").await?;
            let list = answer["previews"].as_array().into_iter().flatten();
            let rows: Vec<Vec<String>> = list
                .map(|p| {
                    let mut row = ["id", "flag", "variant", "ends", "by"].map(|k| cell(&p[k])).to_vec();
                    row.push(p["subject"].as_str().map_or("nobody yet", |_| "one person").to_owned());
                    row
                })
                .collect();
            let text = table(&["preview", "flag", "variant", "ends", "by", "used by"], &rows);
            (answer, text)
        }
        Command::Create { flag, variant, subject, lasts, url, reason } => {
            let body = json!({"flag": flag, "variant": variant, "subject": subject, "lasts": lasts, "reason": reason});
            let answer = client.post("/api/v1/previews", &body).await?;
            let token = cell(&answer["token"]);
            let text = format!("{}\n", url.map_or(token.clone(), |url| link(&url, &token)));
            if !args.server.json {
                eprintln!(
                    "{}: {variant} of {flag} for one person until {}",
                    cell(&answer["id"]),
                    cell(&answer["ends"])
                );
                eprintln!("see what he does: seaworthy query --where 'preview.id = \"{}\"'", cell(&answer["id"]));
            }
            (answer, text)
        }
        Command::Revoke { id } => {
            let answer = client.call(Method::DELETE, &format!("/api/v1/previews/{}", escaped(&id)), None).await?;
            let text = format!("{id} counts no more, audit index {}\n", cell(&answer["audit_index"]));
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
