//! The stock Rust providers against `seaworthy flagd start`: RPC, in process and OFREP; every type, targeting, a split, metadata,
//! errors, and a change that is seen. One argument: the binary.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use open_feature::provider::FeatureProvider;
use open_feature::{EvaluationContext, EvaluationErrorCode};
use open_feature_flagd::{CacheSettings, CacheType, FlagdOptions, FlagdProvider, ResolverType};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The daemon, killed with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn flags(text: &str) -> Value {
    json!({"flags": {
        "bool": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
        "text": {"state": "ENABLED", "variants": {"a": text}, "defaultVariant": "a"},
        "whole": {"state": "ENABLED", "variants": {"a": 42}, "defaultVariant": "a"},
        "float": {"state": "ENABLED", "variants": {"a": 0.5}, "defaultVariant": "a"},
        "object": {"state": "ENABLED", "variants": {"a": {"key": "value"}}, "defaultVariant": "a"},
        "targeted": {"state": "ENABLED", "variants": {"yes": "yes", "no": "no"}, "defaultVariant": "no",
            "targeting": {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "yes", null]}},
        "split": {"state": "ENABLED", "variants": {"left": "left", "right": "right"}, "defaultVariant": "left",
            // The text that is hashed is given: all generations but the first hash it alike, but for how they write it down.
            "targeting": {"fractional": [{"var": "targetingKey"}, ["left", 50], ["right", 50]]}},
        "off": {"state": "DISABLED", "variants": {"on": true}, "defaultVariant": "on"},
    }})
}

/// Four ports that nobody listens on.
fn ports() -> Outcome<[u16; 4]> {
    let held = (0..4).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports =
        held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<Vec<u16>, std::io::Error>>()?;
    Ok(ports.try_into().map_err(|_| "four ports")?)
}

fn start(bin: &str, file: &Path, ports: [u16; 4]) -> Outcome<Daemon> {
    let [evaluation, management, sync, ofrep] = ports.map(|port| port.to_string());
    let child = Command::new(bin)
        .args(["flagd", "start", "-f", &format!("file:{}", file.display())])
        .args(["-p", &evaluation, "-m", &management, "-g", &sync, "-r", &ofrep])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let daemon = Daemon(child);
    let began = Instant::now();
    while ports.iter().any(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_err()) {
        if began.elapsed() > Duration::from_secs(20) {
            return Err("the daemon does not listen".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(daemon)
}

async fn provider(mode: &str, ports: [u16; 4]) -> Outcome<Box<dyn FeatureProvider>> {
    let flagd = |resolver_type, port| FlagdOptions {
        host: "127.0.0.1".to_owned(),
        port,
        resolver_type,
        // By default it answers from memory for a minute, whatever changes meanwhile.
        cache_settings: Some(CacheSettings { cache_type: CacheType::Disabled, max_size: 1, ttl: None }),
        ..Default::default()
    };
    Ok(match mode {
        "rpc" => Box::new(FlagdProvider::new(flagd(ResolverType::Rpc, ports[0])).await?),
        "in-process" => Box::new(FlagdProvider::new(flagd(ResolverType::InProcess, ports[2])).await?),
        _ => {
            let base_url = format!("http://127.0.0.1:{}", ports[3]);
            Box::new(OfrepProvider::new(OfrepOptions { base_url, ..Default::default() }).await?)
        }
    })
}

/// Compares, says so, and goes on.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: T, wanted: T) {
        if got == wanted {
            self.passed += 1;
        } else {
            self.failed += 1;
            println!("FAILED {what}: {got:?}, expected {wanted:?}");
        }
    }
}

async fn try_mode(mode: &str, bin: &str, tally: &mut Tally) -> Outcome<BTreeMap<String, String>> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("flags.json");
    std::fs::write(&file, flags("hello").to_string())?;
    let ports = ports()?;
    let _daemon = start(bin, &file, ports)?;
    let provider = provider(mode, ports).await?;
    let ann = EvaluationContext::default().with_targeting_key("ann").with_custom_field("email", "ann@example.com");
    let nobody = EvaluationContext::default();
    let named = |what: &str| format!("{mode}: {what}");

    let code = |error: open_feature::EvaluationError| error.code;
    let got = provider.resolve_bool_value("bool", &nobody).await.map_err(code);
    tally.check(&named("bool"), got.as_ref().map(|d| d.value).ok(), Some(true));
    tally.check(&named("its variant"), got.ok().and_then(|d| d.variant), Some("on".to_owned()));
    let got = provider.resolve_string_value("text", &nobody).await.map_err(code);
    tally.check(&named("text"), got.map(|d| d.value).ok(), Some("hello".to_owned()));
    let got = provider.resolve_int_value("whole", &nobody).await.map_err(code);
    tally.check(&named("whole number"), got.map(|d| d.value).ok(), Some(42));
    let got = provider.resolve_float_value("float", &nobody).await.map_err(code);
    tally.check(&named("float"), got.map(|d| d.value).ok(), Some(0.5));
    let got = provider.resolve_struct_value("object", &nobody).await.map_err(code);
    let key = got.ok().and_then(|d| d.value.fields.get("key").and_then(|v| v.as_str().map(str::to_owned)));
    tally.check(&named("object"), key, Some("value".to_owned()));
    for (context, wanted) in [(&ann, "yes"), (&nobody, "no")] {
        let got = provider.resolve_string_value("targeted", context).await.map_err(code);
        tally.check(&named("targeting"), got.map(|d| d.value).ok(), Some(wanted.to_owned()));
    }
    let missing = provider.resolve_bool_value("missing", &nobody).await.map(|d| d.value).map_err(code);
    tally.check(&named("unknown flag"), missing, Err(EvaluationErrorCode::FlagNotFound));
    // Each has a code of its own for a value of another type; that it is an error is ours.
    tally.check(&named("wrong type"), provider.resolve_bool_value("text", &nobody).await.is_err(), true);
    // Off is the code default: whatever a provider calls it, it is no value of the flag's.
    let off = provider.resolve_bool_value("off", &nobody).await.map(|d| d.value).ok();
    tally.check(&named("off gives no value"), off != Some(true), true);

    let mut places = BTreeMap::new();
    for n in 0..200 {
        let user = EvaluationContext::default().with_targeting_key(format!("user-{n}"));
        let got = provider.resolve_string_value("split", &user).await.map_err(|error| format!("{:?}", error.code))?;
        places.insert(format!("user-{n}"), got.value);
    }
    let left = places.values().filter(|side| *side == "left").count();
    tally.check(&named("a split splits"), (60..140).contains(&left), true);

    std::fs::write(&file, flags("changed").to_string())?;
    let began = Instant::now();
    let seen = loop {
        let got = provider.resolve_string_value("text", &nobody).await.map(|d| d.value).unwrap_or_default();
        if got == "changed" || began.elapsed() > Duration::from_secs(10) {
            break got;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    tally.check(&named("a change is seen"), seen, "changed".to_owned());
    println!("{mode}: a change was seen after {:.1} s", began.elapsed().as_secs_f64());
    Ok(places)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let bin = std::env::args().nth(1).ok_or("usage: rust-clients BINARY")?;
    let mut tally = Tally::default();
    let mut places = BTreeMap::new();
    for mode in ["rpc", "in-process", "ofrep"] {
        places.insert(mode, try_mode(mode, &bin, &mut tally).await?);
    }
    tally.check("RPC and OFREP place users alike", &places["rpc"] == &places["ofrep"], true);
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed > 0 { Err("the Rust providers do not get what they should".into()) } else { Ok(()) }
}
