//! Imported toggles answer as Unleash's formulas do, which are written out here once more.

use flags::{Context, FlagSet};
use serde_json::{Map, Value, json};
use vocab::Timestamp;

use crate::{Import, Weight, unleash};

/// MurmurHash3 x86 32-bit, straight from its description.
fn murmur3(data: &[u8], seed: u32) -> u32 {
    let mut h = seed;
    let chunks = data.chunks_exact(4);
    let tail = chunks.remainder();
    for chunk in chunks {
        let k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(0xcc9e2d51).rotate_left(15);
        h = (h ^ k.wrapping_mul(0x1b873593)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe6546b64);
    }
    if !tail.is_empty() {
        let k = tail.iter().rev().fold(0_u32, |k, byte| k << 8 | u32::from(*byte));
        h ^= k.wrapping_mul(0xcc9e2d51).rotate_left(15).wrapping_mul(0x1b873593);
    }
    h ^= data.len() as u32;
    h = (h ^ h >> 16).wrapping_mul(0x85ebca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2ae35);
    h ^ h >> 16
}

/// 1 to `modulus`.
fn normalized(group: &str, id: &str, modulus: u32, seed: u32) -> u32 {
    murmur3(format!("{group}:{id}").as_bytes(), seed) % modulus + 1
}

struct World {
    import: Import,
    set: FlagSet,
}

const NOON: &str = "2026-12-01T12:00:00Z";

impl World {
    #[track_caller]
    fn of(document: Value) -> World {
        let import = unleash(&document).unwrap();
        let set = FlagSet::parse(&import.document().to_string()).unwrap();
        World { import, set }
    }

    /// One toggle `t` with these keys.
    #[track_caller]
    fn toggle(more: Value) -> World {
        World::of(json!({"version": 2, "features": [toggle(more)]}))
    }

    #[track_caller]
    fn value(&self, key: &str, context: Value) -> Option<Value> {
        let Value::Object(map) = context else { panic!("an object") };
        let now = Timestamp::parse(NOON).unwrap();
        self.set.evaluate(key, &Context::new(map), now).unwrap().value.cloned()
    }

    #[track_caller]
    fn on(&self, context: Value) -> bool {
        self.value("t", context) == Some(json!(true))
    }

    fn variant(&self, context: Value) -> Option<Value> {
        self.value("t.variant", context)
    }

    fn notes(&self, weight: Weight) -> Vec<&str> {
        self.import.notes.iter().filter(|note| note.weight == weight).map(|note| note.text.as_str()).collect()
    }
}

fn toggle(more: Value) -> Value {
    let mut toggle = json!({"name": "t", "enabled": true, "strategies": []});
    toggle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    toggle
}

fn strategy(name: &str, parameters: Value) -> Value {
    json!({"name": name, "parameters": parameters, "constraints": []})
}

fn constrained(constraint: Value) -> World {
    World::toggle(json!({"strategies": [{"name": "default", "constraints": [constraint]}]}))
}

/// A published vector of the hash, so that both sides cannot be wrong in the same way.
#[test]
fn the_hash_of_this_test_is_murmur3() {
    assert_eq!(murmur3(b"", 0), 0);
    assert_eq!(murmur3(b"", 1), 0x514e28b7);
    assert_eq!(murmur3(b"test", 0x9747b28c), 0x704b81dc);
    assert_eq!(murmur3(b"Hello, world!", 0x9747b28c), 0x24884cba);
}

#[test]
fn switches_and_missing_strategies() {
    assert!(World::toggle(json!({})).on(json!({})));
    assert!(!World::toggle(json!({"enabled": false})).on(json!({})));
    assert!(World::toggle(json!({"strategies": [{"name": "default"}]})).on(json!({})));
    let off = World::toggle(json!({"enabled": false, "strategies": [{"name": "default"}]}));
    assert!(!off.on(json!({})));
}

