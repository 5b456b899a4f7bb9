//! Documents, contexts and times made from choices: mostly sound, so that they get past the reader, sometimes not. Names come
//! from short lists, so that what refers to something finds it.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value, json};
use vocab::Timestamp;

/// Levels of conditions and rules; the readers' own bounds have tests of their own.
const DEPTH_MAX: u8 = 5;
/// Items of lists.
const ITEMS_MAX: usize = 4;

const FLAGS: [&str; 4] = ["f0", "f1", "f2", "f3"];
const SEGMENTS: [&str; 3] = ["s0", "s1", "s2"];
const VARIANTS: [&str; 3] = ["a", "b", "c"];
const ATTRIBUTES: [&str; 9] = ["plan", "n", "list", "deep.x", "/deep/x", "/list/0", "targetingKey", "$now", "version"];
const TEXTS: [&str; 10] =
    ["pro", "free", "user-1", "", "1", "1.2.3", "2025-11-24T16:00:00Z", "é\u{0}\"", "true", "^(a|b)*$"];
const OPS: [&str; 19] = [
    "in",
    "equals",
    "starts_with",
    "ends_with",
    "contains",
    "matches",
    "lt",
    "lte",
    "gt",
    "gte",
    "before",
    "after",
    "semver_eq",
    "semver_lt",
    "semver_lte",
    "semver_gt",
    "semver_gte",
    "exists",
    "nonsense",
];
const BUCKETINGS: [&str; 12] = [
    "native-1",
    "flagd-v1",
    "flagd-v2",
    "flagd-v3",
    "unleash",
    "unleash-variant",
    "launchdarkly",
    "growthbook-1",
    "growthbook-2",
    "flipt",
    "flipt-boolean",
    "goff",
];
const LOGIC: [&str; 38] = [
    "==",
    "===",
    "!=",
    "!==",
    "!",
    "!!",
    "or",
    "and",
    "if",
    "?:",
    ">",
    ">=",
    "<",
    "<=",
    "max",
    "min",
    "+",
    "-",
    "*",
    "/",
    "%",
    "map",
    "reduce",
    "filter",
    "all",
    "none",
    "some",
    "merge",
    "in",
    "cat",
    "substr",
    "log",
    "missing",
    "missing_some",
    "starts_with",
    "ends_with",
    "sem_ver",
    "fractional",
];

fn name(u: &mut Unstructured<'_>, names: &[&str]) -> Result<Value> {
    Ok((*u.choose(names)?).into())
}

fn many(u: &mut Unstructured<'_>, mut one: impl FnMut(&mut Unstructured<'_>) -> Result<Value>) -> Result<Vec<Value>> {
    (0..u.int_in_range(0..=ITEMS_MAX)?).map(|_| one(u)).collect()
}

fn scalar(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.arbitrary::<i64>()?.into(),
        // No number if it is not finite.
        3 => u.arbitrary::<f64>()?.into(),
        4 => u.int_in_range(0..=10)?.into(),
        5 => u.arbitrary::<&str>()?.into(),
        _ => name(u, &TEXTS)?,
    })
}

fn anything(u: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    Ok(match u.int_in_range(0..=5)? {
        0 if depth < DEPTH_MAX => many(u, |u| anything(u, depth + 1))?.into(),
        1 if depth < DEPTH_MAX => json!({*u.choose(&["x", "y", "context"])?: anything(u, depth + 1)?}),
        _ => scalar(u)?,
    })
}

