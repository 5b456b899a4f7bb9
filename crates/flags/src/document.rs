//! Flag documents: read, checked and compiled once. Every fault is a finding that names its place. A definition with `on` is in
//! our dialect, any other in flagd's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use serde_json::{Map, Value};
use vocab::{Id, Timestamp};

use crate::bucket::Bucketing;
use crate::clock::Clock;
use crate::evaluate::{Overlay, Serves};
use crate::fields::Findings;
use crate::generation;
use crate::logic::Expr;
use crate::model::{Model, Serve};
use crate::segment::Segment;

/// The longest document that is read: a hundred thousand flags.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

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
    pub(crate) rules: Rules,
    pub(crate) bucketing: Bucketing,
    /// The flag's own metadata over the set's.
    pub(crate) metadata: Map<String, Value>,
    clock: Clock,
    definition: Arc<Value>,
    digest: [u8; 16],
    /// Of what decides only.
    decisive: [u8; 16],
    /// Flags and segments that decide along.
    needs: (Vec<Box<str>>, Vec<Box<str>>),
    /// See [`Flag::hashed_by`].
    hashed_by: Option<Box<str>>,
}

/// How a flag decides.
#[derive(Clone, Debug)]
pub(crate) enum Rules {
    /// The default variant for everybody.
    None,
    /// flagd's targeting.
    Logic(Expr),
    /// Our dialect.
    Ours(Model),
}

/// Compiled flags by key, segments, and experiments in front of flags.
#[derive(Clone, Debug, Default)]
pub struct FlagSet {
    /// hashbrown's own hasher takes a third of the time of the standard library's. Keys come from those who may write flags.
    flags: HashMap<String, Arc<Flag>>,
    /// The same by key, put in order when somebody asks for all of them after a change.
    order: OnceLock<Arc<[Arc<Flag>]>>,
    segments: HashMap<String, Arc<Segment>>,
    overlays: BTreeMap<String, Overlay>,
    /// Flags that others need and that are not served themselves.
    helpers: HashMap<String, Arc<Flag>>,
    evaluators: Map<String, Value>,
    metadata: Map<String, Value>,
}

impl FlagSet {
    /// Reads a whole flagd document: `{"flags": {…}, "$evaluators": {…}, "metadata": {…}}`. All findings at once.
    pub fn parse(text: &str) -> Result<FlagSet, Vec<Finding>> {
        match FlagSet::parse_leniently(text)? {
            (set, findings) if findings.is_empty() => Ok(set),
            (_, findings) => Err(findings),
        }
    }

    /// Reads a document that is part of something larger: what it refers to may be elsewhere.
    pub fn parse_part(text: &str) -> Result<FlagSet, Vec<Finding>> {
        match FlagSet::read(text)? {
            (set, findings) if findings.is_empty() => Ok(set),
            (_, findings) => Err(findings),
        }
    }

    /// As flagd reads it: a flag whose targeting rule cannot be used is in the set and answers PARSE_ERROR. The findings name
    /// such rules; what else is wrong refuses the document.
    pub fn parse_leniently(text: &str) -> Result<(FlagSet, Vec<Finding>), Vec<Finding>> {
        let (set, broken_rules) = FlagSet::read(text)?;
        let mut findings = set.tangles();
        if findings.is_empty() {
            return Ok((set, broken_rules));
        }
        findings.extend(broken_rules);
        Err(findings)
    }

