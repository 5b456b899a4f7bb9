//! A delegated control point: what somebody who is no engineer may do with one flag, and how that becomes a change of the flag.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vocab::{Share, Timestamp};

use flags::{Flag, FlagChange};

use crate::state::{Refusal, refuse};

const MINUTES_OF_DAY: i64 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// How often a place in hash space is cut: shares are parts per million.
const TOTAL: u32 = Share::WHOLE;

/// The bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// Which flag; it is in our dialect.
    pub flag: String,
    /// Variants that may be served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
    /// Values that may be served, beyond the flag's variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Values>,
    /// Only subjects of this segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// To at most this share of them.
    #[serde(default = "all")]
    pub largest_share: Share,
    /// Only at these times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
}

/// Values that may be served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Values {
    /// Numbers from the first to the second.
    Between(f64, f64),
    /// One of these.
    Any(Vec<Value>),
}

/// Times of the week.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hours {
    /// `09:00`
    pub from: String,
    /// `17:30`; before `from` it is that of the next day.
    pub to: String,
    /// `mon` to `sun`; none is every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<String>,
    /// East of Greenwich, in minutes.
    #[serde(default)]
    pub utc_offset_minutes: i64,
}

/// What the holder wants served.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// One of the variants.
    #[serde(default)]
    pub variant: Option<String>,
    /// Or a value.
    #[serde(default)]
    pub value: Option<Value>,
    /// To this share of the audience; none is the largest.
    #[serde(default)]
    pub share: Option<Share>,
}

fn all() -> Share {
    Share::ALL
}

fn minutes(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str, below: i64| {
        let number: i64 = (text.len() == 2).then(|| text.parse().ok())??;
        (0..below).contains(&number).then_some(number)
    };
    Some(two(hours, 24)? * 60 + two(minutes, 60)?)
}

impl Hours {
    fn is_sound(&self) -> bool {
        let days = self.days.iter().all(|day| DAYS.contains(&day.as_str()));
        let offset = self.utc_offset_minutes.abs() <= 14 * 60;
        let span = minutes(&self.from).zip(minutes(&self.to)).is_some_and(|(from, to)| from != to);
        days && offset && span
    }

    fn holds(&self, now: Timestamp) -> bool {
        let (Some(from), Some(to)) = (minutes(&self.from), minutes(&self.to)) else { return false };
        let local = now.micros().div_euclid(60_000_000) + self.utc_offset_minutes;
        let (mut day, time) = (local.div_euclid(MINUTES_OF_DAY), local.rem_euclid(MINUTES_OF_DAY));
        let inside = if from < to {
            (from..to).contains(&time)
        } else if time < to {
            // It began yesterday.
            day -= 1;
            true
        } else {
            time >= from
        };
        // 1970 began on a Thursday.
        let name = DAYS[(day + 3).rem_euclid(7) as usize];
        inside && (self.days.is_empty() || self.days.iter().any(|day| day == name))
    }

    fn words(&self) -> String {
        let days = if self.days.is_empty() { "every day".to_owned() } else { self.days.join(", ") };
        let offset = self.utc_offset_minutes;
        let sign = if offset < 0 { '-' } else { '+' };
        format!("{days} {} to {} (UTC{sign}{:02}:{:02})", self.from, self.to, offset.abs() / 60, offset.abs() % 60)
    }
}

impl Delegation {
    /// What is wrong with it for a flag, if anything is.
    pub fn findings(&self, flag: &Flag, has_segment: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        let wrong = |detail: String| refuse("invalid-delegation", detail, "see docs/reference/flags.md, delegation");
        if !flag.is_ours() {
            return wrong(format!("flag {:?} is in flagd's dialect: write it in Seaworthy's first", flag.key()));
        }
        if self.variants.is_empty() && self.values.is_none() {
            return wrong("it allows nothing: name variants or values".to_owned());
        }
        let there = |name: &&String| !flag.variants().iter().any(|(variant, _)| variant == *name);
        if let Some(missing) = self.variants.iter().find(there) {
            return wrong(format!("flag {:?} has no variant {missing:?}", flag.key()));
        }
        match &self.values {
            Some(Values::Between(low, high)) if low > high => {
                return wrong(format!("values: {low} is above {high}"));
            }
            Some(Values::Between(..)) if !flag.variants().iter().all(|(_, value)| value.is_number()) => {
                return wrong(format!("values: the variants of {:?} are no numbers", flag.key()));
            }
            Some(Values::Any(list)) if list.is_empty() || list.len() > 1_000 => {
                return wrong("values: expected 1 to 1,000".to_owned());
            }
            _ => {}
        }
        if let Some(segment) = self.audience.as_ref().filter(|segment| !has_segment(segment)) {
            return wrong(format!("there is no segment {segment:?}"));
        }
        if self.largest_share == Share::NONE {
            return wrong("largest_share: expected more than 0".to_owned());
        }
        if self.hours.as_ref().is_some_and(|hours| !hours.is_sound()) {
            return wrong("hours: expected from and to such as 09:00, and days from mon to sun".to_owned());
        }
        Ok(())
    }