/// Puts a key in, half of the time.
fn perhaps(
    u: &mut Unstructured<'_>,
    object: &mut Value,
    key: &str,
    value: impl FnOnce(&mut Unstructured<'_>) -> Result<Value>,
) -> Result<()> {
    if u.arbitrary()? {
        object[key] = value(u)?;
    }
    Ok(())
}

fn moment(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(format!("2025-11-{:02}T16:00:{:02}Z", u.int_in_range(20..=28)?, u.int_in_range(0..=59)?).into())
}

fn hashing(u: &mut Unstructured<'_>, object: &mut Value) -> Result<()> {
    perhaps(u, object, "by", |u| {
        if u.arbitrary()? { name(u, &ATTRIBUTES) } else { Ok(many(u, |u| name(u, &ATTRIBUTES))?.into()) }
    })?;
    perhaps(u, object, "salt", |u| name(u, &TEXTS))?;
    perhaps(u, object, "bucketing", |u| name(u, &BUCKETINGS))?;
    perhaps(u, object, "missing", |u| name(u, &["next", "first"]))?;
    perhaps(u, object, "total", |u| Ok(u.int_in_range(1..=1_000)?.into()))
}

fn serve(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Value::Null,
        1 | 2 => name(u, &VARIANTS)?,
        3 => {
            let mut split =
                json!({"weights": many(u, |u| Ok(json!([name(u, &VARIANTS)?, u.int_in_range(0..=100)?])))?});
            hashing(u, &mut split)?;
            json!({"split": split})
        }
        4 => {
            let range = |u: &mut Unstructured<'_>| {
                Ok(json!([name(u, &VARIANTS)?, u.int_in_range(0..=10)?, u.int_in_range(0..=100)?]))
            };
            let mut split = json!({"ranges": many(u, range)?});
            hashing(u, &mut split)?;
            json!({"split": split})
        }
        _ => {
            let mut steps =
                many(u, |u| Ok(json!({"at": moment(u)?, "share": f64::from(u.int_in_range(0..=4)?) / 4.0})))?;
            steps.sort_by_key(|step| step["at"].to_string());
            let mut ramp = json!({"from": name(u, &VARIANTS)?, "to": name(u, &VARIANTS)?, "steps": steps,
                "linear": u.arbitrary::<bool>()?});
            perhaps(u, &mut ramp, "side", |u| name(u, &["low", "high"]))?;
            hashing(u, &mut ramp)?;
            json!({"ramp": ramp})
        }
    })
}

fn condition(u: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    Ok(match u.int_in_range(0..=11)? {
        0 => u.arbitrary::<bool>()?.into(),
        1 if depth < DEPTH_MAX => json!({"all": many(u, |u| condition(u, depth + 1))?}),
        2 if depth < DEPTH_MAX => json!({"any": many(u, |u| condition(u, depth + 1))?}),
        3 if depth < DEPTH_MAX => json!({"not": condition(u, depth + 1)?}),
        4 => json!({"segment": name(u, &SEGMENTS)?}),
        5 => json!({"flag": name(u, &FLAGS)?, "variants": [name(u, &VARIANTS)?]}),
        6 => {
            let range = |u: &mut Unstructured<'_>| Ok(json!([u.int_in_range(0..=10)?, u.int_in_range(0..=100)?]));
            let mut bucket = json!({"ranges": many(u, range)?, "total": u.int_in_range(1..=100)?});
            hashing(u, &mut bucket)?;
            json!({"bucket": bucket})
        }
        7 => json!({"logic": logic(u, 0)?}),
        _ => {
            let attributes =
                if u.arbitrary()? { name(u, &ATTRIBUTES)? } else { many(u, |u| name(u, &ATTRIBUTES))?.into() };
            let mut comparison =
                json!({"attr": attributes, "op": name(u, &OPS)?, "values": many(u, |u| anything(u, 3))?});
            perhaps(u, &mut comparison, "negate", |u| Ok(u.arbitrary::<bool>()?.into()))?;
            perhaps(u, &mut comparison, "ignore_case", |u| Ok(u.arbitrary::<bool>()?.into()))?;
            perhaps(u, &mut comparison, "as", |u| name(u, &["text", "number"]))?;
            comparison
        }
    })
}

fn logic(u: &mut Unstructured<'_>, depth: u8) -> Result<Value> {
    Ok(match u.int_in_range(0..=7)? {
        0 => scalar(u)?,
        1 => name(u, &VARIANTS)?,
        2 => {
            json!({"var": name(u, &["plan", "n", "list", "deep.x", "targetingKey", "$flagd.timestamp", "$flagd.flagKey",
            "", "current", "accumulator", "list.0"])?})
        }
        3 if depth < DEPTH_MAX => many(u, |u| logic(u, depth + 1))?.into(),
        4 if depth < DEPTH_MAX => json!({"fractional": [{"var": name(u, &["targetingKey", "plan", "deep"])?},
            [name(u, &VARIANTS)?, logic(u, depth + 2)?], [name(u, &VARIANTS)?, u.int_in_range(0..=100)?]]}),
        _ if depth < DEPTH_MAX => json!({*u.choose(&LOGIC)?: many(u, |u| logic(u, depth + 1))?}),
        _ => json!({"$ref": "shared"}),
    })
}

