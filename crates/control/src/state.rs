//! State, commands and the fold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use auth::{Role, Token, TokenHash};
use experiments::{Acceptance, Experiment, Phase, Profile, Spec, Transition, Treatment};
use flags::{Flag, FlagChange, FlagSet, Patch, Segment};
use serde_json::{Map, Value};
use vocab::{Id, Kind, Name, Pseudonym, Timestamp};

use crate::delegation::Delegation;
use crate::entry::{Action, Batch, ENTRY_BYTES_MAX, Entry};
use crate::environment::Environment;

mod admission;
mod changes;
mod previews;

pub use previews::Preview;

/// Audit indexes kept for each flag; older ones are in the log.
const HISTORY_MAX: usize = 1_000;
const TOKENS_MAX: usize = 10_000;

/// A flag and its version.
#[derive(Clone, Debug)]
pub struct FlagRecord {
    /// Compiled.
    pub flag: Arc<Flag>,
    /// The audit index of its last change.
    pub version: u64,
    /// A promoted variant that stands in front of the rules until the next change.
    pub promoted: Option<(Id, Arc<str>)>,
    /// What it was before it was killed; none if it was not. A killed flag stays off until it is revived.
    pub before_kill: Option<Arc<Flag>>,
}

/// A segment and its version.
#[derive(Clone, Debug)]
pub struct SegmentRecord {
    /// Compiled.
    pub segment: Arc<Segment>,
    /// The audit index of its last change.
    pub version: u64,
}

/// A rollout profile and its version.
#[derive(Clone, Debug)]
pub struct ProfileRecord {
    /// What it says.
    pub profile: Arc<Profile>,
    /// The audit index of its last change.
    pub version: u64,
}

/// A token and where it was made.
#[derive(Clone, Debug)]
pub struct TokenRecord {
    /// Given by the fold.
    pub id: Id,
    /// What it is.
    pub token: Token,
    /// The bounds of a token that may set one flag.
    pub delegation: Option<Arc<Delegation>>,
}

/// The control plane.
#[derive(Clone, Debug, Default)]
pub struct State {
    tokens: BTreeMap<TokenHash, TokenRecord>,
    flags: BTreeMap<String, FlagRecord>,
    segments: BTreeMap<String, SegmentRecord>,
    /// Audit indexes by flag, oldest first.
    histories: BTreeMap<String, Vec<u64>>,
    /// Audit indexes of changes made past the guard, oldest first.
    reviews: Vec<u64>,
    /// Entries of a batch whose last is not there yet.
    pending: Vec<(u64, Entry)>,
    environment: Option<Environment>,
    profiles: BTreeMap<String, ProfileRecord>,
    previews: BTreeMap<Id, Preview>,
    experiments: BTreeMap<Id, Experiment>,
    /// What live experiments on changes of flags will make of them.
    patches: BTreeMap<Id, Arc<Patch>>,
    /// Live experiments that serve nothing any more, because somebody killed a flag of theirs, and which one.
    cut: BTreeMap<Id, String>,
    /// Keys that were killed and are no flag (any more): whoever makes such a flag makes it off.
    killed_absent: BTreeSet<String>,
    verdicts: BTreeMap<Id, u64>,
    off: BTreeMap<Id, Timestamp>,
    halted: bool,
    epoch: u64,
    size: u64,
    skipped: Vec<u64>,
}

