//! Imported flags answer as Flipt's formulas do, which are written out here once more.

use flags::{Context, FlagSet};
use serde_json::{Value, json};
use vocab::Timestamp;

use crate::unleash::tests::mutate;
use crate::{Import, Weight, flipt};

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(text: &str) -> u32 {
    let one = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !text.bytes().fold(!0, one)
}

#[test]
fn the_hash_of_this_test_is_crc32() {
    assert_eq!(crc32("123456789"), 0xcbf4_3926);
}

struct World {
    import: Import,
    set: FlagSet,
}

impl World {
    #[track_caller]
    fn of(document: Value) -> World {
        let import = flipt(&document).unwrap();
        let set = FlagSet::parse(&import.document().to_string()).unwrap();
        World { import, set }
    }

    #[track_caller]
    fn value(&self, key: &str, context: Value) -> Option<Value> {
        let Value::Object(map) = context else { panic!("an object") };
        let now = Timestamp::parse("2026-12-01T12:00:00Z").unwrap();
        self.set.evaluate(key, &Context::new(map), now).unwrap().value.cloned()
    }

    fn of_user(&self, id: &str) -> Option<Value> {
        self.value("f", json!({"targetingKey": id}))
    }
}

fn constraint(kind: &str, operator: &str, value: &str) -> Value {
    json!({"type": format!("{kind}_COMPARISON_TYPE"), "property": "p", "operator": operator, "value": value})
}

fn segment(key: &str, match_type: &str, constraints: Value) -> Value {
    json!({"key": key, "name": key, "match_type": match_type, "constraints": constraints})
}

fn everybody() -> Value {
    segment("everybody", "ALL_MATCH_TYPE", json!([]))
}

fn variant_flag(more: Value) -> Value {
    let mut flag = json!({"key": "f", "name": "f", "type": "VARIANT_FLAG_TYPE", "enabled": true,
        "variants": [{"key": "a"}, {"key": "b"}, {"key": "c"}]});
    flag.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    flag
}

/// Scenario: distributions that cover everybody, that leave some out, and whose percentages have fractions.
/// Guarantees: everybody gets the variant of Flipt's formula; whom no distribution reaches gets no variant and no later rule.
#[test]
fn distributions_place_everybody_as_flipt_does() {
    for shares in [
        vec![("a", 50.0_f32), ("b", 50.0)],
        vec![("a", 33.33), ("b", 33.34), ("c", 33.33)],
        vec![("a", 10.0), ("b", 0.0), ("c", 5.55)],
        vec![("b", 100.0)],
    ] {
        let listed: Vec<Value> = shares.iter().map(|(v, share)| json!({"variant": v, "rollout": share})).collect();
        let rules = json!([{"segment": "everybody", "distributions": listed},
            {"segment": {"keys": ["everybody"]}, "distributions": [{"variant": "c", "rollout": 100}]}]);
        let world = World::of(
            json!({"version": "1.2", "segments": [everybody()], "flags": [variant_flag(json!({"rules": rules}))]}),
        );
        for n in 0..5_000 {
            let id = format!("user-{n}");
            let bucket = crc32(&format!("f{id}")) % 1_000;
            let mut end = 0;
            let expected = shares.iter().find(|(_, share)| {
                end += (share * 10.0) as u32;
                bucket < end
            });
            assert_eq!(world.of_user(&id), expected.map(|(v, _)| json!(v)), "{id}");
        }
    }
}

#[test]
fn thresholds_place_everybody_as_flipt_does() {
    for percentage in [0.0_f32, 0.5, 25.0, 33.3, 100.0] {
        let rollouts = json!([{"segment": {"key": "vip", "value": true}}, {"threshold": {"percentage": percentage, "value": true}}]);
        let flag = json!({"key": "f", "type": "BOOLEAN_FLAG_TYPE", "enabled": false, "rollouts": rollouts});
        let vip = segment("vip", "ANY_MATCH_TYPE", json!([constraint("STRING", "eq", "x")]));
        let world = World::of(json!({"segments": [vip], "flags": [flag]}));
        for n in 0..3_000 {
            let id = format!("user-{n}");
            let expected = (crc32(&format!("{id}f")) % 100) as f32;
            assert_eq!(world.of_user(&id), Some(json!(expected < percentage)), "{id}");
        }
        assert_eq!(world.value("f", json!({"targetingKey": "u", "p": "x"})), Some(json!(true)));
    }
    let off = |rollouts: Value, enabled: bool| {
        World::of(
            json!({"flags": [{"key": "f", "type": "BOOLEAN_FLAG_TYPE", "enabled": enabled, "rollouts": rollouts}]}),
        )
        .of_user("u")
    };
    assert_eq!(off(json!([]), true), Some(json!(true)));
    assert_eq!(off(json!([]), false), Some(json!(false)));
    assert_eq!(off(json!([{"threshold": {"percentage": 100}}]), true), Some(json!(false)));
}