/// Scenario: gradual rollouts of every share, by user, session and attribute.
/// Guarantees: everybody is in exactly if Unleash's formula says so.
#[test]
fn rollouts_place_everybody_as_unleash_does() {
    for percent in [1_u32, 7, 50, 99] {
        let text = percent.to_string();
        let by_default = World::toggle(json!({"strategies":
            [strategy("flexibleRollout", json!({"rollout": text, "stickiness": "default", "groupId": "g"}))]}));
        let by_name = World::toggle(json!({"strategies":
            [strategy("flexibleRollout", json!({"rollout": percent, "stickiness": "tenant.id"}))]}));
        let legacy = World::toggle(json!({"strategies":
            [strategy("gradualRolloutUserId", json!({"percentage": text, "groupId": "h"}))]}));
        let session = World::toggle(json!({"strategies":
            [strategy("gradualRolloutSessionId", json!({"percentage": text, "groupId": "h"}))]}));
        for n in 0..2_000 {
            let id = format!("user-{n}");
            let is = |group: &str| normalized(group, &id, 100, 0) <= percent;
            assert_eq!(by_default.on(json!({"userId": id, "sessionId": "x"})), is("g"));
            assert_eq!(by_default.on(json!({"targetingKey": id, "sessionId": "x"})), is("g"));
            assert_eq!(by_default.on(json!({"sessionId": id})), is("g"));
            assert_eq!(by_name.on(json!({"userId": "x", "tenant.id": id})), is("t"));
            assert_eq!(legacy.on(json!({"userId": id})), is("h"));
            assert_eq!(session.on(json!({"userId": "x", "sessionId": id})), is("h"));
        }
        assert!(!by_name.on(json!({"userId": "x"})));
        assert!(!legacy.on(json!({"sessionId": "x"})));
    }
    let number = World::toggle(json!({"strategies":
        [strategy("flexibleRollout", json!({"rollout": "30", "stickiness": "tenant"}))]}));
    for n in 0..200 {
        assert_eq!(number.on(json!({"tenant": n})), normalized("t", &n.to_string(), 100, 0) <= 30);
    }
}

#[test]
fn nothing_and_everything_need_no_lot() {
    for (stickiness, anonymous) in [("default", true), ("random", true), ("userId", false), ("tenant", false)] {
        let rollout = |share: &str| {
            World::toggle(json!({"strategies":
                [strategy("flexibleRollout", json!({"rollout": share, "stickiness": stickiness}))]}))
        };
        assert!(!rollout("0").on(json!({"userId": "a", "tenant": "b"})));
        let full = rollout("100");
        assert!(full.on(json!({"userId": "a", "tenant": "b"})));
        assert_eq!(full.on(json!({})), anonymous, "{stickiness}");
        assert!(full.notes(Weight::LeftOut).is_empty());
    }
    let random = |share: &str| {
        World::toggle(json!({"strategies": [strategy("gradualRolloutRandom", json!({"percentage": share}))]}))
    };
    assert!(random("100").on(json!({})));
    assert!(!random("0").on(json!({})));
    let half = random("50");
    assert!(!half.on(json!({})));
    assert!(half.notes(Weight::LeftOut)[0].contains("each call anew"), "{:?}", half.import.notes);
}

#[test]
fn the_older_strategies() {
    let users = World::toggle(json!({"strategies": [strategy("userWithId", json!({"userIds": "ann, bea ,7"}))]}));
    for (context, expected) in [
        (json!({"userId": "ann"}), true),
        (json!({"targetingKey": "bea"}), true),
        (json!({"userId": 7}), true),
        (json!({"userId": "cy"}), false),
        (json!({}), false),
    ] {
        assert_eq!(users.on(context), expected);
    }
    let hosts =
        World::toggle(json!({"strategies": [strategy("applicationHostname", json!({"hostNames": "One, two"}))]}));
    assert!(hosts.on(json!({"hostname": "ONE"})) && !hosts.on(json!({"hostname": "three"})) && !hosts.on(json!({})));
    assert!(hosts.notes(Weight::Differs)[0].contains("hostname"));
    let custom = World::toggle(json!({"strategies": [strategy("mine", json!({}))]}));
    assert!(!custom.on(json!({})));
    assert!(custom.notes(Weight::LeftOut)[0].contains("mine"));
}

