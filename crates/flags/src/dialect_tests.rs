//! Our own dialect, at its boundary: documents in, decisions, steps and findings out.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use vocab::{Id, Kind, Share, Timestamp};

use crate::{Bucketing, Context, ErrorCode, Flag, FlagSet, Overlay, Reason, Serves, Slice};

const NOON: &str = "2026-12-01T12:00:00Z";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn set(document: Value) -> FlagSet {
    FlagSet::parse(&document.to_string()).unwrap_or_else(|findings| panic!("{findings:?}"))
}

/// One boolean flag `f` with these keys over the usual ones.
fn flag(more: Value) -> Value {
    let mut flag =
        json!({"variants": {"on": true, "off": false}, "on": true, "off_variant": "off", "fallthrough": "off"});
    flag.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    flag
}

fn one(more: Value) -> FlagSet {
    set(json!({"flags": {"f": flag(more)}}))
}

fn decided(set: &FlagSet, context: &Context) -> (Option<String>, Reason) {
    let found = set.evaluate("f", context, at(NOON)).unwrap();
    (found.variant.map(str::to_owned), found.reason)
}

fn variant(set: &FlagSet, context: Value) -> Option<String> {
    let Value::Object(map) = context else { panic!("an object") };
    decided(set, &Context::new(map)).0
}

#[track_caller]
fn check(more: Value, context: Value, expected: (Option<&str>, Reason)) {
    let Value::Object(map) = context else { panic!("an object") };
    let (variant, reason) = decided(&one(more), &Context::new(map));
    assert_eq!((variant.as_deref(), reason), expected);
}

#[test]
fn the_order_of_decision() {
    let rules = json!([{"when": {"attr": "plan", "op": "in", "values": ["pro"]}, "serve": "on"}]);
    let (on, off) = (Some("on"), Some("off"));
    check(json!({}), json!({}), (off, Reason::Static));
    check(json!({"fallthrough": null}), json!({}), (None, Reason::Default));
    check(json!({"on": false}), json!({}), (off, Reason::Disabled));
    check(json!({"on": false, "off_variant": null}), json!({}), (None, Reason::Disabled));
    check(json!({"rules": rules}), json!({"plan": "pro"}), (on, Reason::TargetingMatch));
    check(json!({"rules": rules}), json!({"plan": "free"}), (off, Reason::Default));
    let targets = json!([{"variant": "off", "subjects": ["ann"]}, {"variant": "on", "subjects": ["ann", "bea"]},
        {"variant": "on", "subjects": ["7"], "attr": "org.id"}]);
    let both = json!({"rules": rules, "targets": targets});
    check(both.clone(), json!({"targetingKey": "ann", "plan": "pro"}), (off, Reason::TargetingMatch));
    check(both.clone(), json!({"targetingKey": "bea"}), (on, Reason::TargetingMatch));
    check(both.clone(), json!({"targetingKey": "cy", "org": {"id": 7}}), (on, Reason::TargetingMatch));
    check(both, json!({"targetingKey": "cy", "plan": "pro"}), (on, Reason::TargetingMatch));
}

#[test]
fn prerequisites_and_other_flags() {
    let document = |parent: Value| {
        json!({"flags": {
            "f": flag(json!({"prerequisites": [{"flag": "parent", "variants": ["on"]}], "fallthrough": "on"})),
            "g": flag(json!({"rules": [{"when": {"not": {"flag": "parent", "variants": ["on"]}}, "serve": "on"}]})),
            "parent": parent}})
    };
    for (parent, f, g) in [
        (flag(json!({"fallthrough": "on"})), "on", "off"),
        (flag(json!({})), "off", "on"),
        // Off counts as not given, even if the off variant is the wanted one.
        (flag(json!({"on": false, "off_variant": "on"})), "off", "on"),
        (json!({"state": "ENABLED", "variants": {"on": 1}, "defaultVariant": "on"}), "on", "off"),
        (json!({"state": "DISABLED", "variants": {"on": 1}, "defaultVariant": "on"}), "off", "on"),
    ] {
        let set = set(document(parent));
        assert_eq!(set.evaluate("f", &Context::of("u"), at(NOON)).unwrap().variant, Some(f));
        assert_eq!(set.evaluate("g", &Context::of("u"), at(NOON)).unwrap().variant, Some(g));
    }
    // An experiment on the parent counts for those who need it.
    let overlay = Overlay {
        experiment: Id::new(Kind::Experiment, 1),
        slice: Slice::new("a", "b", 0, Share::ALL, Share::ALL),
        serves: Serves::Variant("on".into()),
        otherwise: None,
    };
    let set = set(document(flag(json!({})))).with_overlays(BTreeMap::from([("parent".to_owned(), overlay)]));
    assert_eq!(set.evaluate("f", &Context::of("u"), at(NOON)).unwrap().variant, Some("on"));
}

