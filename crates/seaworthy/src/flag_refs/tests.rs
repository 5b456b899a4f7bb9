//! What counts as a reference, language by language.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::json;

use super::report::{PLACES_MAX, Report, UNKNOWN_MAX, needed};
use super::scan::{How, Key, Scanner};
use super::{pattern, walk};

const KEYS: &[&str] = &["a.b", "accounts", "checkout.v2", "new-player", "new_search", "@team/odd flag", "größe"];

/// What is found, one line each: `line key how`; a key that is no flag has a `?`.
fn found(text: &str, patterns: &[&str]) -> Vec<String> {
    let patterns = patterns.iter().map(|p| Regex::new(p).unwrap()).collect();
    let scanner = Scanner::new(KEYS.iter().map(|k| (*k).to_owned()), patterns);
    let line = |r: super::scan::Reference<'_>| {
        let key = match r.key {
            Key::Known(n) => scanner.keys()[n].clone(),
            Key::Unknown(key) => format!("?{key}"),
        };
        let how = match r.how {
            How::Call(name) => name,
            How::Pattern => "pattern",
            How::Quoted => "string",
            How::Word => "word",
        };
        format!("{} {key} {how}", r.line)
    };
    scanner.scan(text).into_iter().map(line).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(found(text, &[]), expected, "{text}");
}

#[test]
fn a_key_stands_alone() {
    check("x new-player y", &["1 new-player word"]);
    check("new-player", &["1 new-player word"]);
    check(
        "\"new-player\"\n'new-player' `new-player`",
        &["1 new-player string", "2 new-player string", "2 new-player string"],
    );
    check("new-player-2 my-new-player new-players new-player_ xnew-player ünew-player", &[]);
    check("flags.new_search(new_search)", &["1 new_search word", "1 new_search word"]);
    check("group: größe", &["1 größe word"]);
    check("größen", &[]);
    check("", &[]);
}

#[test]
fn a_sign_inside_a_key_belongs_to_the_word() {
    check("a.b", &["1 a.b word"]);
    check("See a.b. Then", &["1 a.b word"]);
    check("a.b.c x.a.b a.bc", &[]);
    check("\"a.b\".c", &["1 a.b string"]);
    check("checkout.v2 checkout checkout.v3", &["1 checkout.v2 word"]);
}

#[test]
fn an_odd_key_is_found_as_a_whole_string_only() {
    check("f('@team/odd flag')", &["1 @team/odd flag string"]);
    check("@team/odd flag", &[]);
    check("'@team/odd flag 2'", &[]);
}

#[test]
fn calls_of_openfeature() {
    // JavaScript, TypeScript, React
    check("client.getBooleanValue('new-player', false)", &["1 new-player getBooleanValue"]);
    check("await client.getStringDetails(\n  `gone`,\n  'x',\n)", &["2 ?gone getStringDetails"]);
    check("const {value} = useFlag<boolean>(\"gone\", true)", &["1 ?gone useFlag"]);
    check("useBooleanFlagValue('gone', true)", &["1 ?gone useBooleanFlagValue"]);
    // Java, .NET, Kotlin, Swift, PHP
    check("boolean b = client.getBooleanValue(\"gone\", false, ctx);", &["1 ?gone getBooleanValue"]);
    check("await client.GetIntegerDetailsAsync(\"gone\", 1)", &["1 ?gone getIntegerDetails"]);
    check("client.getDoubleValue(key = \"gone\", defaultValue = 1.0)", &["1 ?gone getDoubleValue"]);
    check("client.getIntegerValue(key: \"gone\", defaultValue: 1)", &["1 ?gone getIntegerValue"]);
    check("$client->getBooleanValue('gone', false)", &["1 ?gone getBooleanValue"]);
    // Go
    check("c.BooleanValue(ctx, \"gone\", false, openfeature.EvaluationContext{})", &["1 ?gone BooleanValue"]);
    check("c.StringValue(context.TODO(), \"new-player\", \"x\", e)", &["1 new-player StringValue"]);
    check("c.Boolean(ctx, \"gone\", true, e)", &["1 ?gone Boolean"]);
    // Python, Rust, Ruby
    check("client.get_boolean_value(\"gone\", False, ctx)", &["1 ?gone getBooleanValue"]);
    check("await client.get_object_details_async(flag_key=\"gone\", default_value={})", &["1 ?gone getObjectDetails"]);
    check("client.get_bool_value(\"gone\", None, None).await", &["1 ?gone getBoolValue"]);
    check("client.get_struct_value::<Theme>(\"gone\", None, None)", &["1 ?gone getStructValue"]);
    check("client.fetch_boolean_value(flag_key: 'gone', default_value: false)", &["1 ?gone fetchBooleanValue"]);
}