/// What somebody wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make a token.
    TokenCreate {
        /// For people.
        name: String,
        /// What it may do.
        role: Role,
        /// Of its text.
        hash: TokenHash,
        /// None never expires.
        expires: Option<Timestamp>,
    },
    /// Let somebody set one flag within bounds.
    Delegate {
        /// For people.
        name: String,
        /// Of his token's text.
        hash: TokenHash,
        /// None never expires.
        expires: Option<Timestamp>,
        /// What he may do.
        bounds: Box<Delegation>,
    },
    /// Take a token away.
    TokenRevoke(Id),
    /// Change flags and segments, all or nothing.
    Flags {
        /// What.
        changes: Vec<FlagChange>,
        /// Past the guard on unwatched jumps.
        break_glass: bool,
    },
    /// Switch a flag off for everybody.
    FlagKill(String),
    /// Say which environment this is.
    EnvironmentSet(Environment),
    /// Make or change a rollout profile.
    ProfilePut {
        /// Which.
        name: Name,
        /// See [`Profile`].
        definition: Value,
    },
    /// Remove a rollout profile.
    ProfileDelete(String),
    /// Put one person on one variant, for a while.
    PreviewCreate {
        /// Of which flag.
        flag: String,
        /// Which variant.
        variant: String,
        /// Who; none is whoever uses it first.
        subject: Option<Pseudonym>,
        /// It counts until then.
        ends: Timestamp,
    },
    /// Somebody used a preview for the first time.
    PreviewBind {
        /// Which.
        id: Id,
        /// Who.
        subject: Pseudonym,
    },
    /// End a preview.
    PreviewRevoke(Id),
    /// Start an experiment; the shell draws the numbers.
    Start {
        /// What.
        spec: Box<Spec>,
        /// A fresh 128-bit salt, in hex.
        arm_salt: String,
        /// Where to look for free space first, in parts per million.
        offset: u32,
    },
    /// Carry out what `experiments::step`, a person or a halt decided.
    Phase {
        /// Which.
        id: Id,
        /// What.
        transition: Transition,
    },
    /// Acknowledge a stop.
    Ack(Id),
    /// Say whether a rollout works as wanted, as the person it asks.
    Accept {
        /// Which.
        id: Id,
        /// What he says.
        as_wanted: bool,
    },
    /// Record that all proxies confirmed.
    OffEverywhere {
        /// Which.
        id: Id,
        /// How many.
        proxies: u64,
    },
    /// Switch everything that may harm off.
    Halt,
    /// Lift the halt.
    Resume,
}

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
    /// What to do next.
    pub remedy: String,
    /// Where in a document, and why; all of them, beyond what `detail` lists.
    pub findings: Vec<flags::Finding>,
}

pub(crate) fn refuse<T>(
    code: &'static str,
    detail: impl Into<String>,
    remedy: impl Into<String>,
) -> Result<T, Refusal> {
    Err(Refusal { code, detail: detail.into(), remedy: remedy.into(), findings: Vec::new() })
}

/// An entry that fits a leaf.
fn written(action: Action, actor: &str, reason: &str, now: Timestamp) -> Result<Entry, Refusal> {
    let entry = Entry {
        v: 1,
        ts: now.micros(),
        actor: actor.to_owned(),
        reason: reason.chars().take(2_000).collect(),
        break_glass: false,
        batch: None,
        action,
    };
    let len = entry.to_bytes().len();
    if len > ENTRY_BYTES_MAX {
        let detail = format!(
            "the entry for {} would hold {len} bytes, a leaf of the audit log {ENTRY_BYTES_MAX}",
            entry.resource()
        );
        return refuse("too-large", detail, "make the definition smaller, or send fewer changes at once");
    }
    Ok(entry)
}

/// The first findings of a definition, as one sentence.
fn listed(findings: &[flags::Finding]) -> String {
    const SHOWN: usize = 10;
    let mut list: Vec<String> = findings.iter().take(SHOWN).map(ToString::to_string).collect();
    if findings.len() > SHOWN {
        list.push(format!("and {} more", findings.len() - SHOWN));
    }
    list.join("; ")
}

impl State {
    /// Turns a command into the entries that record it: one, or a batch that counts as a whole. Nothing has changed yet.
    pub fn decide(&self, command: Command, actor: &str, reason: &str, now: Timestamp) -> Result<Vec<Entry>, Refusal> {
        let Command::Flags { changes, break_glass } = command else {
            return self.decide_one(command, actor, reason, now).map(|entry| vec![entry]);
        };
        if break_glass && reason.trim().is_empty() {
            let remedy = "say why with --reason: somebody will look at it afterwards";
            return refuse("reason-needed", "breaking the glass needs a reason", remedy);
        }
        self.candidate(&changes)?;
        let of = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let mut entries = Vec::with_capacity(changes.len());
        for (n, change) in changes.into_iter().enumerate() {
            let action = match change {
                FlagChange::Put { key, definition } => Action::FlagPut { key, definition },
                FlagChange::Delete(key) => Action::FlagDelete { key },
                FlagChange::Revive(key) => Action::FlagRevive { key },
                FlagChange::PutSegment { key, definition } => Action::SegmentPut { key, definition },
                FlagChange::DeleteSegment(key) => Action::SegmentDelete { key },
            };
            let mut entry = written(action, actor, reason, now)?;
            entry.break_glass = break_glass;
            entry.batch = (of > 1).then_some(Batch { n: n as u32, of });
            entries.push(entry);
        }
        Ok(entries)
    }

