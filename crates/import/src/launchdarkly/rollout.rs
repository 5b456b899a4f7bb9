//! What a rule or the fallthrough serves: one variation, or a percentage rollout or an experiment.
//!
//! LaunchDarkly's place of a unit is the first 15 hex digits of SHA-1(`flagKey.salt.unit`), or of SHA-1(`seed.unit`), over 16¹⁵-1.
//! A unit that is missing, or is neither text nor a whole number, has place 0. Weights are of 100,000; whoever is behind them all
//! gets the last variation.

use serde_json::{Value, json};

use super::fields::{Left, Part};
use super::form::{any, exists, not};
use super::reference::{self, Reference, attribute, key_of};

/// LaunchDarkly's whole.
const WHOLE: i64 = 100_000;

/// What is served, and to whom something else.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Serving {
    /// Rules in front: a condition besides the rule's own, and what is served then.
    pub(super) before: Vec<(Value, Value)>,
    pub(super) serve: Value,
    /// What a person should know, with the place.
    pub(super) malformed: Vec<(String, String)>,
    /// Whether it is an experiment.
    pub(super) experiment: bool,
}

/// A flag as rollouts see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variations<'a> {
    pub(super) key: &'a str,
    pub(super) salt: &'a str,
    /// Variant names; none where the variation has no value.
    pub(super) names: &'a [Option<String>],
}

impl Variations<'_> {
    /// The variant at a place, null if it has no value, and what is wrong if there is no such variation.
    pub(super) fn name(&self, index: i64) -> Result<Option<&str>, String> {
        match usize::try_from(index).ok().and_then(|index| self.names.get(index)) {
            Some(name) => Ok(name.as_deref()),
            None => Err(format!("there is no variation {index}: clients get their code default, as with LaunchDarkly")),
        }
    }

    /// The variant for a rule, with a remark if there is none.
    fn serve(&self, index: i64, place: &str, serving: &mut Serving) -> Value {
        match self.name(index) {
            Ok(name) => json!(name),
            Err(wrong) => {
                serving.malformed.push((place.to_owned(), wrong));
                Value::Null
            }
        }
    }

    pub(super) fn read(&self, part: &Part<'_>) -> Result<Serving, Left> {
        let mut serving = Serving::default();
        if let Some(index) = part.whole("variation")? {
            serving.serve = self.serve(index, &part.at("variation"), &mut serving);
            return Ok(serving);
        }
        let rollout = part.part("rollout")?;
        let weighted = rollout.as_ref().map_or(Ok(Vec::new()), |rollout| rollout.parts("variations"))?;
        let Some(rollout) = rollout.filter(|_| !weighted.is_empty()) else {
            let text = "neither a variation nor a rollout: clients get their code default, as with LaunchDarkly";
            serving.malformed.push((part.place.clone(), text.to_owned()));
            return Ok(serving);
        };
        self.rollout(&rollout, &weighted, &mut serving)?;
        Ok(serving)
    }

    fn rollout(&self, rollout: &Part<'_>, weighted: &[Part<'_>], serving: &mut Serving) -> Result<(), Left> {
        // The REST API says by an allocation what SDKs are told by the kind.
        serving.experiment =
            rollout.text("kind")? == Some("experiment") || rollout.part("experimentAllocation")?.is_some();
        let named_kind = rollout.text("contextKind")?.filter(|kind| !kind.is_empty());
        let kind = named_kind.unwrap_or("user");
        let mut parts = Vec::new();
        let mut sum = 0;
        for part in weighted {
            let weight = part.whole("weight")?.unwrap_or_default();
            if !(0..=i64::from(u32::MAX)).contains(&weight) {
                return Err(Left::new(part.at("weight"), "a weight below 0 or out of all measure"));
            }
            let index = part.whole("variation")?.unwrap_or_default();
            let name = self.serve(index, &part.at("variation"), serving);
            // Nobody is behind the whole but by rounding, and who is, gets the variation that reached beyond it.
            let kept = weight.min(WHOLE - sum);
            sum += kept;
            parts.push((name, kept, sum));
            if kept < weight {
                break;
            }
        }
        let first = parts.iter().find(|(_, weight, _)| *weight > 0).or(parts.last()).map(|(name, ..)| name.clone());
        let first = first.unwrap_or_default();
        let by = match rollout.text("bucketBy")?.filter(|by| !by.is_empty() && !serving.experiment) {
            None => Reference::Key,
            Some(by) => Reference::parse(by, named_kind.is_none()),
        };
        let attr = match by {
            Reference::Key => key_of(kind),
            Reference::Path(steps) => {
                let Some(no_place) = reference::has_no_place(kind, &steps) else {
                    return Err(Left::new(rollout.at("bucketBy"), "splits by an attribute with a dot in its name"));
                };
                serving.before.push((no_place, first.clone()));
                attribute(kind, &steps)
            }
            Reference::Invalid => {
                let text = "bucketBy is no attribute reference: clients get their code default, as with LaunchDarkly";
                serving.malformed.push((rollout.at("bucketBy"), text.to_owned()));
                return Ok(());
            }
            // Neither text nor a whole number.
            Reference::Kind | Reference::Anonymous | Reference::Nothing => {
                serving.serve = first;
                return Ok(());
            }
        };
        let salt = match rollout.whole("seed")? {
            Some(seed) => seed.to_string(),
            None => format!("{}.{}", self.key, self.salt),
        };
        if sum == 0 {
            // Nobody's place is below 0.
            serving.before.clear();
            serving.serve = parts.last().map(|(name, ..)| name.clone()).unwrap_or_default();
            return Ok(());
        }
        let last = parts.len() - 1;
        let Some(stand_in) = parts.iter().find_map(|(name, ..)| name.as_str()).map(str::to_owned) else {
            serving.before.clear();
            return Ok(());
        };
        let mut from = 0;
        let mut reached = false;
        let mut without_value = Vec::new();
        let mut weights = Vec::new();
        for (n, (name, weight, end)) in parts.iter().enumerate() {
            let below = if n == last { WHOLE } else { *end };
            if name.is_null() && below > from {
                without_value.push(json!([from, below]));
                if !reached {
                    serving.before.push((not(exists(&attr)), Value::Null));
                }
            }
            reached |= *weight > 0;
            weights.push(json!([name.as_str().unwrap_or(&stand_in), weight]));
            from = *end;
        }
        if !without_value.is_empty() {
            let bucket = json!({"bucket": {"ranges": without_value, "total": WHOLE, "by": attr, "salt": salt,
                "bucketing": "launchdarkly"}});
            // A missing unit was dealt with above.
            serving.before.push((any([bucket]), Value::Null));
        }
        let mut split = json!({"weights": weights, "total": WHOLE, "salt": salt, "bucketing": "launchdarkly"});
        if attr != json!("targetingKey") {
            split["by"] = attr;
        }
        serving.serve = json!({ "split": split });
        Ok(())
    }
}
