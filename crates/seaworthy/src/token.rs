//! `seaworthy token`.

use anyhow::{Result, anyhow};
use http::Method;
use serde_json::json;

use crate::client::{Client, Server, cell, table};
use crate::serve::store_token;

/// Make and revoke tokens.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// All tokens, without their secrets.
    List,
    /// Make a token; its secret is shown once.
    Create {
        /// For people.
        name: String,
        /// admin, operate, read, ingest, evaluate, service or proxy.
        #[arg(long)]
        role: String,
        /// It is worth nothing after this long, e.g. 90d.
        #[arg(long)]
        expires: Option<String>,
    },
    /// Take a token away, now.
    Revoke {
        /// Its id, tok_….
        id: String,
    },
    /// Store the token of SEAWORTHY_TOKEN for this server, readable by you only.
    Login,
}

pub async fn run(args: Args) -> Result<u8> {
    if let Command::Login = args.command {
        let token = std::env::var("SEAWORTHY_TOKEN")
            .map_err(|_| anyhow!("put the token into SEAWORTHY_TOKEN for this call"))?;
        Client::new(&args.server.server, &token).get("/api/v1/status").await?;
        let path = store_token(&args.server.server, &token).ok_or_else(|| anyhow!("cannot write the token file"))?;
        println!("stored in {}", path.display());
        return Ok(0);
    }
    let client = Client::of(&args.server)?;
    let answer = match args.command {
        Command::Create { name, role, expires } => {
            let expires = expires.as_deref().map(vocab::Millis::parse).transpose()?;
            client.post("/api/v1/tokens", &json!({"name": name, "role": role, "expires_ms": expires})).await?
        }
        Command::Revoke { id } => client.call(Method::DELETE, &format!("/api/v1/tokens/{id}"), None).await?,
        Command::List | Command::Login => client.get("/api/v1/tokens").await?,
    };
    if args.server.json {
        println!("{answer}");
    } else if let Some(list) = answer["tokens"].as_array() {
        let rows: Vec<Vec<String>> =
            list.iter().map(|t| ["id", "name", "role", "expires"].map(|k| cell(&t[k])).to_vec()).collect();
        print!("{}", table(&["id", "name", "role", "expires"], &rows));
    } else if let Some(secret) = answer["secret"].as_str() {
        println!("{secret}");
        eprintln!("{} with role {}; this is shown once", cell(&answer["id"]), cell(&answer["role"]));
    } else {
        println!("revoked, audit index {}", answer["audit_index"]);
    }
    Ok(0)
}