#[test]
fn addresses_and_networks() {
    let ips = "127.0.0.1, 10.0.0.0/8, 192.168.32.0/19, 172.16.5.130/25, 2001:db8::1, fe80::/16, 2001:db8:7::/48, junk";
    let world = World::toggle(json!({"strategies": [strategy("remoteAddress", json!({"IPs": ips}))]}));
    for (address, expected) in [
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("10.255.0.9", true),
        ("10.256.0.9", false),
        ("110.1.1.1", false),
        ("192.168.31.255", false),
        ("192.168.32.0", true),
        ("192.168.63.255", true),
        ("192.168.64.0", false),
        ("172.16.5.127", false),
        ("172.16.5.128", true),
        ("172.16.5.255", true),
        ("2001:db8::1", true),
        ("2001:DB8:0:0:0:0:0:1", true),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", true),
        ("fe80::12", true),
        ("FE80:1::12", true),
        ("fe81::12", false),
        ("2001:db8:7:1::", true),
        ("2001:db8:77:1::", false),
        ("", false),
        ("nonsense", false),
    ] {
        assert_eq!(world.on(json!({"remoteAddress": address})), expected, "{address}");
    }
    assert!(!world.on(json!({})));
    let partly =
        World::toggle(json!({"strategies": [strategy("remoteAddress", json!({"IPs": "2001:db8::/33, 1.2.3.4"}))]}));
    assert!(partly.on(json!({"remoteAddress": "1.2.3.4"})));
    assert!(partly.notes(Weight::LeftOut)[0].contains("2001:db8::/33"));
}

/// Each operator: constraint, contexts that fit, contexts that do not. Inverted, all turn round.
#[test]
fn operators_and_their_inversions() {
    let cases = [
        (json!({"operator": "IN", "values": ["a", "7"]}), vec![json!("a"), json!(7)], vec![json!("b"), Value::Null]),
        (json!({"operator": "NOT_IN", "values": ["a"]}), vec![json!("b"), Value::Null], vec![json!("a")]),
        (json!({"operator": "IN", "values": []}), vec![], vec![json!("a"), Value::Null]),
        (json!({"operator": "NOT_IN", "values": []}), vec![json!("a"), Value::Null], vec![]),
        (
            json!({"operator": "STR_STARTS_WITH", "values": ["ab", "x"]}),
            vec![json!("abc"), json!("xy")],
            vec![json!("cab"), json!("AB"), Value::Null],
        ),
        (
            json!({"operator": "STR_ENDS_WITH", "values": ["@x.de"]}),
            vec![json!("a@x.de")],
            vec![json!("@x.deu"), Value::Null],
        ),
        (
            json!({"operator": "STR_CONTAINS", "values": ["b"], "caseInsensitive": true}),
            vec![json!("aBc")],
            vec![json!("ac"), Value::Null],
        ),
        (
            json!({"operator": "STR_CONTAINS", "values": ["b"], "caseInsensitive": false}),
            vec![json!("abc")],
            vec![json!("aBc")],
        ),
        (json!({"operator": "STR_STARTS_WITH", "values": ["1"]}), vec![json!(12)], vec![json!(21)]),
        (
            json!({"operator": "NUM_EQ", "value": "5.0"}),
            vec![json!("5"), json!(5)],
            vec![json!("6"), json!("five"), Value::Null],
        ),
        (
            json!({"operator": "NUM_GT", "value": "5"}),
            vec![json!("5.1"), json!(6)],
            vec![json!("5"), json!("-7"), json!(""), Value::Null],
        ),
        (json!({"operator": "NUM_GTE", "value": 5}), vec![json!("5")], vec![json!("4.9"), Value::Null]),
        (json!({"operator": "NUM_LT", "value": "-5"}), vec![json!("-6")], vec![json!("-5"), Value::Null]),
        (json!({"operator": "NUM_LTE", "value": "5"}), vec![json!("5"), json!("-1")], vec![json!("5.5"), Value::Null]),
        (
            json!({"operator": "SEMVER_EQ", "value": "1.2.3-beta.1"}),
            vec![json!("1.2.3-beta.1")],
            vec![json!("1.2.3"), json!("1.2"), Value::Null],
        ),
        (
            json!({"operator": "SEMVER_GT", "value": "1.9.0"}),
            vec![json!("1.10.0"), json!("2.0.0-alpha")],
            vec![json!("1.9.0"), json!("v2.0.0"), json!("2.0"), json!("1.9.0-rc.1"), Value::Null],
        ),
        (
            json!({"operator": "SEMVER_LT", "value": "1.9.0"}),
            vec![json!("1.9.0-rc.1"), json!("1.8.9")],
            vec![json!("1.9.0"), json!("nothing"), Value::Null],
        ),
    ];
    for (constraint, fitting, other) in cases {
        for inverted in [false, true] {
            let mut constraint = constraint.clone();
            constraint["contextName"] = json!("field.x");
            constraint["inverted"] = json!(inverted);
            let world = constrained(constraint.clone());
            for (values, expected) in [(&fitting, true), (&other, false)] {
                for value in values {
                    let context = if value.is_null() { json!({}) } else { json!({"field.x": value}) };
                    assert_eq!(world.on(context), expected != inverted, "{constraint} {value}");
                }
            }
        }
    }
}