    fn rule_id(holder: &str) -> String {
        format!("delegation {holder}")
    }

    /// What the holder has served now: his rule, with the value that it gives.
    pub fn served(flag: &Flag, holder: &str) -> Option<Value> {
        let rules = flag.definition().get("rules")?.as_array()?;
        let mut rule = rules.iter().find(|rule| rule["id"] == Self::rule_id(holder).as_str())?.clone();
        let variant = rule["serve"].as_str().unwrap_or_default();
        rule["value"] = flag.definition()["variants"].get(variant).cloned().unwrap_or_default();
        Some(rule)
    }

    /// The change that a wish comes to, or takes back what the holder had served; `holder` is the id of his token.
    pub fn change(
        &self,
        flag: &Flag,
        holder: &str,
        wish: Option<&Wish>,
        now: Timestamp,
    ) -> Result<FlagChange, Refusal> {
        let outside = |detail: String| refuse("outside-delegation", detail, "stay within it, or ask whoever delegated");
        let definition = flag.definition();
        // Back to what the owner says is allowed at any time.
        if let (Some(hours), Some(_)) = (self.hours.as_ref().filter(|hours| !hours.holds(now)), wish) {
            return outside(format!("it counts {}", hours.words()));
        }
        if !flag.is_ours() || definition.get("schedule").is_some() {
            let detail = format!("flag {:?} has a schedule, or is in another dialect by now", flag.key());
            return refuse("not-delegable", detail, "ask whoever delegated");
        }
        let id = Self::rule_id(holder);
        let mut changed = definition.as_object().cloned().unwrap_or_default();
        let mut rules: Vec<Value> = definition["rules"].as_array().cloned().unwrap_or_default();
        rules.retain(|rule| rule["id"] != id.as_str());
        let mut variants: Map<String, Value> = definition["variants"].as_object().cloned().unwrap_or_default();
        let own_variant = id.replace(' ', "-");
        variants.remove(&own_variant);
        // A list that was made for the rule goes with it.
        let mut definition = definition.clone();
        if rules.is_empty() && wish.is_none() {
            definition.as_object_mut().and_then(|map| map.remove("rules"));
        }
        if let Some(wish) = wish {
            let share = wish.share.unwrap_or(self.largest_share);
            if share > self.largest_share || share == Share::NONE {
                return outside(format!("{share} is asked for, {} is allowed", self.largest_share));
            }
            let serve = match (&wish.variant, &wish.value) {
                (Some(variant), None) if self.variants.contains(variant) => variant.clone(),
                (Some(variant), None) => {
                    return outside(format!("variant {variant:?} is not one of {}", self.variants.join(", ")));
                }
                (None, Some(value)) if self.allows(value) => {
                    variants.insert(own_variant.clone(), value.clone());
                    own_variant
                }
                (None, Some(value)) => return outside(format!("the value {value} is not allowed")),
                _ => return refuse("invalid-body", "expected a variant or a value", "send one of them"),
            };
            let mut conditions = Vec::new();
            conditions.extend(self.audience.iter().map(|segment| json!({"segment": segment})));
            if share < Share::ALL {
                let salt = format!("{}/{id}", flag.key());
                conditions.push(json!({"bucket": {"ranges": [[0, share.ppm()]], "total": TOTAL, "salt": salt}}));
            }
            let when = match conditions.len() {
                0 => Value::Bool(true),
                1 => conditions.remove(0),
                _ => json!({"all": conditions}),
            };
            rules.insert(0, json!({"id": id, "name": "delegated", "when": when, "serve": serve}));
        }
        changed.insert("variants".to_owned(), Value::Object(variants));
        if rules.is_empty() && definition.get("rules").is_none() {
            changed.remove("rules");
        } else {
            changed.insert("rules".to_owned(), Value::Array(rules));
        }
        Ok(FlagChange::Put { key: flag.key().to_owned(), definition: Value::Object(changed) })
    }

    fn allows(&self, value: &Value) -> bool {
        match &self.values {
            None => false,
            Some(Values::Between(low, high)) => value.as_f64().is_some_and(|number| number >= *low && number <= *high),
            Some(Values::Any(list)) => list.contains(value),
        }
    }
}