#[test]
fn circles_and_missing_parts_are_findings() {
    let findings = |document: Value| -> Vec<String> {
        FlagSet::parse(&document.to_string()).unwrap_err().iter().map(ToString::to_string).collect()
    };
    let needs = |key: &str| flag(json!({"prerequisites": [{"flag": key, "variants": ["on"]}]}));
    assert_eq!(
        findings(json!({"flags": {"a": needs("b"), "b": needs("c"), "c": needs("a")}})),
        ["/flags/a: is a circle: a needs b needs c needs a"]
    );
    assert_eq!(findings(json!({"flags": {"a": needs("a")}})), ["/flags/a: is a circle: a needs a"]);
    assert_eq!(
        findings(json!({"flags": {"a": needs("x")}})),
        [r#"/flags/a: needs the flag "x", which does not exist"#]
    );
    let segments = json!({"s": {"when": {"segment": "t"}}, "t": {"when": {"not": {"segment": "s"}}}});
    assert_eq!(findings(json!({"flags": {}, "segments": segments})), ["/segments/s: is a circle: s needs t needs s"]);
    let wrong = flag(json!({"rules": [{"when": {"segment": "s"}, "serve": "on"}]}));
    assert_eq!(findings(json!({"flags": {"f": wrong}})), [r#"/flags/f: needs the segment "s", which does not exist"#]);
    // A diamond is no circle.
    set(json!({"flags": {"a": needs("b"), "b": needs("d"), "c": needs("d"), "d": flag(json!({}))}}));
}

#[test]
fn faults_are_named_by_place() {
    let places = |definition: Value| -> Vec<String> {
        let findings = FlagSet::parse(&json!({"flags": {"f": definition}}).to_string()).unwrap_err();
        findings.into_iter().map(|f| f.place.trim_start_matches("/flags/f").to_owned()).collect()
    };
    assert_eq!(places(flag(json!({"falltrough": "on"}))), ["/falltrough"]);
    assert_eq!(places(flag(json!({"off_variant": "x", "fallthrough": "y"}))), ["/off_variant", "/fallthrough"]);
    assert_eq!(places(flag(json!({"kind": "toggle", "expires": "soon"}))), ["/expires", "/kind"]);
    let rule = |when: Value| flag(json!({"rules": [{"when": when, "serve": "on"}]}));
    assert_eq!(places(rule(json!({"all": [true, {"attr": "a", "op": "is"}]}))), ["/rules/0/when/all/1/op"]);
    let regex = json!({"attr": "a", "op": "matches", "values": ["("]});
    assert_eq!(places(rule(regex)), ["/rules/0/when/values/0"]);
    assert_eq!(places(rule(json!({"attr": "a", "op": "lt", "values": ["1"]}))), ["/rules/0/when/values/0"]);
    assert_eq!(places(rule(json!({"logic": {"nonsense": 1}}))), ["/rules/0/when/logic/nonsense"]);
    assert_eq!(places(rule(json!({"any": [], "not": true}))), ["/rules/0/when"]);
    let serve = |split: Value| flag(json!({"fallthrough": {"split": split}}));
    assert_eq!(places(serve(json!({"weights": [["on", 1], ["of", 1]]}))), ["/fallthrough/split/weights/1"]);
    assert_eq!(places(serve(json!({"weights": [["on", 0]]}))), ["/fallthrough/split/weights"]);
    assert_eq!(places(serve(json!({"weights": [["on", 1]], "bucketing": "md5"}))), ["/fallthrough/split/bucketing"]);
    assert_eq!(
        places(flag(json!({"schedule": [{"at": NOON, "change": {"owner": "x"}}]}))),
        ["/schedule/0/change/owner"]
    );
    assert_eq!(places(flag(json!({"rules": [{"when": true}]}))), ["/rules/0/serve"]);
}

/// Each operator with a value that compares, one that does not, and without the attribute; then turned round in both ways.
#[test]
fn operators() {
    for (op, values, yes, no) in [
        ("in", json!(["a", 1, true]), json!("a"), json!("b")),
        ("in", json!(["a", 1, true]), json!(1.0), json!("1")),
        ("in", json!(["a", "b", "c", "d", "e", "f", "g", "h", "i"]), json!(["x", "i"]), json!(["x"])),
        ("equals", json!([[1, {"a": 2}]]), json!([1.0, {"a": 2}]), json!([1])),
        ("starts_with", json!(["ab"]), json!("abc"), json!("cab")),
        ("ends_with", json!(["bc"]), json!("abc"), json!("bca")),
        ("contains", json!(["x", "b"]), json!("abc"), json!(5)),
        ("matches", json!(["^a.c$"]), json!("abc"), json!("abcd")),
        ("lt", json!([5]), json!(4.5), json!("4")),
        ("lte", json!([5]), json!(5), json!(6)),
        ("gt", json!([5]), json!(6), json!(5)),
        ("gte", json!([5]), json!(5), json!(4)),
        ("before", json!(["2026-01-01T00:00:00+01:00"]), json!("2025-12-31T22:59:59Z"), json!("2025-12-31T23:00:00Z")),
        ("after", json!([1_000]), json!(1_001), json!("soon")),
        ("semver_eq", json!(["2.0"]), json!("2.0.0"), json!("2.0.1")),
        ("semver_lt", json!(["2.0.0"]), json!("2.0.0-rc.1"), json!("2.0.0")),
        ("semver_gte", json!(["2.0.0"]), json!("10.0.0"), json!("latest")),
        ("exists", json!([]), json!(0), Value::Null),
    ] {
        let condition = json!({"attr": "x", "op": op, "values": values});
        let flag_when = |when: Value| one(json!({"rules": [{"when": when, "serve": "on"}]}));
        let plain = flag_when(condition.clone());
        let mut negated = condition.clone();
        negated["negate"] = true.into();
        let (negated, not) = (flag_when(negated), flag_when(json!({"not": condition})));
        let ask = |set: &FlagSet, context: Value| variant(set, context).as_deref() == Some("on");
        assert!(ask(&plain, json!({"x": yes})), "{op} {yes}");
        assert!(!ask(&plain, json!({"x": no})), "{op} {no}");
        assert!(!ask(&plain, json!({})), "{op} absent");
        assert!(!ask(&negated, json!({"x": yes})) && !ask(&negated, json!({})), "{op} negated");
        assert_eq!(ask(&negated, json!({"x": no})), !no.is_null(), "{op} negated {no}");
        assert!(!ask(&not, json!({"x": yes})) && ask(&not, json!({"x": no})) && ask(&not, json!({})), "{op} not");
    }
}

#[test]
fn attributes_and_coercion() {
    let when = |when: Value| one(json!({"rules": [{"when": when, "serve": "on"}]}));
    let on = |set: &FlagSet, context: Value| variant(set, context).as_deref() == Some("on");
    let dotted = when(json!({"attr": "org.id", "op": "in", "values": ["7"]}));
    assert!(
        on(&dotted, json!({"org": {"id": "7"}}))
            && on(&dotted, json!({"org.id": "7"}))
            && !on(&dotted, json!({"org": 7}))
    );
    let pointer = when(json!({"attr": "/a~1b/1", "op": "in", "values": [2]}));
    assert!(on(&pointer, json!({"a/b": [1, 2]})));
    let first = when(json!({"attr": ["userId", "targetingKey"], "op": "in", "values": ["u"]}));
    assert!(on(&first, json!({"targetingKey": "u"})) && !on(&first, json!({"targetingKey": "u", "userId": "v"})));
    let text = when(json!({"attr": "n", "op": "in", "values": ["7"], "as": "text"}));
    assert!(on(&text, json!({"n": 7})) && on(&text, json!({"n": "7"})) && !on(&text, json!({"n": 7.5})));
    let number = when(json!({"attr": "n", "op": "gt", "values": ["6"], "as": "number"}));
    assert!(on(&number, json!({"n": "7"})) && on(&number, json!({"n": 7})) && !on(&number, json!({"n": "seven"})));
    let fold = when(json!({"attr": "n", "op": "ends_with", "values": [".COM"], "ignore_case": true}));
    assert!(on(&fold, json!({"n": "a@B.Com"})) && !on(&fold, json!({"n": "a@b.org"})));
    let now = when(json!({"attr": ["currentTime", "$now"], "op": "after", "values": [NOON]}));
    assert!(!on(&now, json!({})) && on(&now, json!({"currentTime": "2027-01-01T00:00:00Z"})));
    let logic = when(json!({"logic": {">": [{"var": "n"}, 3]}}));
    assert!(on(&logic, json!({"n": 4})) && !on(&logic, json!({"n": 3})));
}

#[test]
fn segments() {
    let document = json!({"flags": {"f": flag(json!({"rules": [{"when": {"segment": "s"}, "serve": "on"}]}))},
        "segments": {"s": {"include": ["in"], "exclude": ["out", "in"], "when": {"attr": "beta", "op": "in", "values": [true]}}}});
    let set = set(document);
    for (context, expected) in [
        (json!({"targetingKey": "in"}), "on"),
        (json!({"targetingKey": "out", "beta": true}), "off"),
        (json!({"targetingKey": "other", "beta": true}), "on"),
        (json!({"beta": true}), "on"),
        (json!({"targetingKey": "other"}), "off"),
    ] {
        assert_eq!(variant(&set, context.clone()).as_deref(), Some(expected), "{context}");
    }
}

/// Guarantees: these places never change; whoever changes one moves users of every flag that was imported.
/// Computed with Python's hashlib and zlib and with independent implementations of MurmurHash3 and FNV-1a.
#[test]
fn places_are_pinned() {
    let place = |bucketing: &str, salt: &str, unit: &str, total: f64| {
        let key = crate::BucketKey::new(salt);
        Bucketing::parse(bucketing).unwrap().place(&key, Some(salt), "f", unit, total)
    };
    // LaunchDarkly's documented example: sha1("hashKey.saltyA.userKeyA") is 0.42157587.
    for (user, expected) in [("userKeyA", 0.421_575_87), ("userKeyB", 0.670_848_5), ("userKeyC", 0.103_431_06)] {
        let found = place("launchdarkly", "hashKey.saltyA", user, 100_000.0);
        assert!((found - expected).abs() < 1e-7, "{user}: {found}");
    }
    PINNED.iter().for_each(|(bucketing, total, expected)| {
        let found: Vec<f64> =
            ["ann", "user-1", "häfen"].iter().map(|unit| place(bucketing, "salt", unit, *total)).collect();
        assert_eq!(&found[..], expected, "{bucketing}");
    });
}

const PINNED: [(&str, f64, [f64; 3]); 11] = [
    ("native-1", 1e6, [160_993.0, 698_445.0, 767_078.0]),
    ("flagd-v1", 1e3, [91.123_071_960_696_52, 88.209_233_194_687_04, 91.349_764_536_763_43]),
    ("flagd-v2", 1e3, [544.0, 558.0, 543.0]),
    ("flagd-v3", 1e3, [864.0, 655.0, 254.0]),
    ("unleash", 100.0, [59.0, 4.0, 14.0]),
    ("unleash-variant", 1e3, [151.0, 31.0, 551.0]),
    ("growthbook-1", 1.0, [0.112, 0.548, 0.533]),
    ("growthbook-2", 1.0, [0.0524, 0.7202, 0.5837]),
    ("flipt", 1e3, [457.0, 785.0, 279.0]),
    ("flipt-boolean", 100.0, [22.0, 30.0, 76.0]),
    ("goff", 1e5, [30_156.0, 45_464.0, 69_477.0]),
];

#[test]
fn splits_have_rest_ranges_and_missing_units() {
    let split = |split: Value| one(json!({"rules": [{"when": true, "serve": {"split": split}}], "fallthrough": null}));
    let share = |set: &FlagSet, name: Option<&str>| {
        (0..4_000).filter(|n| decided(set, &Context::of(&format!("user-{n}"))).0.as_deref() == name).count() as f64
            / 4_000.0
    };
    let near = |a: f64, b: f64| (a - b).abs() < 0.035;
    let tenth = split(json!({"weights": [["on", 10], ["off", 90]]}));
    assert!(near(share(&tenth, Some("on")), 0.1) && near(share(&tenth, Some("off")), 0.9));
    let rest = split(json!({"weights": [["on", 10], ["off", 20]], "total": 100}));
    assert!(near(share(&rest, None), 0.7));
    let gap = split(json!({"ranges": [["on", 0, 0.1], ["on", 0.5, 0.6]], "bucketing": "growthbook-2", "salt": "s"}));
    assert!(near(share(&gap, Some("on")), 0.2) && near(share(&gap, None), 0.8));
    // The last variant of LaunchDarkly's takes what the weights leave; a subject without a key is at place 0.
    let launchdarkly = split(json!({"weights": [["on", 10], ["off", 20]], "total": 100, "bucketing": "launchdarkly"}));
    assert!(near(share(&launchdarkly, Some("off")), 0.9));
    assert_eq!(decided(&launchdarkly, &Context::default()), (Some("on".to_owned()), Reason::Split));
    assert_eq!(decided(&tenth, &Context::default()), (None, Reason::Default));
    assert_eq!(decided(&tenth, &Context::of(&"x".repeat(300))).0, None);
}

/// Guarantees: while a ramp's shares grow, nobody who has the new variant loses it; all generations, steps and lines.
#[test]
fn ramps_never_take_back() {
    let names = Bucketing::NAMES;
    for (n, bucketing) in names.iter().enumerate() {
        let ramp = json!({"from": "off", "to": "on", "bucketing": bucketing, "salt": "s", "total": 1_000, "linear": n % 2 == 0,
            "side": if n % 3 == 0 { "high" } else { "low" },
            "steps": [{"at": "2026-12-01T00:00:00Z", "share": 0.1}, {"at": "2026-12-02T00:00:00Z", "share": 0.6},
                {"at": "2026-12-03T00:00:00Z", "share": 1}]});
        let set = one(json!({"fallthrough": {"ramp": ramp}}));
        let mut held: Vec<bool> = vec![false; 500];
        let mut shares = Vec::new();
        for hour in -1..=50 {
            let now = Timestamp::from_nanos(at("2026-12-01T00:00:00Z").nanos() + hour * 3_600_000_000_000);
            for (user, had) in held.iter_mut().enumerate() {
                let has = set.evaluate("f", &Context::of(&format!("user-{user}")), now).unwrap().variant == Some("on");
                assert!(has || !*had, "{bucketing}: user-{user} lost the variant at hour {hour}");
                *had = has;
            }
            shares.push(held.iter().filter(|had| **had).count());
        }
        assert_eq!((shares[0], *shares.last().unwrap()), (0, 500), "{bucketing}");
        assert!(shares[1] > 15 && shares[1] < 100 && shares[13] < 450, "{bucketing}: {shares:?}");
    }
}

#[test]
fn scheduled_changes_and_the_clock() {
    let set = one(json!({"schedule": [{"at": "2026-12-01T10:00:00Z", "change": {"fallthrough": "on"}},
        {"at": "2026-12-01T14:00:00Z", "change": {"on": false}}]}));
    let ask = |time: &str| {
        let found = set.evaluate("f", &Context::of("u"), at(time)).unwrap();
        (found.variant.unwrap().to_owned(), found.reason)
    };
    assert_eq!(ask("2026-12-01T09:59:59Z"), ("off".to_owned(), Reason::Default));
    assert_eq!(ask("2026-12-01T10:00:00Z"), ("on".to_owned(), Reason::Default));
    assert_eq!(ask("2026-12-01T14:00:00Z"), ("off".to_owned(), Reason::Disabled));
    let clock = set.clock_of_all();
    assert_eq!(clock.next_turn(at("2026-12-01T09:00:00Z")), Some(at("2026-12-01T10:00:00Z").nanos() / 1_000_000_000));
    assert_ne!(clock.period(at("2026-12-01T09:59:59Z")), clock.period(at("2026-12-01T10:00:00Z")));
    // Killed is killed, whatever the schedule says.
    let killed = set.flag("f").unwrap().killed();
    let document = json!({"flags": {"f": killed}});
    let off = FlagSet::parse(&document.to_string()).unwrap();
    assert_eq!(off.evaluate("f", &Context::of("u"), at("2026-12-01T12:00:00Z")).unwrap().reason, Reason::Disabled);
}

#[test]
fn an_experiment_stands_behind_off_and_before_targets() {
    let overlay = Overlay {
        experiment: Id::new(Kind::Experiment, 1),
        slice: Slice::new("a", "b", 0, Share::ALL, Share::ALL),
        serves: Serves::Variant("on".into()),
        otherwise: None,
    };
    let with = |more: Value| one(more).with_overlays(BTreeMap::from([("f".to_owned(), overlay.clone())]));
    let targets = json!({"targets": [{"variant": "off", "subjects": ["u"]}]});
    assert_eq!(decided(&with(targets), &Context::of("u")), (Some("on".to_owned()), Reason::Split));
    assert_eq!(decided(&with(json!({"on": false})), &Context::of("u")), (Some("off".to_owned()), Reason::Disabled));
    // Clients cache what is static: not beside an experiment.
    assert_eq!(decided(&with(json!({})), &Context::default()), (Some("off".to_owned()), Reason::Split));
}

#[test]
fn explanations_name_rule_clause_and_bucket() {
    let set = set(json!({"flags": {"f": flag(json!({"rules": [
        {"when": {"attr": "plan", "op": "in", "values": ["pro"]}, "serve": "on"},
        {"when": {"all": [{"segment": "s"}, true]}, "serve": {"split": {"weights": [["on", 1], ["off", 1]], "salt": "s"}}}]}))},
        "segments": {"s": {"when": {"attr": "beta", "op": "exists"}}}}));
    let (found, steps) = set.explain("f", &Context::of("u").with("beta", true), at(NOON));
    assert_eq!(found.unwrap(), set.evaluate("f", &Context::of("u").with("beta", true), at(NOON)).unwrap());
    let places: Vec<&str> = steps.iter().filter_map(|step| step["at"].as_str()).collect();
    assert_eq!(
        places,
        [
            "/rules/0/when",
            "/rules/0",
            "/when",
            "/rules/1/when/all/0",
            "/rules/1/when/all/1",
            "/rules/1/when",
            "/rules/1",
            "/rules/1/serve/split"
        ]
    );
    let bucket = steps.iter().find(|step| step["bucketing"] == "native-1").unwrap();
    assert_eq!((&bucket["unit"], &bucket["of"]), (&json!("u"), &json!(2.0)));
    assert_eq!(steps.iter().find(|step| step["at"] == "/when").unwrap()["within"], "segment s");
}

#[test]
fn too_deep_is_an_error_and_not_a_crash() {
    let mut flags = Map::new();
    for n in 0..40 {
        let needs = json!([{"flag": format!("k{}", n + 1), "variants": ["on"]}]);
        flags.insert(
            format!("k{n}"),
            flag(json!({"prerequisites": if n == 39 { json!([]) } else { needs }, "fallthrough": "on"})),
        );
    }
    let set = set(json!({"flags": flags}));
    let error = set.evaluate("k0", &Context::of("u"), at(NOON)).unwrap_err();
    assert_eq!(error.code, ErrorCode::ParseError);
    assert_eq!(set.evaluate("k20", &Context::of("u"), at(NOON)).unwrap().variant, Some("on"));
}

/// Random flags and segments in our dialect, with splits of flagd's second generation.
pub(crate) fn world(u: &mut arbtest::arbitrary::Unstructured<'_>) -> arbtest::arbitrary::Result<Value> {
    fn condition(u: &mut arbtest::arbitrary::Unstructured<'_>, depth: u8) -> arbtest::arbitrary::Result<Value> {
        let attr = *u.choose(&["plan", "n", "org.id", "targetingKey", "v"])?;
        Ok(match u.int_in_range(0..=if depth > 2 { 7 } else { 11 })? {
            0 => json!({"attr": attr, "op": "in", "values": ["pro", 3, true, "u1"], "negate": u.arbitrary::<bool>()?}),
            1 => json!({"attr": attr, "op": *u.choose(&["lt", "lte", "gt", "gte"])?, "values": [3]}),
            2 => {
                json!({"attr": attr, "op": *u.choose(&["starts_with", "ends_with", "contains"])?, "values": ["p", "1"]})
            }
            3 => json!({"attr": attr, "op": "exists", "negate": u.arbitrary::<bool>()?}),
            4 => json!({"attr": "v", "op": *u.choose(&["semver_lt", "semver_gte", "semver_eq"])?, "values": ["1.2.0"]}),
            5 => json!({"attr": "$now", "op": *u.choose(&["before", "after"])?, "values": ["2026-12-01T11:00:00Z"]}),
            6 => json!({"segment": "s"}),
            7 => json!({"logic": {"==": [{"var": "plan"}, "pro"]}}),
            8 => json!({"not": condition(u, depth + 1)?}),
            9 => json!({"all": [condition(u, depth + 1)?, condition(u, depth + 1)?]}),
            10 => json!({"any": [condition(u, depth + 1)?, condition(u, depth + 1)?]}),
            _ => json!({"flag": "parent", "variants": ["on"]}),
        })
    }
    let serve = |u: &mut arbtest::arbitrary::Unstructured<'_>| -> arbtest::arbitrary::Result<Value> {
        Ok(match u.int_in_range(0..=4)? {
            0 => json!("on"),
            1 => Value::Null,
            2 => json!({"ramp": {"from": "off", "to": "on", "bucketing": "flagd-v2", "total": 100, "salt": "r",
                "steps": [{"at": "2026-12-01T10:00:00Z", "share": 0.3}, {"at": "2026-12-02T10:00:00Z", "share": 0.7}]}}),
            _ => {
                json!({"split": {"bucketing": "flagd-v2", "weights": [["on", u.int_in_range(0..=9)?], ["off", 1], ["third", 5]]}})
            }
        })
    };
    let body = |u: &mut arbtest::arbitrary::Unstructured<'_>, depth: u8| -> arbtest::arbitrary::Result<Value> {
        let mut rules = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            rules.push(json!({"when": condition(u, depth)?, "serve": serve(u)?}));
        }
        Ok(json!({"variants": {"on": "1", "off": "0", "third": "3"}, "on": u.int_in_range(0..=9)? > 0,
            "off_variant": *u.choose(&[Some("off"), None])?, "rules": rules, "fallthrough": serve(u)?,
            "targets": if u.arbitrary()? { json!([{"variant": "third", "subjects": ["u1", "u2"]}]) } else { json!([]) }}))
    };
    let mut parent = body(u, 3)?;
    parent["rules"].as_array_mut().unwrap().retain(|rule| !rule.to_string().contains("parent"));
    let mut flag = body(u, 0)?;
    if u.arbitrary()? {
        flag["prerequisites"] = json!([{"flag": "parent", "variants": ["on", "third"]}]);
    }
    Ok(json!({"flags": {"f": flag, "parent": parent},
        "segments": {"s": {"include": ["u3"], "exclude": ["u4"], "when": {"attr": "plan", "op": "in", "values": ["pro"]}}}}))
}