    fn decide_one(&self, command: Command, actor: &str, reason: &str, now: Timestamp) -> Result<Entry, Refusal> {
        let action = match command {
            Command::Flags { .. } => {
                return refuse("internal", "flags are decided together", "this is a fault of ours");
            }
            Command::TokenCreate { role: Role::Delegate, .. } => {
                let detail = "a token of this role comes with bounds";
                return refuse("invalid-delegation", detail, "make it with `seaworthy delegation create`");
            }
            Command::TokenCreate { name, role, hash, expires } => {
                if self.tokens.len() >= TOKENS_MAX {
                    return refuse("too-many-tokens", format!("there are {TOKENS_MAX} tokens"), "revoke some");
                }
                let expires = expires.map(Timestamp::micros);
                Action::TokenCreate { name, role, sha256: hash.to_hex(), expires }
            }
            Command::Delegate { name, hash, expires, bounds } => {
                if self.tokens.len() >= TOKENS_MAX {
                    return refuse("too-many-tokens", format!("there are {TOKENS_MAX} tokens"), "revoke some");
                }
                let record = self.known_flag(&bounds.flag)?;
                bounds.findings(&record.flag, |segment| self.segments.contains_key(segment))?;
                Action::Delegate { name, sha256: hash.to_hex(), expires: expires.map(Timestamp::micros), bounds }
            }
            Command::TokenRevoke(id) => match self.tokens.values().any(|t| t.id == id) {
                true => Action::TokenRevoke { id },
                false => {
                    return refuse("unknown-token", format!("there is no token {id}"), "see `seaworthy token list`");
                }
            },
            Command::FlagKill(key) => {
                if !self.can_be_killed(&key) {
                    self.known_flag(&key)?;
                }
                Action::FlagKill { key }
            }
            Command::EnvironmentSet(environment) => {
                if let Some(own) = self.environment.as_ref().filter(|own| !own.is_same(&environment)) {
                    let detail = format!("this is {own}, not {environment}");
                    return refuse("other-environment", detail, "an environment has a data directory of its own");
                }
                Action::EnvironmentSet { environment }
            }
            Command::ProfilePut { name, definition } => self.put_profile(name, definition)?,
            Command::ProfileDelete(name) => match self.profiles.contains_key(&name) {
                true => Action::ProfileDelete { name },
                false => {
                    return refuse(
                        "unknown-profile",
                        format!("there is no profile {name:?}"),
                        "see `seaworthy profile list`",
                    );
                }
            },
            Command::PreviewCreate { flag, variant, subject, ends } => {
                self.create_preview(flag, variant, subject, ends, now)?
            }
            Command::PreviewBind { id, subject } => match self.known_preview(id)?.subject {
                None => Action::PreviewBind { id, subject: subject.to_string() },
                Some(_) => {
                    return refuse("already-bound", format!("preview {id} is somebody's"), "nothing is left to do");
                }
            },
            Command::PreviewRevoke(id) => {
                self.known_preview(id)?;
                Action::PreviewRevoke { id }
            }
            Command::Start { spec, arm_salt, offset } => self.start(spec, arm_salt, offset, now)?,
            Command::Phase { id, transition } => {
                let experiment = self.known_experiment(id)?;
                if !experiment.phase.is_live() {
                    let detail = format!("experiment {id} is {} already", experiment.phase.as_str());
                    return refuse("not-live", detail, "nothing is left to do");
                }
                if transition.to == Phase::Promoted {
                    self.may_promote(experiment)?;
                }
                let entry = Entry {
                    v: 1,
                    ts: now.micros(),
                    actor: actor.to_owned(),
                    reason: transition.reason,
                    break_glass: false,
                    batch: None,
                    action: Action::ExperimentPhase { id, to: transition.to.into(), verdict: transition.verdict },
                };
                return Ok(entry);
            }
            Command::Ack(id) => {
                let experiment = self.known_experiment(id)?;
                if !experiment.needs_ack() {
                    let detail = format!("experiment {id} is {} and needs none", experiment.phase.as_str());
                    return refuse("nothing-to-acknowledge", detail, "nothing is left to do");
                }
                Action::ExperimentAck { id }
            }
            Command::Accept { id, as_wanted } => {
                let experiment = self.known_experiment(id)?;
                let wanted = &experiment.spec.acceptance;
                if wanted.is_empty() {
                    let detail = format!("experiment {id} asks nobody for acceptance");
                    return refuse("nothing-to-accept", detail, "nothing is left to do");
                }
                if !experiment.phase.is_live() {
                    let detail = format!("experiment {id} is {} already", experiment.phase.as_str());
                    return refuse("not-live", detail, "nothing is left to do");
                }
                if actor != format!("token:{wanted}") {
                    let detail = format!("experiment {id} asks {wanted} for acceptance, not {actor}");
                    return refuse("not-yours-to-accept", detail, format!("call with the token named {wanted}"));
                }
                Action::ExperimentAccept { id, as_wanted }
            }
            Command::OffEverywhere { id, proxies } => Action::ExperimentOff { id, proxies, at: now.micros() },
            Command::Halt => Action::Halt,
            Command::Resume if self.halted => Action::Resume,
            Command::Resume => return refuse("not-halted", "nothing is halted", "nothing is left to do"),
        };
        written(action, actor, reason, now)
    }