    /// The set, with flags whose rule is broken, and what is wrong with those.
    fn read(text: &str) -> Result<(FlagSet, Vec<Finding>), Vec<Finding>> {
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
        let mut set = FlagSet { evaluators, metadata, ..FlagSet::default() };
        let (mut findings, mut broken_rules) = (Vec::new(), Vec::new());
        match document.get("segments") {
            None | Some(Value::Null) => {}
            Some(Value::Object(segments)) => {
                for (key, definition) in segments {
                    match Segment::compile(definition) {
                        Ok(segment) => {
                            set.segments.insert(key.clone(), Arc::new(segment));
                        }
                        Err(found) => findings.extend(
                            found.into_iter().map(|f| Finding::new(format!("/segments/{key}{}", f.place), f.reason)),
                        ),
                    }
                }
            }
            Some(_) => findings.push(Finding::new("/segments", "expected an object of segments by key")),
        }
        for (key, place, definition) in definitions {
            match Flag::compile(key, definition, &set.evaluators, &set.metadata) {
                Ok(flag) => {
                    set.flags.insert(key.to_owned(), Arc::new(flag));
                }
                Err(found) => {
                    let flag = Flag::with_broken_rule(key, definition, &set.metadata, &found);
                    let found = found.into_iter().map(|f| Finding::new(format!("{place}{}", f.place), f.reason));
                    match flag {
                        Some(flag) => {
                            set.flags.insert(key.to_owned(), Arc::new(flag));
                            broken_rules.extend(found);
                        }
                        None => findings.extend(found),
                    }
                }
            }
        }
        if findings.is_empty() {
            return Ok((set, broken_rules));
        }
        findings.extend(broken_rules);
        Err(findings)
    }

    /// A set of flags compiled one by one.
    pub fn of(flags: impl IntoIterator<Item = Arc<Flag>>, metadata: Map<String, Value>) -> FlagSet {
        let flags = flags.into_iter().map(|flag| (flag.key.clone(), flag)).collect();
        FlagSet { flags, metadata, ..FlagSet::default() }
    }

    /// With this metadata instead of its own; that of its flags stays as it is.
    #[must_use]
    pub fn with_metadata(self, metadata: Map<String, Value>) -> FlagSet {
        FlagSet { metadata, ..self }
    }

    /// With these segments instead of its own.
    #[must_use]
    pub fn with_segments(self, segments: impl IntoIterator<Item = (String, Arc<Segment>)>) -> FlagSet {
        FlagSet { segments: segments.into_iter().collect(), ..self }
    }

    /// With these experiments in front of flags, by key, instead of its own.
    #[must_use]
    pub fn with_overlays(self, overlays: BTreeMap<String, Overlay>) -> FlagSet {
        FlagSet { overlays, ..self }
    }

    /// With these flags for others that need them; they are not served themselves.
    #[must_use]
    pub fn with_helpers(self, helpers: impl IntoIterator<Item = Arc<Flag>>) -> FlagSet {
        FlagSet { helpers: helpers.into_iter().map(|flag| (flag.key.clone(), flag)).collect(), ..self }
    }

    /// A flag that is served, or one that others need.
    pub(crate) fn any_flag(&self, key: &str) -> Option<&Arc<Flag>> {
        self.flags.get(key).or_else(|| self.helpers.get(key))
    }

    /// All flags, those that are not served themselves too, in no order.
    pub(crate) fn all_flags(&self) -> impl Iterator<Item = &Arc<Flag>> {
        self.flags.values().chain(self.helpers.values())
    }

    /// Puts one flag in, in place of one with its key.
    pub fn insert(&mut self, flag: Arc<Flag>) {
        self.order.take();
        self.flags.insert(flag.key.clone(), flag);
    }

    /// Takes one flag out.
    pub fn remove(&mut self, key: &str) {
        self.order.take();
        self.flags.remove(key);
    }

    /// Puts a segment in, or takes it out.
    pub fn set_segment(&mut self, key: &str, segment: Option<Arc<Segment>>) {
        match segment {
            Some(segment) => self.segments.insert(key.to_owned(), segment),
            None => self.segments.remove(key),
        };
    }

