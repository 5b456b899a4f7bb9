//! `seaworthy`: every production change is an experiment that stops itself when it hurts. One file per subcommand.
//!
//! Exit codes: 0 fine, 1 the answer is no (stopped, not verified), 2 usage, 64 configuration, 69 unreachable.

mod apply;
mod audit_cmd;
mod client;
mod compare;
mod copy;
mod delegation;
mod demo;
mod events_cmd;
mod experiment;
mod flag;
mod flag_life;
mod flag_refs;
mod flagd_cmd;
mod ingest;
mod preview;
mod profile;
mod proxy_cmd;
mod query;
mod serve;
mod shop;
mod sql;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Every production change is an experiment on a slice of users: watched against a baseline, stopped when it hurts.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane and the web console.
    Serve(serve::Args),
    /// Run the data plane in front of or beside your services.
    Proxy(proxy_cmd::Args),
    /// Watch the main job on a small streaming shop: a fault that stops itself, a rollout that is promoted.
    Demo(demo::Args),
    /// Make, show and switch off flags.
    Flag(flag::Args),
    /// Say how changes of flags are watched that become rollouts by themselves.
    Profile(profile::Args),
    /// Put one person on one variant in production, for a while.
    Preview(preview::Args),
    /// Let somebody who is no engineer set one flag within bounds.
    Delegation(delegation::Args),
    /// Make flags and segments as documents say, all or nothing.
    Apply(apply::Args),
    /// Make flags as they are on another server: from staging to production.
    Copy(copy::Args),
    /// Take over flags from LaunchDarkly, Unleash, GrowthBook, Flipt, GO Feature Flag or flagd.
    Import(apply::ImportArgs),
    /// Serve flag files to flagd clients, with flagd's own options.
    Flagd(flagd_cmd::Args),
    /// Plan, start, watch, stop and acknowledge experiments.
    Experiment(experiment::Args),
    /// Store events from a file: JSON lines, or a report of tests.
    Ingest(ingest::Args),
    /// Ask the events: filter, group by, count, percentiles, over time.
    Query(query::Args),
    /// Ask with SQL: events, experiments, flags and the audit log together.
    Sql(sql::Args),
    /// One trace, callers before those they call.
    Trace(query::TraceArgs),
    /// Which services call which.
    Map(query::WindowArgs),
    /// Which fields events have, and some of their values.
    Fields(query::WindowArgs),
    /// What is different about the events that match.
    Compare(compare::Args),
    /// Read and verify the audit log.
    Audit(audit_cmd::Args),
    /// Check the stored events.
    Events(events_cmd::Args),
    /// Make and revoke tokens.
    Token(token::Args),
    /// One service of the demo's shop.
    #[command(hide = true)]
    Shop(shop::Args),
}

/// A reader that has seen enough (`| head`) ends the command, as with any other; it is no fault to report.
fn end_quietly_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.payload().downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(141);
        }
        usual(info);
    }));
}

fn main() -> ExitCode {
    end_quietly_when_nobody_reads();
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("SEAWORTHY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::from(69);
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Proxy(args) => proxy_cmd::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Flag(args) => flag::run(args).await,
            Command::Profile(args) => profile::run(args).await,
            Command::Preview(args) => preview::run(args).await,
            Command::Delegation(args) => delegation::run(args).await,
            Command::Apply(args) => apply::run(args).await,
            Command::Copy(args) => copy::run(args).await,
            Command::Import(args) => apply::import(args).await,
            Command::Flagd(args) => flagd_cmd::run(args).await,
            Command::Experiment(args) => experiment::run(args).await,
            Command::Ingest(args) => ingest::run(args).await,
            Command::Query(args) => query::run(args).await,
            Command::Sql(args) => sql::run(args).await,
            Command::Trace(args) => query::trace(args).await,
            Command::Map(args) => query::map(args).await,
            Command::Fields(args) => query::fields(args).await,
            Command::Compare(args) => compare::run(args).await,
            Command::Audit(args) => audit_cmd::run(args).await,
            Command::Events(args) => events_cmd::run(&args),
            Command::Token(args) => token::run(args).await,
            Command::Shop(args) => shop::run(args).await,
        }
    });
    // A reader thread on a terminal or a connection that hangs must not keep a finished command alive.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(client::exit_code(&error))
        }
    }
}
