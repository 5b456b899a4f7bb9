//! Changes of flags: whether they can be made, what they will make, and what is served while an experiment tries them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use experiments::{Profile, Spec, Treatment};
use flags::{Finding, Flag, FlagChange, FlagSet, Overlay, Patch, Segment, Serves, Slice};
use serde_json::{Map, Value};
use vocab::{Id, Name, Share};

use super::{Refusal, State, listed, refuse};
use crate::entry::Action;
use crate::guard::Jumps;

/// Flags, and as many segments. A hundred thousand load in about a second.
const FLAGS_MAX: usize = 100_000;
/// Changes of one batch: what is held back until the last of them is there.
const BATCH_MAX: usize = 100_000;
const PROFILES_MAX: usize = 1_000;

impl State {
    /// The flags as they would be after these changes, or why they cannot be made.
    pub fn candidate(&self, changes: &[FlagChange]) -> Result<FlagSet, Refusal> {
        if changes.is_empty() {
            return refuse("nothing-to-do", "there is no change", "send at least one flag or segment");
        }
        if changes.len() > BATCH_MAX {
            return refuse("too-many-changes", format!("more than {BATCH_MAX} changes at once"), "send them in parts");
        }
        let mut set = self.flag_set();
        let mut touched = BTreeSet::new();
        let mut invalid = Vec::new();
        let under = self.experiments_by_flag();
        let held = self.held_by_patches(&set);
        for change in changes {
            let (is_flag, key) = change.place();
            let kind = if is_flag { "flag" } else { "segment" };
            if !touched.insert((kind, key)) {
                return refuse("named-twice", format!("the {kind} {key:?} is named twice"), "send each once");
            }
            let node = (is_flag, key.to_owned());
            let held = || held.iter().find(|(_, nodes)| nodes.contains(&node)).map(|(id, _)| id);
            if let Some(live) = under.get(key).filter(|_| is_flag).or_else(held) {
                let remedy = format!("wait, or `seaworthy experiment stop {live}` first");
                return refuse("under-experiment", format!("{kind} {key:?} is under experiment {live}"), remedy);
            }
            let mut note = |findings: Vec<Finding>| {
                let place = |finding: &Finding| {
                    format!("/{kind}s/{}{}", key.replace('~', "~0").replace('/', "~1"), finding.place)
                };
                invalid.extend(findings.iter().map(|f| Finding { place: place(f), reason: f.reason.clone() }));
            };
            match change {
                FlagChange::Put { key, definition } => match Flag::compile(key, definition, &Map::new(), &Map::new()) {
                    Ok(flag) => {
                        let killed = self.flags.get(key).is_some_and(|record| record.before_kill.is_some())
                            || self.killed_absent.contains(key);
                        if killed && flag.ever_enabled() {
                            let detail = format!("flag {key:?} was killed and stays off");
                            let remedy = format!("look why, then `seaworthy flag revive {key}`; then change it");
                            return refuse("killed", detail, remedy);
                        }
                        set.insert(Arc::new(flag));
                    }
                    Err(findings) => note(findings),
                },
                // It is gone; that it was killed is over, too.
                FlagChange::Revive(key) if self.killed_absent.contains(key) => {}
                FlagChange::Revive(key) => match &self.known_flag(key)?.before_kill {
                    Some(before) => set.insert(before.clone()),
                    None => {
                        return refuse("not-killed", format!("flag {key:?} was not killed"), "nothing is left to do");
                    }
                },
                FlagChange::Delete(key) => {
                    self.known_flag(key)?;
                    set.remove(key);
                }
                FlagChange::PutSegment { key, definition } => match Segment::compile(definition) {
                    Ok(_) if key.is_empty() || key.len() > 256 => {
                        return refuse("invalid-flag", "a segment's key has 1 to 256 bytes", "choose another key");
                    }
                    Ok(segment) => set.set_segment(key, Some(Arc::new(segment))),
                    Err(findings) => note(findings),
                },
                FlagChange::DeleteSegment(key) => {
                    if !self.segments.contains_key(key) {
                        let remedy = "see `seaworthy flag segments`";
                        return refuse("unknown-segment", format!("there is no segment {key:?}"), remedy);
                    }
                    set.set_segment(key, None);
                }
            }
        }
        if !invalid.is_empty() {
            let remedy = "mend the definition and send it again; see docs/reference/flags.md".to_owned();
            return Err(Refusal { code: "invalid-flag", detail: listed(&invalid), remedy, findings: invalid });
        }
        let (flags, segments) = (set.flags().len(), set.segments().len());
        if flags > FLAGS_MAX || segments > FLAGS_MAX {
            return refuse("too-many-flags", format!("more than {FLAGS_MAX} flags or segments"), "delete some");
        }
        let tangles = set.tangles();
        if !tangles.is_empty() {
            let remedy = "change or remove what refers to it first, or all in one go with `seaworthy apply`";
            let remedy = remedy.to_owned();
            return Err(Refusal { code: "tangled-flags", detail: listed(&tangles), remedy, findings: tangles });
        }
        // What rollouts will make must still be possible when they are promoted, one or all.
        let mut then = set.clone();
        self.patches.values().for_each(|patch| patch.carry_out(&mut then));
        let tangles = if self.patches.is_empty() { Vec::new() } else { then.tangles() };
        if !tangles.is_empty() {
            let ids: Vec<String> = self.patches.keys().map(Id::to_string).collect();
            let remedy = format!("wait, or stop what stands in the way: {}", ids.join(", "));
            let detail = format!("a rollout could not be promoted after that: {}", listed(&tangles));
            return refuse("under-experiment", detail, remedy);
        }
        Ok(set)
    }