#[test]
fn times_compare_with_the_context_or_the_clock() {
    let after = constrained(
        json!({"contextName": "currentTime", "operator": "DATE_AFTER", "value": "2026-12-01T11:00:00.000Z"}),
    );
    assert!(after.on(json!({})));
    assert!(!after.on(json!({"currentTime": "2026-11-30T11:00:00+02:00"})));
    assert!(after.on(json!({"currentTime": "2026-12-01T12:00:00+00:30"})));
    assert!(!after.on(json!({"currentTime": "now"})));
    let before = constrained(
        json!({"contextName": "currentTime", "operator": "DATE_BEFORE", "value": "2026-12-01T11:00:00Z", "inverted": true}),
    );
    assert!(before.on(json!({})));
    assert!(!before.on(json!({"currentTime": "2026-11-30T11:00:00Z"})));
}

#[test]
fn what_cannot_be_read_is_false_and_told() {
    for constraint in [
        json!({"contextName": "a", "operator": "NUM_GT", "value": "many"}),
        json!({"contextName": "a", "operator": "DATE_AFTER", "value": "soon", "inverted": true}),
        json!({"contextName": "a", "operator": "SEMVER_EQ", "value": "v1.0.0"}),
        json!({"contextName": "a", "operator": "SEMVER_EQ", "value": "v1.0.0", "inverted": true}),
        json!({"contextName": "a", "operator": "LOOKS_LIKE", "values": ["x"]}),
    ] {
        let world = constrained(constraint);
        assert!(!world.on(json!({"a": "1.0.0"})) && !world.on(json!({})));
        assert_eq!(world.import.notes.len(), 1, "{:?}", world.import.notes);
        assert_eq!(world.import.notes[0].place, "/features/0/strategies/0/constraints/0");
    }
}

