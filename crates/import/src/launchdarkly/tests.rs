//! Documents in, evaluations out; what LaunchDarkly gives is reckoned here anew.

use expect_test::{Expect, expect};
use flags::{Context, FlagSet};
use serde_json::{Value, json};
use vocab::Timestamp;

use crate::{Import, launchdarkly};

/// SHA-1 (FIPS 180-4), for texts of any length.
fn sha1(text: &str) -> [u32; 5] {
    let mut bytes = text.as_bytes().to_vec();
    let bits = bytes.len() as u64 * 8;
    bytes.push(0x80);
    while bytes.len() % 64 != 56 {
        bytes.push(0);
    }
    bytes.extend(bits.to_be_bytes());
    let mut state = [0x6745_2301_u32, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    for block in bytes.chunks(64) {
        let mut words: Vec<u32> = block.chunks(4).map(|w| u32::from_be_bytes(w.try_into().unwrap())).collect();
        for n in 16..80 {
            words.push((words[n - 3] ^ words[n - 8] ^ words[n - 14] ^ words[n - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (n, word) in words.iter().enumerate() {
            let (f, k) = match n {
                0..20 => ((b & c) | (!b & d), 0x5A82_7999),
                20..40 => (b ^ c ^ d, 0x6ED9_EBA1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
                _ => (b ^ c ^ d, 0xCA62_C1D6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    state
}

/// LaunchDarkly's place of a unit: the first 15 hex digits over 16¹⁵-1, in 32 bits.
fn place(salted: &str) -> f32 {
    let hash = sha1(salted);
    let digits = ((u64::from(hash[0]) << 32) | u64::from(hash[1])) >> 4;
    digits as f32 / 0xFFF_FFFF_FFFF_FFFF_u64 as f32
}

/// Which of the weights a place falls to.
fn choose(place: f32, weights: &[u32]) -> usize {
    let mut sum = 0_f32;
    for (n, weight) in weights.iter().enumerate() {
        sum += *weight as f32 / 100_000.0;
        if place < sum {
            return n;
        }
    }
    weights.len() - 1
}

struct World {
    import: Import,
    set: FlagSet,
}

fn world(document: &Value) -> World {
    let import = launchdarkly(document).unwrap();
    let set = FlagSet::parse(&import.document().to_string()).unwrap();
    World { import, set }
}

impl World {
    fn give(&self, flag: &str, context: Value) -> Value {
        let context = Context::new(context.as_object().unwrap().clone());
        let found = self.set.evaluate(flag, &context, Timestamp::from_nanos(0)).unwrap();
        found.value.cloned().unwrap_or(Value::Null)
    }

    fn user(&self, flag: &str, key: &str) -> Value {
        self.give(flag, json!({"targetingKey": key}))
    }

    fn notes(&self, expected: Expect) {
        let lines = self.import.notes.iter().map(|n| format!("{} [{}] {}\n", n.place, n.weight.as_str(), n.text));
        expected.assert_eq(&lines.collect::<String>());
    }
}

/// A flag of three variations that serves `fallthrough`.
fn flag(extra: Value) -> Value {
    let mut flag = json!({"on": true, "salt": "s", "variations": ["a", "b", "c"], "offVariation": 2, "fallthrough": {"variation": 0}});
    flag.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"flags": {"f": flag}})
}

#[test]
fn the_hash_is_the_published_one() {
    // FIPS 180-4's example, and LaunchDarkly's own from the documentation of its bucketing: hashKey.saltyA.userKeyA is at 0.42157587.
    assert_eq!(sha1("abc")[0], 0xA999_3E36);
    assert!((place("hashKey.saltyA.userKeyA") - 0.421_575_87).abs() < 1e-7);
}

/// Scenario: percentage rollouts over thousands of users. Guarantees: each has LaunchDarkly's variation.
#[test]
fn rollouts_keep_every_user() {
    let weights = [12_345, 50_000, 37_655];
    let parts: Vec<Value> = weights.iter().enumerate().map(|(n, w)| json!({"variation": n, "weight": w})).collect();
    let plain = world(&flag(json!({"fallthrough": {"rollout": {"variations": parts}}})));
    let seeded =
        world(&flag(json!({"fallthrough": {"rollout": {"kind": "experiment", "seed": 61, "bucketBy": "ignored",
        "variations": [{"variation": 1, "weight": 20_000}, {"variation": 0, "weight": 20_000, "untracked": true}]}}})));
    let by_org = world(&flag(json!({"fallthrough": {"rollout": {"contextKind": "org", "variations": parts}}})));
    let by_age = world(&flag(
        json!({"fallthrough": {"rollout": {"contextKind": "user", "bucketBy": "/a/age", "variations": parts}}}),
    ));
    let name = ["a", "b", "c"];
    for n in 0..4_000 {
        let user = format!("user-{n}");
        let at = choose(place(&format!("f.s.{user}")), &weights);
        assert_eq!(plain.user("f", &user), name[at], "{user}");
        let at = choose(place(&format!("61.{user}")), &[20_000, 20_000]);
        assert_eq!(seeded.user("f", &user), name[1 - at], "{user}");
        let at = choose(place(&format!("f.s.{user}")), &weights);
        assert_eq!(by_org.give("f", json!({"targetingKey": "x", "org": {"key": user}})), name[at]);
        let at = choose(place(&format!("f.s.{n}")), &weights);
        assert_eq!(by_age.give("f", json!({"targetingKey": "x", "a": {"age": n}})), name[at]);
    }
    // Without the unit, and with one that is neither text nor a whole number, the place is 0.
    assert_eq!(by_org.user("f", "x"), "a");
    for odd in [json!(2.5), json!(true), json!(["x"]), json!({}), Value::Null] {
        assert_eq!(by_age.give("f", json!({"targetingKey": "x", "a": {"age": odd}})), "a");
    }
    seeded.notes(expect![[r#"
        /flags/f/fallthrough [info] an experiment: who gets which variant stays; its metrics, and who is left out of its analysis, do not come along
    "#]]);
}

#[test]
fn weights_that_do_not_add_up() {
    let rollout = |weights: &[u32]| {
        let parts: Vec<Value> = weights.iter().enumerate().map(|(n, w)| json!({"variation": n, "weight": w})).collect();
        world(&flag(json!({"fallthrough": {"rollout": {"variations": parts}}})))
    };
    for weights in [&[1_000, 1_000, 1_000][..], &[0, 0, 0], &[90_000, 90_000, 1], &[0, 100_000], &[100_000]] {
        let world = rollout(weights);
        for n in 0..500 {
            let at = choose(place(&format!("f.s.u{n}")), weights);
            assert_eq!(world.user("f", &format!("u{n}")), ["a", "b", "c"][at], "{weights:?} u{n}");
        }
    }
}

#[test]
fn the_order_of_decision() {
    let document = json!({"flags": {
        "base": {"on": true, "salt": "x", "variations": [true, false], "offVariation": 0, "fallthrough": {"variation": 1},
            "targets": [{"variation": 0, "values": ["ann", "bea"]}]},
        "off": {"on": false, "variations": [true, false], "offVariation": 0, "fallthrough": {"variation": 0}},
        "f": {"on": true, "salt": "s", "variations": ["a", "b", "c"], "offVariation": 2, "fallthrough": {"variation": 0},
            "prerequisites": [{"key": "base", "variation": 0}],
            "targets": [{"variation": 1, "values": ["bea"]}],
            "rules": [{"id": "r", "variation": 1, "clauses": [{"attribute": "plan", "op": "in", "values": ["gold"]}]}]},
        "g": {"on": true, "variations": ["a", "b"], "offVariation": 1, "fallthrough": {"variation": 0},
            "prerequisites": [{"key": "off", "variation": 0}]},
        "h": {"on": true, "variations": ["a", "b"], "offVariation": 1, "fallthrough": {"variation": 0},
            "prerequisites": [{"key": "nowhere", "variation": 0}]},
        // A flag whose prerequisite failed is still on, and its off variation counts.
        "i": {"on": true, "variations": ["a", "b"], "offVariation": 1, "fallthrough": {"variation": 0},
            "prerequisites": [{"key": "h", "variation": 1}]},
        "off-without": {"on": false, "variations": ["a"], "fallthrough": {"variation": 0}}
    }});
    let world = world(&document);
    assert_eq!(world.user("f", "cy"), "c");
    assert_eq!(world.user("f", "ann"), "a");
    assert_eq!(world.user("f", "bea"), "b");
    assert_eq!(world.give("f", json!({"targetingKey": "ann", "plan": "gold"})), "b");
    assert_eq!(world.user("g", "ann"), "b");
    assert_eq!(world.user("h", "ann"), "b");
    assert_eq!(world.user("i", "ann"), "a");
    assert_eq!(world.user("off", "ann"), true);
    assert_eq!(world.user("off-without", "ann"), Value::Null);
    world.notes(expect![""]);
}

#[test]
fn targets_by_kind_and_in_turn() {
    let document = flag(json!({
        "targets": [{"variation": 1, "values": ["ann"]}, {"variation": 2, "values": ["bea"]}],
        "contextTargets": [{"contextKind": "org", "variation": 2, "values": ["acme"]}, {"contextKind": "user", "variation": 1, "values": []},
            {"contextKind": "org", "variation": 0, "values": ["ohm"]}]}));
    let world = world(&document);
    assert_eq!(world.user("f", "ann"), "b");
    // Not among the context targets: does not count.
    assert_eq!(world.user("f", "bea"), "a");
    assert_eq!(world.give("f", json!({"targetingKey": "ann", "org": {"key": "acme"}})), "c");
    assert_eq!(world.give("f", json!({"targetingKey": "ann", "org": {"key": "ohm"}})), "b");
    assert_eq!(world.give("f", json!({"org": {"key": "ohm"}})), "a");
}

/// A clause that is put alone into a rule: matches, does not, and the same negated.
#[test]
fn every_operator() {
    let now = "2026-01-01T00:00:00Z";
    // op, clause values, attribute, whether it matches
    let table = [
        ("in", json!(["x", 1, true]), json!("x"), true),
        ("in", json!(["x", 1, true]), json!(1.0), true),
        ("in", json!(["1"]), json!(1), false),
        ("in", json!(["x"]), json!(["y", "x"]), true),
        ("in", json!([]), json!("x"), false),
        ("in", json!([{"a": 1}, ["x"], null]), json!({"a": 1}), false),
        ("startsWith", json!(["ab", 3]), json!("abc"), true),
        ("startsWith", json!(["ab"]), json!(12), false),
        ("endsWith", json!(["bc"]), json!(["x", "abc"]), true),
        ("contains", json!(["b"]), json!("abc"), true),
        ("matches", json!(["^a.c$", "("]), json!("abc"), true),
        ("matches", json!(["("]), json!("("), false),
        ("matches", json!(["^\\d+$"]), json!("\u{661}"), false),
        ("lessThan", json!([5]), json!(4.5), true),
        ("lessThan", json!(["5"]), json!(4), false),
        ("lessThanOrEqual", json!([5]), json!(5), true),
        ("greaterThan", json!([5]), json!(5), false),
        ("greaterThanOrEqual", json!([9, 5]), json!(5), true),
        ("before", json!([now]), json!("2025-12-31T23:59:59.5+00:00"), true),
        ("before", json!(["soon"]), json!("2025-12-31T23:59:59Z"), false),
        ("after", json!([now]), json!(1_767_225_600_001_i64), true),
        ("after", json!([1_767_225_600_000_i64]), json!(now), false),
        ("semVerEqual", json!(["2"]), json!("2.0.0+build"), true),
        ("semVerEqual", json!(["2.0.0"]), json!("v2.0.0"), false),
        ("semVerLessThan", json!(["2.0.0"]), json!("2.0.0-rc.1"), true),
        ("semVerGreaterThan", json!(["1.9"]), json!("1.10.0"), true),
        ("semVerGreaterThan", json!(["1.0.0", "x"]), json!("2020-01-01T00:00:00Z"), false),
        ("unheardOf", json!(["x"]), json!("x"), false),
    ];
    for (op, values, attribute, matches) in table {
        for negate in [false, true] {
            let rule = json!({"variation": 1, "clauses": [{"contextKind": "user", "attribute": "x", "op": op, "values": values, "negate": negate}]});
            let world = world(&flag(json!({"rules": [rule]})));
            let got = world.give("f", json!({"targetingKey": "u", "x": attribute}));
            assert_eq!(got == "b", matches != negate, "{op} {values} {attribute} negate {negate}");
            // What is absent or null never matches.
            assert_eq!(world.user("f", "u"), "a", "{op} {values} absent negate {negate}");
            assert_eq!(world.give("f", json!({"targetingKey": "u", "x": null})), "a");
        }
    }
}

#[test]
fn attribute_references() {
    // attribute, kind, context, whether `in ["x"]` matches
    let table = [
        ("key", Some("user"), json!({"targetingKey": "x"}), true),
        ("key", Some("org"), json!({"targetingKey": "u", "org": {"key": "x"}}), true),
        ("/a/b", Some("user"), json!({"targetingKey": "u", "a": {"b": "x"}}), true),
        ("/a/b", None, json!({"targetingKey": "u", "a": {"b": "x"}}), false),
        ("/a/b", None, json!({"targetingKey": "u", "/a/b": "x"}), true),
        ("a.b", Some("user"), json!({"targetingKey": "u", "a.b": "x"}), true),
        ("a.b", Some("user"), json!({"targetingKey": "u", "a": {"b": "x"}}), false),
        ("/a~1b~0", Some("user"), json!({"targetingKey": "u", "a/b~": "x"}), true),
        ("/a/0", Some("user"), json!({"targetingKey": "u", "a": ["x"]}), false),
        ("/a/0", Some("user"), json!({"targetingKey": "u", "a": {"0": "x"}}), true),
        ("/a/b", Some("org"), json!({"targetingKey": "u", "org": {"key": "o", "a": {"b": "x"}}}), true),
        ("name", Some("org"), json!({"targetingKey": "u", "name": "x"}), false),
        ("name", Some("a.b"), json!({"targetingKey": "u", "a.b": {"key": "k", "name": "x"}}), true),
        ("/key/x", Some("user"), json!({"targetingKey": "x"}), false),
    ];
    for (attribute, kind, context, matches) in table {
        let clause = json!({"contextKind": kind, "attribute": attribute, "op": "in", "values": ["x"]});
        let world = world(&flag(json!({"rules": [{"variation": 1, "clauses": [clause]}]})));
        assert_eq!(world.give("f", context.clone()) == "b", matches, "{attribute} of {kind:?} in {context}");
    }
    // A broken one is an error once it is reached.
    let clause = |attribute: &str, value: &str| json!({"contextKind": "user", "attribute": attribute, "op": "in", "values": [value]});
    let world = world(&flag(
        json!({"rules": [{"id": "r", "variation": 1, "clauses": [clause("name", "x"), clause("//", "x")]}]}),
    ));
    assert_eq!(world.user("f", "u"), "a");
    assert_eq!(world.give("f", json!({"targetingKey": "u", "name": "x"})), Value::Null);
}

#[test]
fn kinds_and_anonymity() {
    let rule = |clause: Value| world(&flag(json!({"rules": [{"variation": 1, "clauses": [clause]}]})));
    let kind = rule(json!({"attribute": "kind", "op": "in", "values": ["org", "device"]}));
    assert_eq!(kind.give("f", json!({"targetingKey": "u", "org": {"key": "o"}})), "b");
    assert_eq!(kind.user("f", "u"), "a");
    let other = rule(json!({"attribute": "kind", "op": "in", "values": ["user"], "negate": true}));
    assert_eq!(other.give("f", json!({"org": {"key": "o"}})), "b");
    assert_eq!(other.user("f", "u"), "a");
    let known = rule(json!({"attribute": "anonymous", "op": "in", "values": [false]}));
    assert_eq!(known.user("f", "u"), "b");
    assert_eq!(known.give("f", json!({"targetingKey": "u", "anonymous": true})), "a");
    assert_eq!(known.give("f", json!({"org": {"key": "o"}})), "a");
}

#[test]
fn segments() {
    let clause = json!({"attribute": "plan", "op": "in", "values": ["gold"]});
    let document = |rule: Value| {
        let matched = |key: &str, negate: bool| json!({"variation": 1, "clauses": [{"attribute": "", "op": "segmentMatch", "values": [key, "nowhere"], "negate": negate}]});
        let flags = json!({
            "in": flag(json!({"rules": [matched("s", false)]}))["flags"]["f"],
            "out": flag(json!({"rules": [matched("s", true)]}))["flags"]["f"],
            "outer": flag(json!({"rules": [matched("t", false)]}))["flags"]["f"],
        });
        json!({"flags": flags, "segments": {
            "s": {"key": "s", "salt": "salt", "included": ["ann"], "excluded": ["bea", "ann"],
                "includedContexts": [{"contextKind": "org", "values": ["acme"]}],
                "excludedContexts": [{"contextKind": "org", "values": ["acme", "ohm"]}],
                "rules": [rule]},
            "t": {"key": "t", "rules": [{"clauses": [{"attribute": "", "op": "segmentMatch", "values": ["s"]}]}]}}})
    };
    let all = world(&document(json!({"clauses": [clause]})));
    let gold = |key: &str, org: &str| json!({"targetingKey": key, "plan": "gold", "org": {"key": org}});
    for (context, inside) in [
        (gold("cy", "x"), true),
        (gold("ann", "ohm"), true),
        (gold("bea", "acme"), true),
        (gold("bea", "x"), false),
        (gold("cy", "ohm"), false),
        (json!({"targetingKey": "cy"}), false),
    ] {
        assert_eq!(all.give("in", context.clone()) == "b", inside, "{context}");
        assert_eq!(all.give("out", context.clone()) == "b", !inside, "{context}");
        assert_eq!(all.give("outer", context.clone()) == "b", inside, "{context}");
    }
    let some = world(&document(json!({"clauses": [clause], "weight": 30_000, "bucketBy": "team"})));
    for n in 0..2_000 {
        let team = format!("t{n}");
        let inside = place(&format!("s.salt.{team}")) < 0.3;
        assert_eq!(some.give("in", json!({"targetingKey": "cy", "plan": "gold", "team": team})) == "b", inside);
    }
    assert_eq!(some.give("in", json!({"targetingKey": "cy", "plan": "gold"})), "b");
}

#[test]
fn circles_are_errors_when_they_are_reached() {
    let of = |key: &str| json!({"attribute": "", "op": "segmentMatch", "values": [key]});
    let mut document = flag(json!({"rules": [{"id": "r", "variation": 1, "clauses": [of("s")]}]}));
    document["segments"] = json!({
        "s": {"included": ["ann"], "rules": [{"clauses": [of("t")]}]}, "t": {"included": ["bea"], "rules": [{"clauses": [of("s")]}]}});
    document["flags"]["p"] = json!({"on": true, "variations": [1, 2], "offVariation": 0, "fallthrough": {"variation": 1},
        "prerequisites": [{"key": "q", "variation": 0}]});
    document["flags"]["q"] = json!({"on": true, "variations": [1, 2], "offVariation": 0, "fallthrough": {"variation": 1},
        "prerequisites": [{"key": "p", "variation": 0}]});
    let world = world(&document);
    assert_eq!(world.user("f", "ann"), "b");
    assert_eq!(world.user("f", "bea"), "b");
    assert_eq!(world.user("f", "cy"), Value::Null);
    assert_eq!(world.user("p", "cy"), Value::Null);
}

#[test]
fn malformed_flags_give_the_code_default() {
    let document = json!({"flags": {
        "off": {"on": false, "variations": [1], "offVariation": 9, "fallthrough": {"variation": 0}},
        "through": {"on": true, "variations": [1], "fallthrough": {}},
        "none": {"on": true, "variations": [1]},
        "some": {"on": true, "salt": "s", "variations": [1, 2], "targets": [{"values": ["ann"], "variation": 5}],
            "fallthrough": {"rollout": {"variations": [{"variation": 0, "weight": 40_000}, {"variation": 7, "weight": 60_000}]}}}}});
    let world = world(&document);
    for flag in ["off", "through", "none"] {
        assert_eq!(world.user(flag, "u"), Value::Null);
    }
    assert_eq!(world.user("some", "ann"), Value::Null);
    for n in 0..1_000 {
        let expected = if place(&format!("some.s.u{n}")) < 0.4 { json!(1) } else { Value::Null };
        assert_eq!(world.user("some", &format!("u{n}")), expected);
    }
    world.notes(expect![[r#"
        /flags/none/fallthrough [info] no fallthrough: clients get their code default, as with LaunchDarkly
        /flags/off/offVariation [info] there is no variation 9: clients get their code default, as with LaunchDarkly
        /flags/some/targets/0 [info] there is no variation 5: clients get their code default, as with LaunchDarkly
        /flags/some/fallthrough/rollout/variations/1/variation [info] there is no variation 7: clients get their code default, as with LaunchDarkly
        /flags/through/fallthrough [info] neither a variation nor a rollout: clients get their code default, as with LaunchDarkly
    "#]]);
}

#[test]
fn what_cannot_come_along_is_named() {
    let document = json!({"flags": {
        "mixed": {"on": true, "variations": [1, "x"], "fallthrough": {"variation": 0}},
        "null": {"on": true, "variations": ["a", null], "fallthrough": {"variation": 1}},
        "big": {"on": true, "variations": [1], "fallthrough": {"variation": 0},
            "rules": [{"variation": 0, "clauses": [{"attribute": "", "op": "segmentMatch", "values": ["big"]}]}]},
        "look": {"on": true, "variations": [1], "fallthrough": {"variation": 0},
            "rules": [{"variation": 0, "clauses": [{"attribute": "a", "op": "matches", "values": ["a(?=b)"]}]}]},
        "child": {"on": true, "variations": [1], "fallthrough": {"variation": 0}, "prerequisites": [{"key": "look", "variation": 0}]},
        "broken": {"on": true, "variations": [1], "fallthrough": {"variation": 0}, "rules": 7},
        "gone": {"deleted": true, "version": 3}},
        "segments": {"big": {"unbounded": true}},
        "flagValues": {"fixed": {"a": 1}, "nothing": null}});
    let world = world(&document);
    assert_eq!(world.user("null", "u"), Value::Null);
    assert_eq!(world.user("fixed", "u"), json!({"a": 1}));
    world.notes(expect![[r#"
        /flagValues/nothing [left out] has no value, or a key that is not 1 to 256 bytes long
        /flags/null/variations/1 [info] a variation without a value: who gets it gets the code default, as OpenFeature clients of LaunchDarkly do
        /segments/big/unbounded [left out] segment "big": a big segment: its members are not in LaunchDarkly's data; list them under include, or describe them by rules
        /segments/big/unbounded [left out] flag "big": a big segment: its members are not in LaunchDarkly's data; list them under include, or describe them by rules
        /flags/broken/rules [left out] flag "broken": expected a list
        /flags/child/prerequisites [left out] flag "child": needs the flag "look", which is left out
        /flags/look/rules/0/clauses/0 [left out] flag "look": the regular expression "a(?=b)" has no form here, and LaunchDarkly's SDKs read it differently
        /flags/mixed/variations [left out] flag "mixed": variations of different types; give them one type
        /flags/gone [info] flag "gone" is archived or deleted: SDKs do not know it
    "#]]);
}

fn rest(environment: Option<&str>) -> Value {
    let setting = |variation: u32| {
        json!({"on": true, "salt": "e", "offVariation": 1, "fallthrough": {"variation": variation}, "targets": [], "rules": [
            {"_id": "1", "description": "staff", "variation": 1, "clauses": [{"attribute": "email", "op": "endsWith", "values": ["@x.com"], "contextKind": "user"}]}]})
    };
    let mut document = json!({"items": [
        {"key": "f", "name": "A flag", "kind": "multivariate", "tags": ["web"], "archived": false,
            "variations": [{"_id": "x", "value": "blue", "name": "Blue"}, {"_id": "y", "value": "red", "name": "Red"}],
            "environments": {"production": setting(0), "test": setting(1)}},
        {"key": "old", "archived": true, "variations": [{"value": true}, {"value": false}], "environments": {"production": setting(0), "test": setting(0)}},
        {"key": "seg", "variations": [{"value": true}, {"value": false}], "environments": {"production": {"on": true, "fallthrough": {"variation": 0},
            "rules": [{"variation": 1, "clauses": [{"attribute": "", "op": "segmentMatch", "values": ["staff"]}]}]}}}]});
    if let Some(name) = environment {
        document["environment"] = json!(name);
    }
    document
}

#[test]
fn the_rest_api() {
    let world = world(&rest(Some("production")));
    assert_eq!(world.user("f", "u"), "blue");
    assert_eq!(world.give("f", json!({"targetingKey": "u", "email": "a@x.com"})), "red");
    expect![[r#"{"description":"A flag","fallthrough":"Blue","off_variant":"Red","on":true,"rules":[{"id":"1","name":"staff","serve":"Red","when":{"attr":"email","op":"ends_with","values":["@x.com"]}}],"tags":["web"],"variants":{"Blue":"blue","Red":"red"}}"#]]
        .assert_eq(&world.import.flags["f"].to_string());
    world.notes(expect![[r#"
        /items/2/environments/production/rules/0/clauses/0 [left out] flag "seg": the segment "staff" is not in the file: add it under "segments"
        /items/1 [info] flag "old" is archived or deleted: SDKs do not know it
    "#]]);
}

#[test]
fn an_environment_is_never_guessed() {
    let error = |document: &Value| launchdarkly(document).unwrap_err().to_string();
    expect!["/environment: name one environment of: production, test"].assert_eq(&error(&rest(None)));
    expect![[r#"/environment: there is no environment "staging"; name one of: production, test"#]]
        .assert_eq(&error(&rest(Some("staging"))));
    expect![": expected an object"].assert_eq(&error(&json!([])));
    expect!["/flags: expected an object of flags by key"].assert_eq(&error(&json!({"flags": []})));
    expect![[r#": neither SDK data ("flags", "segments", "flagValues") nor flags of the REST API"#]]
        .assert_eq(&error(&json!({"x": 1})));
    // One flag, one environment.
    let mut one = rest(None)["items"][0].clone();
    one["environments"].as_object_mut().unwrap().remove("test");
    assert_eq!(world(&one).user("f", "u"), "blue");
}

#[test]
fn names_of_variants() {
    let names = |variations: Value| {
        let flag = json!({"key": "f", "variations": variations, "environments": {"p": {"on": true, "fallthrough": {"variation": 0}}}});
        let names: Vec<String> =
            world(&flag).import.flags["f"]["variants"].as_object().unwrap().keys().cloned().collect();
        names.join(" ")
    };
    assert_eq!(names(json!([{"value": true, "name": "On"}, {"value": false, "name": "Off"}])), "Off On");
    assert_eq!(names(json!([{"value": true}, {"value": false, "name": ""}])), "false true");
    assert_eq!(names(json!([{"value": 1, "name": "same"}, {"value": 2, "name": "same"}])), "v0 v1");
    assert_eq!(names(json!([{"value": "x"}, {"value": "y"}])), "v0 v1");
}

/// Scenario: valid files in which something was changed at random. Guarantees: no panic, and what is read is accepted by the dialect.
#[test]
fn damaged_files_do_no_harm() {
    let of = |key: &str| json!({"attribute": "", "op": "segmentMatch", "values": [key]});
    let mut sdk = flag(
        json!({"prerequisites": [{"key": "g", "variation": 0}], "targets": [{"values": ["u"], "variation": 1}],
        "contextTargets": [{"contextKind": "org", "values": ["o"], "variation": 1}],
        "rules": [{"id": "r", "clauses": [of("s"), {"contextKind": "org", "attribute": "/a/0", "op": "matches", "values": ["^a[b]"], "negate": true}],
            "rollout": {"bucketBy": "x", "seed": 3, "variations": [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]}}]}),
    );
    sdk["flags"]["g"] = flag(json!({}))["flags"]["f"].clone();
    sdk["segments"] = json!({"s": {"included": ["a"], "includedContexts": [{"contextKind": "org", "values": ["o"]}],
        "rules": [{"clauses": [{"attribute": "v", "op": "semVerEqual", "values": ["1.0"]}], "weight": 5_000, "bucketBy": "y"}]}});
    crate::growthbook::damage::check(&[sdk, rest(Some("production"))], launchdarkly);
}
