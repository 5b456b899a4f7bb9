//! `seaworthy flagd start`: flagd's daemon, with flagd's options, over files and other sources. No control plane, no audit log.

mod config;
mod sources;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use flagd::http::Health;
use flagd::limit::By;
use flagd::listen::{self, Tls};
use flagd::{Face, Hub, Limiter};
use tokio::task::JoinSet;

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
    #[arg(short = 'e', long)]
    sync_socket_path: Option<PathBuf>,
    /// Certificate chain (PEM) for evaluation, sync and OFREP.
    #[arg(short = 'c', long)]
    server_cert_path: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(short = 'k', long)]
    server_key_path: Option<PathBuf>,
    /// Origins whose pages may call: `*` or a list.
    #[arg(short = 'C', long, value_delimiter = ',')]
    cors_origin: Vec<String>,
    /// Adds an attribute to every evaluation: `name=value`.
    #[arg(short = 'X', long, value_delimiter = ',')]
    context_value: Vec<String>,
    /// Adds a header's value to every evaluation: `header=name`.
    #[arg(short = 'H', long, value_delimiter = ',')]
    context_from_header: Vec<String>,
    /// The largest request in bytes (1,000,000); 0 takes 64 MiB.
    #[arg(short = 'B', long)]
    max_request_body: Option<usize>,
    /// Ends streams after this long, e.g. 10m.
    #[arg(long)]
    stream_deadline: Option<String>,
    /// Do not answer GetMetadata; SyncFlags carries the same.
    #[arg(long)]
    disable_sync_metadata: bool,
    /// Requests a second that one address may make by OFREP (10,000); above it, 429. 0 is without end.
    #[arg(long)]
    ofrep_rate_limit: Option<u32>,
    /// Prints one line of JSON when ready: the addresses.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    idle: Idle,
}

/// Options of flagd's that a script may give and that do nothing here; each is named in the log.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Accepted for flagd's sake, without effect")]
struct Idle {
    /// Use SEAWORTHY_LOG=debug.
    #[arg(short = 'x', long, num_args = 0..=1, default_missing_value = "true")]
    debug: Option<String>,
    /// Logs are text on standard error.
    #[arg(short = 'z', long)]
    log_format: Option<String>,
    #[arg(long)]
    keep_alive_min_time: Option<String>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    keep_alive_permit_without_stream: Option<String>,
    #[arg(short = 'R', long)]
    max_request_header: Option<String>,
    #[arg(short = 't', long)]
    metrics_exporter: Option<String>,
    #[arg(short = 'o', long)]
    otel_collector_uri: Option<String>,
    #[arg(short = 'A', long)]
    otel_ca_path: Option<String>,
    #[arg(short = 'D', long)]
    otel_cert_path: Option<String>,
    #[arg(short = 'K', long)]
    otel_key_path: Option<String>,
    #[arg(short = 'I', long)]
    otel_reload_interval: Option<String>,
}

impl Idle {
    fn given(&self) -> Vec<&'static str> {
        let all = [
            ("debug", &self.debug),
            ("log-format", &self.log_format),
            ("keep-alive-min-time", &self.keep_alive_min_time),
            ("keep-alive-permit-without-stream", &self.keep_alive_permit_without_stream),
            ("max-request-header", &self.max_request_header),
            ("metrics-exporter", &self.metrics_exporter),
            ("otel-collector-uri", &self.otel_collector_uri),
            ("otel-ca-path", &self.otel_ca_path),
            ("otel-cert-path", &self.otel_cert_path),
            ("otel-key-path", &self.otel_key_path),
            ("otel-reload-interval", &self.otel_reload_interval),
        ];
        all.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name).collect()
    }
}

pub async fn run(args: Args) -> Result<u8> {
    let Command::Start(start) = args.command;
    let options = config::Options::of(&start)?;
    for name in &options.idle {
        tracing::warn!("{name} does nothing here: see docs/reference/flagd.md");
    }
    let hub = Arc::new(Hub::new(options.context.clone()));
    let mut face = Face::new(hub.clone());
    face.headers = options.headers.clone();
    face.stream_deadline = options.stream_deadline;
    face.body_bytes_max = options.body_bytes_max;
    face.sync_metadata = !options.disable_sync_metadata;
    let tls = match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => Some(Tls::load(certificate, key)?),
        (None, None) => None,
        _ => bail!("server-cert-path and server-key-path belong together: give both or none"),
    };
    face.limiter = options.ofrep_rate.map(|rate| Arc::new(Limiter::new(rate, By::Address)));
    let cors = flagd::http::cors(&options.origins)?;
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
        let router = match &cors {
            Some(cors) => router.layer(cors.clone()),
            None => router,
        };
        if let Some(path) = socket {
            let path = path.clone();
            addresses.insert(name.to_owned(), format!("unix:{}", path.display()).into());
            tasks.spawn(async move { listen::serve_unix(&path, router).await.map_err(anyhow::Error::from) });
            continue;
        }
        let listener = listen::bind(SocketAddr::new(options.bind, port)).await?;
        addresses.insert(name.to_owned(), listener.local_addr()?.to_string().into());
        tasks.spawn(async move {
            listen::serve(listener, tls, router).await;
            Ok(())
        });
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