#[test]
fn segments_and_constraints_must_all_hold() {
    let eq = |name: &str, value: &str| json!({"contextName": name, "operator": "IN", "values": [value]});
    let world = World::of(json!({"features": [toggle(json!({"strategies": [
            {"name": "default", "constraints": [eq("a", "1")], "segments": [1, 2]},
            {"name": "userWithId", "parameters": {"userIds": "ann"}, "segments": [99]}]}))],
        "segments": [{"id": 1, "name": "one", "constraints": [eq("b", "1"), eq("c", "1")]}, {"id": 2, "constraints": []}]}));
    assert!(world.on(json!({"a": "1", "b": "1", "c": "1"})));
    for gone in ["a", "b", "c"] {
        let mut context = Map::from_iter([("a", "1"), ("b", "1"), ("c", "1")].map(|(k, v)| (k.to_owned(), json!(v))));
        context.remove(gone);
        assert!(!world.on(Value::Object(context)));
    }
    assert!(!world.on(json!({"userId": "ann"})));
    assert!(world.import.segments.contains_key("one") && world.import.segments.contains_key("segment-2"));
}

fn variants_of_three() -> Value {
    json!([{"name": "a", "weight": 333, "payload": {"type": "string", "value": "red"}},
        {"name": "none", "weight": 0}, {"name": "b", "weight": 334},
        {"name": "c", "weight": 333, "overrides": [{"contextName": "userId", "values": ["ann"]}, {"contextName": "plan", "values": ["pro", "7"]}]}])
}

fn expected_of_three(group: &str, id: &str) -> Value {
    match normalized(group, id, 1_000, 86_028_157) {
        ..=333 => json!("red"),
        334..=667 => json!("b"),
        _ => json!("c"),
    }
}

/// Scenario: a toggle with variants, overrides and a rollout.
/// Guarantees: everybody gets the variant that Unleash's formula says, and only whom the rollout reaches.
#[test]
fn variants_place_everybody_as_unleash_does() {
    let world = World::toggle(json!({"variants": variants_of_three(), "strategies":
        [strategy("flexibleRollout", json!({"rollout": "60", "stickiness": "default", "groupId": "g"}))]}));
    for n in 0..5_000 {
        let id = format!("u{n}");
        let on = normalized("g", &id, 100, 0) <= 60;
        assert_eq!(world.on(json!({"userId": id})), on);
        assert_eq!(world.variant(json!({"userId": id})), on.then(|| expected_of_three("t", &id)), "{id}");
        if on {
            assert_eq!(world.variant(json!({"userId": id, "plan": 7})), Some(json!("c")));
        }
    }
    let all = World::toggle(json!({"variants": variants_of_three()}));
    assert_eq!(all.variant(json!({"userId": "ann"})), Some(json!("c")));
    assert_eq!(all.variant(json!({"targetingKey": "u1"})), Some(expected_of_three("t", "u1")));
    let off = World::toggle(json!({"variants": variants_of_three(), "enabled": false}));
    assert_eq!(off.variant(json!({"userId": "ann"})), None);
}

#[test]
fn variants_of_strategies_go_first() {
    let own = json!([{"name": "s1", "weight": 500}, {"name": "s2", "weight": 500}]);
    let world = World::toggle(json!({"variants": variants_of_three(), "strategies": [
        {"name": "flexibleRollout", "parameters": {"rollout": "50", "stickiness": "tenant", "groupId": "g"}, "variants": own},
        {"name": "default", "variants": []}]}));
    for n in 0..3_000 {
        let id = format!("u{n}");
        let context = json!({"userId": id, "tenant": id});
        let expected = if normalized("g", &id, 100, 0) <= 50 {
            json!(if normalized("g", &id, 1_000, 86_028_157) <= 500 { "s1" } else { "s2" })
        } else {
            expected_of_three("t", &id)
        };
        assert_eq!(world.variant(context), Some(expected), "{id}");
    }
    // Without a tenant the rollout does not reach anybody.
    assert_eq!(world.variant(json!({"userId": "u1"})), Some(expected_of_three("t", "u1")));
}