    /// Whether there is something to switch off: a flag, or one that a rollout is about to make.
    pub fn can_be_killed(&self, key: &str) -> bool {
        self.flags.contains_key(key) || self.patches.values().any(|patch| patch.flags().contains_key(key))
    }

    /// What was decided a moment ago may not hold any more: a kill or a no of the person asked beats a promotion.
    fn may_promote(&self, experiment: &Experiment) -> Result<(), Refusal> {
        let (id, remedy) = (experiment.id, "it is stopped at the next turn");
        if let Some(key) = self.cut.get(&id) {
            return refuse("killed", format!("flag {key:?} was killed under experiment {id}"), remedy);
        }
        if experiment.acceptance.as_ref().is_some_and(|said| !said.as_wanted) {
            return refuse(
                "not-wanted",
                format!("{} says that it is not as wanted", experiment.spec.acceptance),
                remedy,
            );
        }
        if !experiment.spec.acceptance.is_empty() && experiment.acceptance.is_none() {
            return refuse("not-accepted", format!("{} has not said yet", experiment.spec.acceptance), "wait for that");
        }
        Ok(())
    }

    fn known_flag(&self, key: &str) -> Result<&FlagRecord, Refusal> {
        match self.flags.get(key) {
            Some(record) => Ok(record),
            None => refuse("unknown-flag", format!("there is no flag {key:?}"), "see `seaworthy flag list`"),
        }
    }

    fn known_experiment(&self, id: Id) -> Result<&Experiment, Refusal> {
        match self.experiments.get(&id) {
            Some(experiment) => Ok(experiment),
            None => {
                refuse("unknown-experiment", format!("there is no experiment {id}"), "see `seaworthy experiment list`")
            }
        }
    }

    /// Carries an entry out. Entries that cannot be read are skipped and named by [`State::skipped`].
    pub fn apply(&mut self, index: u64, bytes: &[u8]) {
        self.size = index + 1;
        match Entry::from_bytes(bytes) {
            Ok(entry) => self.in_order(index, entry),
            Err(_) => self.skipped.push(index),
        }
    }

    /// A batch is carried out with its last entry. One that was cut off by a crash was never acknowledged and is dropped.
    fn in_order(&mut self, index: u64, entry: Entry) {
        let Some(batch) = entry.batch else {
            self.skipped.extend(self.pending.drain(..).map(|(index, _)| index));
            return self.carry_out(index, entry);
        };
        if batch.n as usize != self.pending.len() || batch.n >= batch.of {
            self.skipped.extend(self.pending.drain(..).map(|(index, _)| index));
            if batch.n != 0 {
                return self.skipped.push(index);
            }
        }
        self.pending.push((index, entry));
        if batch.n + 1 == batch.of {
            for (index, entry) in std::mem::take(&mut self.pending) {
                self.carry_out(index, entry);
            }
        }
    }