#[test]
fn calls_of_vendors() {
    check("ld.boolVariation('gone', ctx, false)", &["1 ?gone boolVariation"]);
    check("client.bool_variation(&ctx, \"gone\", false)", &["1 ?gone boolVariation"]);
    check("client.variation(\"gone\", Context.builder(\"ann\").build(), \"x\")", &["1 ?gone variation"]);
    check("UNLEASH.is_enabled?('gone', ctx)", &["1 ?gone isEnabled"]);
    check("posthog.isFeatureEnabled('gone', 'ann')", &["1 ?gone isFeatureEnabled"]);
    check("statsig.checkGate(user, 'gone') || statsig.checkGate('gone')", &["1 ?gone checkGate", "1 ?gone checkGate"]);
    check("split.getTreatment('ann', 'gone', {plan: 'x'})", &["1 ?gone getTreatment"]);
    check("flipt.EvaluationRequest{FlagKey: \"gone\", EntityId: \"ann\"}", &["1 ?gone flagKey"]);
    check("<FeatureFlag flagKey=\"gone\" matchValue={true}>", &["1 ?gone flagKey"]);
}

/// Guarantees: what is not certainly a key is not called a missing flag.
#[test]
fn what_cannot_be_read_is_passed_over() {
    for text in [
        "client.getStringValue(KEY, 'a default')",
        "client.getBooleanValue('prefix-' + name, false)",
        "client.getBooleanValue(`prefix-${name}`, false)",
        "client.getBooleanValue(\"a\\\"b\", false)",
        "client.getBooleanValue('', false)",
        "client.fetch_boolean_value(\"a#{b}\", 1)",
        "client.get_boolean_value(f\"a-{b}\", False)",
        "isEnabled('feature_{}')",
        "isEnabled(':')",
        "use_feature('libc')",
        "Stringvalue(ctx, 'gone', 1)",
        "zap.StringValue(\"key\", \"value\")",
        "if (flagKey == \"gone\") {}",
        "const flagKey = 'prefix-' + name",
        "getBooleanValue 'gone'",
        "isEnabledFor('gone')",
        "getBooleanValue(",
        "getBooleanValue('gone",
        "(\"gone\", false)",
        "flagKey: \"",
    ] {
        check(text, &[]);
    }
    let long = format!("isEnabled('{}')", "x".repeat(257));
    check(&long, &[]);
}