fn ours(u: &mut Unstructured<'_>) -> Result<Value> {
    // Flags that need each other in a circle are refused: most look only at later ones.
    let mut flag = json!({"variants": {"a": 1, "b": 2, "c": 3}, "on": u.ratio(7, 8)?, "fallthrough": serve(u)?});
    perhaps(u, &mut flag, "off_variant", |u| name(u, &VARIANTS))?;
    if u.ratio(1, 4)? {
        flag["prerequisites"] =
            many(u, |u| Ok(json!({"flag": name(u, &FLAGS)?, "variants": [name(u, &VARIANTS)?]})))?.into();
    }
    perhaps(u, &mut flag, "targets", |u| {
        let one = |u: &mut Unstructured<'_>| {
            Ok(json!({"variant": name(u, &VARIANTS)?, "subjects": many(u, |u| name(u, &TEXTS))?,
                "attr": name(u, &ATTRIBUTES)?}))
        };
        Ok(many(u, one)?.into())
    })?;
    let rules =
        |u: &mut Unstructured<'_>| Ok(many(u, |u| Ok(json!({"when": condition(u, 0)?, "serve": serve(u)?})))?.into());
    perhaps(u, &mut flag, "rules", rules)?;
    if u.ratio(1, 4)? {
        let mut schedule = many(u, |u| Ok(json!({"at": moment(u)?, "change": {"rules": rules(u)?}})))?;
        schedule.sort_by_key(|change| change["at"].to_string());
        flag["schedule"] = schedule.into();
    }
    Ok(flag)
}

fn theirs(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut flag = json!({"state": name(u, &["ENABLED", "ENABLED", "DISABLED"])?, "variants": {"a": "1", "b": "2", "c": "3"},
        "targeting": logic(u, 0)?});
    perhaps(u, &mut flag, "defaultVariant", |u| name(u, &VARIANTS))?;
    perhaps(u, &mut flag, "metadata", |u| Ok(json!({"bucketing": name(u, &BUCKETINGS[..4])?})))?;
    Ok(flag)
}

pub(crate) fn segment(u: &mut Unstructured<'_>) -> Result<Value> {
    let mut segment = json!({"include": many(u, |u| name(u, &TEXTS))?, "exclude": many(u, |u| name(u, &TEXTS))?});
    perhaps(u, &mut segment, "when", |u| condition(u, 0))?;
    Ok(segment)
}

pub(crate) fn document(u: &mut Unstructured<'_>) -> Result<Value> {
    let (mut flags, mut segments) = (Map::new(), Map::new());
    for key in FLAGS {
        flags.insert(key.to_owned(), if u.arbitrary()? { ours(u)? } else { theirs(u)? });
    }
    for key in SEGMENTS {
        segments.insert(key.to_owned(), segment(u)?);
    }
    Ok(json!({"flags": flags, "segments": segments, "$evaluators": {"shared": logic(u, 4)?}}))
}

pub(crate) fn context(u: &mut Unstructured<'_>) -> Result<Map<String, Value>> {
    let mut context = Map::new();
    for attribute in ["targetingKey", "plan", "n", "list", "deep", "version", "deep.x"] {
        if u.ratio(3, 4)? {
            let value = match attribute {
                "targetingKey" if u.ratio(7, 8)? => name(u, &TEXTS)?,
                "list" => many(u, |u| anything(u, 2))?.into(),
                "deep" => json!({"x": anything(u, 2)?}),
                _ => anything(u, 0)?,
            };
            context.insert(attribute.to_owned(), value);
        }
    }
    Ok(context)
}

pub(crate) fn time(u: &mut Unstructured<'_>) -> Result<Timestamp> {
    Ok(match u.int_in_range(0..=3)? {
        0 => Timestamp::from_nanos(u.arbitrary()?),
        // Within a week around the moments above.
        _ => Timestamp::from_micros(1_764_000_000_000_000 + u.int_in_range(-345_600_000_000_i64..=345_600_000_000)?),
    })
}

/// A text of words of filters and of calculated fields, in any order.
pub(crate) fn question(u: &mut Unstructured<'_>) -> Result<String> {
    const WORDS: [&str; 40] = [
        "name",
        "n",
        "x",
        "ok",
        "time",
        "duration_ms",
        "trace.trace_id",
        "`a b`",
        "missing",
        "=",
        "!=",
        "<",
        ">=",
        "contains",
        "matches",
        "starts-with",
        "in (",
        "not in (",
        "not",
        "exists",
        "and",
        "or",
        "(",
        ")",
        ",",
        "'GET'",
        "'^[a'",
        "'2026-11-25T09:00:00Z'",
        "3",
        "-0.5",
        "true",
        "+",
        " - ",
        "*",
        " / ",
        "if(",
        "concat(",
        "bucket(",
        "cast(",
        "é",
    ];
    let n: usize = u.int_in_range(0..=24)?;
    let words: Vec<&str> = (0..n).map(|_| u.choose(&WORDS).copied()).collect::<Result<_>>()?;
    Ok(words.join(" "))
}