    fn note_history(&mut self, key: &str, index: u64) {
        let history = self.histories.entry(key.to_owned()).or_default();
        if history.last() == Some(&index) {
            return;
        }
        if history.len() >= HISTORY_MAX {
            history.remove(0);
        }
        history.push(index);
    }

    fn carry_out(&mut self, index: u64, entry: Entry) {
        let at = entry.time();
        if entry.break_glass {
            if self.reviews.len() >= HISTORY_MAX {
                self.reviews.remove(0);
            }
            self.reviews.push(index);
        }
        match entry.action {
            Action::TokenCreate { name, role, sha256, expires } => {
                let Some(hash) = TokenHash::from_hex(&sha256) else { return self.skipped.push(index) };
                let token = Token { name, role, expires: expires.map(Timestamp::from_micros) };
                self.tokens.insert(hash, TokenRecord { id: Id::new(Kind::Token, index), token, delegation: None });
            }
            Action::Delegate { name, sha256, expires, bounds } => {
                let Some(hash) = TokenHash::from_hex(&sha256) else { return self.skipped.push(index) };
                let token = Token { name, role: Role::Delegate, expires: expires.map(Timestamp::from_micros) };
                let delegation = Some(Arc::from(bounds));
                self.tokens.insert(hash, TokenRecord { id: Id::new(Kind::Token, index), token, delegation });
            }
            Action::TokenRevoke { id } => self.tokens.retain(|_, record| record.id != id),
            Action::FlagPut { key, definition } => self.change_flags(index, FlagChange::Put { key, definition }),
            Action::FlagDelete { key } => self.change_flags(index, FlagChange::Delete(key)),
            Action::FlagRevive { key } => self.change_flags(index, FlagChange::Revive(key)),
            Action::SegmentPut { key, definition } => {
                self.change_flags(index, FlagChange::PutSegment { key, definition });
            }
            Action::SegmentDelete { key } => self.change_flags(index, FlagChange::DeleteSegment(key)),
            Action::FlagKill { key } => {
                self.note_history(&key, index);
                match self.flags.get_mut(&key) {
                    Some(record) => _ = record.before_kill.get_or_insert_with(|| record.flag.clone()),
                    None => _ = self.killed_absent.insert(key.clone()),
                }
                // Off means off: previews and what an experiment serves go with it.
                self.previews.retain(|_, preview| preview.flag != key);
                let on_it = self.experiments_by_flag().remove(&key);
                self.cut.extend(on_it.map(|id| (id, key.clone())));
                self.redefine(&key, index, Flag::killed);
            }
            Action::EnvironmentSet { environment } => self.environment = Some(environment),
            Action::ProfilePut { name, definition } => match Profile::read(&definition) {
                Ok(profile) => {
                    self.profiles.insert(name, ProfileRecord { profile: Arc::new(profile), version: index });
                }
                Err(_) => self.skipped.push(index),
            },
            Action::ProfileDelete { name } => {
                self.profiles.remove(&name);
            }
            action @ Action::PreviewCreate { .. } => self.add_preview(index, at, entry.actor, action),
            Action::PreviewBind { id, subject } => self.bind_preview(id, &subject),
            Action::PreviewRevoke { id } => {
                self.previews.remove(&id);
            }
            Action::ExperimentStart { spec, arm_salt, layer_salt, offset } => {
                let id = Id::new(Kind::Experiment, index);
                self.note_experiment(&spec.treatment, index);
                if let Treatment::Flags(changes) = &spec.treatment {
                    match self.patch(changes) {
                        Some(patch) => self.patches.insert(id, Arc::new(patch)),
                        None => return self.skipped.push(index),
                    };
                }
                let experiment = Experiment {
                    id,
                    spec: Arc::from(spec),
                    layer_salt,
                    arm_salt,
                    offset,
                    phase: Phase::WarmUp,
                    reached: None,
                    reason: "warming up: both arms run without the change".to_owned(),
                    started_at: at,
                    phase_at: at,
                    harm_began_at: None,
                    ended_at: None,
                    acknowledged: false,
                    acceptance: None,
                    verdict: None,
                    epoch: self.epoch,
                };
                self.experiments.insert(id, experiment);
            }
            Action::ExperimentPhase { id, to, verdict } => {
                self.change_phase(id, index, (&to).into(), entry.reason, verdict, at)
            }
            Action::ExperimentAck { id } => {
                if let Some(experiment) = self.experiments.get_mut(&id) {
                    experiment.acknowledged = true;
                }
            }
            Action::ExperimentAccept { id, as_wanted } => {
                if let Some(experiment) = self.experiments.get_mut(&id) {
                    experiment.acceptance = Some(Acceptance { as_wanted, note: entry.reason, at });
                }
            }
            Action::ExperimentOff { id, at, .. } => {
                self.off.entry(id).or_insert(Timestamp::from_micros(at));
            }
            Action::Halt => {
                self.halted = true;
                self.epoch += 1;
            }
            Action::Resume => self.halted = false,
        }
    }

