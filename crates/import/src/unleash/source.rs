//! The two documents that Unleash hands out, read into one form: what SDKs fetch (`/api/client/features`) and the
//! administration's export of one environment (`/api/admin/features-batch/export`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::part::{Part, Refusal, scalar};
use crate::{Import, ImportError, Weight};

/// Toggles in the order of the file, segments by id.
#[derive(Debug, Default)]
pub(super) struct Source<'a> {
    pub(super) toggles: Vec<Toggle<'a>>,
    pub(super) segments: BTreeMap<String, SegmentSource<'a>>,
}

#[derive(Debug)]
pub(super) struct Toggle<'a> {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) enabled: bool,
    pub(super) description: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) strategies: Vec<Strategy<'a>>,
    pub(super) variants: Vec<Variant>,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Debug)]
pub(super) struct Strategy<'a> {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) constraints: Vec<Part<'a>>,
    /// Ids.
    pub(super) segments: Vec<String>,
    /// None: the key is missing, and the strategy has no say in variants.
    pub(super) variants: Option<Vec<Variant>>,
}

#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) place: String,
    pub(super) name: String,
    pub(super) weight: u64,
    pub(super) stickiness: Option<String>,
    /// Type and value.
    pub(super) payload: Option<(String, String)>,
    /// Attribute and values.
    pub(super) overrides: Vec<(String, Vec<String>)>,
}

#[derive(Debug)]
pub(super) struct Dependency {
    pub(super) place: String,
    pub(super) feature: String,
    pub(super) enabled: bool,
    pub(super) variants: Vec<String>,
}

#[derive(Debug)]
pub(super) struct SegmentSource<'a> {
    pub(super) place: String,
    pub(super) name: Option<String>,
    /// None: the file does not say what the segment asks.
    pub(super) constraints: Option<Vec<Part<'a>>>,
}

impl<'a> Source<'a> {
    /// Reads either document. What is broken in one toggle leaves that toggle out, with a note.
    pub(super) fn read(document: &'a Value, import: &mut Import) -> Result<Source<'a>, ImportError> {
        let wrong = |refusal: Refusal| ImportError { place: refusal.place, reason: refusal.text };
        let whole = Part::of(document, "").map_err(wrong)?;
        if whole.value("features").is_none() {
            return Err(ImportError { place: "/features".into(), reason: "expected a list of features".into() });
        }
        let export = whole.value("featureStrategies").is_some() || whole.value("featureEnvironments").is_some();
        let features = whole.list("features").map_err(wrong)?;
        let mut source = Source { segments: segments(&whole).map_err(wrong)?, ..Source::default() };
        let rest = if export { Some(Rest::read(&whole).map_err(wrong)?) } else { None };
        for (n, feature) in features.iter().enumerate() {
            let place = format!("/features/{n}");
            let read = Part::of(feature, &place).and_then(|part| match &rest {
                None => toggle(&part),
                Some(rest) => rest.toggle(&part, import),
            });
            let toggle = match read {
                Ok(Some(toggle)) => toggle,
                Ok(None) => continue,
                Err(refusal) => {
                    let name = feature.get("name").and_then(Value::as_str).unwrap_or("");
                    refusal.tell(&format!("the toggle {name:?}"), import);
                    continue;
                }
            };
            if let Some(before) = source.toggles.iter().position(|t| t.name == toggle.name) {
                let text =
                    format!("the toggle {:?} is in the file twice; the later one counts, as in Unleash", toggle.name);
                import.note(&toggle.place, Weight::Info, text);
                source.toggles.remove(before);
            }
            source.toggles.push(toggle);
        }
        Ok(source)
    }
}

fn toggle<'a>(part: &Part<'a>) -> Result<Option<Toggle<'a>>, Refusal> {
    let mut toggle = bare(part)?;
    toggle.enabled = part.bool("enabled")?.unwrap_or(false);
    toggle.strategies = part.parts("strategies")?.iter().map(strategy).collect::<Result<_, _>>()?;
    toggle.variants = variants(part, "variants")?;
    toggle.dependencies = dependencies(part, "dependencies")?;
    Ok(Some(toggle))
}

