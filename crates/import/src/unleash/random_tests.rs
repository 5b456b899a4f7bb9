//! Random documents, evaluated twice: imported and by ours, and by a small evaluator that follows Unleash's documentation word by
//! word. Lots are not drawn: where Unleash would draw one, nothing is compared.

use flags::{Context, FlagSet};
use serde_json::{Map, Value, json};
use vocab::Timestamp;

use super::tests::normalized;
use crate::unleash;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }

    fn texts(&mut self, items: &[&str]) -> Vec<String> {
        (0..self.below(3)).map(|_| self.of(items).to_owned()).collect()
    }
}

const FIELDS: [&str; 6] = ["userId", "sessionId", "environment", "plan", "age", "a.b"];
const VALUES: [&str; 8] = ["ann", "bea", "1", "2.5", "-7", "1.2.3", "2.0.0-rc.1", ""];
const OPERATORS: [&str; 13] = [
    "IN",
    "NOT_IN",
    "STR_STARTS_WITH",
    "STR_ENDS_WITH",
    "STR_CONTAINS",
    "NUM_EQ",
    "NUM_GT",
    "NUM_GTE",
    "NUM_LT",
    "NUM_LTE",
    "SEMVER_EQ",
    "SEMVER_GT",
    "SEMVER_LT",
];

fn constraint(random: &mut Random) -> Value {
    let operator = random.of(&OPERATORS);
    let value = match operator.get(..3) {
        Some("NUM") => random.of(&["1", "2.5", "-7"]),
        Some("SEM") => random.of(&["1.2.3", "2.0.0-rc.1", "0.9.0"]),
        _ => "",
    };
    json!({"contextName": random.of(&FIELDS), "operator": operator, "value": value, "values": random.texts(&VALUES),
        "inverted": random.below(3) == 0, "caseInsensitive": random.below(2) == 0})
}

fn constraints(random: &mut Random) -> Value {
    (0..random.below(3)).map(|_| constraint(random)).collect()
}

fn variants(random: &mut Random, prefix: &str) -> Value {
    let stickiness = random.of(&["default", "userId", "plan"]);
    (0..random.below(4))
        .map(|n| {
            let mut variant =
                json!({"name": format!("{prefix}{n}"), "weight": random.below(4) * 100, "stickiness": stickiness});
            if prefix == "v" && random.below(4) == 0 {
                variant["overrides"] = json!([{"contextName": random.of(&FIELDS), "values": random.texts(&VALUES)}]);
            }
            variant
        })
        .collect()
}

fn strategy(random: &mut Random, n: usize) -> Value {
    let (name, mut parameters) = match random.below(4) {
        0 => ("default", json!({})),
        1 => ("userWithId", json!({"userIds": random.texts(&VALUES).join(", ")})),
        2 => ("gradualRolloutSessionId", json!({"percentage": random.below(101).to_string(), "groupId": "g"})),
        _ => (
            "flexibleRollout",
            json!({"rollout": (random.below(5) * 25).to_string(), "stickiness": random.of(&["default", "userId", "plan", "a.b"])}),
        ),
    };
    if random.below(2) == 0 {
        parameters["groupId"] = json!("group");
    }
    let mut variants = variants(random, &format!("s{n}-"));
    // Strategies and their variants are sticky on the same field, as Unleash's forms see to it.
    if let (Some(list), Some(stickiness)) = (variants.as_array_mut(), parameters.get("stickiness")) {
        list.iter_mut().for_each(|variant| variant["stickiness"] = stickiness.clone());
    }
    let segments: Vec<usize> = (0..random.below(2)).map(|_| random.below(3)).collect();
    json!({"name": name, "parameters": parameters, "constraints": constraints(random), "segments": segments, "variants": variants})
}

fn toggle(random: &mut Random, n: usize) -> Value {
    let mut toggle = json!({"name": format!("t{n}"), "enabled": random.below(5) > 0, "variants": variants(random, "v"),
        "strategies": (0..random.below(3)).map(|n| strategy(random, n)).collect::<Vec<_>>()});
    if n >= 2 && random.below(2) == 0 {
        let mut dependency = json!({"feature": format!("t{}", random.below(3))});
        match random.below(3) {
            0 => dependency["enabled"] = json!(false),
            1 => dependency["variants"] = json!([random.of(&["v0", "v1", "s0-0", "s1-1"])]),
            _ => {}
        }
        toggle["dependencies"] = json!([dependency]);
    }
    toggle
}

/// Unleash's answers. Each is none where a lot would be drawn.
struct Unleash<'a> {
    document: &'a Value,
    context: &'a Map<String, Value>,
}

