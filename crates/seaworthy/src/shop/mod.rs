//! The demo's streaming shop: web → catalog, web → playback → license, and its users. Real HTTP servers on loopback that know
//! nothing of experiments: they pass on W3C trace context and baggage, evaluate a flag by OFREP, and send OTLP.

mod service;
mod telemetry;
mod users;

use std::net::SocketAddr;

use anyhow::Result;

/// One part of the shop.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// web, catalog, playback, license or users.
    part: String,
    /// Where a service listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where calls to other services go (the proxy beside them); for users: the proxy in front.
    #[arg(long, default_value = "")]
    next: String,
    /// The control plane: OTLP and OFREP.
    #[arg(long)]
    control: String,
    /// Seed of the users.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many users there are.
    #[arg(long, default_value_t = 20_000)]
    users: u64,
    /// Plays begun per second.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Who has the short timeout: device=…,app.version=…, random=15%, or none.
    #[arg(long, default_value = "device=tv,app.version=4.2.0")]
    weak: String,
}

pub async fn run(args: Args) -> Result<u8> {
    let token = std::env::var("SEAWORTHY_TOKEN").unwrap_or_default();
    let telemetry = telemetry::Telemetry::start(&args.part, &args.control, &token);
    if args.part == "users" { users::run(&args, telemetry).await } else { service::run(&args, telemetry, &token).await }
}
