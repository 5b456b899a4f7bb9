//! One rule (country is one of two) with a 10 % rollout behind it, evaluated in process for a thousand subjects in turn.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use launchdarkly_server_sdk_evaluation as launchdarkly;
use serde_json::{Value, json};
use unleash_yggdrasil::EngineState;
use vocab::Timestamp;

use crate::Args;
use crate::figures::{Figures, median};

const SUBJECTS: usize = 1_000;
const ROUNDS: usize = 31;

fn subject(n: usize) -> String {
    format!("user-{}", n.wrapping_mul(2_654_435_761) % 1_000_000)
}

fn country(n: usize) -> &'static str {
    ["DE", "AT", "FR", "US"][n % 4]
}

fn dialect() -> Result<flags::FlagSet> {
    let document = json!({"flags": {"checkout": {
        "variants": {"on": true, "off": false}, "on": true, "fallthrough": "off",
        "rules": [{"when": {"attr": "country", "op": "in", "values": ["DE", "AT"]},
            "serve": {"split": {"weights": [["on", 10], ["off", 90]]}}}],
    }}});
    flags::FlagSet::parse(&document.to_string()).map_err(|findings| anyhow!("{findings:?}"))
}

fn ours(metadata: Value) -> Result<flags::FlagSet> {
    let document = json!({"flags": {"checkout": {
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "metadata": metadata,
        "targeting": {"if": [
            {"in": [{"var": "country"}, ["DE", "AT"]]},
            {"fractional": [{"var": "targetingKey"}, ["on", 10], ["off", 90]]},
            "off"]},
    }}});
    flags::FlagSet::parse(&document.to_string()).map_err(|findings| anyhow!("{findings:?}"))
}

struct Held(HashMap<String, launchdarkly::Flag>);

impl launchdarkly::Store for Held {
    fn flag(&self, key: &str) -> Option<launchdarkly::Flag> {
        self.0.get(key).cloned()
    }
    fn segment(&self, _: &str) -> Option<launchdarkly::Segment> {
        None
    }
}

fn theirs_launchdarkly() -> Result<launchdarkly::Flag> {
    let flag = json!({
        "key": "checkout", "version": 1, "on": true, "targets": [], "prerequisites": [], "salt": "salt",
        "variations": [true, false], "offVariation": 1, "fallthrough": {"variation": 1}, "clientSide": false,
        "rules": [{"id": "r1", "trackEvents": false,
            "clauses": [{"attribute": "country", "op": "in", "values": ["DE", "AT"], "negate": false, "contextKind": "user"}],
            "rollout": {"contextKind": "user", "bucketBy": "key",
                "variations": [{"variation": 0, "weight": 10_000}, {"variation": 1, "weight": 90_000}]}}],
    });
    serde_json::from_value(flag).context("a LaunchDarkly flag")
}

fn theirs_unleash() -> Result<EngineState> {
    let features = json!({"version": 2, "features": [{"name": "checkout", "enabled": true, "strategies": [{
        "name": "flexibleRollout",
        "constraints": [{"contextName": "country", "operator": "IN", "values": ["DE", "AT"]}],
        "parameters": {"rollout": "10", "stickiness": "userId", "groupId": "checkout"},
    }]}]});
    let engine = EngineState::default();
    engine.take_state(serde_json::from_value(features).context("Unleash features")?);
    Ok(engine)
}

/// Nanoseconds for one call, and how many said yes.
fn time(rounds: usize, mut call: impl FnMut(usize) -> bool) -> (f64, usize) {
    let began = Instant::now();
    let mut yes = 0;
    for _ in 0..rounds {
        for n in 0..SUBJECTS {
            yes += usize::from(call(n));
        }
    }
    (began.elapsed().as_nanos() as f64 / (rounds * SUBJECTS) as f64, yes / rounds)
}

