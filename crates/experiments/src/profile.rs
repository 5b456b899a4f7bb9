//! A rollout profile: how changes are watched that become a rollout by themselves. It is a spec without a name and a treatment;
//! a flag says in its metadata which one it goes by.

use flags::FlagChange;
use serde_json::{Map, Value, json};
use vocab::{Millis, Name, Share};

use crate::spec::{Spec, Stage, Treatment};

/// Shares of the later stages, as far as the arms leave room.
const LADDER: [u32; 5] = [10_000, 50_000, 100_000, 250_000, 500_000];
/// How long a stage lasts at least, if the profile does not say.
const STAGE_MIN: &str = "5m";

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Everything but name, treatment and stages.
    template: Spec,
    /// Its own stages; without, they follow from the risk of the flag.
    stages: Option<Vec<Stage>>,
    stage_min: Millis,
    default: bool,
    definition: Value,
}

impl Profile {
    /// Reads a definition: keys of a spec, without `name`, `treatment`, `hypothesis` and `on_success`; `stage_min`; and `default`,
    /// for the profile of flags that name none.
    pub fn read(definition: &Value) -> Result<Profile, String> {
        let Value::Object(given) = definition else { return Err("expected an object".to_owned()) };
        let mut spec: Map<String, Value> = given.clone();
        for (name, why) in [
            ("name", "is that of the profile's address"),
            ("treatment", "is the change that somebody makes"),
            ("hypothesis", "is the reason that somebody gives"),
            ("on_success", "is always promote"),
        ] {
            if spec.contains_key(name) {
                return Err(format!("{name}: {why}; leave it out"));
            }
        }
        let default = match spec.remove("default") {
            None => false,
            Some(Value::Bool(default)) => default,
            Some(_) => return Err("default: expected true or false".to_owned()),
        };
        let stage_min = spec.remove("stage_min").unwrap_or_else(|| STAGE_MIN.into());
        let stage_min: Millis = serde_json::from_value(stage_min).map_err(|error| format!("stage_min: {error}"))?;
        let own_stages = spec.contains_key("stages");
        spec.insert("name".to_owned(), "profile".into());
        spec.insert("treatment".to_owned(), json!({"flags": [{"delete": "any"}]}));
        spec.insert("on_success".to_owned(), "promote".into());
        spec.entry("stages").or_insert_with(|| json!([{"share": 0.01, "min": 0}]));
        let template: Spec = serde_json::from_value(Value::Object(spec)).map_err(|error| error.to_string())?;
        let findings: Vec<String> = template.findings().iter().map(ToString::to_string).collect();
        if !findings.is_empty() {
            return Err(findings.join("; "));
        }
        // The first step of a flag's risk may come before them.
        if template.stages.len() >= 20 {
            return Err("stages: expected at most 19".to_owned());
        }
        let stages = own_stages.then(|| template.stages.clone());
        Ok(Profile { template, stages, stage_min, default, definition: definition.clone() })
    }

    /// As it was given.
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// Whether it is for flags that name none.
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// Who answers for what is rolled out by it.
    pub fn owner(&self) -> &str {
        &self.template.owner
    }

    /// The stages of a change that may begin with a share of `first`.
    pub fn stages(&self, first: Share) -> Vec<Stage> {
        let most = Share::WHOLE / self.template.baseline_ratio.saturating_add(1);
        let stage = |ppm: u32, min: Millis| Share::from_ppm(ppm.min(most)).map(|share| Stage { share, min });
        let begin = stage(first.ppm(), self.stage_min);
        match &self.stages {
            Some(own) if own.first().is_some_and(|own| own.share <= first) => own.clone(),
            Some(own) => begin.into_iter().chain(own.iter().cloned()).collect(),
            None => {
                let more = LADDER.into_iter().filter(|ppm| *ppm > first.ppm() && *ppm <= most);
                begin.into_iter().chain(more.filter_map(|ppm| stage(ppm, self.stage_min))).collect()
            }
        }
    }

    /// The rollout of a change.
    pub fn spec(&self, name: Name, owner: &str, why: &str, first: Share, changes: Vec<FlagChange>) -> Spec {
        let owner = if owner.is_empty() { &self.template.owner } else { owner };
        Spec {
            name,
            owner: owner.chars().take(50).collect(),
            hypothesis: why.chars().take(1_000).collect(),
            stages: self.stages(first),
            treatment: Treatment::Flags(changes),
            ..self.template.clone()
        }
    }
}
