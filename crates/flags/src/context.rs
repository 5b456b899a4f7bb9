//! What a flag is evaluated for: a targeting key and attributes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

/// An OpenFeature evaluation context.
#[derive(Clone, Debug, Default)]
pub struct Context {
    targeting_key: Option<String>,
    attributes: Map<String, Value>,
    /// Set as soon as somebody looks at the attributes; for evaluations that know nothing but the key.
    looked: Option<Arc<AtomicBool>>,
}

impl Context {
    /// From a JSON object; `targetingKey` is taken out of it if it is a string.
    pub fn new(mut attributes: Map<String, Value>) -> Context {
        let targeting_key = match attributes.get("targetingKey") {
            Some(Value::String(_)) => match attributes.remove("targetingKey") {
                Some(Value::String(key)) => Some(key),
                _ => None,
            },
            _ => None,
        };
        Context { targeting_key, attributes, looked: None }
    }

    /// A context with nothing but a targeting key.
    pub fn of(targeting_key: &str) -> Context {
        Context { targeting_key: Some(targeting_key.to_owned()), attributes: Map::new(), looked: None }
    }

    /// The same for a subject whose attributes are unknown, and whether somebody looked at them.
    pub(crate) fn blind(targeting_key: &str) -> (Context, Arc<AtomicBool>) {
        let looked = Arc::new(AtomicBool::new(false));
        (Context { looked: Some(looked.clone()), ..Context::of(targeting_key) }, looked)
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Context {
        self.attributes.insert(name.to_owned(), value.into());
        self
    }

    /// Attributes that win over those of the caller: what a server knows better.
    #[must_use]
    pub fn overridden(mut self, by: &Map<String, Value>) -> Context {
        for (name, value) in by {
            match (name.as_str(), value) {
                ("targetingKey", Value::String(key)) => self.targeting_key = Some(key.clone()),
                _ => {
                    self.attributes.insert(name.clone(), value.clone());
                }
            }
        }
        self
    }

    /// The subject; none if absent or empty.
    #[inline]
    pub fn targeting_key(&self) -> Option<&str> {
        self.targeting_key.as_deref().filter(|key| !key.is_empty())
    }

    /// All attributes but the targeting key.
    #[inline]
    pub fn attributes(&self) -> &Map<String, Value> {
        if let Some(looked) = &self.looked {
            looked.store(true, Ordering::Relaxed);
        }
        &self.attributes
    }
}
