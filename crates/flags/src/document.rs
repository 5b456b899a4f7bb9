//! Flag documents in flagd's JSON form: read, checked and compiled once. Every fault is a finding that names its place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::bucket::Bucketing;
use crate::clock::Clock;
use crate::logic::Expr;

/// The longest document that is read.
pub const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Finding {
    /// A JSON pointer into the document, or a line and column.
    pub place: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, reason: impl Into<String>) -> Finding {
        Finding { place: place.into(), reason: reason.into() }
    }
}

/// A compiled flag.
#[derive(Clone, Debug)]
pub struct Flag {
    pub(crate) key: String,
    pub(crate) enabled: bool,
    /// In the order of their names.
    pub(crate) variants: Vec<(String, Value)>,
    /// Place of the default variant; none is the code default.
    pub(crate) default: Option<usize>,
    pub(crate) targeting: Option<Expr>,
    pub(crate) bucketing: Bucketing,
    /// The flag's own metadata over the set's.
    pub(crate) metadata: Map<String, Value>,
    clock: Clock,
    definition: Arc<Value>,
}

/// Compiled flags by key.
#[derive(Clone, Debug, Default)]
pub struct FlagSet {
    flags: HashMap<String, Arc<Flag>>,
    evaluators: Map<String, Value>,
    metadata: Map<String, Value>,
}

impl FlagSet {
    /// Reads a whole flagd document: `{"flags": {…}, "$evaluators": {…}, "metadata": {…}}`. All findings at once.
    pub fn parse(text: &str) -> Result<FlagSet, Vec<Finding>> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(vec![Finding::new("", format!("longer than {DOCUMENT_BYTES_MAX} bytes"))]);
        }
        let document: Value = serde_json::from_str(text).map_err(|error| {
            vec![Finding::new(format!("line {} column {}", error.line(), error.column()), error.to_string())]
        })?;
        let metadata = document.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        let evaluators = document.get("$evaluators").and_then(Value::as_object).cloned().unwrap_or_default();
        let definitions: Vec<(&str, String, &Value)> = match document.get("flags") {
            Some(Value::Object(map)) => {
                map.iter().map(|(key, flag)| (key.as_str(), format!("/flags/{key}"), flag)).collect()
            }
            // flagd's other form: a list of flags that carry their keys. Of two with one key the later counts.
            Some(Value::Array(list)) => list
                .iter()
                .enumerate()
                .map(|(n, flag)| {
                    (flag.get("key").and_then(Value::as_str).unwrap_or_default(), format!("/flags/{n}"), flag)
                })
                .collect(),
            _ => return Err(vec![Finding::new("/flags", "expected an object of flags by key")]),
        };
        let mut set = FlagSet { flags: HashMap::new(), evaluators, metadata };
        let mut findings = Vec::new();
        for (key, place, definition) in definitions {
            match Flag::compile(key, definition, &set.evaluators, &set.metadata) {
                Ok(flag) => {
                    set.flags.insert(key.to_owned(), Arc::new(flag));
                }
                Err(found) => {
                    findings.extend(found.into_iter().map(|f| Finding::new(format!("{place}{}", f.place), f.reason)));
                }
            }
        }
        if findings.is_empty() { Ok(set) } else { Err(findings) }
    }

    /// A set of flags compiled one by one.
    pub fn of(flags: impl IntoIterator<Item = Arc<Flag>>, metadata: Map<String, Value>) -> FlagSet {
        let flags = flags.into_iter().map(|flag| (flag.key.clone(), flag)).collect();
        FlagSet { flags, evaluators: Map::new(), metadata }
    }

    /// A flag's definition as it stands alone: shared rules written out, the set's metadata in it.
    pub fn portable(&self, key: &str) -> Option<Value> {
        let flag = self.flags.get(key)?;
        let mut definition = flag.definition().clone();
        if !self.evaluators.is_empty() {
            if let Some(targeting) = definition.get_mut("targeting") {
                write_out(targeting, &self.evaluators);
            }
        }
        if let (false, Some(object)) = (flag.metadata().is_empty(), definition.as_object_mut()) {
            object.insert("metadata".to_owned(), Value::Object(flag.metadata().clone()));
        }
        Some(definition)
    }

    /// The flag with this key.
    pub fn flag(&self, key: &str) -> Option<&Arc<Flag>> {
        self.flags.get(key)
    }

    /// All flags, by key.
    pub fn flags(&self) -> BTreeMap<&str, &Arc<Flag>> {
        self.flags.iter().map(|(key, flag)| (key.as_str(), flag)).collect()
    }

    /// The set's metadata.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }
}

