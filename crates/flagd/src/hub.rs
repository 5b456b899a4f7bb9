//! What is served: flag sets by source, views of them by selector, and who waits for a change.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use flags::{Flag, FlagSet};
use openfeature::Snapshot;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// Views that are kept; more selectors than this come from nobody in earnest.
const VIEWS_MAX: usize = 1_000;

/// Flags from one place.
#[derive(Clone, Debug)]
pub struct Source {
    /// What selectors call it.
    pub uri: String,
    /// Flags, and experiments in front of them.
    pub snapshot: Snapshot,
}

/// Which flags a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Selector {
    /// All of all sources; of two with one key that of the later source.
    #[default]
    Everything,
    /// Those of one source.
    Source(String),
    /// Those whose metadata says this `flagSetId`; empty for those without one.
    FlagSet(String),
}

impl Selector {
    /// Reads `source=URI`, `flagSetId=ID` or a bare URI.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let text = text.trim();
        match text.split_once('=') {
            _ if text.is_empty() => Ok(Selector::Everything),
            Some(("flagSetId", id)) => Ok(Selector::FlagSet(id.to_owned())),
            Some(("source", uri)) => Ok(Selector::Source(uri.to_owned())),
            Some((key, _)) if !key.contains(['/', ':', '?']) => {
                Err(format!("selector {text:?}: expected flagSetId=… or source=…"))
            }
            _ => Ok(Selector::Source(text.to_owned())),
        }
    }

    fn takes(&self, source: &Source, flag: &Flag) -> bool {
        match self {
            Selector::Everything => true,
            Selector::Source(uri) => source.uri == *uri,
            Selector::FlagSet(id) => flag_set_id(source, flag) == id,
        }
    }
}

/// The flag's own, or that of its source.
fn flag_set_id<'a>(source: &'a Source, flag: &'a Flag) -> &'a str {
    let own = flag.metadata().get("flagSetId").or_else(|| source.snapshot.flags.metadata().get("flagSetId"));
    own.and_then(Value::as_str).unwrap_or_default()
}

/// The flags of one selector at one version.
#[derive(Debug)]
pub struct View {
    /// For evaluation.
    pub snapshot: Snapshot,
    /// Counts changes of the hub.
    pub version: u64,
    /// The flags as a document for clients that evaluate in process.
    pub document: Arc<str>,
    sources: HashMap<String, String>,
}

impl View {
    /// What differs from an earlier view, by key, in the form of flagd's `configuration_change`.
    pub fn changes(&self, old: &View) -> Map<String, Value> {
        let mut changes = Map::new();
        let mut note = |key: &str, kind: &str, view: &View| {
            let source = view.sources.get(key).map(String::as_str).unwrap_or_default();
            changes.insert(key.to_owned(), json!({"type": kind, "source": source, "flagKey": key}));
        };
        for (key, _) in self.snapshot.flags.flags() {
            match old.snapshot.flags.flag(key) {
                None => note(key, "write", self),
                Some(_) if self.snapshot.flags.digest_of(key) != old.snapshot.flags.digest_of(key) => {
                    note(key, "update", self);
                }
                Some(_) => {}
            }
        }
        for (key, _) in old.snapshot.flags.flags() {
            if self.snapshot.flags.flag(key).is_none() {
                note(key, "delete", old);
            }
        }
        changes
    }
}

/// Everything that is served.
#[derive(Debug)]
pub struct Hub {
    sources: ArcSwap<(u64, Vec<Source>)>,
    views: Mutex<HashMap<Selector, Arc<View>>>,
    /// When it last changed.
    changed: watch::Sender<Option<Instant>>,
    context: Map<String, Value>,
}

impl Hub {
    /// Nothing yet; `context` is added to every evaluation.
    pub fn new(context: Map<String, Value>) -> Hub {
        Hub { sources: Default::default(), views: Mutex::default(), changed: watch::channel(None).0, context }
    }