fn bare<'a>(part: &Part<'a>) -> Result<Toggle<'a>, Refusal> {
    let name = part.text("name")?.filter(|name| !name.is_empty());
    Ok(Toggle {
        name: name.ok_or_else(|| Refusal::new(part.at("name"), "expected a name"))?.to_owned(),
        place: part.place.clone(),
        enabled: false,
        description: part.text("description")?.map(str::to_owned),
        kind: part.text("type")?.map(str::to_owned),
        strategies: Vec::new(),
        variants: Vec::new(),
        dependencies: Vec::new(),
    })
}

fn strategy<'a>(part: &Part<'a>) -> Result<Strategy<'a>, Refusal> {
    let name = match part.text("name")? {
        Some(name) => Some(name),
        None => part.text("strategyName")?,
    };
    let mut parameters = BTreeMap::new();
    if let Some(given) = part.part("parameters")? {
        for (key, value) in given.map {
            if let Some(text) = scalar(value) {
                parameters.insert(key.clone(), text);
            }
        }
    }
    Ok(Strategy {
        place: part.place.clone(),
        name: name.ok_or_else(|| Refusal::new(part.at("name"), "expected the name of a strategy"))?.to_owned(),
        parameters,
        constraints: part.parts("constraints")?,
        segments: part.texts("segments")?,
        variants: if part.value("variants").is_some() { Some(variants(part, "variants")?) } else { None },
    })
}

fn variants(part: &Part<'_>, name: &str) -> Result<Vec<Variant>, Refusal> {
    part.parts(name)?.iter().map(variant).collect()
}

fn variant(part: &Part<'_>) -> Result<Variant, Refusal> {
    let weight = part.number("weight")?.unwrap_or(0.0);
    if weight < 0.0 || weight.fract() != 0.0 || weight > 1e9 {
        return Err(Refusal::new(part.at("weight"), "expected a whole number of at least 0"));
    }
    let payload = match part.part("payload")? {
        None => None,
        Some(payload) => {
            let value = payload.value("value").map(|value| scalar(value).unwrap_or_else(|| value.to_string()));
            Some((payload.text("type")?.unwrap_or("string").to_owned(), value.unwrap_or_default()))
        }
    };
    let mut overrides = Vec::new();
    for item in part.parts("overrides")? {
        let attribute = item.text("contextName")?;
        let attribute = attribute.ok_or_else(|| Refusal::new(item.at("contextName"), "expected a name"))?;
        overrides.push((attribute.to_owned(), item.texts("values")?));
    }
    let name = part.text("name")?.ok_or_else(|| Refusal::new(part.at("name"), "expected the name of a variant"))?;
    Ok(Variant {
        place: part.place.clone(),
        name: name.to_owned(),
        weight: weight as u64,
        stickiness: part.text("stickiness")?.map(str::to_owned),
        payload,
        overrides,
    })
}

fn dependencies(part: &Part<'_>, name: &str) -> Result<Vec<Dependency>, Refusal> {
    part.parts(name)?
        .iter()
        .map(|item| {
            let feature = item.text("feature")?;
            Ok(Dependency {
                place: item.place.clone(),
                feature: feature.ok_or_else(|| Refusal::new(item.at("feature"), "expected a name"))?.to_owned(),
                enabled: item.bool("enabled")?.unwrap_or(true),
                variants: item.texts("variants")?,
            })
        })
        .collect()
}

fn segments<'a>(whole: &Part<'a>) -> Result<BTreeMap<String, SegmentSource<'a>>, Refusal> {
    let mut found = BTreeMap::new();
    for part in whole.parts("segments")? {
        let id = part.value("id").and_then(scalar);
        let id = id.ok_or_else(|| Refusal::new(part.at("id"), "expected a number"))?;
        let constraints = match part.value("constraints") {
            Some(_) => Some(part.parts("constraints")?),
            None => None,
        };
        let name = part.text("name")?.map(str::to_owned);
        found.insert(id, SegmentSource { place: part.place.clone(), name, constraints });
    }
    Ok(found)
}