    fn change_phase(
        &mut self,
        id: Id,
        index: u64,
        to: Phase,
        reason: String,
        verdict: Option<experiments::Verdict>,
        at: Timestamp,
    ) {
        let Some(experiment) = self.experiments.get_mut(&id) else { return };
        if !experiment.phase.is_live() {
            // Two decisions may race to the log; the first one stands.
            return;
        }
        let spec = experiment.spec.clone();
        self.note_experiment(&spec.treatment, index);
        let Some(experiment) = self.experiments.get_mut(&id) else { return };
        experiment.phase = to;
        experiment.reached = to.stage().or(experiment.reached);
        experiment.phase_at = at;
        experiment.reason = reason;
        if matches!(to, Phase::Running { .. }) && experiment.harm_began_at.is_none() {
            experiment.harm_began_at = Some(at);
        }
        if to.is_live() {
            return;
        }
        experiment.ended_at = Some(at);
        experiment.verdict = verdict;
        self.verdicts.insert(id, index);
        self.patches.remove(&id);
        self.cut.remove(&id);
        if to != Phase::Promoted {
            return;
        }
        match &spec.treatment {
            Treatment::Fault(_) => {}
            Treatment::Flag(change) if self.flags.get(&change.key).is_some_and(|record| record.flag.has_rules()) => {
                if let Some(record) = self.flags.get_mut(&change.key) {
                    record.promoted = Some((id, change.variant.as_str().into()));
                    record.version = index;
                }
            }
            Treatment::Flag(change) => self.redefine(&change.key, index, |flag| flag.promoted(&change.variant)),
            Treatment::Flags(changes) => changes.iter().for_each(|change| self.change_flags(index, change.clone())),
        }
    }

    fn note_experiment(&mut self, treatment: &Treatment, index: u64) {
        match treatment {
            Treatment::Fault(_) => {}
            Treatment::Flag(change) => self.note_history(&change.key, index),
            Treatment::Flags(changes) => {
                for (is_flag, key) in changes.iter().map(FlagChange::place) {
                    if is_flag {
                        self.note_history(key, index);
                    }
                }
            }
        }
    }

    /// Carries one change of flags out.
    fn change_flags(&mut self, index: u64, change: FlagChange) {
        match change {
            FlagChange::Put { key, definition } => match Flag::compile(&key, &definition, &Map::new(), &Map::new()) {
                Ok(flag) => {
                    self.note_history(&key, index);
                    let was = self.flags.remove(&key).and_then(|record| record.before_kill);
                    let killed = was.is_some() || self.killed_absent.remove(&key);
                    let record = FlagRecord { flag: Arc::new(flag), version: index, promoted: None, before_kill: was };
                    self.flags.insert(key.clone(), record);
                    // Off stays off: what is put is what a revival will bring.
                    if let (true, Some(record)) = (killed, self.flags.get_mut(&key)) {
                        if record.flag.ever_enabled() || record.before_kill.is_none() {
                            record.before_kill = Some(record.flag.clone());
                            self.redefine(&key, index, Flag::killed);
                        }
                    }
                }
                Err(_) => self.skipped.push(index),
            },
            FlagChange::Delete(key) => {
                self.note_history(&key, index);
                if self.flags.remove(&key).is_some_and(|record| record.before_kill.is_some()) {
                    self.killed_absent.insert(key);
                }
            }
            FlagChange::Revive(key) => {
                self.note_history(&key, index);
                self.killed_absent.remove(&key);
                if let Some(record) = self.flags.get_mut(&key) {
                    if let Some(before) = record.before_kill.take() {
                        record.flag = before;
                        record.version = index;
                    }
                }
            }
            FlagChange::PutSegment { key, definition } => match Segment::compile(&definition) {
                Ok(segment) => {
                    self.segments.insert(key, SegmentRecord { segment: Arc::new(segment), version: index });
                }
                Err(_) => self.skipped.push(index),
            },
            FlagChange::DeleteSegment(key) => {
                self.segments.remove(&key);
            }
        }
    }

