#![allow(clippy::disallowed_methods)] // Tests read vectors from files.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use vocab::{Arm, Id, Kind, Share, Timestamp};

use crate::bucket::murmur3;
use crate::logic::{Expr, Scope};
use crate::*;

const NOW: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

/// Other people's vectors, beside the checkout. Absent on a machine that has only the checkout: said, not hidden.
fn vectors(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance").join(name);
    if !path.exists() {
        eprintln!("skipped: no vectors at {}", path.display());
        return None;
    }
    Some(path)
}

fn run(rule: &Value, data: &Value) -> Result<Value, String> {
    let expr = Expr::compile(rule, "flag", &Map::new()).map_err(|f| f.to_string())?;
    let context = Context::new(data.as_object().cloned().unwrap_or_default());
    let steps = Expr::budget();
    expr.value(&Scope { steps: &steps, context: &context, flag_key: "flag", now: NOW, bucketing: Bucketing::FlagdV2 })
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-9,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

#[test]
fn the_shared_table_of_jsonlogic() {
    let Some(path) = vectors("jsonlogic/shared-table.json") else { return };
    let table: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut passed = 0;
    let mut failed = Vec::new();
    for case in table.iter().filter(|case| !case.is_string()) {
        let (rule, data, expected) = match case {
            Value::Array(parts) => (&parts[0], &parts[1], &parts[2]),
            case => (&case["rule"], &case["data"], &case["result"]),
        };
        // Data that is no object cannot be an evaluation context.
        if !data.is_object() && !data.is_null() {
            continue;
        }
        match run(rule, data) {
            Ok(got) if same(&got, expected) => passed += 1,
            got => failed.push(format!("{rule} on {data}: {got:?}, expected {expected}")),
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(passed > 250, "{passed}");
}

fn set(document: Value) -> FlagSet {
    FlagSet::parse(&document.to_string()).unwrap()
}

fn banner(targeting: Value) -> FlagSet {
    set(json!({"flags": {"banner": {
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": targeting}}}))
}

#[test]
fn reasons_are_those_of_flagd() {
    let context = Context::of("u1").with("plan", "pro");
    let decide = |flags: &FlagSet| {
        let flag = flags.flag("banner").unwrap().clone();
        let evaluation = flag.evaluate(&context, None, NOW).unwrap();
        (evaluation.variant.map(str::to_owned), evaluation.reason)
    };
    let variant = |name: &str| Some(name.to_owned());
    assert_eq!(decide(&banner(json!({}))), (variant("off"), Reason::Static));
    let rule = json!({"if": [{"==": [{"var": "plan"}, "pro"]}, "on"]});
    assert_eq!(decide(&banner(rule)), (variant("on"), Reason::TargetingMatch));
    let rule = json!({"if": [{"==": [{"var": "plan"}, "free"]}, "on"]});
    assert_eq!(decide(&banner(rule)), (variant("off"), Reason::Default));
    let flags = banner(json!("nonsense"));
    let error = flags.flag("banner").unwrap().evaluate(&context, None, NOW).unwrap_err();
    assert_eq!(error.code, ErrorCode::General);
}

/// Rows of the suite's table for structures in generation 3: null inside one is hashed, null instead of one is nothing.
#[test]
fn generation_3_hashes_structures_with_nulls() {
    let split: Vec<Value> = (1..=25).map(|n| json!([format!("bucket{n}"), 4])).collect();
    let arguments: Vec<Value> = std::iter::once(json!({"var": "hashing_input"})).chain(split).collect();
    let rule = json!({"fractional": arguments});
    let expr = Expr::compile(&rule, "flag", &Map::new()).unwrap();
    let check = |input: Value, bucket: Value| {
        let context = Context::default().with("hashing_input", input);
        let steps = Expr::budget();
        let scope =
            Scope { steps: &steps, context: &context, flag_key: "flag", now: NOW, bucketing: Bucketing::FlagdV3 };
        assert_eq!(expr.value(&scope).unwrap(), bucket);
    };
    check(json!({}), "bucket3".into());
    check(json!({"a": [1, "two", true, [], null]}), "bucket23".into());
    check(json!({"x": [{"a": {"b": null}}]}), "bucket6".into());
    check(json!({"a": [[[[null]]]]}), "bucket7".into());
    check(json!({"a": {"b": {"c": {"d": null}}}}), "bucket19".into());
    check(Value::Null, Value::Null);
}

/// Guarantees: one rule that cannot be used takes down its own flag, as in flagd, and no other; in a strict document it is refused.
#[test]
fn a_broken_rule_is_its_own_flags_matter() {
    let flag = |rule: Value| json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": rule});
    let document = |flags: Value| json!({"metadata": {"version": "1"}, "flags": flags}).to_string();
    let text = document(json!({"unknown": flag(json!({"nonsense": [1]})), "sound": flag(json!({"if": [true, "on"]})),
        "nowhere": flag(json!({"if": [{"$ref": "nobody"}, "on"]}))}));
    let (set, findings) = FlagSet::parse_leniently(&text).unwrap();
    let places: Vec<&str> = findings.iter().map(|f| f.place.as_str()).collect();
    assert_eq!(places, ["/flags/nowhere/targeting/if/0/$ref", "/flags/unknown/targeting/nonsense"]);
    assert_eq!(set.evaluate("sound", &Context::default(), NOW).unwrap().variant, Some("on"));
    for key in ["unknown", "nowhere"] {
        assert_eq!(set.evaluate(key, &Context::default(), NOW).unwrap_err().code, ErrorCode::ParseError);
        // Who evaluates in process gets the rule as it is, and comes to the same end.
        assert!(set.portable(key).unwrap()["targeting"].is_object());
        assert_eq!(set.flag(key).unwrap().metadata()["version"], "1");
    }
    assert_eq!(FlagSet::parse(&text).unwrap_err(), findings);
    // Another fault than that of a rule refuses the document, and all faults are named.
    let worse =
        document(json!({"unknown": flag(json!({"nonsense": [1]})), "bad": {"state": "ENABLED", "variants": {}}}));
    assert_eq!(FlagSet::parse_leniently(&worse).unwrap_err().len(), 2);
    // A shared rule that refers to itself is broken like any other, and written out nowhere.
    let circle =
        json!({"$evaluators": {"me": {"or": [{"$ref": "me"}]}}, "flags": {"round": flag(json!({"$ref": "me"}))}});
    let (set, findings) = FlagSet::parse_leniently(&circle.to_string()).unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(set.portable("round").unwrap()["targeting"], json!({"$ref": "me"}));
    let mut disabled = flag(json!({"nonsense": [1]}));
    disabled["state"] = "DISABLED".into();
    let (set, _) = FlagSet::parse_leniently(&document(json!({"off": disabled}))).unwrap();
    assert_eq!(set.evaluate("off", &Context::default(), NOW).unwrap().reason, Reason::Disabled);
}

#[test]
fn findings_name_their_place() {
    let findings = FlagSet::parse(
        &json!({"flags": {
            "a": {"state": "ON", "variants": {"x": 1, "y": "two"}, "defaultVariant": "z"},
            "b": {"state": "ENABLED", "variants": {"x": 1}, "targeting": {"if": [{"bogus": 1}, "x"]}},
            "c": {"state": "ENABLED", "variants": {"x": 1}, "targeting": {"$ref": "nobody"}}
        }})
        .to_string(),
    )
    .unwrap_err();
    let places: Vec<&str> = findings.iter().map(|f| f.place.as_str()).collect();
    assert_eq!(
        places,
        [
            "/flags/a/state",
            "/flags/a/variants/y",
            "/flags/a/defaultVariant",
            "/flags/b/targeting/if/0/bogus",
            "/flags/c/targeting/$ref"
        ]
    );
    assert!(FlagSet::parse("{").unwrap_err()[0].place.starts_with("line 1"));
}

/// The scenarios of flagd's own evaluator suite that are tables of (flag, context value, variant).
#[test]
fn flagd_fractional_tables() {
    let Some(path) = vectors("flagd-testbed/evaluator") else { return };
    let flags = std::fs::read_to_string(path.join("flags/testkit-flags.json")).unwrap();
    let document: Value = serde_json::from_str(&flags).unwrap();
    let features = std::fs::read_to_string(path.join("gherkin/fractional.feature")).unwrap();
    let mut checked = 0;
    for (generation, bucketing) in [("v1", "flagd-v1"), ("v2", "flagd-v2"), ("v3", "flagd-v3")] {
        let mut document = document.clone();
        document["metadata"] = json!({"bucketing": bucketing});
        // flagd loads a rule with an unknown reference and fails when it is asked; we refuse it at the door.
        document["flags"].as_object_mut().unwrap().remove("ref-to-nonexistent-evaluator-flag");
        for flag in document["flags"].as_object_mut().unwrap().values_mut() {
            if let Some(metadata) = flag.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("bucketing");
            }
        }
        let flags = FlagSet::parse(&document.to_string()).unwrap();
        checked += outline_rows(&features, &format!("@fractional-{generation}"), |flag, context, expected| {
            let flag = flags.flag(flag).unwrap_or_else(|| panic!("no flag {flag}"));
            let got = flag.evaluate(context, None, NOW).unwrap();
            assert_eq!(got.value, Some(&json!(expected)), "{generation} {} {context:?}", flag.key());
        });
    }
    assert!(checked >= 20, "{checked}");
}

/// Walks scenario outlines tagged `tag` that evaluate a fixed String flag with `name` in a nested or flat context.
fn outline_rows(feature: &str, tag: &str, mut check: impl FnMut(&str, &Context, &str)) -> usize {
    let mut rows = 0;
    let (mut flag, mut steps, mut header) = (String::new(), Vec::new(), Vec::new());
    let mut tags: Vec<String> = Vec::new();
    let mut active = false;
    for line in feature.lines().map(str::trim) {
        if line.starts_with('@') {
            tags.extend(line.split_whitespace().map(str::to_owned));
            if line.contains("fractional-v") {
                active = line.split_whitespace().any(|t| t == tag);
            }
            header.clear();
        } else if line.starts_with("Scenario") {
            steps.clear();
            header.clear();
            flag.clear();
            active = tags.iter().any(|t| t == tag);
            tags.clear();
        } else if let Some(rest) = line.split_once("-flag with key \"").map(|p| p.1) {
            flag = rest.split('"').next().unwrap_or_default().to_owned();
        } else if line.contains("a context containing") {
            steps.push(line.to_owned());
        } else if line.starts_with("Examples") {
            header.clear();
            tags.clear();
        } else if line.starts_with('|') {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if header.is_empty() {
                header = cells.iter().map(|c| (*c).to_owned()).collect();
                continue;
            }
            let fill = |text: &str| {
                header.iter().zip(&cells).fold(text.to_owned(), |t, (h, c)| t.replace(&format!("<{h}>"), c))
            };
            let simple = steps.iter().all(|s| s.contains("nested property") || s.contains("a targeting key"));
            let value = header.iter().position(|h| h == "value").map(|place| cells[place]);
            if let (true, true, Some(value)) = (active, simple && !flag.is_empty() && !steps.is_empty(), value) {
                let mut context = Map::new();
                for step in &steps {
                    let filled = fill(step);
                    let quoted: Vec<&str> = filled.split('"').skip(1).step_by(2).collect();
                    match quoted.as_slice() {
                        [outer, inner, text] => {
                            context.insert((*outer).to_owned(), json!({*inner: text}));
                        }
                        [text] => {
                            context.insert("targetingKey".into(), json!(text));
                        }
                        _ => {}
                    }
                }
                let expected = value.trim_matches('"');
                check(&fill(&flag), &Context::new(context), expected);
                rows += 1;
            }
        }
    }
    rows
}

#[test]
fn hashes_match_published_vectors() {
    // Appleby's verification values for MurmurHash3_x86_32, seed 0; and the two keys that v1 gives no variant.
    assert_eq!(murmur3(&[b""]), 0);
    assert_eq!(murmur3(&[b"test"]), 0xba6b_d213);
    assert_eq!(murmur3(&[b"Hello, ", b"world!"]), 0xc036_3e43);
    // SipHash-2-4 is checked by its crate; this pins ours, for ever.
    assert_eq!(BucketKey::new("salt").bucket("user-1"), BucketKey::new("salt").bucket("user-1"));
    assert_ne!(BucketKey::new("salt").bucket("user-1"), BucketKey::new("pepper").bucket("user-1"));
}

/// Guarantees: native-1 gives these buckets for ever; whoever changes one moves every user of every experiment.
#[test]
fn native_1_is_pinned() {
    let buckets: Vec<u32> = ["", "a", "user-1", "häfen", "0123456789abcdef"]
        .iter()
        .map(|subject| BucketKey::new("layer").bucket(subject))
        .collect();
    assert_eq!(buckets, PINNED);
}
/// Computed by an independent implementation of SHA-256 and SipHash-2-4.
const PINNED: [u32; 5] = [848_752, 221_501, 635_273, 723_323, 889_559];

fn slice(population: u32, part: u32) -> Slice {
    let share = |ppm| Share::from_ppm(ppm).unwrap();
    Slice::new("layer", "arm", 900_000, share(population), share(part))
}

/// Guarantees: widening a rollout never moves a subject who was in, and the arms hold the promised shares.
#[test]
fn widening_never_moves_a_subject() {
    let (narrow, wide) = (slice(100_000, 500_000), slice(500_000, 500_000));
    let mut counts = [0; 2];
    for n in 0..50_000 {
        let subject = format!("user-{n}");
        let Some(arm) = wide.arm(&subject) else {
            assert_eq!(narrow.arm(&subject), None);
            continue;
        };
        counts[usize::from(arm == Arm::Treatment)] += 1;
        if let Some(before) = narrow.arm(&subject) {
            assert_eq!(before, arm);
        }
    }
    let expected = 12_500.0_f64;
    assert!(counts.iter().all(|c| (f64::from(*c) - expected).abs() < 4.0 * (expected * 0.75).sqrt()), "{counts:?}");
    assert_eq!(wide.treated().ppm(), 250_000);
    assert_eq!(slice(0, 500_000).arm("user-1"), None);
    assert_eq!(slice(1_000_000, 500_000).arm(&"x".repeat(300)), None);
}

#[test]
fn an_overlay_treats_its_slice_and_the_kill_switch_beats_it() {
    let flags = banner(json!({}));
    let flag = flags.flag("banner").unwrap();
    let experiment = Id::new(Kind::Experiment, 7);
    let overlay =
        Overlay { experiment, slice: slice(1_000_000, 500_000), serves: Serves::Variant("on".into()), otherwise: None };
    let mut seen = [false; 2];
    for n in 0..50 {
        let subject = format!("user-{n}");
        let got = flag.evaluate(&Context::of(&subject), Some(&overlay), NOW).unwrap();
        let arm = overlay.slice.arm(&subject).unwrap();
        assert_eq!(got.experiment, Some((experiment, arm)));
        assert_eq!(got.variant, Some(if arm.is_treatment() { "on" } else { "off" }));
        assert_eq!(got.reason, Reason::Split);
        seen[usize::from(arm.is_treatment())] = true;
    }
    assert_eq!(seen, [true, true]);
    assert_eq!(flag.evaluate(&Context::default(), Some(&overlay), NOW).unwrap().experiment, None);
    let off = set(json!({"flags": {"banner": {"state": "DISABLED", "variants": {"on": true}}}}));
    let got = off.flag("banner").unwrap().evaluate(&Context::of("user-1"), Some(&overlay), NOW).unwrap();
    assert_eq!((got.value, got.reason, got.experiment), (None, Reason::Disabled, None));
}

#[test]
fn a_part_of_a_text_of_any_length_is_no_overflow() {
    let part = |from: Value, length: Value| run(&json!({"substr": ["abcdef", from, length]}), &json!({})).unwrap();
    assert_eq!(part(json!(2), json!(1e300)), json!("cdef"));
    assert_eq!(part(json!(2), json!(-1e300)), json!(""));
    assert_eq!(part(json!(-1e300), json!(2)), json!("ab"));
}

/// Guarantees: no rule and no context makes an evaluation endless or exhausts memory or stack; it fails as a broken rule.
#[test]
fn evaluation_is_bounded() {
    let items: Vec<u32> = (0..5_000).collect();
    let nested = (0..6).fold(json!({"var": ""}), |rule, _| json!({"map": [{"var": "items"}, rule]}));
    let deeper = (0..6).fold(json!(1), |rule, _| json!({"map": [items[..100], rule]}));
    let doubling =
        |op: &str| json!({"reduce": [{"var": "items"}, {op: [{"var": "accumulator"}, {"var": "accumulator"}]}, "x"]});
    let nesting = json!({"reduce": [{"var": "items"}, [{"var": "accumulator"}], 0]});
    let long = "x".repeat(40_000);
    let inner = json!({"some": [items[..250], {"==": [{"substr": [long, 1, 2]}, "no"]}]});
    let reading = json!({"some": [items[..1_000], inner]});
    for rule in [nested, deeper, doubling("cat"), doubling("merge"), nesting, reading] {
        let error =
            run(&rule, &json!({"items": items})).map(|value| value.to_string().len()).unwrap_or_else(|e| e.len());
        // The deep map over an attribute finds nothing inside its elements; everything else runs into the limit.
        assert!(error < 60_000, "{rule}");
    }
    let error = run(&doubling("cat"), &json!({"items": items})).unwrap_err();
    assert_eq!(error, "it takes more than 500000 steps");
    // Prerequisites double with every level; lists of an attribute and of a condition multiply.
    let prerequisite = |n: usize| json!({"flag": format!("f{}", n + 1), "variants": ["on"]});
    let chain: Map<String, Value> = (0..30)
        .map(|n| {
            let needs = if n < 29 { vec![prerequisite(n), prerequisite(n)] } else { Vec::new() };
            let flag = json!({"variants": {"on": true}, "on": true, "prerequisites": needs, "fallthrough": "on"});
            (format!("f{n}"), flag)
        })
        .collect();
    let values: Vec<String> = (0..5_000).map(|n| format!("{}{n}", "x".repeat(100))).collect();
    let when = json!({"attr": "items", "op": "contains", "values": values});
    let rules: Vec<Value> = (0..30).map(|_| json!({"when": when, "serve": "on"})).collect();
    let lists = json!({"variants": {"on": true}, "on": true, "rules": rules, "fallthrough": null});
    let set = set(json!({"flags": chain}));
    let lists = FlagSet::parse(&json!({"flags": {"lists": lists}}).to_string()).unwrap();
    let context = Context::of("u").with("items", json!(vec!["y".repeat(1_000); 900]));
    for (set, key) in [(set, "f0"), (lists, "lists")] {
        let error = set.evaluate(key, &context, NOW).unwrap_err();
        assert!(error.detail.ends_with("it takes more than 500000 steps"), "{error}");
    }
    let fine = json!({"reduce": [{"var": "items"}, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 0]});
    assert_eq!(run(&fine, &json!({"items": items})).unwrap(), json!(12_497_500));
}

/// Fixed seeds of the fuzz target: documents and rules from outside never panic.
#[test]
fn documents_survive_anything() {
    arbtest::arbtest(|u| {
        let operators = ["var", "fractional", "if", "==", "in", "map", "substr", "sem_ver", "reduce", "+", "cat", "/"];
        fn rule(
            u: &mut arbtest::arbitrary::Unstructured<'_>,
            depth: u8,
            ops: &[&str],
        ) -> arbtest::arbitrary::Result<Value> {
            Ok(match u.int_in_range(0..=7)? {
                0 => json!(u.arbitrary::<f64>()?),
                1 => json!(u.arbitrary::<i64>()?),
                2 => json!(u.arbitrary::<&str>()?),
                3 => Value::Null,
                4 if depth < 6 => Value::Array(
                    (0..u.int_in_range(0..=3)?).map(|_| rule(u, depth + 1, ops)).collect::<Result<_, _>>()?,
                ),
                _ if depth < 6 => json!({*u.choose(ops)?: rule(u, depth + 1, ops)?}),
                _ => json!(true),
            })
        }
        let targeting = rule(u, 0, &operators)?;
        let document = json!({"flags": {"f": {"state": "ENABLED", "variants": {"a": 1}, "targeting": targeting}}});
        if let Ok(flags) = FlagSet::parse(&document.to_string()) {
            let _ = flags.flag("f").unwrap().evaluate(&Context::of("u").with("a", json!([1, "x"])), None, NOW);
        }
        let _ = FlagSet::parse(u.arbitrary::<&str>()?);
        Ok(())
    });
}
