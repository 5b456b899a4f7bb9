use serde_json::json;
use vocab::{Share, Timestamp};

use super::*;
use crate::dialect_tests::world;
use crate::{Context, Overlay, Slice};

fn set(document: &Value) -> FlagSet {
    FlagSet::parse(&document.to_string()).unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn noon() -> Timestamp {
    Timestamp::parse("2026-12-01T12:00:00Z").unwrap()
}

#[test]
fn a_flag_names_what_it_hashes_with() {
    let check = |definition: Value, expected: Option<&str>| {
        let set = set(&json!({"flags": {"f": definition}}));
        assert_eq!(set.flag("f").unwrap().hashed_by(), expected, "{definition}");
        assert_eq!(set.hashes_somebody("f"), expected.is_some());
    };
    let theirs = |targeting: Value, metadata: Value| json!({"state": "ENABLED", "variants": {"a": 1, "b": 2}, "defaultVariant": "a", "targeting": targeting, "metadata": metadata});
    let split = json!({"fractional": [["a", 1], ["b", 1]]});
    check(theirs(json!({}), json!({"bucketing": "flagd-v3"})), None);
    check(theirs(split.clone(), json!({})), Some("flagd-v2"));
    check(
        theirs(json!({"if": [{"in": [{"var": "x"}, ["y"]]}, "a", split]}), json!({"bucketing": "flagd-v3"})),
        Some("flagd-v3"),
    );
    let ours = |when: Value, serve: Value| json!({"variants": {"a": 1, "b": 2}, "on": true, "rules": [{"when": when, "serve": serve}], "fallthrough": "a"});
    check(ours(json!(true), json!("b")), None);
    check(ours(json!(true), json!({"split": {"weights": [["a", 1], ["b", 1]]}})), Some("native-1"));
    let bucket = json!({"not": {"bucket": {"ranges": [[0, 10]], "total": 100, "bucketing": "unleash"}}});
    let split = json!({"split": {"weights": [["a", 1], ["b", 1]], "bucketing": "flagd-v3"}});
    check(ours(bucket, split), Some("flagd-v3,unleash"));
}

#[test]
fn another_generation_is_the_same_flag_pinned_to_it() {
    let pinned = |name: &str| {
        set(&json!({"flags": {
            "theirs": {"state": "ENABLED", "variants": {"a": 1, "b": 2}, "defaultVariant": "a", "metadata": {"bucketing": name},
                "targeting": {"fractional": [{"cat": ["s", {"var": "targetingKey"}]}, ["a", 30], ["b", 70]]}},
            "ours": {"variants": {"a": 1, "b": 2}, "on": true, "prerequisites": [{"flag": "theirs", "variants": ["b"]}],
                "rules": [{"when": {"segment": "some"}, "serve": "b"}],
                "fallthrough": {"split": {"weights": [["a", 10], ["b", 90]], "bucketing": name}}}},
            "segments": {"some": {"when": {"bucket": {"ranges": [[0, 10]], "total": 100, "bucketing": name, "salt": "x"}}}}}))
    };
    let answers = |set: &FlagSet, key: &str| -> Vec<Option<String>> {
        let of = |n: u32| set.evaluate_by_key(key, &format!("u{n}"), noon()).unwrap().variant.map(str::to_owned);
        (0..300).map(of).collect()
    };
    for key in ["theirs", "ours"] {
        let all = FLAGD.map(|generation| answers(&pinned(generation.as_str()), key));
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        for from in FLAGD {
            for (to, expected) in FLAGD.iter().zip(&all) {
                let other = pinned(from.as_str()).hashed_as(key, *to).unwrap();
                assert_eq!(&answers(&other, key), expected, "{key}: {from:?} as {to:?}");
            }
        }
    }
    assert!(pinned("flagd-v3").hashed_as("nobody", Bucketing::FlagdV2).is_none());
    let native =
        json!({"flags": {"f": {"variants": {"a": 1}, "on": true, "fallthrough": {"split": {"weights": [["a", 1]]}}}}});
    assert!(set(&native).hashed_as("f", Bucketing::FlagdV2).is_none(), "no client of flagd's gets it");
}

/// Guarantees: what is said with nothing but the key holds whatever the attributes are; and a flag hashed as it is pinned is the flag.
#[test]
fn what_the_key_alone_decides_no_attribute_changes() {
    let (mut said, mut unsaid) = (0, 0);
    arbtest::arbtest(|u| {
        let set = set(&world(u)?);
        let same = set.hashed_as("f", Bucketing::FlagdV2);
        for n in 0..20 {
            let subject = format!("u{n}");
            let Some(alone) = set.evaluate_by_key("f", &subject, noon()) else {
                unsaid += 1;
                continue;
            };
            said += 1;
            if let Some(same) = &same {
                assert_eq!(same.evaluate_by_key("f", &subject, noon()).map(|e| e.variant), Some(alone.variant));
            }
            let context = Context::of(&subject)
                .with("plan", *u.choose(&["pro", "free"])?)
                .with("n", u.int_in_range(0..=6)?)
                .with("v", "1.2.0")
                .with("org", json!({"id": 3}));
            assert_eq!(set.evaluate("f", &context, noon()).unwrap().variant, alone.variant);
        }
        Ok(())
    });
    assert!(said > 100 && unsaid > 100, "{said} said, {unsaid} not: the test says nothing");
}

#[test]
fn an_experiment_on_what_a_flag_needs_stands_in_front_of_it() {
    let document = json!({"flags": {
        "parent": {"variants": {"on": true}, "on": true, "fallthrough": "on"},
        "child": {"variants": {"on": true}, "on": true, "fallthrough": "on", "prerequisites": [{"flag": "parent", "variants": ["on"]}]},
        "other": {"variants": {"on": true}, "on": true, "fallthrough": "on"}}});
    let slice = Slice::new("l", "a", 0, Share::from_ppm(500_000).unwrap(), Share::from_ppm(500_000).unwrap());
    let overlay = Overlay {
        experiment: vocab::Id::new(vocab::Kind::Experiment, 1),
        slice,
        serves: crate::Serves::Variant("on".into()),
        otherwise: None,
    };
    let set = set(&document).with_overlays([("parent".to_owned(), overlay)].into());
    let within = |key: &str| (0..100).filter(|n| set.stands_in_front(key, &format!("u{n}"))).count();
    assert!(within("other") == 0 && within("child") == within("parent") && (30..70).contains(&within("child")));
}
