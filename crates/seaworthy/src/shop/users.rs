//! The users: sticky ids and traits by seed, plays at a steady rate whatever the answers do (an open loop), and the events
//! that a player on a device would send.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Args;
use super::telemetry::{Signal, Telemetry, attributes, nanos};
use crate::client::asked_to_go;

/// Timeout of the app version that has no fallback.
const SHORT: Duration = Duration::from_millis(250);
/// Timeout of all others.
const LONG: Duration = Duration::from_secs(1);
/// Plays under way; beyond it the shop is down anyway.
const UNDER_WAY_MAX: usize = 2_000;
/// Share of plays that fail for reasons of their own, in both arms alike.
const OWN_FAILURES: f64 = 0.002;

/// SplitMix64: one draw per (seed, user, trait), so that a user is the same in every run of a seed.
fn draw(seed: u64, user: u64, what: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ user.wrapping_mul(0xd6e8_feb8_6659_fd93)
        ^ what.wrapping_mul(0xa076_1d64_78bd_642f);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Who has the short timeout.
#[derive(Clone, Debug)]
enum Weak {
    None,
    Traits(Vec<(String, String)>),
    Random(f64),
}

fn weak(text: &str) -> Result<Weak> {
    let wrong = || anyhow!("--weak {text:?}: expected none, random=15%, or traits such as device=tv,app.version=4.2.0");
    if text == "none" || text.is_empty() {
        return Ok(Weak::None);
    }
    let pairs: Vec<(String, String)> = text
        .split(',')
        .map(|pair| pair.split_once('=').map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())).ok_or_else(wrong))
        .collect::<Result<_>>()?;
    match pairs.as_slice() {
        [(key, share)] if key == "random" => {
            vocab::Share::parse(share).map(|s| Weak::Random(s.fraction())).map_err(|_| wrong())
        }
        _ => Ok(Weak::Traits(pairs)),
    }
}

/// The traits of a user: 30 attributes, among them a decoy (`player.engine`) that goes with `device` but is not the cause.
fn traits(seed: u64, user: u64) -> Vec<(&'static str, String)> {
    let pick =
        |what: u64, choices: &[&str]| choices[(draw(seed, user, what) % choices.len() as u64) as usize].to_owned();
    let share = |what: u64| unit(draw(seed, user, what));
    let device = match share(1) {
        x if x < 0.45 => "tv",
        x if x < 0.75 => "phone",
        x if x < 0.90 => "tablet",
        _ => "browser",
    };
    let version = match share(2) {
        x if x < 0.45 => "4.2.0",
        x if x < 0.70 => "4.3.1",
        x if x < 0.90 => "5.0.0",
        _ => "3.9.9",
    };
    let engine = if share(3) < if device == "tv" { 0.60 } else { 0.20 } { "legacy" } else { "modern" };
    vec![
        ("device", device.to_owned()),
        ("app.version", version.to_owned()),
        ("player.engine", engine.to_owned()),
        ("os.version", pick(4, &["12", "13", "14", "15"])),
        ("country", pick(5, &["de", "fr", "us", "gb", "jp", "br", "in", "se", "pl", "it"])),
        ("region", pick(6, &["eu-west", "eu-north", "us-east", "us-west", "ap-south"])),
        ("plan", pick(7, &["free", "basic", "premium", "family"])),
        ("language", pick(8, &["de", "en", "fr", "ja", "pt", "sv"])),
        ("cdn", pick(9, &["harbour", "quay", "pier"])),
        ("isp", pick(10, &["north", "coast", "metro", "rural", "fibre", "cable"])),
        ("network.type", pick(11, &["wifi", "cellular", "wired"])),
        ("screen.size", pick(12, &["small", "medium", "large"])),
        ("tenure", pick(13, &["new", "months", "years"])),
        ("cohort", pick(14, &["a", "b", "c", "d", "e"])),
        ("age.group", pick(15, &["18-24", "25-34", "35-49", "50+"])),
        ("codec", pick(16, &["h264", "h265", "av1"])),
        ("drm.level", pick(17, &["l1", "l3"])),
        ("timezone", pick(18, &["utc", "utc+1", "utc+9", "utc-5"])),
        ("referrer", pick(19, &["search", "home", "mail", "friend"])),
        ("payment", pick(20, &["card", "invoice", "wallet"])),
        ("household", pick(21, &["1", "2", "3", "4+"])),
        ("subtitle", pick(22, &["none", "own", "english"])),
        ("audio", pick(23, &["stereo", "surround"])),
        ("resolution", pick(24, &["720p", "1080p", "2160p"])),
        ("theme", pick(25, &["light", "dark"])),
        ("autoplay", pick(26, &["on", "off"])),
        ("profile.kind", pick(27, &["adult", "kids"])),
        ("experience", pick(28, &["standard", "beta"])),
        ("store", pick(29, &["one", "two", "three"])),
        ("build", pick(30, &["b101", "b102", "b103", "b104", "b105", "b106"])),
    ]
}