#[test]
fn random_variants_are_left_out_unless_there_is_one() {
    let variants = |b: u64| {
        World::toggle(json!({"variants": [{"name": "a", "weight": 1000 - b, "stickiness": "random"},
            {"name": "b", "weight": b, "stickiness": "random"}]}))
    };
    let lot = variants(500);
    assert_eq!(lot.variant(json!({"userId": "x"})), None);
    assert!(lot.notes(Weight::LeftOut)[0].contains("random stickiness"));
    let sure = variants(1000);
    assert_eq!(sure.variant(json!({})), Some(json!("b")));
    assert!(sure.import.notes.is_empty());
}

#[test]
fn payloads_keep_their_types() {
    let of = |payloads: Value| {
        let list: Vec<Value> = payloads.as_array().unwrap().iter().enumerate()
            .map(|(n, payload)| json!({"name": format!("v{n}"), "weight": if n == 0 { 1 } else { 0 }, "payload": payload}))
            .collect();
        World::toggle(json!({"variants": list}))
    };
    let value = |world: World| world.variant(json!({"userId": "x"})).unwrap();
    assert_eq!(value(of(json!([{"type": "number", "value": "42"}]))), json!(42));
    assert_eq!(value(of(json!([{"type": "number", "value": "4.5"}]))), json!(4.5));
    assert_eq!(value(of(json!([{"type": "json", "value": "{\"a\": [1]}"}]))), json!({"a": [1]}));
    assert_eq!(value(of(json!([{"type": "csv", "value": "a,b"}]))), json!("a,b"));
    assert_eq!(value(of(json!([null]))), json!("v0"));
    let mixed = of(json!([{"type": "number", "value": "42"}, {"type": "json", "value": "{}"}]));
    assert!(mixed.notes(Weight::Info)[0].contains("different types"));
    assert_eq!(value(mixed), json!("42"));
}

#[test]
fn parents_decide_first() {
    let with = |dependency: Value, parent: Value| {
        let mut named = toggle(parent);
        named["name"] = json!("p");
        World::of(json!({"features": [toggle(json!({"dependencies": [dependency]})), named]}))
    };
    let two = json!([{"name": "a", "weight": 1}, {"name": "b", "weight": 0}]);
    let cases = [
        (json!({"feature": "p"}), json!({}), true),
        (json!({"feature": "p"}), json!({"enabled": false}), false),
        (json!({"feature": "p", "enabled": false}), json!({}), false),
        (json!({"feature": "p", "enabled": false}), json!({"enabled": false}), true),
        (json!({"feature": "gone"}), json!({}), false),
        (json!({"feature": "p", "variants": ["a"]}), json!({"variants": two}), true),
        (json!({"feature": "p", "variants": ["b"]}), json!({"variants": two}), false),
        (json!({"feature": "p", "variants": ["other"]}), json!({"variants": two}), false),
        (json!({"feature": "p", "variants": ["a"]}), json!({"variants": two, "enabled": false}), false),
        (json!({"feature": "p"}), json!({"dependencies": [{"feature": "t"}]}), false),
    ];
    for (dependency, parent, expected) in cases {
        assert_eq!(with(dependency.clone(), parent.clone()).on(json!({})), expected, "{dependency} {parent}");
    }
}