/// Each operator: constraint, values that match, values that do not. Null is absent.
#[test]
fn operators() {
    let n = Value::Null;
    let cases = [
        (constraint("STRING", "eq", "x"), vec![json!("x")], vec![json!("y"), json!(""), n.clone()]),
        (constraint("STRING", "eq", "7"), vec![json!("7"), json!(7)], vec![json!(8)]),
        (constraint("STRING", "neq", "x"), vec![json!("y"), json!("X")], vec![json!("x"), json!(""), n.clone()]),
        (constraint("STRING", "empty", ""), vec![json!(""), json!("  "), n.clone()], vec![json!("x")]),
        (constraint("STRING", "notempty", ""), vec![json!(" x")], vec![json!(" "), n.clone()]),
        (
            constraint("STRING", "prefix", "a.b"),
            vec![json!("a.bc"), json!("  a.b")],
            vec![json!("axb"), json!("ca.b"), n.clone()],
        ),
        (constraint("STRING", "suffix", "<b>"), vec![json!("a<b>"), json!("<b>\n")], vec![json!("<b>c"), n.clone()]),
        (constraint("STRING", "contains", "b"), vec![json!("abc")], vec![json!("ac"), n.clone()]),
        (constraint("STRING", "notcontains", "b"), vec![json!("ac")], vec![json!("abc"), json!(""), n.clone()]),
        (constraint("STRING", "isoneof", "[\"a\", \"b\"]"), vec![json!("a")], vec![json!("c"), json!(""), n.clone()]),
        (
            constraint("STRING", "isnotoneof", "[\"a\", \"b\"]"),
            vec![json!("c")],
            vec![json!("a"), json!(""), n.clone()],
        ),
        (constraint("STRING", "isoneof", "a"), vec![], vec![json!("a"), n.clone()]),
        (
            constraint("NUMBER", "eq", "5"),
            vec![json!("5"), json!("5.0"), json!(5)],
            vec![json!("6"), json!("five"), n.clone()],
        ),
        (
            constraint("NUMBER", "neq", "5"),
            vec![json!("6"), json!("-1")],
            vec![json!("5"), json!("five"), json!(""), n.clone()],
        ),
        (constraint("NUMBER", "lt", "5"), vec![json!("4.9")], vec![json!("5"), n.clone()]),
        (constraint("NUMBER", "lte", "5"), vec![json!("5")], vec![json!("5.1"), n.clone()]),
        (constraint("NUMBER", "gt", "-5"), vec![json!("-4")], vec![json!("-5"), n.clone()]),
        (constraint("NUMBER", "gte", "5"), vec![json!("5")], vec![json!("4"), n.clone()]),
        (constraint("NUMBER", "present", ""), vec![json!("x")], vec![json!(""), n.clone()]),
        (constraint("NUMBER", "notpresent", ""), vec![n.clone()], vec![json!("5")]),
        (constraint("NUMBER", "isoneof", "[1, 2.5]"), vec![json!("2.5")], vec![json!("3"), n.clone()]),
        (
            constraint("NUMBER", "isnotoneof", "[1, 2.5]"),
            vec![json!("3"), json!("-3")],
            vec![json!("1"), json!("x"), n.clone()],
        ),
        (constraint("NUMBER", "gt", "many"), vec![], vec![json!("5"), n.clone()]),
        (
            constraint("BOOLEAN", "true", ""),
            vec![json!("true"), json!("1"), json!(true)],
            vec![json!("false"), json!("yes"), n.clone()],
        ),
        (
            constraint("BOOLEAN", "false", ""),
            vec![json!("F"), json!(false)],
            vec![json!("true"), json!("no"), n.clone()],
        ),
        (
            constraint("DATETIME", "eq", "2026-01-02T00:00:00Z"),
            vec![json!("2026-01-02"), json!("2026-01-02T01:00:00+01:00")],
            vec![json!("2026-01-03"), json!("x"), n.clone()],
        ),
        (
            constraint("DATETIME", "neq", "2026-01-02"),
            vec![json!("2026-01-03"), json!("2026-01-02T00:00:01Z")],
            vec![json!("2026-01-02T00:00:00Z"), json!("2026-01-02"), n.clone()],
        ),
        (
            constraint("DATETIME", "lt", "2026-01-02T10:00:00Z"),
            vec![json!("2026-01-02"), json!("2026-01-02T09:59:59Z")],
            vec![json!("2026-01-03"), json!("2026-01-02T10:00:00Z"), n.clone()],
        ),
        (
            constraint("DATETIME", "lte", "2026-01-02T10:00:00Z"),
            vec![json!("2026-01-02"), json!("2026-01-02T10:00:00Z")],
            vec![json!("2026-01-03"), n.clone()],
        ),
        (
            constraint("DATETIME", "gt", "2026-01-02T00:00:00Z"),
            vec![json!("2026-01-03"), json!("2026-01-02T00:00:01Z")],
            vec![json!("2026-01-02"), n.clone()],
        ),
        (
            constraint("DATETIME", "gte", "2026-01-02"),
            vec![json!("2026-01-02"), json!("2026-01-02T00:00:00Z")],
            vec![json!("2026-01-01"), n.clone()],
        ),
        (constraint("DATETIME", "notpresent", ""), vec![n.clone()], vec![json!("2026-01-01")]),
    ];
    for (constraint, fitting, other) in cases {
        let rules = json!([{"segment": "s", "distributions": [{"variant": "a", "rollout": 100}]}]);
        let segments = json!([segment("s", "ALL_MATCH_TYPE", json!([constraint]))]);
        let world = World::of(json!({"segments": segments, "flags": [variant_flag(json!({"rules": rules}))]}));
        for (values, expected) in [(&fitting, Some(json!("a"))), (&other, None)] {
            for value in values {
                let context = if value.is_null() {
                    json!({"targetingKey": "u"})
                } else {
                    json!({"targetingKey": "u", "p": value})
                };
                assert_eq!(world.value("f", context), expected, "{constraint} {value}");
            }
        }
    }
}