    /// References to what is not there, and circles. Places are those of a whole document.
    pub fn tangles(&self) -> Vec<Finding> {
        let mut findings = Findings::default();
        // 0 is not seen, 1 is on the way, 2 is done.
        let mut seen: HashMap<Node<'_>, u8> = HashMap::new();
        let flags = self.flags.values().filter(|f| !f.needs.0.is_empty() || !f.needs.1.is_empty());
        let mut roots: Vec<Node<'_>> = flags.map(|flag| (true, flag.key.as_str())).collect();
        roots.extend(self.segments.keys().map(|key| (false, key.as_str())));
        roots.sort_unstable();
        for root in roots {
            // Depth first, without recursion: (node, its children, how many of them were visited).
            let mut way: Vec<(Node<'_>, Vec<Node<'_>>, usize)> = Vec::new();
            let mut next = Some(root);
            loop {
                if let Some(node) = next.take() {
                    match seen.get(&node).copied().unwrap_or(0) {
                        0 => {
                            seen.insert(node, 1);
                            way.push((node, self.children(node, &mut findings), 0));
                        }
                        1 => {
                            let names: Vec<&str> = way.iter().map(|(node, ..)| node.1).chain([node.1]).collect();
                            let from = names.iter().position(|name| *name == node.1).unwrap_or(0);
                            findings.add(pointer(node), format!("is a circle: {}", names[from..].join(" needs ")));
                        }
                        _ => {}
                    }
                }
                let Some((node, children, visited)) = way.last_mut() else { break };
                match children.get(*visited) {
                    Some(child) => {
                        *visited += 1;
                        next = Some(*child);
                    }
                    None => {
                        seen.insert(*node, 2);
                        way.pop();
                    }
                }
            }
        }
        findings.0
    }

    /// What a flag (true) or a segment refers to; what is missing is a finding.
    pub(crate) fn children<'a>(&'a self, node: Node<'_>, findings: &mut Findings) -> Vec<Node<'a>> {
        let needs = if node.0 {
            self.any_flag(node.1).map(|flag| flag.needs.clone())
        } else {
            self.segments.get(node.1).map(|segment| segment.needs())
        };
        let (flags, segments) = needs.unwrap_or_default();
        let mut found = Vec::new();
        for key in &flags {
            match self.any_flag(key) {
                Some(flag) => found.push((true, flag.key.as_str())),
                None => findings.add(pointer(node), format!("needs the flag {key:?}, which does not exist")),
            }
        }
        for key in &segments {
            match self.segments.get_key_value(&**key) {
                Some((key, _)) => found.push((false, key.as_str())),
                None => findings.add(pointer(node), format!("needs the segment {key:?}, which does not exist")),
            }
        }
        found
    }

    /// The segment with this key.
    pub fn segment(&self, key: &str) -> Option<&Arc<Segment>> {
        self.segments.get(key)
    }

    /// All segments, by key.
    pub fn segments(&self) -> BTreeMap<&str, &Arc<Segment>> {
        self.segments.iter().map(|(key, segment)| (key.as_str(), segment)).collect()
    }

    /// The experiment in front of a flag.
    pub fn overlay(&self, key: &str) -> Option<&Overlay> {
        self.overlays.get(key)
    }

    /// Whether a change of flags is on trial.
    pub fn has_trials(&self) -> bool {
        self.overlays.values().any(|overlay| overlay.patch().is_some())
    }

    /// The experiments in front of flags, by key.
    pub fn overlays(&self) -> &BTreeMap<String, Overlay> {
        &self.overlays
    }

    /// Names all that decides: the same flags, segments and experiments have the same digest, on every node and after every
    /// restart.
    pub fn digest(&self) -> [u8; 16] {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        let mut part = |name: &str, bytes: &[u8]| {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part("flags", &(self.flags.len() as u64).to_le_bytes());
        for (key, flag) in self.flags() {
            part(key, &flag.digest);
        }
        for (key, flag) in self.helpers.iter().collect::<BTreeMap<_, _>>() {
            part(key, &flag.digest);
        }
        for (key, segment) in self.segments() {
            part(key, &digest(&[&segment.definition().to_string()]));
        }
        for (key, overlay) in &self.overlays {
            part(key, format!("{overlay:?}").as_bytes());
        }
        part("$evaluators", Value::Object(self.evaluators.clone()).to_string().as_bytes());
        part("metadata", Value::Object(self.metadata.clone()).to_string().as_bytes());
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        digest
    }

    /// Keys of the flags and segments that this flag needs, directly or not, itself left out.
    pub fn needed_by(&self, key: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut flags, mut segments) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<Node<'_>> = self.children((true, key), &mut Findings::default());
        while let Some((is_flag, needed)) = open.pop() {
            let known = if is_flag { &mut flags } else { &mut segments };
            if known.insert(needed.to_owned()) {
                open.extend(self.children((is_flag, needed), &mut Findings::default()));
            }
        }
        flags.remove(key);
        (flags, segments)
    }