    /// Replaces what is served and tells who waits.
    pub fn put(&self, sources: Vec<Source>) {
        let version = self.sources.load().0 + 1;
        self.sources.store(Arc::new((version, sources)));
        self.changed.send_replace(Some(Instant::now()));
    }

    /// As if it had changed so long ago, and no later.
    #[cfg(test)]
    pub(crate) fn backdate(&self, ago: std::time::Duration) {
        self.changed.send_replace(Instant::now().checked_sub(ago));
    }

    /// What is added to every evaluation.
    pub fn context(&self) -> &Map<String, Value> {
        &self.context
    }

    /// Tells whenever it changes; the value is when it last did.
    pub fn changes(&self) -> watch::Receiver<Option<Instant>> {
        self.changed.subscribe()
    }

    /// The flags of a selector as they are now.
    pub fn view(&self, selector: &Selector) -> Arc<View> {
        let now = self.sources.load_full();
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(selector).filter(|view| view.version == now.0) {
            return view.clone();
        }
        let view = Arc::new(build(selector, now.0, &now.1));
        if views.len() >= VIEWS_MAX {
            views.clear();
        }
        views.insert(selector.clone(), view.clone());
        view
    }
}

fn build(selector: &Selector, version: u64, all: &[Source]) -> View {
    let mut chosen: HashMap<&str, (&Source, &Arc<Flag>)> = HashMap::new();
    let mut set_metadata = None;
    let mut segments = Vec::new();
    for source in all {
        let mut any = false;
        segments.extend(source.snapshot.flags.segments().into_iter().map(|(key, s)| (key.to_owned(), s.clone())));
        for (key, flag) in source.snapshot.flags.flags() {
            if selector.takes(source, flag) {
                chosen.insert(key, (source, flag));
                any = true;
            }
        }
        if any && *selector != Selector::Everything {
            set_metadata.get_or_insert_with(|| source.snapshot.flags.metadata().clone());
        }
    }
    let set_metadata = set_metadata.unwrap_or_default();
    let mut definitions = Map::new();
    // Experiments on flags that are only needed count, too.
    let mut overlays: BTreeMap<_, _> = all.iter().flat_map(|source| source.snapshot.flags.overlays().clone()).collect();
    let mut telemetry = false;
    for (key, (source, _)) in &chosen {
        // What flagd's form cannot say is left out: such a client takes its code default, not another answer than ours.
        if let Some(definition) = source.snapshot.flags.portable(key) {
            definitions.insert((*key).to_owned(), definition);
        }
        match source.snapshot.flags.overlay(key) {
            Some(overlay) => overlays.insert((*key).to_owned(), overlay.clone()),
            None => overlays.remove(*key),
        };
        telemetry |= source.snapshot.telemetry;
    }
    let sources = chosen.iter().map(|(key, (source, _))| ((*key).to_owned(), source.uri.clone())).collect();
    let mut document = json!({"flags": definitions});
    if !set_metadata.is_empty() {
        document["metadata"] = Value::Object(set_metadata.clone());
    }
    // What the chosen flags need decides along, whether or not it is chosen.
    let helpers: Vec<Arc<Flag>> = match selector {
        Selector::Everything => Vec::new(),
        _ => all
            .iter()
            .flat_map(|source| source.snapshot.flags.flags().into_iter().map(|(_, flag)| flag.clone()))
            .collect(),
    };
    let flags = FlagSet::of(chosen.into_values().map(|(_, flag)| flag.clone()), set_metadata).with_helpers(helpers);
    let watcher = all.iter().find_map(|source| source.snapshot.watcher());
    let previews = all.iter().find_map(|source| source.snapshot.previews());
    let snapshot = Snapshot::new(flags.with_segments(segments).with_overlays(overlays), telemetry);
    let nonce = all.iter().map(|source| source.snapshot.nonce()).max().unwrap_or_default();
    let snapshot = snapshot.watched(watcher).previewed(previews).since(nonce);
    View { snapshot, version, document: document.to_string().into(), sources }
}