    /// What live rollouts change and depend on: nobody else may change it meanwhile, or they would promote what nobody watched.
    fn held_by_patches(&self, set: &FlagSet) -> BTreeMap<Id, BTreeSet<(bool, String)>> {
        let held = |patch: &Patch| {
            let mut after = set.clone();
            patch.carry_out(&mut after);
            patch.depends_on(&after)
        };
        self.patches.iter().map(|(id, patch)| (*id, held(patch))).collect()
    }

    /// What changes will make of flags and segments; none if they cannot be made.
    pub(super) fn patch(&self, changes: &[FlagChange]) -> Option<Patch> {
        let (mut flags, mut segments, mut gone) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        for change in changes {
            match change {
                FlagChange::Put { key, definition } => {
                    flags.push(Arc::new(Flag::compile(key, definition, &Map::new(), &Map::new()).ok()?));
                }
                FlagChange::Delete(key) => {
                    flags.push(Arc::new(self.flags.get(key)?.flag.absent()?));
                    gone.insert((true, key.clone()));
                }
                FlagChange::Revive(key) if self.killed_absent.contains(key) => {}
                FlagChange::Revive(key) => flags.push(self.flags.get(key)?.before_kill.clone()?),
                FlagChange::PutSegment { key, definition } => {
                    segments.insert(key.clone(), Arc::new(Segment::compile(definition).ok()?));
                }
                // Nothing needs a segment that may go.
                FlagChange::DeleteSegment(key) => _ = gone.insert((false, key.clone())),
            }
        }
        Some(Patch::new(flags, segments).without(gone))
    }

    /// Flags whose answers live experiments change, directly or through what they need.
    pub fn experiments_by_flag(&self) -> BTreeMap<String, Id> {
        let mut found = BTreeMap::new();
        let set = if self.patches.is_empty() { FlagSet::default() } else { self.flag_set() };
        for experiment in self.live() {
            match (&experiment.spec.treatment, self.patches.get(&experiment.id)) {
                (Treatment::Flag(change), _) => _ = found.insert(change.key.clone(), experiment.id),
                (_, Some(patch)) => found.extend(patch.touches(&set).into_iter().map(|key| (key, experiment.id))),
                _ => {}
            }
        }
        found
    }