#[test]
fn one_environment_of_the_export() {
    let document = json!({
        "features": [{"name": "t", "type": "kill-switch", "description": "d"}, {"name": "old", "archived": true}, {"name": "s"}],
        "featureStrategies": [
            {"id": "2", "name": "default", "featureName": "t", "sortOrder": 2, "parameters": {}, "constraints": [], "variants": []},
            {"id": "1", "name": "userWithId", "featureName": "t", "sortOrder": 1, "parameters": {"userIds": "ann"}, "constraints": [],
             "variants": [{"name": "x", "weight": 1000, "payload": {"type": "number", "value": "1"}}]},
            {"id": "3", "name": "default", "featureName": "s", "segments": [1]},
            {"id": "4", "name": "default", "featureName": "t", "disabled": true}],
        "featureEnvironments": [
            {"featureName": "t", "environment": "production", "enabled": true, "variants": [{"name": "y", "weight": 1000, "payload": {"type": "number", "value": "2"}}]},
            {"featureName": "s", "environment": "production", "enabled": true}],
        "segments": [{"id": 1, "name": "one"}],
        "featureStrategySegments": [{"featureStrategyId": "3", "segmentId": 1}],
        "dependencies": [], "contextFields": []});
    let world = World::of(document.clone());
    assert_eq!(world.import.flags["t"]["kind"], "kill-switch");
    assert_eq!(world.variant(json!({"userId": "ann"})), Some(json!(1)));
    assert_eq!(world.variant(json!({"userId": "bea"})), Some(json!(2)));
    assert!(!world.import.flags.contains_key("old"));
    assert!(!world.import.flags.contains_key("s"));
    assert!(world.notes(Weight::LeftOut)[0].contains("does not say what segment 1 asks"));
    let mut two = document;
    two["featureEnvironments"][1]["environment"] = json!("test");
    let error = unleash(&two).unwrap_err();
    assert_eq!(error.place, "/featureEnvironments");
}

#[test]
fn malformed_documents_are_refused_with_a_place() {
    for (document, place) in [
        (json!([]), ""),
        (json!({}), "/features"),
        (json!({"features": {}}), "/features"),
        (json!({"features": [], "segments": [{"name": "x"}]}), "/segments/0/id"),
    ] {
        assert_eq!(unleash(&document).unwrap_err().place, place);
    }
    let import =
        unleash(&json!({"features": [{"name": "bad", "strategies": 7}, {"name": "good", "enabled": true}]})).unwrap();
    assert!(import.flags.contains_key("good") && !import.flags.contains_key("bad"));
    assert_eq!(import.notes[0].place, "/features/0/strategies");
}

/// Guarantees: whatever is done to a document, it is read or refused without a panic, and what is read compiles.
#[test]
fn mutated_documents_do_no_harm() {
    let document = json!({"features": [
            toggle(json!({"variants": variants_of_three(), "dependencies": [{"feature": "p", "variants": ["a"]}], "strategies": [
                {"name": "flexibleRollout", "parameters": {"rollout": "50", "stickiness": "default", "groupId": "g"}, "segments": [1],
                 "constraints": [{"contextName": "a", "operator": "NUM_GT", "value": "1"}], "variants": variants_of_three()},
                strategy("remoteAddress", json!({"IPs": "10.0.0.0/9"}))]})),
            {"name": "p", "enabled": true, "variants": [{"name": "a", "weight": 1}]}],
        "segments": [{"id": 1, "name": "one", "constraints": [{"contextName": "b", "operator": "SEMVER_EQ", "value": "1.0.0"}]}]});
    mutate(&document, |mutant| {
        if let Ok(import) = unleash(mutant) {
            FlagSet::parse(&import.document().to_string()).unwrap_or_else(|findings| panic!("{findings:?}: {mutant}"));
        }
    });
}

/// Puts odd values in places of a document, one to three at a time. `SEED` chooses another course.
pub(crate) fn mutate(document: &Value, check: impl Fn(&Value)) {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    println!("SEED={seed}");
    let mut state = seed;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0.5),
        json!(1e300),
        json!(""),
        json!("é/~%"),
        json!("100"),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"key": {}}),
        json!([1, "a", null]),
        json!("2026-01-01T00:00:00Z"),
        json!("999999999999999999999"),
    ];
    let mut places = Vec::new();
    collect(document, String::new(), &mut places);
    for _ in 0..1_000 {
        let mut mutant = document.clone();
        for _ in 0..=random(3) {
            let place = &places[random(places.len())];
            if let Some(slot) = mutant.pointer_mut(place) {
                *slot = odd[random(odd.len())].clone();
            }
        }
        check(&mutant);
    }
}

fn collect(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| collect(v, format!("{place}/{}", super::part::escaped(k)), places))
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(n, v)| collect(v, format!("{place}/{n}"), places)),
        _ => {}
    }
    places.push(place);
}