/// Measures all four in turn, round by round.
pub fn measure(args: &Args, figures: &mut Figures) -> Result<()> {
    let contexts: Vec<flags::Context> =
        (0..SUBJECTS).map(|n| flags::Context::of(&subject(n)).with("country", country(n))).collect();
    let native = ours(json!({"bucketing": "native-1"}))?;
    let flagd = ours(json!({}))?;
    let dialect = dialect()?;
    let now = Timestamp::from_nanos(1_764_000_000_000_000_000);
    let our_call = |set: &flags::FlagSet, n: usize| {
        let flag = set.flag(black_box("checkout")).expect("it is there");
        let found = flag.evaluate(black_box(&contexts[n]), None, now).expect("it evaluates");
        found.value == Some(&Value::Bool(true))
    };

    let store = Held(HashMap::new());
    let flag = theirs_launchdarkly()?;
    let ld_contexts: Vec<launchdarkly::Context> = (0..SUBJECTS)
        .map(|n| {
            let mut builder = launchdarkly::ContextBuilder::new(subject(n));
            builder.set_string("country", country(n)).build().map_err(|e| anyhow!(e))
        })
        .collect::<Result<_>>()?;
    let ld_call = |n: usize| {
        let found = launchdarkly::evaluate(&store, black_box(&flag), black_box(&ld_contexts[n]), None);
        matches!(found.value, Some(launchdarkly::FlagValue::Bool(true)))
    };

    let engine = theirs_unleash()?;
    let un_contexts: Vec<unleash_yggdrasil::Context> = (0..SUBJECTS)
        .map(|n| unleash_yggdrasil::Context {
            user_id: Some(subject(n)),
            properties: Some(HashMap::from([("country".to_owned(), country(n).to_owned())])),
            session_id: None,
            environment: None,
            app_name: None,
            current_time: None,
            remote_address: None,
        })
        .collect();
    let un_call = |n: usize| engine.is_enabled(black_box("checkout"), black_box(&un_contexts[n]), &None);

    let (rounds, batch) = if args.small { (1, 1) } else { (ROUNDS, 200) };
    let mut samples = [const { Vec::new() }; 5];
    let mut yes = [0; 5];
    for _ in 0..rounds {
        let round = [
            time(batch, |n| our_call(&dialect, n)),
            time(batch, |n| our_call(&native, n)),
            time(batch, |n| our_call(&flagd, n)),
            time(batch, ld_call),
            time(batch, un_call),
        ];
        for (place, (nanos, found)) in round.into_iter().enumerate() {
            samples[place].push(nanos);
            yes[place] = found;
        }
    }
    let names =
        ["our dialect, native-1", "flagd's dialect, native-1", "flagd's dialect, flagd-v2", "LaunchDarkly", "Unleash"];
    // Half of the subjects match the rule, a tenth of those is rolled out to.
    for (name, found) in names.iter().zip(yes) {
        ensure!((20..=85).contains(&found), "{name} gives the flag to {found} of {SUBJECTS}: not the same flag");
    }
    let medians = samples.map(median);
    let ns = |nanos: f64| format!("{nanos:.0} ns");
    for (name, nanos) in names.iter().zip(medians).take(3) {
        let what = format!("flag, rule + 10 % rollout, {name}");
        let (ld, un) = (medians[3], medians[4]);
        figures.beside(&what, ns(nanos), "launchdarkly-server-sdk-evaluation", ns(ld), ld / nanos);
        figures.beside(&what, ns(nanos), "unleash-yggdrasil", ns(un), un / nanos);
    }
    many(args, figures)
}

/// Many flags: loading them, changing one, and all for one subject.
fn many(args: &Args, figures: &mut Figures) -> Result<()> {
    let count = if args.small { 1_000 } else { 100_000 };
    let flag = |n: usize| {
        json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": "off",
            "rules": [{"when": {"attr": "country", "op": "in", "values": ["DE", "AT"]},
                "serve": {"split": {"weights": [["on", n % 100], ["off", 100]], "salt": "s"}}}]})
    };
    let all: serde_json::Map<String, Value> = (0..count).map(|n| (format!("flag-{n}"), flag(n))).collect();
    let text = json!({"flags": all}).to_string();
    let mut load = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let set = flags::FlagSet::parse(black_box(&text)).map_err(|findings| anyhow!("{findings:?}"))?;
        load.push(began.elapsed().as_secs_f64());
        ensure!(set.flags().len() == count, "not all flags were read");
    }
    figures.ours(&format!("load {count} flags ({:.0} MB)", text.len() as f64 / 1e6), format!("{:.2} s", median(load)));
    let few: serde_json::Map<String, Value> = (0..350).map(|n| (format!("flag-{n}"), flag(n))).collect();
    let set = flags::FlagSet::parse(&json!({"flags": few}).to_string()).map_err(|findings| anyhow!("{findings:?}"))?;
    let context = flags::Context::of("user-1").with("country", "DE");
    let now = Timestamp::from_nanos(1_764_000_000_000_000_000);
    let mut bulk = Vec::new();
    for _ in 0..if args.small { 3 } else { 301 } {
        let began = Instant::now();
        let on = set
            .evaluate_all(black_box(&context), now)
            .filter(|(_, found)| found.as_ref().is_ok_and(|found| found.value == Some(&Value::Bool(true))));
        black_box(on.count());
        bulk.push(began.elapsed().as_secs_f64() * 1e6);
    }
    figures.ours("evaluate 350 flags for one subject", format!("{:.0} µs", median(bulk)));
    Ok(())
}