/// Guarantees: a flag written as flagd JSON gives what it gave before, for every subject; its import and export are stable.
#[test]
fn export_to_flagd_evaluates_the_same() {
    let mut exported = 0;
    arbtest::arbtest(|u| {
        let mut document = world(u)?;
        if u.arbitrary()? {
            document = serde_json::from_str(&document.to_string().replace("flagd-v2", "flagd-v3")).unwrap();
        }
        let ours = set(document.clone());
        let Ok(definition) = ours.to_flagd(ours.flag("f").unwrap()) else { return Ok(()) };
        exported += 1;
        let theirs = set(json!({"flags": {"f": definition}}));
        assert_eq!(theirs.portable("f").as_ref(), Some(&definition));
        for n in 0..20 {
            let mut context = Map::new();
            if n % 5 != 4 {
                context.insert("targetingKey".into(), json!(format!("u{n}")));
            }
            for name in ["plan", "n", "v", "org"] {
                let value = match u.int_in_range(0..=7)? {
                    0 => json!("pro"),
                    1 => json!(3),
                    2 => json!("1.2.0"),
                    3 => json!(true),
                    4 => json!({"id": 3}),
                    5 => json!(2.5),
                    _ => continue,
                };
                context.insert(name.into(), value);
            }
            let context = Context::new(context);
            let (a, b) = (ours.evaluate("f", &context, at(NOON)), theirs.evaluate("f", &context, at(NOON)));
            assert_eq!(a.unwrap().variant, b.unwrap().variant, "{document}\n{definition}\n{context:?}");
        }
        Ok(())
    });
    assert!(exported > 20, "{exported} of the random flags could be written");
}