/// Puts shared rules in place of the references to them. Compiling has bounded depth and length before.
fn write_out(rule: &mut Value, evaluators: &Map<String, Value>) {
    let shared = rule
        .as_object()
        .filter(|object| object.len() == 1)
        .and_then(|object| object.get("$ref"))
        .and_then(|name| evaluators.get(name.as_str()?));
    if let Some(shared) = shared {
        *rule = shared.clone();
    }
    match rule {
        Value::Object(map) => map.values_mut().for_each(|v| write_out(v, evaluators)),
        Value::Array(list) => list.iter_mut().for_each(|v| write_out(v, evaluators)),
        _ => {}
    }
}

fn same_kind(a: &Value, b: &Value) -> bool {
    matches!(
        (a, b),
        (Value::Bool(_), Value::Bool(_))
            | (Value::Number(_), Value::Number(_))
            | (Value::String(_), Value::String(_))
            | (Value::Object(_) | Value::Array(_), Value::Object(_) | Value::Array(_))
    )
}

impl Flag {
    /// Compiles one definition; `$ref` names one of `evaluators`. Findings' places are relative to the definition.
    pub fn compile(
        key: &str,
        definition: &Value,
        evaluators: &Map<String, Value>,
        set_metadata: &Map<String, Value>,
    ) -> Result<Flag, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut find = |place: &str, reason: String| findings.push(Finding::new(place, reason));
        if key.is_empty() || key.len() > 256 {
            find("", "a flag key has 1 to 256 bytes".into());
        }
        let enabled = match definition.get("state").and_then(Value::as_str) {
            Some("ENABLED") => true,
            Some("DISABLED") => false,
            _ => {
                find("/state", "expected ENABLED or DISABLED".into());
                false
            }
        };
        let variants: Vec<(String, Value)> = match definition.get("variants").and_then(Value::as_object) {
            Some(map) if !map.is_empty() => map.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            _ => {
                find("/variants", "expected at least one variant".into());
                Vec::new()
            }
        };
        if let Some((name, value)) = variants.iter().find(|(_, v)| v.is_null()) {
            find(&format!("/variants/{name}"), format!("{value} is no value: expected bool, string, number or object"));
        } else if let Some((name, _)) = variants.iter().find(|(_, v)| !same_kind(v, &variants[0].1)) {
            find(&format!("/variants/{name}"), format!("is of another type than /variants/{}", variants[0].0));
        }
        let default = match definition.get("defaultVariant") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => {
                let place = variants.iter().position(|(k, _)| k == name);
                if place.is_none() && !name.is_empty() {
                    find("/defaultVariant", format!("{name:?} is not one of the variants"));
                }
                place
            }
            Some(_) => {
                find("/defaultVariant", "expected the name of a variant, or null for the code default".into());
                None
            }
        };
        let mut metadata = set_metadata.clone();
        match definition.get("metadata") {
            None => {}
            Some(Value::Object(own)) => metadata.extend(own.clone()),
            Some(_) => find("/metadata", "expected an object".into()),
        }
        let bucketing = match metadata.get("bucketing") {
            None => Bucketing::default(),
            Some(name) => name.as_str().and_then(Bucketing::parse).unwrap_or_else(|| {
                find("/metadata/bucketing", "expected native-1, flagd-v1, flagd-v2 or flagd-v3".into());
                Bucketing::default()
            }),
        };
        let targeting = match definition.get("targeting") {
            None | Some(Value::Null) => None,
            Some(Value::Object(rule)) if rule.is_empty() => None,
            Some(rule) => match Expr::compile(rule, evaluators) {
                Ok(expr) => Some(expr),
                Err(found) => {
                    find(&format!("/targeting{}", found.place), found.reason);
                    None
                }
            },
        };
        if !findings.is_empty() {
            return Err(findings);
        }
        let mut clock = Clock::default();
        targeting.iter().for_each(|rule| clock.read(rule));
        Ok(Flag {
            key: key.to_owned(),
            clock,
            enabled,
            variants,
            default,
            targeting,
            bucketing,
            metadata,
            definition: Arc::new(definition.clone()),
        })
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether its state is ENABLED.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// When its answers may change by themselves.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether it has targeting rules.
    pub fn has_rules(&self) -> bool {
        self.targeting.is_some()
    }

    /// Names and values of the variants, by name.
    pub fn variants(&self) -> &[(String, Value)] {
        &self.variants
    }

    /// The name of the default variant; none is the code default.
    pub fn default_variant(&self) -> Option<&str> {
        self.default.map(|place| self.variants[place].0.as_str())
    }

    /// The definition it was compiled from, as it was given.
    pub fn definition(&self) -> &Value {
        &self.definition
    }

    /// The flag's metadata over the set's.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }
}