    /// The rollout that a change becomes which is too much at once.
    pub fn staged(&self, changes: Vec<FlagChange>, jumps: &Jumps, after: &FlagSet, why: &str) -> Result<Spec, Refusal> {
        if jumps.0.iter().any(|jump| !jump.can_be_staged) {
            return Err(jumps.refusal("leave that out, or let it come in steps of that size"));
        }
        let flag = |key: &str| after.flag(key).or_else(|| self.flags.get(key).map(|record| &record.flag));
        let flags = jumps.0.iter().filter_map(|jump| flag(&jump.key));
        let names: BTreeSet<&str> = flags.clone().filter_map(|flag| flag.metadata().get("profile")?.as_str()).collect();
        let of = |name: &&str| self.profiles.get_key_value(*name);
        let profile = match names.first() {
            Some(_) if names.len() > 1 => {
                let detail = format!("{}; their flags name different rollout profiles", jumps.detail());
                return refuse("several-profiles", detail, "send them one by one");
            }
            Some(name) => of(name).ok_or_else(|| format!("write the rollout profile {name:?}, which the flag names")),
            None => {
                let default = self.profiles.iter().find(|(_, record)| record.profile.is_default());
                default.ok_or_else(|| {
                    "say once how changes are watched (`seaworthy profile put`): then this becomes a rollout by itself".to_owned()
                })
            }
        };
        let (_, record) = profile.map_err(|way| jumps.refusal(&way))?;
        // Flags that the change only brushes count too: their subjects are in the same slice.
        let touched = self.first_step_of(&Treatment::Flags(changes.clone())).map(|(_, step)| step);
        let first = jumps.0.iter().map(|jump| jump.step).chain(touched).min().unwrap_or(Share::NONE);
        let owner = flags.clone().find_map(|flag| flag.definition().get("owner")?.as_str()).unwrap_or_default();
        let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
        let key: String = jumps.0[0].key.to_ascii_lowercase().chars().map(plain).take(40).collect();
        let name = Name::parse(&format!("change-{key}-{}", self.size));
        let name = name.map_err(|error| jumps.refusal(&error.to_string()))?;
        Ok(record.profile.spec(name, owner, why, first, changes))
    }

    pub(super) fn put_profile(&self, name: Name, definition: Value) -> Result<Action, Refusal> {
        let profile = match Profile::read(&definition) {
            Ok(profile) => profile,
            Err(detail) => return refuse("invalid-profile", detail, "see docs/reference/flags.md, rollout profiles"),
        };
        let name = name.as_str().to_owned();
        let other = self.profiles.iter().find(|(key, record)| **key != name && record.profile.is_default());
        if let (true, Some((other, _))) = (profile.is_default(), other) {
            return refuse(
                "two-defaults",
                format!("{other:?} is the default already"),
                "take `default` out of one first",
            );
        }
        if self.profiles.len() >= PROFILES_MAX && !self.profiles.contains_key(&name) {
            return refuse("too-many-profiles", format!("there are {PROFILES_MAX} profiles"), "delete some");
        }
        Ok(Action::ProfilePut { name, definition })
    }

    /// The flags as clients are served: with experiments in front of them.
    pub fn served(&self) -> FlagSet {
        let set = self.with_announced(self.flag_set());
        let overlays = self.overlays(&set);
        set.with_overlays(overlays)
    }

    /// With the flags that so far only a rollout knows: off, without a value.
    pub fn with_announced(&self, mut set: FlagSet) -> FlagSet {
        for flag in self.patches.values().flat_map(|patch| patch.flags().values()) {
            if set.flag(flag.key()).is_none() {
                flag.absent().into_iter().for_each(|absent| set.insert(Arc::new(absent)));
            }
        }
        set
    }

    /// What stands in front of flags' own rules, by flag key.
    fn overlays(&self, set: &FlagSet) -> BTreeMap<String, Overlay> {
        let promoted = |key: &str| self.flags.get(key).and_then(|record| record.promoted.clone());
        let everybody = Slice::new("", "", 0, Share::ALL, Share::ALL);
        let mut overlays = BTreeMap::new();
        for key in self.flags.keys() {
            if let Some((experiment, variant)) = promoted(key) {
                let serves = Serves::Variant(variant);
                overlays.insert(key.clone(), Overlay { experiment, slice: everybody, serves, otherwise: None });
            }
        }
        for experiment in self.live().filter(|experiment| !self.cut.contains_key(&experiment.id)) {
            let on = experiment.treatment_is_on();
            let overlay = |key: &str, serves| Overlay {
                experiment: experiment.id,
                slice: experiment.slice(),
                serves,
                otherwise: promoted(key).map(|(_, variant)| variant),
            };
            match (&experiment.spec.treatment, self.patches.get(&experiment.id)) {
                (Treatment::Flag(change), _) => {
                    // In warm-up both arms get what the rules say; the arm is reported all the same.
                    let serves = if on { Serves::Variant(change.variant.as_str().into()) } else { Serves::Rules };
                    overlays.insert(change.key.clone(), overlay(&change.key, serves));
                }
                (_, Some(patch)) => {
                    for key in patch.touches(set) {
                        let overlay = overlay(&key, Serves::Change { patch: patch.clone(), on });
                        overlays.insert(key, overlay);
                    }
                }
                _ => {}
            }
        }
        overlays
    }
}