/// Fixed seeds of the fuzz target: definitions in our dialect never panic, and neither does their evaluation.
#[test]
fn definitions_survive_anything() {
    arbtest::arbtest(|u| {
        let mut document = world(u)?;
        // One value somewhere is replaced by something else.
        fn poke(value: &mut Value, u: &mut arbtest::arbitrary::Unstructured<'_>) -> arbtest::arbitrary::Result<()> {
            let here = u.int_in_range(0..=4)? == 0;
            match value {
                Value::Object(map) if !here && !map.is_empty() => {
                    let place = u.choose_index(map.len())?;
                    poke(map.values_mut().nth(place).unwrap(), u)
                }
                Value::Array(items) if !here && !items.is_empty() => {
                    let place = u.choose_index(items.len())?;
                    poke(&mut items[place], u)
                }
                value => {
                    *value = u
                        .choose(&[
                            json!(null),
                            json!(-1),
                            json!(1e300),
                            json!("x"),
                            json!([[]]),
                            json!({"split": 1}),
                            json!(true),
                        ])?
                        .clone();
                    Ok(())
                }
            }
        }
        poke(&mut document, u)?;
        if let Ok(set) = FlagSet::parse(&document.to_string()) {
            let _ = set.evaluate("f", &Context::of("u").with("plan", json!([1, "x"])), at(NOON));
            let _ = set.flag("f").map(|flag| set.to_flagd(flag));
            let _ = set.explain("f", &Context::default(), at(NOON));
        }
        Ok(())
    });
}