    /// When answers of any flag may change by themselves.
    pub fn clock_of_all(&self) -> Clock {
        let mut clock = Clock::default();
        self.flags.values().chain(self.helpers.values()).for_each(|flag| clock.merge(&flag.clock));
        self.segments.values().for_each(|segment| segment.clock(&mut clock));
        // One change stands in front of all the flags that it moves.
        let mut last: Option<Id> = None;
        for overlay in self.overlays.values().filter(|overlay| overlay.patch().is_some()) {
            if last.replace(overlay.experiment) != Some(overlay.experiment) {
                overlay.patch().iter().for_each(|patch| patch.clock(&mut clock));
            }
        }
        clock
    }

    /// When answers of this flag may change by themselves, through what it needs too.
    pub(crate) fn clock_of(&self, key: &str) -> Clock {
        let mut clock = Clock::default();
        self.overlay(key).and_then(Overlay::patch).iter().for_each(|patch| patch.clock(&mut clock));
        let mut open: Vec<Node<'_>> = vec![(true, key)];
        let mut seen: Vec<Node<'_>> = Vec::new();
        while let Some(node) = open.pop() {
            if seen.contains(&node) {
                continue;
            }
            seen.push(node);
            if node.0 {
                self.any_flag(node.1).iter().for_each(|flag| clock.merge(&flag.clock));
            } else {
                self.segments.get(node.1).iter().for_each(|segment| segment.clock(&mut clock));
            }
            open.extend(self.children(node, &mut Findings::default()));
        }
        clock
    }

    /// Names all that decides this flag: itself, the flags and segments it needs, and the experiments in front of them.
    pub fn digest_of(&self, key: &str) -> [u8; 16] {
        self.digest_by(key, |flag| flag.digest)
    }

    /// The same without words for people: description, owner, tags and the like.
    pub(crate) fn decisive_digest_of(&self, key: &str) -> [u8; 16] {
        self.digest_by(key, |flag| flag.decisive)
    }