#[test]
fn patterns_find_more_and_never_twice() {
    let pattern = r#"feature\("([^"]+)"\)"#;
    assert_eq!(found("feature(\"gone\")", &[pattern]), ["1 ?gone pattern"]);
    assert_eq!(found("feature(\"new-player\")", &[pattern]), ["1 new-player pattern"]);
    assert_eq!(found("isOn(\"gone\")", &[r#"isOn\("(\w+)"\)"#]), ["1 ?gone isOn"]);
    assert_eq!(found("feature(\"a\nb\")", &[pattern]), Vec::<String>::new());
}

#[test]
fn a_pattern_has_one_group() {
    assert!(pattern("f\\((.*)\\)").is_ok());
    assert!(pattern("f").unwrap_err().contains("this has 0"));
    assert!(pattern("(a)(b)").unwrap_err().contains("this has 2"));
    assert!(pattern("(").is_err());
}

#[test]
fn flag_documents_are_told_from_code() {
    assert!(walk::defines_flags(r#"{"flags": {"a": {"variants": {"on": true}}}}"#));
    assert!(walk::defines_flags("flags:\n  a:\n    variants: {on: true}\n"));
    assert!(walk::defines_flags(r#"{"flags": [{"key": "a", "variants": {"on": true}}]}"#));
    assert!(!walk::defines_flags(r#"{"flags": ["a"], "variants": 1}"#));
    assert!(!walk::defines_flags("not: [a, document with flags and variants"));
}

#[test]
fn places_and_unknown_keys_are_bounded_and_counted() {
    let scanner = Scanner::new(["known".to_owned()], Vec::new());
    let mut report = Report::new(scanner.keys(), BTreeSet::new());
    report.add("a", &scanner.scan(&"'known'\n".repeat(50)));
    let calls: String = (0..UNKNOWN_MAX + 10).map(|n| format!("isOn('k{n}')\n")).collect();
    report.add("b", &scanner.scan(&calls));
    let json = report.json();
    assert_eq!(json["flags"][0]["references"], 50);
    assert_eq!(json["flags"][0]["places"].as_array().unwrap().len(), PLACES_MAX);
    assert_eq!(json["unknown"].as_array().unwrap().len(), UNKNOWN_MAX);
    assert_eq!(json["unknown_references_left_out"], 10);
    assert!(report.has_unknown());
    assert!(report.text("on the server").contains("and 30 more"));
}

/// Guarantees: a flag that another one or a segment needs is not called safe to archive.
#[test]
fn what_other_flags_need_is_said() {
    let document = json!({
        "flags": {"new-player": {"prerequisites": [{"flag": "accounts", "variants": ["on"]}]}},
        "segments": {"staff": {"when": {"any": [{"flag": "a.b", "variants": ["on"]}]}}},
    });
    let keys = ["a.b", "accounts", "new-player"].map(str::to_owned);
    let report = Report::new(&keys, needed(&document));
    assert_eq!(report.json()["unreferenced_but_needed"], json!(["a.b", "accounts"]));
    let text = report.text("in flags.json");
    assert!(text.contains("  accounts (not before the flags and segments that name it)\n"), "{text}");
    assert!(text.contains("  new-player\n"), "{text}");
}

/// Guarantees: a flag that nobody evaluates any more and that code names is said to be in the way.
#[test]
fn how_flags_stand_is_said() {
    let scanner = Scanner::new(["banner".to_owned(), "idle".to_owned(), "player".to_owned()], Vec::new());
    let stages = [("banner", "safe-to-remove"), ("idle", "stale"), ("player", "live")];
    let stages = stages.map(|(key, stage)| (key.to_owned(), stage.to_owned())).into();
    let mut report = Report::new(scanner.keys(), BTreeSet::new()).with_stages(stages);
    report.add("a", &scanner.scan("isOn('banner'); isOn('player')\n"));
    let text = report.text("on the server");
    assert!(text.contains("  idle: stale\n") && text.contains("then remove it.\n  banner\n"), "{text}");
    let json = report.json();
    assert_eq!(json["safe_to_remove_but_referenced"], json!(["banner"]));
    assert_eq!(json["flags"][2]["lifecycle"], "live");
}

/// Guarantees: no bytes make it panic, and each reference is where it says. Prints its seed, takes it back from `SEED`.
#[test]
fn any_text_can_be_scanned() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5ea_u64);
    println!("SEED={seed}");
    let parts = [
        "new-player",
        "a.b",
        "größe",
        "ü",
        "(",
        ")",
        "'",
        "\"",
        "`",
        "isOn(",
        "flagKey=",
        "<",
        ">",
        "::<",
        ",",
        "\n",
        " ",
        "\\",
        "$",
        "#{",
        ".",
        "@",
        "{",
        "}",
        "?",
        "boolVariation(",
        "@team/odd flag",
        ":",
        "=",
        "-",
        "x",
    ];
    let scanner = Scanner::new(KEYS.iter().map(|k| (*k).to_owned()), vec![Regex::new("x(.*)x").unwrap()]);
    let mut state = seed;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(parts[(state >> 33) as usize % parts.len()]);
        }
        for reference in scanner.scan(&text) {
            let key = match reference.key {
                Key::Known(n) => scanner.keys()[n].as_str(),
                Key::Unknown(key) => key,
            };
            assert!(
                text.lines().nth(reference.line - 1).is_some_and(|line| line.contains(key)),
                "{text:?}: {reference:?}"
            );
        }
    }
}