/// Guarantees: a change is judged by the most subjects that it moves at once, now or later by itself.
#[test]
fn impact_sees_what_comes_later() {
    let subjects: Vec<Context> = (0..1_000).map(|n| Context::of(&format!("user-{n}"))).collect();
    let nobody = one(json!({}));
    let changed = |more: Value| {
        let impacts = crate::impact(&nobody, &one(more), &subjects, &|_, _| true, at(NOON));
        impacts.first().map_or(0, |impact| impact.changed)
    };
    assert_eq!(changed(json!({"description": "new words"})), 0);
    // A risk is no word for people: lowering it is judged, in flagd's dialect too.
    let theirs = |risk: &str| {
        set(json!({"flags": {"f": {"state": "ENABLED", "variants": {"a": 1}, "metadata": {"risk": risk}}}}))
    };
    assert_eq!(crate::impact(&theirs("critical"), &theirs("low"), &subjects, &|_, _| true, at(NOON)).len(), 1);
    assert_eq!(changed(json!({"fallthrough": "on"})), 1_000);
    assert_eq!(changed(json!({"on": false, "off_variant": null})), 0);
    assert_eq!(changed(json!({"schedule": [{"at": "2026-12-24T00:00:00Z", "change": {"fallthrough": "on"}}]})), 1_000);
    let rule = json!([{"when": {"attr": "$now", "op": "after", "values": ["2026-12-24T00:00:00Z"]}, "serve": "on"}]);
    assert_eq!(changed(json!({"rules": rule})), 1_000);
    let ramp = |linear: bool, end: &str, steps: [f64; 3]| {
        let at = ["2026-12-01T13:00:00Z", "2026-12-01T16:00:00Z", end];
        let steps: Vec<Value> = at.iter().zip(steps).map(|(at, share)| json!({"at": at, "share": share})).collect();
        changed(json!({"fallthrough": {"ramp": {"from": "off", "to": "on", "linear": linear, "steps": steps}}}))
    };
    let stepped = ramp(false, "2026-12-01T19:00:00Z", [0.05, 0.1, 0.18]);
    assert!((50..=110).contains(&stepped), "{stepped}");
    let slow = ramp(true, "2026-12-01T19:00:00Z", [0.0, 0.5, 1.0]);
    assert!((10..=60).contains(&slow), "{slow}");
    let fast = ramp(true, "2026-12-01T16:00:10Z", [0.0, 0.0, 1.0]);
    assert!(fast > 850, "{fast}");
}

