//! Constraints, segments and strategies of Unleash as conditions.
//!
//! Values are text in Unleash, whatever they look like. An absent attribute makes a constraint false, but `NOT_IN` true; `inverted`
//! turns the whole answer round, also that of an absent attribute. An operator that nobody knows is false, inverted or not.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use vocab::Timestamp;

use super::address;
use super::part::{Part, Refusal, STRICT_VERSION, all, flat_attribute, not};
use super::source::Strategy;
use crate::{Import, Weight};

/// Who passes a strategy's rollout.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Gate {
    Everybody,
    Nobody,
    /// `percent` of 100 places by the unit that `by` names.
    Share {
        by: Value,
        salt: String,
        percent: u64,
    },
}

/// A strategy: the condition and the rollout must both let a subject pass.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) when: Value,
    pub(super) gate: Gate,
}

impl Compiled {
    /// Both as one condition.
    pub(super) fn condition(&self) -> Value {
        match &self.gate {
            Gate::Everybody => self.when.clone(),
            Gate::Nobody => Value::Bool(false),
            Gate::Share { by, salt, percent } => all(vec![
                self.when.clone(),
                json!({"bucket": {"ranges": [[0, percent]], "total": 100, "by": by, "salt": salt, "bucketing": "unleash"}}),
            ]),
        }
    }
}

/// Where an attribute of Unleash's context is found here.
pub(super) fn attribute(name: &str) -> Value {
    match name {
        "userId" => json!(["userId", "targetingKey"]),
        "currentTime" => json!(["currentTime", "$now"]),
        _ => json!(flat_attribute(name)),
    }
}

/// The unit of a stickiness; none if it is random.
pub(super) fn unit(stickiness: &str) -> Option<Value> {
    match stickiness {
        "random" => None,
        "" | "default" => Some(json!(["userId", "targetingKey", "sessionId"])),
        // There is no current time to be sticky on unless somebody sends one.
        "currentTime" => Some(json!("currentTime")),
        name => Some(attribute(name)),
    }
}

