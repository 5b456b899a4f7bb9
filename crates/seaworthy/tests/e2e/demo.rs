//! The demo itself, judged by its JSON.

use std::process::Command;

use serde_json::Value;

use crate::harness::{BIN, alone, runs};

/// Runs the demo, and once more if an experiment ended as invalid: arms are drawn anew each time, the alarms on their sizes have an
/// alpha of 0.001 each, and some thirty experiments here with two such alarms in two phases meet one now and then. Twice in a row is no
/// chance.
fn demo(words: &[&str]) -> (i32, Value) {
    let (code, result) = demo_once(words);
    let invalid = |part: &str| result[part]["state"] == "invalid";
    if invalid("fault") || invalid("rollout") {
        println!("{words:?} ended as invalid and is run again: {result}");
        return demo_once(words);
    }
    (code, result)
}

fn demo_once(words: &[&str]) -> (i32, Value) {
    let output = Command::new(BIN)
        .args(["demo", "--headless", "--json", "--port", "8700"])
        .args(words)
        .env("SEAWORTHY_LOG", "warn")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let result = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{words:?}: {e}: {text:?} {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), result)
}

/// Scenario: the whole story for five seeds.
/// Guarantees: stopped within 15 s of the first fault, hurt attributes first and second, harmless rollout promoted, audit
/// log verified, exit code 0.
#[test]
fn the_story_comes_true_for_five_seeds() {
    let _alone = alone();
    for seed in 1..=runs(5) {
        let (code, result) = demo(&["--seed", &seed.to_string(), "--speed", "4"]);
        let fault = &result["fault"];
        assert_eq!(code, 0, "{result}");
        assert!(fault["seconds_to_stop"].as_f64().unwrap() <= 15.0, "{result}");
        let off = fault["seconds_to_off_everywhere"].as_f64().unwrap();
        assert!(off <= fault["seconds_to_stop"].as_f64().unwrap() + 2.0, "{result}");
        let mut top = [0, 1].map(|n| result["comparison"][n]["attribute"].as_str().unwrap_or_default());
        top.sort_unstable();
        assert_eq!(top, ["app.version", "device"], "{result}");
        assert!(fault["e_value"].as_f64().unwrap() >= 1_000.0 && fault["guardrail"] == "failures", "{result}");
        assert_eq!(
            (&result["rollout"]["completed"], &result["rollout"]["false_stops"]),
            (&true.into(), &0.into()),
            "{result}"
        );
        assert_eq!(result["audit"]["verified"], true, "{result}");
        println!("seed {seed}: stopped after {} s, {} hurt", fault["seconds_to_stop"], fault["subjects_hurt"]);
    }
}

/// Guarantees: a harmless fault is not stopped: with no latency, and with latency that every app survives, it runs its
/// full window.
#[test]
fn a_harmless_fault_runs_its_full_window() {
    let _alone = alone();
    for latency in ["0", "100"] {
        for seed in 1..=runs(10) {
            let seed = (100 + seed).to_string();
            let (_, result) = demo(&["--only", "fault", "--seed", &seed, "--latency-ms", latency, "--speed", "8"]);
            assert_eq!(result["fault"]["state"], "completed", "{latency} ms, seed {seed}: {result}");
        }
    }
}

/// Guarantees: the answer follows the world. Without a weak app nothing stops; with hurt drawn at random the fault stops and
/// nothing stands out.
#[test]
fn the_story_is_not_scripted() {
    let _alone = alone();
    let (code, result) = demo(&["--only", "fault", "--weak", "none", "--speed", "8"]);
    assert_eq!((code, &result["fault"]["state"]), (1, &"completed".into()), "{result}");
    // The comparison promises at most one false finding in twenty, so of three runs two must find nothing.
    let mut silent = 0;
    for seed in ["3", "4", "5"] {
        let (code, result) = demo(&["--only", "fault", "--weak", "random=15%", "--seed", seed]);
        assert_eq!((code, &result["fault"]["stopped"]), (1, &true.into()), "{result}");
        let nothing = result["comparison_summary"].as_str().unwrap().starts_with("nothing stands out");
        assert_eq!(nothing, result["comparison"] == serde_json::json!([]), "{result}");
        silent += u32::from(nothing);
    }
    assert!(silent >= 2, "something stood out in {} of 3 worlds without a cause", 3 - silent);
}