/// Guarantees: flags and segments that refer to each other many times over exhaust neither time nor memory, evaluated or written
/// out for flagd.
#[test]
fn what_hangs_together_is_bounded() {
    let mut segments = Map::from_iter([("s0".to_owned(), json!({"include": ["u"]}))]);
    for n in 1..6 {
        let many: Vec<Value> = (0..100).map(|_| json!({"segment": format!("s{}", n - 1)})).collect();
        segments.insert(format!("s{n}"), json!({"when": {"all": many}}));
    }
    let mut flags = Map::from_iter([(
        "wide".to_owned(),
        flag(json!({"rules": [{"when": {"segment": "s5"}, "serve": "on"}], "fallthrough": "off"})),
    )]);
    flags.insert("k0".into(), flag(json!({"fallthrough": "off"})));
    for n in 1..30 {
        let twice = json!({"flag": format!("k{}", n - 1), "variants": ["on"]});
        let rules = json!([{"when": {"any": [twice, twice]}, "serve": "on"}]);
        flags.insert(format!("k{n}"), flag(json!({"rules": rules})));
    }
    let set = set(json!({"flags": flags, "segments": segments}));
    for key in ["wide", "k29"] {
        let error = set.evaluate(key, &Context::of("u"), at(NOON)).unwrap_err();
        assert!(error.detail.contains("it takes more than"), "{error}");
        let (found, steps) = set.explain(key, &Context::of("u"), at(NOON));
        assert!(found.is_err() && steps.len() <= 2_000);
        set.to_flagd(set.flag(key).unwrap()).unwrap_err();
        set.portable(key);
    }
}

/// Guarantees: in process as on the server a number and a truth value name a subject by their text, and a list names nobody.
#[test]
fn targets_by_attribute_are_the_same_in_process() {
    let targets = json!([{"attr": "n", "variant": "on", "subjects": ["1", "true", "x", "1e3"]}]);
    let set = one(json!({"targets": targets}));
    let sent = Flag::compile("f", &set.portable("f").unwrap(), &Map::new(), &Map::new()).unwrap();
    let values = json!([1, 1.0, "1", true, "x", "1e3", 1000, ["x"], [1], 2, false, null, {}]);
    for (n, value) in values.as_array().unwrap().iter().enumerate() {
        let context = Context::of("u").with("n", value.clone());
        let expected = Some(if n < 6 { "on" } else { "off" });
        assert_eq!(set.evaluate("f", &context, at(NOON)).unwrap().variant, expected, "{value}");
        assert_eq!(sent.evaluate(&context, None, at(NOON)).unwrap().variant, expected, "{value} in process");
    }
}