    fn redefine(&mut self, key: &str, index: u64, change: impl FnOnce(&Flag) -> Value) {
        let Some(record) = self.flags.get_mut(key) else { return };
        let definition = change(&record.flag);
        if let Ok(flag) = Flag::compile(key, &definition, &Map::new(), &Map::new()) {
            record.flag = Arc::new(flag);
            record.version = index;
        }
    }

    /// The token with this hash.
    pub fn token(&self, hash: &TokenHash) -> Option<&TokenRecord> {
        self.tokens.get(hash)
    }

    /// All tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenRecord> {
        self.tokens.values()
    }

    /// All flags, by key.
    pub fn flags(&self) -> &BTreeMap<String, FlagRecord> {
        &self.flags
    }

    /// The flags as a set for evaluation.
    pub fn flag_set(&self) -> FlagSet {
        let segments = self.segments.iter().map(|(key, record)| (key.clone(), record.segment.clone()));
        FlagSet::of(self.flags.values().map(|record| record.flag.clone()), Map::new()).with_segments(segments)
    }

    /// Which environment this is, if anybody said so.
    pub fn environment(&self) -> Option<&Environment> {
        self.environment.as_ref()
    }

    /// Rollout profiles, by name.
    pub fn profiles(&self) -> &BTreeMap<String, ProfileRecord> {
        &self.profiles
    }

    /// The flag that was killed under a live experiment, which serves nothing since.
    pub fn cut(&self, id: Id) -> Option<&str> {
        self.cut.get(&id).map(String::as_str)
    }

    /// All segments, by key.
    pub fn segments(&self) -> &BTreeMap<String, SegmentRecord> {
        &self.segments
    }

    /// Audit indexes of changes made past the guard on unwatched jumps, oldest first; the newest thousand.
    pub fn reviews(&self) -> &[u64] {
        &self.reviews
    }

    /// Audit indexes of what happened to a flag, oldest first; the newest thousand.
    pub fn flag_history(&self, key: &str) -> &[u64] {
        self.histories.get(key).map_or(&[], Vec::as_slice)
    }

    /// All experiments, oldest first.
    pub fn experiments(&self) -> impl DoubleEndedIterator<Item = &Experiment> {
        self.experiments.values()
    }

    /// The experiments that can still change by themselves.
    pub fn live(&self) -> impl Iterator<Item = &Experiment> {
        self.experiments.values().filter(|e| e.phase.is_live())
    }

    /// One experiment, by id or by name (the newest of that name).
    pub fn experiment(&self, id_or_name: &str) -> Option<&Experiment> {
        if let Ok(id) = Id::parse(id_or_name) {
            return self.experiments.get(&id);
        }
        let name = Name::parse(id_or_name).ok()?;
        self.experiments.values().rev().find(|e| e.spec.name == name)
    }

    /// The audit index of an ended experiment's verdict.
    pub fn verdict_index(&self, id: Id) -> Option<u64> {
        self.verdicts.get(&id).copied()
    }

    /// When every connected proxy confirmed that an experiment's treatment is off.
    pub fn off_everywhere_at(&self, id: Id) -> Option<Timestamp> {
        self.off.get(&id).copied()
    }

    /// Whether everything that may harm is off.
    pub fn halted(&self) -> bool {
        self.halted
    }

    /// Raised by each halt: instructions of older epochs are worth nothing.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many entries it folded.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Entries that could not be read.
    pub fn skipped(&self) -> &[u64] {
        &self.skipped
    }
}