#[test]
fn entities_by_name() {
    let named =
        json!({"type": "ENTITY_ID_COMPARISON_TYPE", "property": "entity", "operator": "isoneof", "value": "[\"ann\"]"});
    let rules = json!([{"segment": "s", "distributions": [{"variant": "a", "rollout": 100}]}]);
    let world = World::of(
        json!({"segments": [segment("s", "ALL_MATCH_TYPE", json!([named]))], "flags": [variant_flag(json!({"rules": rules}))]}),
    );
    assert_eq!(world.of_user("ann"), Some(json!("a")));
    assert_eq!(world.of_user("bea"), None);
}

#[test]
fn segments_join_by_any_and_by_all() {
    let eq = |name: &str| {
        let mut constraint = constraint("STRING", "eq", "1");
        constraint["property"] = json!(name);
        constraint
    };
    let segments = json!([
        segment("x", "ALL_MATCH_TYPE", json!([eq("a"), eq("b")])),
        segment("y", "ANY_MATCH_TYPE", json!([eq("c"), eq("d")])),
        segment("nobody-is-asked", "ANY_MATCH_TYPE", json!([]))
    ]);
    let with = |segment: Value| {
        let rules = json!([{"segment": segment, "distributions": [{"variant": "a", "rollout": 100}]}]);
        World::of(json!({"segments": segments, "flags": [variant_flag(json!({"rules": rules}))]}))
    };
    let holds = |world: &World, names: &[&str]| {
        let mut context = json!({"targetingKey": "u"});
        names.iter().for_each(|name| context[name] = json!("1"));
        world.value("f", context).is_some()
    };
    let any = with(json!({"keys": ["x", "y"], "operator": "OR_SEGMENT_OPERATOR"}));
    let all = with(json!({"keys": ["x", "y"], "operator": "AND_SEGMENT_OPERATOR"}));
    let open = with(json!("nobody-is-asked"));
    for (names, is_any, is_all) in [
        (&["a", "b"][..], true, false),
        (&["a"], false, false),
        (&["d"], true, false),
        (&["a", "b", "c"], true, true),
        (&[], false, false),
    ] {
        assert_eq!((holds(&any, names), holds(&all, names)), (is_any, is_all), "{names:?}");
        assert!(holds(&open, names));
    }
}

#[test]
fn the_default_variant_is_for_everybody_else() {
    let variants = json!([{"key": "a"}, {"key": "b", "default": true}]);
    let asked = segment("s", "ALL_MATCH_TYPE", json!([constraint("STRING", "eq", "x")]));
    let with = |more: Value| {
        let mut flag = variant_flag(json!({"variants": variants}));
        flag.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        World::of(json!({"segments": [everybody(), asked], "flags": [flag]})).of_user("u")
    };
    let b = Some(json!("b"));
    assert_eq!(with(json!({})), b);
    assert_eq!(with(json!({"enabled": false})), b);
    assert_eq!(with(json!({"rules": [{"segment": "everybody"}]})), b);
    assert_eq!(with(json!({"rules": [{"segment": "s", "distributions": [{"variant": "a", "rollout": 100}]}]})), b);
    assert_eq!(
        with(json!({"rules": [{"segment": "everybody", "distributions": [{"variant": "a", "rollout": 0.01}]}]})),
        b
    );
    let world = World::of(json!({"flags": [variant_flag(json!({"enabled": false}))]}));
    assert_eq!(world.of_user("u"), None);
}

