//! Flipt's constraints as conditions.
//!
//! Flipt's context is text by name, and an absent entry is the empty text. Apart from the questions whether something is there, the
//! empty text compares with nothing. Values that cannot be read make a constraint false.

use serde_json::{Value, json};
use vocab::Timestamp;

use crate::unleash::part::{Part, Refusal, all, any, flat_attribute, literal, not, scalar};
use crate::{Import, Weight};

/// At least one character.
const SOME: &str = "(?s).";

/// What a constraint asks.
pub(super) fn condition(part: &Part<'_>, import: &mut Import) -> Result<Value, Refusal> {
    let kind = part.text("type")?.unwrap_or("");
    let property = part.value("property").and_then(scalar).unwrap_or_default();
    let operator = part.text("operator")?.unwrap_or("").to_lowercase();
    let value = part.value("value").and_then(scalar).unwrap_or_default();
    let attribute =
        if kind == "ENTITY_ID_COMPARISON_TYPE" { "targetingKey".to_owned() } else { flat_attribute(&property) };
    let subject = Subject { attribute, property };
    let present = matches!(operator.as_str(), "present" | "notempty");
    let found = match kind {
        "STRING_COMPARISON_TYPE" | "ENTITY_ID_COMPARISON_TYPE" if matches!(operator.as_str(), "empty" | "notempty") => {
            Some(subject.present(present))
        }
        "NUMBER_COMPARISON_TYPE" | "BOOLEAN_COMPARISON_TYPE" | "DATETIME_COMPARISON_TYPE"
            if matches!(operator.as_str(), "present" | "notpresent") =>
        {
            Some(subject.present(present))
        }
        "STRING_COMPARISON_TYPE" | "ENTITY_ID_COMPARISON_TYPE" => subject.string(&operator, &value),
        "NUMBER_COMPARISON_TYPE" => subject.number(&operator, &value),
        "BOOLEAN_COMPARISON_TYPE" => subject.boolean(&operator),
        "DATETIME_COMPARISON_TYPE" => subject.datetime(&operator, &value),
        other => return Err(Refusal::new(part.at("type"), format!("{other:?} is not a type of comparison"))),
    };
    Ok(found.unwrap_or_else(|| {
        let text = format!("the operator {operator:?} with the value {value:?} is never true, as in Flipt");
        import.note(&part.place, Weight::Info, text);
        Value::Bool(false)
    }))
}

/// The attribute in our dialect, and its name in JSONLogic.
struct Subject {
    attribute: String,
    property: String,
}

impl Subject {
    fn matches(&self, pattern: &str) -> Value {
        json!({"attr": self.attribute, "op": "matches", "values": [pattern], "as": "text"})
    }

    fn within(&self, values: &[&str]) -> Value {
        json!({"attr": self.attribute, "op": "in", "values": values, "as": "text"})
    }

    fn present(&self, wanted: bool) -> Value {
        let present = self.matches("\\S");
        if wanted { present } else { not(present) }
    }

    fn string(&self, operator: &str, value: &str) -> Option<Value> {
        let but = |condition: Value| all(vec![self.matches(SOME), not(condition)]);
        let trimmed = value.trim();
        Some(match operator {
            "eq" if value.is_empty() => Value::Bool(false),
            "eq" => self.within(&[value]),
            "neq" => but(self.within(&[value])),
            // The attribute is compared without the blanks around it.
            "prefix" if value.is_empty() => self.matches(SOME),
            "prefix" if value.trim_start() != value => Value::Bool(false),
            "prefix" if trimmed == value => self.matches(&format!("^\\s*{}", literal(value))),
            "prefix" => self.matches(&format!("(?s)^\\s*{}.*\\S", literal(value))),
            "suffix" if value.is_empty() => self.matches(SOME),
            "suffix" if value.trim_end() != value => Value::Bool(false),
            "suffix" if trimmed == value => self.matches(&format!("{}\\s*$", literal(value))),
            "suffix" => self.matches(&format!("(?s)\\S.*{}\\s*$", literal(value))),
            "contains" => all(vec![
                self.matches(SOME),
                json!({"attr": self.attribute, "op": "contains", "values": [value], "as": "text"}),
            ]),
            "notcontains" => but(json!({"attr": self.attribute, "op": "contains", "values": [value], "as": "text"})),
            "isoneof" | "isnotoneof" => {
                let listed: Vec<String> = serde_json::from_str(value).ok()?;
                let listed: Vec<&str> = listed.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
                if operator == "isoneof" { self.within(&listed) } else { but(self.within(&listed)) }
            }
            _ => return None,
        })
    }

    fn number(&self, operator: &str, value: &str) -> Option<Value> {
        let is = |op: &str, values: &[f64]| json!({"attr": self.attribute, "op": op, "values": values, "as": "number"});
        if matches!(operator, "isoneof" | "isnotoneof") {
            let listed: Vec<f64> = serde_json::from_str(value).ok()?;
            let within = is("in", &listed);
            let a_number = any(vec![is("lt", &[0.0]), is("gte", &[0.0])]);
            return Some(if operator == "isoneof" { within } else { all(vec![a_number, not(within)]) });
        }
        let number = value.parse::<f64>().ok().filter(|n| n.is_finite())?;
        Some(match operator {
            "eq" => is("in", &[number]),
            "neq" => any(vec![is("lt", &[number]), is("gt", &[number])]),
            "lt" | "lte" | "gt" | "gte" => is(operator, &[number]),
            _ => return None,
        })
    }

    fn boolean(&self, operator: &str) -> Option<Value> {
        match operator {
            "true" => Some(self.within(&["1", "t", "T", "true", "TRUE", "True"])),
            "false" => Some(self.within(&["0", "f", "F", "false", "FALSE", "False"])),
            _ => None,
        }
    }

    /// Times are instants or mere dates, which begin at midnight, UTC. A date as attribute is compared as text.
    fn datetime(&self, operator: &str, value: &str) -> Option<Value> {
        let time = Timestamp::parse(value).or_else(|_| Timestamp::parse(&format!("{value}T00:00:00Z"))).ok()?;
        let nanos = time.nanos();
        let is = |op: &str, nanos: i64| {
            let at = Timestamp::from_nanos(nanos).to_string();
            json!({"attr": self.attribute, "op": op, "values": [at]})
        };
        let date: String = time.to_string().chars().take(10).collect();
        let midnight = nanos.rem_euclid(86_400_000_000_000) == 0;
        let (instant, of_date) = match operator {
            "eq" => (all(vec![is("after", nanos - 1), is("before", nanos + 1)]), midnight.then_some("==")),
            "neq" => (any(vec![is("before", nanos), is("after", nanos)]), Some(if midnight { "!=" } else { "any" })),
            "lt" => (is("before", nanos), Some(if midnight { "<" } else { "<=" })),
            "lte" => (is("before", nanos + 1), Some("<=")),
            "gt" => (is("after", nanos), Some(">")),
            "gte" => (is("after", nanos - 1), Some(if midnight { ">=" } else { ">" })),
            _ => return None,
        };
        let is_date = self.matches("^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$");
        let compared = match of_date {
            None => return Some(instant),
            Some("any") => is_date,
            Some(sign) => all(vec![is_date, json!({"logic": {sign: [{"var": self.property}, date]}})]),
        };
        Some(any(vec![instant, compared]))
    }
}