impl Unleash<'_> {
    fn field(&self, name: &str) -> Option<&str> {
        self.context.get(name).and_then(Value::as_str)
    }

    fn unit(&self, stickiness: &str) -> Option<&str> {
        match stickiness {
            "default" => self.field("userId").or(self.field("sessionId")),
            name => self.field(name),
        }
    }

    fn feature(&self, name: &str) -> Option<&Value> {
        self.document["features"].as_array().unwrap().iter().find(|feature| feature["name"] == name)
    }

    fn constraint(&self, constraint: &Value) -> bool {
        let found = self.field(constraint["contextName"].as_str().unwrap());
        let values: Vec<&str> = constraint["values"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        let value = constraint["value"].as_str().unwrap();
        let operator = constraint["operator"].as_str().unwrap();
        let fold =
            |text: &str| if constraint["caseInsensitive"] == true { text.to_lowercase() } else { text.to_owned() };
        let number = |test: &dyn Fn(f64, f64) -> bool| {
            found.and_then(|text| text.parse().ok()).is_some_and(|found| test(found, value.parse().unwrap()))
        };
        // The versions of this test in their order.
        let rank = |text: &str| ["0.9.0", "1.2.3", "2.0.0-rc.1"].iter().position(|version| *version == text);
        let version = |test: &dyn Fn(usize, usize) -> bool| {
            found.and_then(rank).is_some_and(|found| test(found, rank(value).unwrap()))
        };
        let holds = match operator {
            "IN" => found.is_some_and(|found| values.contains(&found)),
            "NOT_IN" => found.is_none_or(|found| !values.contains(&found)),
            "STR_STARTS_WITH" => found.is_some_and(|found| values.iter().any(|v| fold(found).starts_with(&fold(v)))),
            "STR_ENDS_WITH" => found.is_some_and(|found| values.iter().any(|v| fold(found).ends_with(&fold(v)))),
            "STR_CONTAINS" => found.is_some_and(|found| values.iter().any(|v| fold(found).contains(&fold(v)))),
            "NUM_EQ" => number(&|a, b| a == b),
            "NUM_GT" => number(&|a, b| a > b),
            "NUM_GTE" => number(&|a, b| a >= b),
            "NUM_LT" => number(&|a, b| a < b),
            "NUM_LTE" => number(&|a, b| a <= b),
            "SEMVER_EQ" => version(&|a, b| a == b),
            "SEMVER_GT" => version(&|a, b| a > b),
            _ => version(&|a, b| a < b),
        };
        holds != (constraint["inverted"] == true)
    }

    fn strategy(&self, strategy: &Value, toggle: &str) -> Option<bool> {
        for segment in strategy["segments"].as_array().unwrap() {
            let Some(found) = self.document["segments"].as_array().unwrap().iter().find(|s| s["id"] == *segment) else {
                return Some(false);
            };
            if !found["constraints"].as_array().unwrap().iter().all(|c| self.constraint(c)) {
                return Some(false);
            }
        }
        if !strategy["constraints"].as_array().unwrap().iter().all(|c| self.constraint(c)) {
            return Some(false);
        }
        let parameter = |name: &str| strategy["parameters"][name].as_str();
        match strategy["name"].as_str().unwrap() {
            "default" => Some(true),
            "userWithId" => {
                let ids: Vec<&str> = parameter("userIds").unwrap().split(", ").collect();
                Some(self.field("userId").is_some_and(|id| ids.contains(&id)))
            }
            "gradualRolloutSessionId" => {
                let percent: u32 = parameter("percentage").unwrap().parse().unwrap();
                let group = parameter("groupId").unwrap();
                Some(self.field("sessionId").is_some_and(|id| normalized(group, id, 100, 0) <= percent))
            }
            _ => {
                let percent: u32 = parameter("rollout").unwrap().parse().unwrap();
                let stickiness = parameter("stickiness").unwrap();
                match self.unit(stickiness) {
                    Some(id) => Some(normalized(parameter("groupId").unwrap_or(toggle), id, 100, 0) <= percent),
                    None if stickiness != "default" || percent == 0 => Some(false),
                    None if percent == 100 => Some(true),
                    None => None,
                }
            }
        }
    }

    fn enabled(&self, name: &str) -> Option<bool> {
        let Some(feature) = self.feature(name) else { return Some(false) };
        for dependency in feature.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let parent = dependency["feature"].as_str().unwrap();
            let Some(found) = self.feature(parent).filter(|found| found.get("dependencies").is_none()) else {
                return Some(false);
            };
            let on = self.enabled(parent)?;
            if on == (dependency["enabled"] == false) {
                return Some(false);
            }
            if let Some(wanted) = dependency["variants"].as_array() {
                let without = found["variants"] == json!([])
                    && found["strategies"].as_array().unwrap().iter().all(|s| s["variants"] == json!([]));
                // SDKs differ for a parent without any variants.
                if !without && !wanted.contains(&json!(self.variant(parent)?)) {
                    return Some(false);
                }
            }
        }
        if feature["enabled"] == false {
            return Some(false);
        }
        let strategies = feature["strategies"].as_array().unwrap();
        let passed: Vec<Option<bool>> = strategies.iter().map(|strategy| self.strategy(strategy, name)).collect();
        match () {
            () if strategies.is_empty() || passed.contains(&Some(true)) => Some(true),
            () if passed.contains(&None) => None,
            () => Some(false),
        }
    }

    /// The variant's name; `disabled` if there is none.
    fn variant(&self, name: &str) -> Option<String> {
        let disabled = || Some("disabled".to_owned());
        if !self.enabled(name)? {
            return disabled();
        }
        let feature = self.feature(name).unwrap();
        let own = feature["variants"].as_array().unwrap();
        for strategy in feature["strategies"].as_array().unwrap() {
            if self.strategy(strategy, name)? {
                let variants = strategy["variants"].as_array().unwrap();
                if !variants.is_empty() {
                    let group = strategy["parameters"]["groupId"].as_str().unwrap_or(name);
                    return self.among(variants, group);
                }
                break;
            }
        }
        if own.is_empty() { disabled() } else { self.among(own, name) }
    }

    fn among(&self, variants: &[Value], group: &str) -> Option<String> {
        let named = |variant: &Value| Some(variant["name"].as_str().unwrap().to_owned());
        for variant in variants {
            for item in variant.get("overrides").and_then(Value::as_array).into_iter().flatten() {
                let found = self.field(item["contextName"].as_str().unwrap());
                if found.is_some_and(|found| item["values"].as_array().unwrap().contains(&json!(found))) {
                    return named(variant);
                }
            }
        }
        let weight = |variant: &Value| variant["weight"].as_u64().unwrap() as u32;
        let total: u32 = variants.iter().map(weight).sum();
        let heavy: Vec<&Value> = variants.iter().filter(|variant| weight(variant) > 0).collect();
        match heavy.as_slice() {
            [] => return Some("disabled".to_owned()),
            [only] => return named(only),
            _ => {}
        }
        let target = normalized(group, self.unit(variants[0]["stickiness"].as_str().unwrap())?, total, 86_028_157);
        let mut sum = 0;
        named(variants.iter().find(|variant| {
            sum += weight(variant);
            weight(variant) > 0 && sum >= target
        })?)
    }
}

