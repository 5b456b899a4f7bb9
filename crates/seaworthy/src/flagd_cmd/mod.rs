//! `seaworthy flagd start`: flagd's daemon, with flagd's options, over files and other sources. No control plane, no audit log.

mod config;
mod sources;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use flagd::http::Health;
use flagd::listen::{self, Tls};
use flagd::{Face, Hub};
use tokio::task::JoinSet;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::client::asked_to_go;

/// Serve flag files to flagd's clients.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start the daemon.
    Start(Box<Start>),
}

/// flagd's options.
#[derive(Clone, Debug, Default, clap::Args)]
struct Start {
    /// A file of options, in JSON or YAML, by their long names; the command line wins.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where flags come from: `file:PATH`, `http://…` or `grpc://…`. Of two flags with one key the later source's counts.
    #[arg(short = 'f', long)]
    uri: Vec<String>,
    /// The same as a JSON list: `[{"uri": "flags.json", "provider": "file"}]`.
    #[arg(short = 's', long)]
    sources: Option<String>,
    /// Port of evaluation by gRPC, gRPC-web and Connect (8013). 0 takes a free one.
    #[arg(short = 'p', long)]
    port: Option<u16>,
    /// Port of health and metrics (8014).
    #[arg(short = 'm', long)]
    management_port: Option<u16>,
    /// Port of sync (8015).
    #[arg(short = 'g', long)]
    sync_port: Option<u16>,
    /// Port of OFREP (8016).
    #[arg(short = 'r', long)]
    ofrep_port: Option<u16>,
    /// Address to listen on (127.0.0.1). There is no authentication: whoever reaches it reads all flags.
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Evaluation on a unix socket instead of a port.
    #[arg(short = 'd', long)]
    socket_path: Option<PathBuf>,
    /// Sync on a unix socket instead of a port.
    #[arg(long)]
    sync_socket_path: Option<PathBuf>,
    /// Certificate chain (PEM) for evaluation, sync and OFREP.
    #[arg(short = 'c', long)]
    server_cert_path: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(short = 'k', long)]
    server_key_path: Option<PathBuf>,
    /// Origins whose pages may call: `*` or a list.
    #[arg(short = 'C', long)]
    cors_origin: Vec<String>,
    /// Adds an attribute to every evaluation: `name=value`.
    #[arg(short = 'X', long)]
    context_value: Vec<String>,
    /// Adds a header's value to every evaluation: `header=name`.
    #[arg(short = 'H', long)]
    context_from_header: Vec<String>,
    /// Ends streams after this long, e.g. 10m.
    #[arg(long)]
    stream_deadline: Option<String>,
    /// Do not answer GetMetadata; SyncFlags carries the same.
    #[arg(long)]
    disable_sync_metadata: bool,
    /// Prints one line of JSON when ready: the addresses.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<u8> {
    let Command::Start(start) = args.command;
    let options = config::Options::of(&start)?;
    let hub = Arc::new(Hub::new(options.context.clone()));
    let mut face = Face::new(hub.clone());
    face.headers = options.headers.clone();
    face.stream_deadline = options.stream_deadline;
    face.sync_metadata = !options.disable_sync_metadata;
    let tls = match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
        (None, None) => None,
        _ => bail!("server-cert-path and server-key-path belong together: give both or none"),
    };
    let health = Arc::new(Health::default());
    let mut tasks = JoinSet::new();
    let mut addresses = serde_json::Map::new();
    let ports = [
        (
            "evaluation",
            options.ports[0],
            &options.sockets[0],
            tls.clone(),
            flagd::http::evaluation(&face).fallback(flagd::http::unimplemented),
        ),
        (
            "sync",
            options.ports[2],
            &options.sockets[1],
            tls.clone(),
            flagd::http::sync(&face).fallback(flagd::http::unimplemented),
        ),
        ("ofrep", options.ports[3], &None, tls, flagd::http::ofrep(&face)),
        ("management", options.ports[1], &None, None, flagd::http::management(&face, &health)),
    ];
    for (name, port, socket, tls, router) in ports {
        let router = if name == "management" { router } else { flagd::http::counted(router, &health) };
        let router = cors(router, &options.origins)?;
        if let Some(path) = socket {
            let path = path.clone();
            addresses.insert(name.to_owned(), format!("unix:{}", path.display()).into());
            tasks.spawn(async move { listen::serve_unix(&path, router).await.map_err(anyhow::Error::from) });
            continue;
        }
        let listener = listen::bind(SocketAddr::new(options.bind, port)).await?;
        addresses.insert(name.to_owned(), listener.local_addr()?.to_string().into());
        tasks.spawn(async move { listen::serve(listener, tls, router).await.map_err(anyhow::Error::from) });
    }
    // Listening first: a source that takes its time is told by /readyz, not by refused connections.
    let flags = sources::follow(hub.clone(), options.sources.clone()).await?;
    health.ready.store(true, Ordering::Relaxed);
    if options.json {
        println!("{}", serde_json::Value::Object(addresses));
    } else {
        println!("{flags} flags from {} sources", options.sources.len());
        addresses.iter().for_each(|(name, at)| println!("{name:<12} {}", at.as_str().unwrap_or_default()));
    }
    tokio::select! {
        () = asked_to_go() => {}
        ended = tasks.join_next() => {
            ended.context("nothing listens")??.context("a listener ended")?;
        }
    }
    // Clients notice the end of their streams and come back; nothing here needs to be saved.
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(0)
}

fn cors(router: Router, origins: &[String]) -> Result<Router> {
    if origins.is_empty() {
        return Ok(router);
    }
    let allowed = if origins.iter().any(|o| o == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(|o| o.parse()).collect::<Result<Vec<_>, _>>().context("cors-origin")?)
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(tower_http::cors::Any)
        .allow_headers(tower_http::cors::Any)
        .expose_headers(tower_http::cors::Any);
    Ok(router.layer(layer))
}