struct World {
    seed: u64,
    next: String,
    weak: Weak,
    telemetry: Telemetry,
    client: Client<HttpConnector, Empty<Bytes>>,
}

pub async fn run(args: &Args, telemetry: Telemetry) -> Result<u8> {
    let world = Arc::new(World {
        seed: args.seed,
        next: args.next.clone(),
        weak: weak(&args.weak)?,
        telemetry,
        client: Client::builder(TokioExecutor::new()).build_http(),
    });
    println!("{}", json!({"users": args.users}));
    let (n_users, rate) = (args.users.max(1), args.rate.clamp(0.1, 5_000.0));
    let playing = async move {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let began = Instant::now();
        let mut play = 0_u64;
        loop {
            let due = began + Duration::from_secs_f64(play as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            play += 1;
            let user = draw(world.seed, play, 99) % n_users;
            let Ok(permit) = under_way.clone().try_acquire_owned() else { continue };
            let world = world.clone();
            tokio::spawn(async move {
                world.play(user, play).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = playing => {}
        () = asked_to_go() => {}
    }
    Ok(0)
}

impl World {
    async fn play(&self, user: u64, play: u64) {
        let traits = traits(self.seed, user);
        let id = format!("user-{user:05}");
        let has = |key: &str, value: &str| traits.iter().any(|(k, v)| *k == key && v == value);
        let is_weak = match &self.weak {
            Weak::None => false,
            Weak::Traits(pairs) => pairs.iter().all(|(k, v)| has(k, v)),
            Weak::Random(share) => unit(draw(self.seed, user, 77)) < *share,
        };
        let trace = format!("{:016x}{:016x}", getrandom::u64().unwrap_or(play), getrandom::u64().unwrap_or(user) | 1);
        let span = format!("{:016x}", getrandom::u64().unwrap_or(1) | 1);
        let event = |name: &str, more: Vec<(&'static str, Value)>| {
            let own = traits.iter().map(|(k, v)| (*k, json!(v)));
            let all = own.chain([("user.id", json!(id)), ("event.name", json!(name))]).chain(more);
            self.telemetry.send(Signal::Log(json!({
                "timeUnixNano": nanos(SystemTime::now()), "eventName": name, "traceId": trace, "spanId": span,
                "attributes": attributes(all),
            })));
        };
        event("play.attempt", vec![]);
        let request = Request::get(format!("{}/play", self.next))
            .header("x-user-id", &id)
            .header("traceparent", format!("00-{trace}-{span}-01"))
            .body(Empty::new());
        let began = Instant::now();
        let call = async {
            let response = self.client.request(request.map_err(|e| e.to_string())?).await.map_err(|e| e.to_string())?;
            let status = response.status();
            response.into_body().collect().await.map_err(|e| e.to_string())?;
            if status.is_success() { Ok(()) } else { Err(format!("answered {status}")) }
        };
        let outcome = match tokio::time::timeout(if is_weak { SHORT } else { LONG }, call).await {
            _ if unit(draw(self.seed, play, 55)) < OWN_FAILURES => Err("decoder".to_owned()),
            Ok(outcome) => outcome,
            Err(_) => Err("timeout".to_owned()),
        };
        let ms = json!(began.elapsed().as_secs_f64() * 1e3);
        match outcome {
            Ok(()) => event("play.started", vec![("play.outcome", json!("started")), ("play.wait_ms", ms)]),
            Err(why) => event(
                "play.failed",
                vec![("play.outcome", json!("failed")), ("play.error", json!(why)), ("play.wait_ms", ms)],
            ),
        }
    }
}