/// A segment is the conjunction of its constraints.
pub(super) fn constraints(parts: &[Part<'_>], import: &mut Import) -> Result<Value, Refusal> {
    Ok(all(parts.iter().map(|part| constraint(part, import)).collect::<Result<_, _>>()?))
}

fn constraint(part: &Part<'_>, import: &mut Import) -> Result<Value, Refusal> {
    let name = part.text("contextName")?;
    let name = name.ok_or_else(|| Refusal::new(part.at("contextName"), "expected the name of a context field"))?;
    let attr = attribute(name);
    let operator = part.text("operator")?.unwrap_or("");
    let inverted = part.bool("inverted")?.unwrap_or(false);
    let turned = |condition: Value| if inverted { not(condition) } else { condition };
    let never = |import: &mut Import, weight: Weight, text: String| {
        import.note(&part.place, weight, text);
        Ok(Value::Bool(false))
    };
    if matches!(name, "appName" | "environment") {
        let text =
            format!("{name} is asked for: Unleash's SDKs send it by themselves, here it must be put into the context");
        import.note(&part.place, Weight::Info, text);
    }
    let condition = match operator {
        "IN" | "NOT_IN" => {
            let values = part.texts("values")?;
            let condition = json!({"attr": attr, "op": "in", "values": values, "as": "text"});
            if operator == "IN" { condition } else { not(condition) }
        }
        "STR_STARTS_WITH" | "STR_ENDS_WITH" | "STR_CONTAINS" => {
            let op = match operator {
                "STR_STARTS_WITH" => "starts_with",
                "STR_ENDS_WITH" => "ends_with",
                _ => "contains",
            };
            let mut condition = json!({"attr": attr, "op": op, "values": part.texts("values")?, "as": "text"});
            if part.bool("caseInsensitive")?.unwrap_or(false) {
                condition["ignore_case"] = Value::Bool(true);
            }
            condition
        }
        "NUM_EQ" | "NUM_GT" | "NUM_GTE" | "NUM_LT" | "NUM_LTE" => {
            let text = value(part)?;
            let Some(number) = text.parse::<f64>().ok().filter(|n| n.is_finite()) else {
                return never(import, Weight::Differs, unreadable(operator, "a number", inverted));
            };
            let op = match operator {
                "NUM_EQ" => "in",
                "NUM_GT" => "gt",
                "NUM_GTE" => "gte",
                "NUM_LT" => "lt",
                _ => "lte",
            };
            json!({"attr": attr, "op": op, "values": [number], "as": "number"})
        }
        "DATE_AFTER" | "DATE_BEFORE" => {
            let text = value(part)?;
            let Ok(time) = Timestamp::parse(&text) else {
                return never(import, Weight::Differs, unreadable(operator, "a time", inverted));
            };
            let op = if operator == "DATE_AFTER" { "after" } else { "before" };
            json!({"attr": attr, "op": op, "values": [time.to_string()]})
        }
        "SEMVER_EQ" | "SEMVER_GT" | "SEMVER_LT" => {
            let text = value(part)?;
            if !is_version(&text) {
                return never(import, Weight::Info, unreadable(operator, "a version", inverted));
            }
            let op = match operator {
                "SEMVER_EQ" => "semver_eq",
                "SEMVER_GT" => "semver_gt",
                _ => "semver_lt",
            };
            // Ours also takes "1.2" and "v1.2.3" for versions.
            all(vec![
                json!({"attr": attr, "op": "matches", "values": [STRICT_VERSION]}),
                json!({"attr": attr, "op": op, "values": [text]}),
            ])
        }
        _ => {
            let text = format!(
                "the operator {operator:?} is not known; the constraint is false, as in an SDK that does not know it"
            );
            return never(import, Weight::Differs, text);
        }
    };
    Ok(turned(condition))
}

fn unreadable(operator: &str, wanted: &str, inverted: bool) -> String {
    let inverted = if inverted { " although it is inverted, where SDKs differ" } else { "" };
    format!("the value of {operator} is not {wanted}; the constraint is false{inverted}")
}

fn value(part: &Part<'_>) -> Result<String, Refusal> {
    Ok(part.value("value").and_then(super::part::scalar).unwrap_or_default())
}

/// Three whole numbers, maybe a pre-release and build metadata; nothing in front.
pub(crate) fn is_version(text: &str) -> bool {
    let (release, build) = text.split_once('+').map_or((text, None), |(release, build)| (release, Some(build)));
    let (numbers, pre) = release.split_once('-').map_or((release, None), |(numbers, pre)| (numbers, Some(pre)));
    let number = |part: &str| {
        !part.is_empty()
            && part.len() < 19
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    numbers.split('.').count() == 3
        && numbers.split('.').all(number)
        && pre.is_none_or(|pre| {
            pre.split('.').all(|part| word(part) && (number(part) || !part.bytes().all(|b| b.is_ascii_digit())))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

/// Compiles a strategy. `segments` has the keys of the segments by their ids, without a key if the file does not say what it asks.
pub(super) fn strategy(
    strategy: &Strategy<'_>,
    toggle: &str,
    segments: &BTreeMap<String, Option<String>>,
    import: &mut Import,
) -> Result<Compiled, Refusal> {
    let parameter = |name: &str| strategy.parameters.get(name).map(String::as_str);
    let listed = |name: &str| -> Vec<String> {
        parameter(name).unwrap_or_default().split(',').map(|item| item.trim().to_owned()).collect()
    };
    let mut when = Vec::new();
    let gate = match strategy.name.as_str() {
        "default" => Gate::Everybody,
        "userWithId" => {
            when.push(json!({"attr": attribute("userId"), "op": "in", "values": listed("userIds"), "as": "text"}));
            Gate::Everybody
        }
        "remoteAddress" => {
            when.push(address::condition(&listed("IPs"), &strategy.place, import));
            Gate::Everybody
        }
        "applicationHostname" => {
            let names: Vec<String> = listed("hostNames").into_iter().filter(|name| !name.is_empty()).collect();
            let text = "the strategy compares the name of the machine that the SDK runs on; here the context must bring it \
                        as `hostname`, else nobody passes";
            import.note(&strategy.place, Weight::Differs, text);
            when.push(json!({"attr": "hostname", "op": "in", "values": names, "ignore_case": true}));
            Gate::Everybody
        }
        "gradualRolloutUserId" | "gradualRolloutSessionId" => {
            let by = if strategy.name == "gradualRolloutUserId" { attribute("userId") } else { json!("sessionId") };
            match (percentage(parameter("percentage")), parameter("groupId")) {
                (Some(0), _) => Gate::Nobody,
                (Some(percent), Some(group)) => Gate::Share { by, salt: group.to_owned(), percent: percent.min(100) },
                _ => nobody(strategy, "it lacks a groupId or a percentage that is a whole number", import),
            }
        }
        "gradualRolloutRandom" => match percentage(parameter("percentage")) {
            Some(0) => Gate::Nobody,
            Some(percent) if percent >= 100 => Gate::Everybody,
            Some(percent) => {
                let text = format!(
                    "{percent} % of calls, each call anew, cannot be carried over; nobody passes this strategy"
                );
                import.note(&strategy.place, Weight::LeftOut, text);
                Gate::Nobody
            }
            None => nobody(strategy, "its percentage is not a whole number", import),
        },
        "flexibleRollout" => {
            let stickiness = parameter("stickiness").unwrap_or("default");
            let percent = percentage(parameter("rollout"));
            match (percent, unit(stickiness)) {
                (None, _) => nobody(strategy, "its rollout is not a whole number", import),
                (Some(0), _) => Gate::Nobody,
                // Whoever lacks a unit is drawn by lot, and at 100 % the lot does not matter.
                (Some(100..), _) if matches!(stickiness, "default" | "random" | "") => Gate::Everybody,
                (Some(percent), None) => {
                    let text = format!(
                        "{percent} % of calls with random stickiness, each call anew, cannot be carried over; nobody passes this \
                         strategy. Give it a stickiness in Unleash first, or a rollout here"
                    );
                    import.note(&strategy.place, Weight::LeftOut, text);
                    Gate::Nobody
                }
                (Some(percent), Some(by)) => {
                    let salt = parameter("groupId").unwrap_or(toggle).to_owned();
                    Gate::Share { by, salt, percent: percent.min(100) }
                }
            }
        }
        custom => {
            let text = format!(
                "the strategy {custom:?} is code of your own; nobody passes it here, as in an SDK that does not have it. Say by \
                 constraints what it asks"
            );
            import.note(&strategy.place, Weight::LeftOut, text);
            Gate::Nobody
        }
    };
    when.push(constraints(&strategy.constraints, import)?);
    for id in &strategy.segments {
        match segments.get(id) {
            Some(Some(key)) => when.push(json!({"segment": key})),
            Some(None) => {
                let text = format!(
                    "the file does not say what segment {id} asks; import the document of /api/client/features"
                );
                return Err(Refusal::new(&strategy.place, text));
            }
            None => {
                let text = format!("segment {id} is not in the file; nobody passes the strategy, as in Unleash");
                import.note(&strategy.place, Weight::Info, text);
                return Ok(Compiled { when: Value::Bool(false), gate: Gate::Nobody });
            }
        }
    }
    Ok(Compiled { when: all(when), gate })
}

fn nobody(strategy: &Strategy<'_>, reason: &str, import: &mut Import) -> Gate {
    import.note(&strategy.place, Weight::Differs, format!("nobody passes the strategy {:?}: {reason}", strategy.name));
    Gate::Nobody
}

fn percentage(text: Option<&str>) -> Option<u64> {
    text?.trim().parse().ok()
}
