//! Imported flags answer as GO Feature Flag's formulas do, which are written out here once more.

use flags::{Context, FlagSet};
use serde_json::{Value, json};
use vocab::Timestamp;

use crate::unleash::tests::mutate;
use crate::{Import, Weight, goff};

/// FNV-1a, 32 bits.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619))
}

#[test]
fn the_hash_of_this_test_is_fnv1a() {
    assert_eq!((fnv1a(""), fnv1a("a"), fnv1a("foobar")), (0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968));
}

struct World {
    import: Import,
    set: FlagSet,
}

impl World {
    #[track_caller]
    fn flag(flag: Value) -> World {
        let import = goff(&json!({"f": flag})).unwrap();
        let set = FlagSet::parse(&import.document().to_string()).unwrap();
        World { import, set }
    }

    #[track_caller]
    fn variant_at(&self, context: Value, now: Timestamp) -> Option<String> {
        let Value::Object(map) = context else { panic!("an object") };
        self.set.evaluate("f", &Context::new(map), now).unwrap().variant.map(str::to_owned)
    }

    #[track_caller]
    fn variant(&self, context: Value) -> Option<String> {
        self.variant_at(context, time("2026-12-01T12:00:00Z"))
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn user(id: &str) -> Value {
    json!({"targetingKey": id})
}

fn of(more: Value) -> Value {
    let mut flag = json!({"variations": {"a": "A", "b": "B", "c": "C"}, "defaultRule": {"variation": "a"}});
    flag.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    flag
}

/// Scenario: percentages of two and three variations, with fractions, and of less than 100 in all.
/// Guarantees: everybody gets the variation of the formula: ranges from the last name to the first, over the sum.
#[test]
fn percentages_place_everybody_as_goff_does() {
    for shares in [
        json!({"a": 50, "b": 50}),
        json!({"a": 10.5, "b": 20.25, "c": 69.25}),
        json!({"a": 30, "b": 20}),
        json!({"a": 0, "c": 100}),
    ] {
        let world = World::flag(of(json!({"defaultRule": {"percentage": shares}})));
        let total: f64 = shares.as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        let mut names: Vec<&String> = shares.as_object().unwrap().keys().collect();
        names.sort();
        names.reverse();
        for n in 0..5_000 {
            let id = format!("user-{n}");
            let hash = fnv1a(&format!("f{id}")) % (total * 1_000.0) as u32;
            let mut end = 0.0;
            let expected = names.iter().find(|name| {
                end += shares[name.as_str()].as_f64().unwrap() * 1_000.0;
                hash < end as u32
            });
            assert_eq!(world.variant(user(&id)).as_ref(), expected.copied(), "{id}");
        }
        assert_eq!(world.variant(json!({})), None);
    }
}

/// Guarantees: at whole seconds a ramp serves exactly whom the progressive rollout serves.
#[test]
fn progressive_rollouts_move_everybody_when_goff_does() {
    let (began, ends) = (time("2026-12-01T00:00:00Z"), time("2026-12-01T02:30:00Z"));
    for (first, last) in [(0.0, 100.0), (10.0, 90.0), (0.0, 0.0), (25.0, 25.0), (0.0, 7.3)] {
        let world = World::flag(of(json!({"defaultRule": {"progressiveRollout": {
            "initial": {"variation": "a", "percentage": first, "date": began.to_string()},
            "end": {"variation": "b", "percentage": last, "date": ends.to_string()}}}})));
        let last = if last == 0.0 { 100.0 } else { last };
        let seconds = 9_000_i64;
        for second in (-2..=seconds + 2).step_by(61).chain([-1, 0, 1, 2, 3, seconds - 1, seconds, seconds + 1]) {
            let now = Timestamp::from_nanos(began.nanos() + second * 1_000_000_000);
            let line = match second {
                ..0 => -1.0,
                s if s >= seconds => last * 1_000.0,
                s => s as f64 * ((last * 1_000.0 - first * 1_000.0) / seconds as f64) + first * 1_000.0,
            };
            for n in 0..150 {
                let id = format!("u{n}-{second}");
                let reached = line >= 0.0 && fnv1a(&format!("f{id}")) % 100_000 < line as u32;
                let expected = if reached { "b" } else { "a" };
                assert_eq!(world.variant_at(user(&id), now).as_deref(), Some(expected), "{id} {second} {line}");
            }
        }
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let world = World::flag(of(json!({"targeting": [
        {"name": "off", "query": "plan eq \"pro\"", "variation": "c", "disable": true},
        {"query": "plan eq \"pro\"", "percentage": {"b": 100}},
        {"query": "country in [\"NO\", \"SE\"]", "variation": "c"},
        {"query": "{\"==\": [{\"var\": \"key\"}, \"ann\"]}", "variation": "b"}]})));
    assert_eq!(world.variant(json!({"targetingKey": "u", "plan": "PRO", "country": "NO"})).as_deref(), Some("b"));
    assert_eq!(world.variant(json!({"targetingKey": "u", "country": "NO"})).as_deref(), Some("c"));
    assert_eq!(world.variant(user("ann")).as_deref(), Some("b"));
    assert_eq!(world.variant(user("bea")).as_deref(), Some("a"));
}

/// Queries in the first language: query, contexts that match, contexts that do not.
#[test]
fn queries() {
    let cases = [
        ("a eq \"x\"", vec![json!({"a": "X"})], vec![json!({"a": "y"}), json!({"a": 1}), json!({})]),
        ("a == \"x\" ", vec![json!({"a": "x"})], vec![json!({})]),
        ("a ne \"x\"", vec![json!({"a": "y"})], vec![json!({"a": "x"}), json!({"a": 1}), json!({})]),
        ("a co \"b\"", vec![json!({"a": "aBc"})], vec![json!({"a": "ac"}), json!({})]),
        ("a sw \"x\" or a ew \"y\"", vec![json!({"a": "xz"}), json!({"a": "zY"})], vec![json!({"a": "zxyz"})]),
        ("a in [\"x\", \"y\"]", vec![json!({"a": "y"})], vec![json!({"a": "Y"}), json!({})]),
        ("a eq 3", vec![json!({"a": 3}), json!({"a": 3.9})], vec![json!({"a": 4}), json!({"a": "3"}), json!({})]),
        ("a eq 0", vec![json!({"a": 0}), json!({"a": -0.9})], vec![json!({"a": 1}), json!({"a": -1})]),
        ("a != 3", vec![json!({"a": 4}), json!({"a": -3})], vec![json!({"a": 3.5}), json!({"a": "3"}), json!({})]),
        ("a gt 3", vec![json!({"a": 4})], vec![json!({"a": 3.9}), json!({"a": "4"}), json!({})]),
        ("a >= -2", vec![json!({"a": -2.5}), json!({"a": 0})], vec![json!({"a": -3})]),
        ("a < 3", vec![json!({"a": 2.9})], vec![json!({"a": 3}), json!({})]),
        ("a le -3", vec![json!({"a": -3})], vec![json!({"a": -2.9})]),
        ("a in [1, 3]", vec![json!({"a": 3})], vec![json!({"a": 2})]),
        ("a gt 3.5", vec![json!({"a": 3.6}), json!({"a": 4})], vec![json!({"a": 3.5})]),
        ("a in [1.5, 2.5]", vec![json!({"a": 2.5})], vec![json!({"a": 2})]),
        ("a eq true", vec![json!({"a": true})], vec![json!({"a": false}), json!({"a": "true"}), json!({})]),
        ("a ne true", vec![json!({"a": false})], vec![json!({"a": true}), json!({})]),
        ("a eq null", vec![json!({}), json!({"a": null})], vec![json!({"a": 1})]),
        ("a ne null", vec![json!({"a": 1})], vec![json!({})]),
        ("a pr", vec![json!({"a": 1})], vec![json!({})]),
        ("a.b pr and a.c eq 1", vec![json!({"a": {"b": 1, "c": 1}})], vec![json!({"a": {"c": 1}})]),
        ("v eq 1.2.3", vec![json!({"v": "1.2.3"})], vec![json!({"v": "1.2.4"}), json!({"v": "1.2"}), json!({})]),
        ("v gt 1.9.0", vec![json!({"v": "1.10.0"})], vec![json!({"v": "v2.0.0"}), json!({"v": "1.9.0"})]),
        ("v ne 1.2.3", vec![json!({"v": "1.2.4"})], vec![json!({"v": "x"}), json!({})]),
        ("not (a eq 1)", vec![json!({"a": 2}), json!({})], vec![json!({"a": 1})]),
        // From left to right: and does not bind closer than or.
        ("a eq 1 or a eq 2 and b eq 1", vec![json!({"a": 1, "b": 1})], vec![json!({"a": 1}), json!({"b": 1})]),
        ("a eq 1 or (a eq 2 and b eq 1)", vec![json!({"a": 1}), json!({"a": 2, "b": 1})], vec![json!({"b": 1})]),
        ("anonymous eq false", vec![json!({}), json!({"anonymous": false})], vec![json!({"anonymous": true})]),
        ("anonymous eq true", vec![json!({"anonymous": true})], vec![json!({})]),
        ("key sw \"u\"", vec![json!({})], vec![json!({"targetingKey": "x"})]),
        (
            "{\"and\": [{\"in\": [{\"var\": \"a\"}, [\"x\"]]}, {\"!\": {\"var\": \"anonymous\"}}]}",
            vec![json!({"a": "x"})],
            vec![json!({"a": "x", "anonymous": true}), json!({})],
        ),
    ];
    for (query, fitting, other) in cases {
        let world = World::flag(of(json!({"targeting": [{"query": query, "variation": "b"}]})));
        for (contexts, expected) in [(fitting, "b"), (other, "a")] {
            for context in contexts {
                let mut with_key = json!({"targetingKey": "u"});
                with_key.as_object_mut().unwrap().extend(context.as_object().unwrap().clone());
                assert_eq!(world.variant(with_key).as_deref(), Some(expected), "{query} {context}");
            }
        }
    }
}

#[test]
fn what_cannot_be_asked_leaves_the_flag_out() {
    for query in [
        "a",
        "a eq",
        "a eq x",
        "a eq 1 AND b eq 2",
        "(a eq 1",
        "a gt \"x\"",
        "a co 1",
        "a eq 1 b",
        "{\"pow\": [1]}",
        "{\"==\": [",
    ] {
        let import =
            goff(&json!({"f": of(json!({"targeting": [{"query": query, "variation": "b"}]})), "g": of(json!({}))}))
                .unwrap();
        assert_eq!(import.flags.keys().collect::<Vec<_>>(), ["g"], "{query}");
        assert_eq!(import.notes[0].weight, Weight::LeftOut);
    }
}

#[test]
fn a_missing_key_gives_the_code_default_where_one_is_needed() {
    let needs = World::flag(of(
        json!({"targeting": [{"query": "a eq 1", "variation": "b"}], "defaultRule": {"percentage": {"a": 50, "b": 50}}}),
    ));
    assert_eq!(needs.variant(json!({"a": 1})), None);
    assert_eq!(needs.variant(json!({"a": 1, "targetingKey": "u"})).as_deref(), Some("b"));
    let plain = World::flag(of(json!({"targeting": [{"query": "a eq 1", "variation": "b"}]})));
    assert_eq!(plain.variant(json!({"a": 1})).as_deref(), Some("b"));
    let own = World::flag(of(json!({"bucketingKey": "team.id", "defaultRule": {"percentage": {"a": 50, "b": 50}}})));
    for n in 0..500 {
        let id = format!("t{n}");
        let expected = if fnv1a(&format!("f{id}")) % 100_000 < 50_000 { "b" } else { "a" };
        assert_eq!(own.variant(json!({"targetingKey": "u", "team": {"id": id}})).as_deref(), Some(expected));
    }
    for context in [json!({"targetingKey": "u"}), json!({"team": {"id": 7}}), json!({"team": {"id": ""}})] {
        assert_eq!(own.variant(context), None);
    }
}

#[test]
fn off_and_experimentations() {
    let off = World::flag(of(json!({"disable": true})));
    assert_eq!(off.variant(user("u")), None);
    let world = World::flag(of(
        json!({"experimentation": {"start": "2026-12-01T10:00:00+02:00", "end": "2026-12-02T00:00:00Z"}}),
    ));
    for (now, expected) in [
        ("2026-12-01T07:59:59.999Z", None),
        ("2026-12-01T08:00:00Z", Some("a")),
        ("2026-12-02T00:00:00Z", Some("a")),
        ("2026-12-02T00:00:00.000000001Z", None),
    ] {
        assert_eq!(world.variant_at(user("u"), time(now)).as_deref(), expected, "{now}");
    }
}

#[test]
fn scheduled_steps_change_what_holds() {
    let world = World::flag(of(json!({
        "targeting": [{"name": "beta", "query": "a eq 1", "percentage": {"a": 0, "b": 100}}],
        "scheduledRollout": [
            {"date": "2026-12-02T00:00:00Z", "targeting": [{"name": "beta", "percentage": {"a": 100, "b": 0}}, {"name": "new", "query": "a eq 2", "variation": "c"}]},
            {"date": "2026-12-03T00:00:00Z", "defaultRule": {"variation": "b"}},
            {"date": "2026-12-04T00:00:00Z", "disable": true}]})));
    for (now, one, two, other) in [
        ("2026-12-01T00:00:00Z", Some("b"), Some("a"), Some("a")),
        ("2026-12-02T00:00:00Z", Some("a"), Some("c"), Some("a")),
        ("2026-12-03T00:00:00Z", Some("a"), Some("b"), Some("b")),
        ("2026-12-04T00:00:00Z", None, None, None),
    ] {
        let at = |a: u64| world.variant_at(json!({"targetingKey": "u", "a": a}), time(now));
        assert_eq!((at(1).as_deref(), at(2).as_deref(), at(3).as_deref()), (one, two, other), "{now}");
    }
    let note = world.import.notes.iter().find(|note| note.text.contains("forgets")).unwrap();
    assert_eq!(note.place, "/f/scheduledRollout");
}

#[test]
fn a_step_may_give_a_variation_another_value() {
    let world = World::flag(of(
        json!({"scheduledRollout": [{"date": "2026-12-02T00:00:00Z", "variations": {"a": "Z", "d": "D"}, "defaultRule": {"variation": "a"}}]}),
    ));
    assert_eq!(world.variant_at(user("u"), time("2026-12-01T00:00:00Z")).as_deref(), Some("a"));
    assert_eq!(world.variant_at(user("u"), time("2026-12-02T00:00:00Z")).as_deref(), Some("a (step 1)"));
    assert_eq!(world.import.flags["f"]["variants"]["a (step 1)"], "Z");
    assert!(world.import.notes.iter().any(|note| note.weight == Weight::Differs));
}

#[test]
fn what_people_wrote_is_kept() {
    let world = World::flag(of(
        json!({"version": "1.2", "trackEvents": false, "metadata": {"description": "d", "jira": "X-1", "list": [1]}}),
    ));
    let flag = &world.import.flags["f"];
    assert_eq!(flag["description"], "d");
    assert_eq!(flag["metadata"], json!({"description": "d", "jira": "X-1", "version": "1.2"}));
    let places: Vec<&str> = world.import.notes.iter().map(|note| note.place.as_str()).collect();
    assert_eq!(places, ["/f/metadata", "/f/trackEvents"]);
}

#[test]
fn malformed_documents_are_refused_with_a_place() {
    assert_eq!(goff(&json!([])).unwrap_err().place, "");
    let import = goff(&json!({"a/b": 7, "c": {"variations": {"x": 1}}, "d": {"defaultRule": {}}, "e": {"variations": {"x": 1, "y": "2"}, "defaultRule": {"variation": "x"}}})).unwrap();
    assert!(import.flags.is_empty());
    let places: Vec<&str> = import.notes.iter().map(|note| note.place.as_str()).collect();
    assert_eq!(places, ["/a~1b", "/c/defaultRule", "/d/variations", "/e"]);
}

/// Guarantees: whatever is done to a document, it is read or refused without a panic, and what is read compiles.
#[test]
fn mutated_documents_do_no_harm() {
    let progress = json!({"initial": {"variation": "a", "percentage": 0, "date": "2026-12-01T00:00:00.1Z"},
        "end": {"variation": "b", "percentage": 100, "date": "2026-12-03T00:00:00Z"}});
    let document = json!({"f": of(json!({
        "bucketingKey": "team", "experimentation": {"start": "2026-01-01T00:00:00Z", "end": "2027-01-01T00:00:00Z"}, "metadata": {"x": 1},
        "targeting": [{"name": "one", "query": "a eq 1 and (b in [1, 2])", "percentage": {"a": 20, "b": 80}},
            {"query": "{\"==\": [{\"var\": \"key\"}, 1]}", "progressiveRollout": progress}],
        "scheduledRollout": [{"date": "2026-06-01T00:00:00Z", "targeting": [{"name": "one", "percentage": {"a": -1, "b": 80}}], "variations": {"a": "Q"}}]}))});
    mutate(&document, |mutant| {
        if let Ok(import) = goff(mutant) {
            FlagSet::parse(&import.document().to_string()).unwrap_or_else(|findings| panic!("{findings:?}: {mutant}"));
        }
    });
}