    fn digest_by(&self, key: &str, of: impl Fn(&Flag) -> [u8; 16]) -> [u8; 16] {
        let mut parts = Vec::new();
        let mut open: Vec<Node<'_>> = vec![(true, key)];
        let mut seen: Vec<Node<'_>> = Vec::new();
        while let Some(node) = open.pop() {
            if seen.contains(&node) {
                continue;
            }
            seen.push(node);
            if node.0 {
                parts.extend(self.any_flag(node.1).map(|flag| format!("{:?}", of(flag))));
                parts.extend(self.overlays.get(node.1).map(|overlay| format!("{overlay:?}")));
            } else {
                parts.extend(self.segments.get(node.1).map(|segment| segment.definition().to_string()));
            }
            open.extend(self.children(node, &mut Findings::default()));
        }
        digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A flag's definition as it stands alone: shared rules written out, the set's metadata in it.
    pub fn portable(&self, key: &str) -> Option<Value> {
        let flag = self.flags.get(key)?;
        // What an experiment promoted in front of the rules is what everybody gets.
        let overlay = self.overlays.get(key).filter(|_| flag.enabled());
        let variant = overlay.and_then(|overlay| match &overlay.serves {
            Serves::Variant(variant) if overlay.slice.is_everybody() => Some(variant),
            _ => overlay.otherwise.as_ref(),
        });
        if let Some(place) = variant.and_then(|variant| flag.place_of(variant)) {
            let variants: Map<String, Value> = flag.variants.iter().cloned().collect();
            return Some(serde_json::json!({"state": "ENABLED", "variants": variants,
                "defaultVariant": flag.variants[place].0, "metadata": flag.metadata}));
        }
        if matches!(flag.rules, Rules::Ours(_)) {
            return self.to_flagd(flag).ok();
        }
        let mut definition = flag.definition().clone();
        // A rule that could not be compiled may refer to itself; it fails at the client as it does here.
        if !self.evaluators.is_empty() && !matches!(flag.rules, Rules::Logic(Expr::Broken(_))) {
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
    #[inline]
    pub fn flag(&self, key: &str) -> Option<&Arc<Flag>> {
        self.flags.get(key)
    }

    /// All flags, by key.
    pub fn flags(&self) -> Vec<(&str, &Arc<Flag>)> {
        self.in_order().iter().map(|flag| (flag.key.as_str(), flag)).collect()
    }

    pub(crate) fn in_order(&self) -> &[Arc<Flag>] {
        self.order.get_or_init(|| {
            let mut all: Vec<Arc<Flag>> = self.flags.values().cloned().collect();
            all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            all.into()
        })
    }

    /// The set's metadata.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// Rules that flags refer to.
    pub(crate) fn evaluators(&self) -> &Map<String, Value> {
        &self.evaluators
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

/// A flag (true) or a segment, by key.
type Node<'a> = (bool, &'a str);

/// Sixteen bytes of SHA-256 over texts, each with its length.
pub(crate) fn digest(parts: &[&str]) -> [u8; 16] {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}

fn pointer(node: Node<'_>) -> String {
    format!("/{}/{}", if node.0 { "flags" } else { "segments" }, node.1)
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
        let ours = definition.get("on").is_some();
        let enabled = match definition.get("state").and_then(Value::as_str) {
            Some("ENABLED") => true,
            Some("DISABLED") => false,
            _ if ours => true,
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
        let default = match definition.get("defaultVariant").filter(|_| !ours) {
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
            Some(name) => {
                let known = name.as_str().and_then(Bucketing::parse).filter(|b| ours || b.is_for_fractional());
                known.unwrap_or_else(|| {
                    find("/metadata/bucketing", "expected native-1, flagd-v1, flagd-v2 or flagd-v3".into());
                    Bucketing::default()
                })
            }
        };
        let rules = if ours {
            let place = |name: &str| variants.iter().position(|(key, _)| key == name);
            let mut found = Findings::default();
            let model = Model::read(definition, key, &place, &mut found);
            findings.extend(found.0);
            model.map_or(Rules::None, Rules::Ours)
        } else {
            match definition.get("targeting") {
                None | Some(Value::Null) => Rules::None,
                Some(Value::Object(rule)) if rule.is_empty() => Rules::None,
                Some(rule) => match Expr::compile(rule, key, evaluators) {
                    Ok(expr) => Rules::Logic(expr),
                    Err(found) => {
                        find(&format!("/targeting{}", found.place), found.reason);
                        Rules::None
                    }
                },
            }
        };
        if !findings.is_empty() {
            return Err(findings);
        }
        let mut clock = Clock::default();
        let mut needs = Default::default();
        match &rules {
            Rules::None => {}
            Rules::Logic(rule) => clock.read(rule),
            Rules::Ours(model) => {
                model.clock(&mut clock);
                needs = model.needs();
            }
        }
        let text = definition.to_string();
        // A shared rule is part of every flag that refers to one.
        let shared =
            if text.contains("\"$ref\"") { Value::Object(evaluators.clone()).to_string() } else { String::new() };
        let mut deciding = definition.clone();
        if let Some(map) = deciding.as_object_mut() {
            map.retain(|name, _| {
                !["description", "owner", "tags", "expires", "kind", "metadata", "$schema"].contains(&name.as_str())
            });
        }
        let risk = metadata.get("risk").map(Value::to_string).unwrap_or_default();
        let decisive = digest(&[key, &deciding.to_string(), bucketing.as_str(), &risk, &shared]);
        let digest = digest(&[key, &text, &Value::Object(metadata.clone()).to_string(), &shared]);
        Ok(Flag {
            key: key.to_owned(),
            hashed_by: generation::names(&rules, bucketing),
            clock,
            digest,
            decisive,
            enabled,
            variants,
            default,
            rules,
            bucketing,
            metadata,
            definition: Arc::new(definition.clone()),
            needs,
        })
    }

    /// The flag with a rule that fails, if nothing but its targeting rule is wrong.
    fn with_broken_rule(
        key: &str,
        definition: &Value,
        set_metadata: &Map<String, Value>,
        findings: &[Finding],
    ) -> Option<Flag> {
        let first = findings.first().filter(|_| findings.iter().all(|f| f.place.starts_with("/targeting")))?;
        let mut sound = definition.clone();
        sound.as_object_mut()?.remove("targeting");
        let flag = Flag::compile(key, &sound, &Map::new(), set_metadata).ok()?;
        let digest = digest(&[key, &definition.to_string(), &Value::Object(flag.metadata.clone()).to_string()]);
        let rules = Rules::Logic(Expr::Broken(first.to_string()));
        Some(Flag { rules, definition: Arc::new(definition.clone()), digest, ..flag })
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is on; what a schedule will say later does not count.
    pub fn enabled(&self) -> bool {
        match &self.rules {
            Rules::Ours(model) => model.periods[0].1.on,
            _ => self.enabled,
        }
    }

    /// Whether it is on at a time.
    pub fn enabled_at(&self, now: Timestamp) -> bool {
        match &self.rules {
            Rules::Ours(model) => model.body(now).on,
            _ => self.enabled,
        }
    }

    /// What everybody gets while it is off at a time; none is the code default.
    pub(crate) fn off_variant_at(&self, now: Timestamp) -> Option<&str> {
        match &self.rules {
            Rules::Ours(model) => model.body(now).off_variant.map(|place| self.variants[place].0.as_str()),
            _ => None,
        }
    }

    /// Whether it is on, or will be by its schedule.
    pub fn ever_enabled(&self) -> bool {
        match &self.rules {
            Rules::Ours(model) => model.periods.iter().any(|(_, body)| body.on),
            _ => self.enabled,
        }
    }

    /// Whether it is in our dialect.
    pub fn is_ours(&self) -> bool {
        matches!(self.rules, Rules::Ours(_))
    }

    /// Whether anything but the default variant may be served.
    pub fn has_rules(&self) -> bool {
        match &self.rules {
            Rules::None => false,
            Rules::Logic(_) => true,
            Rules::Ours(model) => !model.is_plain(),
        }
    }

    /// The definition with the flag off for everybody, now and whatever its schedule says.
    pub fn killed(&self) -> Value {
        let mut definition = self.definition().clone();
        if let (true, Some(map)) = (self.is_ours(), definition.as_object_mut()) {
            map.remove("schedule");
            map.insert("on".to_owned(), false.into());
        } else {
            definition["state"] = "DISABLED".into();
        }
        definition
    }

    /// The definition with another default variant.
    pub fn promoted(&self, variant: &str) -> Value {
        let mut definition = self.definition().clone();
        definition[if self.is_ours() { "fallthrough" } else { "defaultVariant" }] = variant.into();
        definition
    }

    /// Names the definition: equal ones have equal digests, on every machine.
    pub fn digest(&self) -> &[u8; 16] {
        &self.digest
    }

    /// low, medium, high or critical: `risk` of our dialect, `metadata.risk` of flagd's; medium if it does not say.
    pub fn risk(&self) -> &str {
        let said = if self.is_ours() { self.definition.get("risk") } else { self.metadata.get("risk") };
        said.and_then(Value::as_str).filter(|risk| crate::model::RISKS.contains(risk)).unwrap_or("medium")
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Flags and segments that decide along.
    pub(crate) fn needs(&self) -> &(Vec<Box<str>>, Vec<Box<str>>) {
        &self.needs
    }

    pub(crate) fn needs_any(&self) -> bool {
        !self.needs.0.is_empty() || !self.needs.1.is_empty()
    }

    /// The generations of bucketing that its own rules hash with, by name, joined by commas; none if they hash nobody. What flags and
    /// segments hash with that it needs is not in it.
    pub fn hashed_by(&self) -> Option<&str> {
        self.hashed_by.as_deref()
    }

    /// Flags that decide along.
    pub fn needs_flags(&self) -> impl Iterator<Item = &str> {
        self.needs.0.iter().map(|key| &**key)
    }

    /// Names and values of the variants, by name.
    pub fn variants(&self) -> &[(String, Value)] {
        &self.variants
    }

    /// The name of the default variant; none is the code default.
    pub fn default_variant(&self) -> Option<&str> {
        let place = match &self.rules {
            Rules::Ours(model) => match model.periods[0].1.fallthrough {
                Serve::Variant(place) => Some(place),
                _ => None,
            },
            _ => self.default,
        };
        place.map(|place| self.variants[place].0.as_str())
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