/// What the export keeps beside its features.
struct Rest<'a> {
    strategies: Vec<Part<'a>>,
    environments: BTreeMap<String, Part<'a>>,
    /// Strategy id and segment id.
    links: Vec<(String, String)>,
    dependencies: Vec<(String, Dependency)>,
}

impl<'a> Rest<'a> {
    fn read(whole: &Part<'a>) -> Result<Rest<'a>, Refusal> {
        let mut environments = BTreeMap::new();
        let mut names = BTreeSet::new();
        for part in whole.parts("featureEnvironments")? {
            let feature = part.text("featureName")?;
            let feature = feature.ok_or_else(|| Refusal::new(part.at("featureName"), "expected a name"))?;
            names.extend(part.text("environment")?.map(str::to_owned));
            environments.insert(feature.to_owned(), part);
        }
        if names.len() > 1 {
            let names: Vec<String> = names.into_iter().collect();
            let text = format!("expected one environment, found {}; export one at a time", names.join(", "));
            return Err(Refusal::new("/featureEnvironments", text));
        }
        let mut links = Vec::new();
        for part in whole.parts("featureStrategySegments")? {
            let ids = part.value("featureStrategyId").and_then(scalar).zip(part.value("segmentId").and_then(scalar));
            links.push(ids.ok_or_else(|| Refusal::new(&part.place, "expected featureStrategyId and segmentId"))?);
        }
        let mut dependencies = Vec::new();
        for part in whole.parts("dependencies")? {
            let child = part.text("feature")?;
            let child = child.ok_or_else(|| Refusal::new(part.at("feature"), "expected a name"))?;
            for dependency in self::dependencies(&part, "dependencies")? {
                dependencies.push((child.to_owned(), dependency));
            }
        }
        Ok(Rest { strategies: whole.parts("featureStrategies")?, environments, links, dependencies })
    }

    fn toggle(&self, part: &Part<'a>, import: &mut Import) -> Result<Option<Toggle<'a>>, Refusal> {
        let mut toggle = bare(part)?;
        if part.bool("archived")?.unwrap_or(false) {
            import.note(
                &part.place,
                Weight::Info,
                format!("the toggle {:?} is archived and not imported", toggle.name),
            );
            return Ok(None);
        }
        let Some(environment) = self.environments.get(&toggle.name) else {
            return Err(Refusal::new(&part.place, "featureEnvironments does not say whether it is enabled"));
        };
        toggle.enabled = environment.bool("enabled")?.unwrap_or(false);
        toggle.variants = variants(environment, "variants")?;
        if toggle.variants.is_empty() {
            toggle.variants = variants(part, "variants")?;
        }
        let mut listed = Vec::new();
        let mut disabled = 0;
        for part in &self.strategies {
            if part.text("featureName")? != Some(toggle.name.as_str()) {
                continue;
            }
            if part.bool("disabled")?.unwrap_or(false) {
                disabled += 1;
                continue;
            }
            let mut strategy = strategy(part)?;
            let id = part.value("id").and_then(scalar);
            for (_, segment) in self.links.iter().filter(|(strategy, _)| Some(strategy) == id.as_ref()) {
                if !strategy.segments.contains(segment) {
                    strategy.segments.push(segment.clone());
                }
            }
            listed.push((part.number("sortOrder")?.unwrap_or(0.0), strategy));
        }
        if listed.is_empty() && disabled > 0 && toggle.enabled {
            let text = "it is enabled, but each of its strategies is disabled; Unleash switches such a toggle off when the \
                        last strategy is disabled, so this export contradicts itself";
            return Err(Refusal::new(&part.place, text));
        }
        listed.sort_by(|a, b| a.0.total_cmp(&b.0));
        toggle.strategies = listed.into_iter().map(|(_, strategy)| strategy).collect();
        for (child, dependency) in &self.dependencies {
            if *child == toggle.name {
                toggle.dependencies.push(Dependency {
                    place: dependency.place.clone(),
                    feature: dependency.feature.clone(),
                    enabled: dependency.enabled,
                    variants: dependency.variants.clone(),
                });
            }
        }
        Ok(Some(toggle))
    }
}