/// Guarantees: an imported document answers as Unleash does, whatever stands in it.
#[test]
fn random_toggles_answer_as_unleash_does() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7_u64);
    println!("SEED={seed}");
    let random = &mut Random(seed);
    let now = Timestamp::parse("2026-12-01T12:00:00Z").unwrap();
    let (mut compared, mut on) = (0, 0);
    for _ in 0..150 {
        let features: Vec<Value> = (0..5).map(|n| toggle(random, n)).collect();
        let segments: Vec<Value> = (0..2).map(|id| json!({"id": id, "constraints": constraints(random)})).collect();
        let document = json!({"version": 2, "features": features, "segments": segments});
        let import = unleash(&document).unwrap();
        let set = FlagSet::parse(&import.document().to_string()).unwrap();
        for n in 0..25 {
            let mut context = Map::new();
            for field in FIELDS {
                match random.below(4) {
                    0 => {}
                    1 => drop(context.insert(field.into(), json!(format!("id{n}")))),
                    _ => drop(context.insert(field.into(), json!(random.of(&VALUES[..7])))),
                }
            }
            let theirs = Unleash { document: &document, context: &context };
            let ours = Context::new(context.clone());
            for feature in &features {
                let name = feature["name"].as_str().unwrap();
                let (Some(enabled), variant) = (theirs.enabled(name), theirs.variant(name)) else { continue };
                let found = set.evaluate(name, &ours, now).unwrap().value.cloned();
                assert_eq!(found, Some(json!(enabled)), "{name} {context:?}\n{document}");
                compared += 1;
                on += usize::from(enabled);
                let Some(variant) = variant else { continue };
                let second = format!("{name}.variant");
                let found = set.flag(&second).and_then(|_| set.evaluate(&second, &ours, now).unwrap().variant);
                assert_eq!(found.unwrap_or("disabled"), variant, "{name} {context:?}\n{document}");
            }
        }
    }
    assert!(compared > 10_000 && on > 2_000, "{on} of {compared}");
}