#[test]
fn attachments_are_a_second_flag() {
    let variants =
        json!([{"key": "a", "attachment": {"x": 1}}, {"key": "b"}, {"key": "c", "attachment": "{\"x\": 2}"}]);
    let rules = json!([{"segment": "everybody", "distributions":
        [{"variant": "a", "rollout": 30}, {"variant": "b", "rollout": 30}, {"variant": "c", "rollout": 30}]}]);
    let world = World::of(
        json!({"segments": [everybody()], "flags": [variant_flag(json!({"variants": variants, "rules": rules}))]}),
    );
    for n in 0..1_000 {
        let id = format!("u{n}");
        let expected = match world.of_user(&id).as_ref().and_then(Value::as_str) {
            Some("a") => Some(json!({"x": 1})),
            Some("c") => Some(json!({"x": 2})),
            _ => None,
        };
        assert_eq!(world.value("f.attachment", json!({"targetingKey": id})), expected);
    }
    let mixed = json!([{"key": "a", "attachment": {"x": 1}}, {"key": "b", "attachment": 7}]);
    let world = World::of(json!({"flags": [variant_flag(json!({"variants": mixed}))]}));
    assert_eq!(world.import.notes[0].weight, Weight::LeftOut);
    assert_eq!(world.import.flags.len(), 1);
}

#[test]
fn namespaces_get_prefixes_only_beside_each_other() {
    let rules = json!([{"segment": "everybody", "distributions": [{"variant": "a", "rollout": 50}]}]);
    let document = |namespace: Value| {
        let mut document = json!({"segments": [everybody()], "flags": [variant_flag(json!({"rules": rules}))]});
        document["namespace"] = namespace;
        document
    };
    let alone = World::of(document(json!("shop")));
    let both = World::of(json!([document(json!("default")), document(json!({"key": "shop", "name": "Shop"}))]));
    for n in 0..500 {
        let context = json!({"targetingKey": format!("u{n}")});
        let one = alone.value("f", context.clone());
        assert_eq!(both.value("f", context.clone()), one);
        assert_eq!(both.value("shop.f", context), one);
    }
}

#[test]
fn malformed_documents_are_refused_with_a_place() {
    for (document, place) in
        [(json!(7), ""), (json!({}), "/flags"), (json!({"flags": 7}), "/flags"), (json!([1]), "/0")]
    {
        assert_eq!(flipt(&document).unwrap_err().place, place);
    }
    let rules = json!([{"segment": "gone", "distributions": [{"variant": "a", "rollout": 100}]}]);
    let unknown = segment("odd", "ALL_MATCH_TYPE", json!([{"type": "COLOR", "property": "p", "operator": "eq"}]));
    let import = flipt(&json!({"segments": [unknown], "flags": [variant_flag(json!({"rules": rules})), {"key": "g", "variants": [{"key": "x"}]}]})).unwrap();
    assert_eq!(import.flags.keys().collect::<Vec<_>>(), ["g"]);
    let places: Vec<&str> = import.notes.iter().map(|note| note.place.as_str()).collect();
    assert_eq!(places, ["/segments/0/constraints/0/type", "/flags/0"]);
}

/// Guarantees: whatever is done to a document, it is read or refused without a panic, and what is read compiles.
#[test]
fn mutated_documents_do_no_harm() {
    let rules = json!([{"segment": {"keys": ["s", "everybody"], "operator": "AND_SEGMENT_OPERATOR"}, "rank": 1, "distributions":
        [{"variant": "a", "rollout": 30}, {"variant": "b", "rollout": 30}]}]);
    let boolean = json!({"key": "g", "type": "BOOLEAN_FLAG_TYPE", "enabled": true, "rollouts":
        [{"segment": {"key": "s", "value": true}}, {"threshold": {"percentage": 50, "value": false}}]});
    let variants = json!([{"key": "a", "attachment": {"x": 1}}, {"key": "b", "default": true}]);
    let document = json!({"version": "1.2", "namespace": "default", "flags": [variant_flag(json!({"rules": rules, "variants": variants})), boolean],
        "segments": [everybody(), segment("s", "ANY_MATCH_TYPE", json!([constraint("DATETIME", "lt", "2026-01-01"), constraint("NUMBER", "isoneof", "[1]")]))]});
    mutate(&document, |mutant| {
        if let Ok(import) = flipt(mutant) {
            FlagSet::parse(&import.document().to_string()).unwrap_or_else(|findings| panic!("{findings:?}: {mutant}"));
        }
    });
}
