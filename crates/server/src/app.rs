//! What everything shares, and the one commit path.
//!
//! A commit is: decide on the present state → entry durable in the audit log → apply → publish to SDKs, proxies and the
//! console. What makes things safer is published first and recorded at the same time: with a full disk it still works, and
//! is recorded as soon as there is room (`spool`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use audit::{AppendError, Log};
use auth::{Role, TokenHash};
use control::guard::Jumps;
use control::{Action, Command, Entry, EnvironmentKind, FlagChange, State, TokenRecord};
use events::Store;
use experiments::Treatment;
use files::Files;
use flags::{FlagSet, Impact};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use vocab::{Id, Timestamp};

use crate::intake::Job;
use crate::known_names::KnownNames;
use crate::lifecycle::Lifecycle;
use crate::log_templates::LogTemplates;
use crate::previews::Previews;
use crate::problem::Problem;
use crate::recent::Recent;
use crate::tap::Tap;

/// A proxy that was not heard from for this long holds no lease any more.
pub(crate) const LEASE_SECS: f64 = 3.0;

/// Entries of one batch that the console is told one by one; it reads the others from the log.
const NEWS_MAX: usize = 100;

/// State and log, in step.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) state: State,
    pub(crate) log: Log,
}

/// A connected proxy.
#[derive(Clone, Debug)]
pub(crate) struct ProxySeen {
    pub(crate) name: String,
    pub(crate) at: Instant,
    pub(crate) version: u64,
}

/// Something for the console's stream.
#[derive(Clone, Debug)]
pub(crate) struct News {
    pub(crate) event: &'static str,
    pub(crate) data: String,
}

/// What was switched off before it could be recorded.
#[derive(Debug, Default)]
pub(crate) struct Emergency {
    experiments: BTreeSet<Id>,
    flags: BTreeSet<String>,
    tokens: BTreeSet<Id>,
    all: bool,
    spool: Vec<(Command, String, String)>,
}

/// How a change of flags is asked for.
#[derive(Debug, Default)]
pub(crate) struct How {
    /// Past the guard on unwatched jumps.
    pub(crate) break_glass: bool,
    /// It takes back what somebody was allowed to set: the flag is again as its owner has it.
    pub(crate) back: bool,
    /// Audit indexes of the last changes that the caller knows of, by target (`flag player`); 0 is none.
    pub(crate) expected: Vec<(String, u64)>,
}

impl How {
    /// Whether the caller knows what he changes.
    pub(crate) fn check(&self, state: &State) -> Result<(), Problem> {
        for (target, version) in &self.expected {
            let is = match target.split_once(' ') {
                Some(("flag", key)) => state.flags().get(key).map(|record| record.version),
                Some((_, key)) => state.segments().get(key).map(|record| record.version),
                None => None,
            };
            if is.unwrap_or(0) != *version {
                let is =
                    is.map_or("is not there".to_owned(), |version| format!("was changed by audit entry {version}"));
                let detail = format!("{target} {is}, you know entry {version}");
                let remedy = "look at it as it is now, then change it again";
                return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "changed-meanwhile", detail, remedy));
            }
        }
        Ok(())
    }
}

/// A change of flags that is on record.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The audit index; of a batch the last.
    pub(crate) index: u64,
    pub(crate) impacts: Vec<Impact>,
    /// It was too much at once, and is a rollout now.
    pub(crate) rollout: Option<Id>,
}

/// What a change does, and if that is too much at once: why, and the flags as they would be.
pub(crate) type Judged = (Vec<Impact>, Option<(Jumps, FlagSet)>);

/// The numbers of an experiment: the salt of its arms, and where to look for space first.
pub(crate) fn draw() -> Result<(String, u32), Problem> {
    let mut random = [0_u8; 20];
    getrandom::fill(&mut random)
        .map_err(|e| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-randomness", e.to_string(), "try again"))?;
    let arm_salt = random[..16].iter().map(|b| format!("{b:02x}")).collect();
    let offset = u32::from_le_bytes([random[16], random[17], random[18], random[19]]) % vocab::Share::WHOLE;
    Ok((arm_salt, offset))
}

/// Everything the shell shares.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) plane: Mutex<Plane>,
    pub(crate) state: ArcSwap<State>,
    pub(crate) flags: ArcSwap<openfeature::Snapshot>,
    /// Whether changes of flags go past the guard on jumps.
    pub(crate) dev: bool,
    /// Who and what was evaluated lately.
    pub(crate) recent: Arc<Recent>,
    pub(crate) previews: Arc<Previews>,
    /// Who reports which flag. Its locks are never held with any other but [`Recent`]'s.
    pub(crate) lifecycle: Lifecycle,
    pub(crate) log_templates: LogTemplates,
    /// The same flags for clients.
    pub(crate) hub: Arc<flagd::Hub>,
    pub(crate) ofrep_rate: Option<flagd::limit::Rate>,
    pub(crate) cors: Option<flagd::http::Cors>,
    pub(crate) proxy_snapshot: watch::Sender<Arc<(u64, String)>>,
    pub(crate) proxies: Mutex<HashMap<String, ProxySeen>>,
    pub(crate) emergency: Mutex<Emergency>,
    pub(crate) store: Arc<Store>,
    #[cfg(feature = "sql")]
    pub(crate) sql: sql::Engine,
    pub(crate) tap: Mutex<Tap>,
    pub(crate) intake: mpsc::Sender<Job>,
    pub(crate) news: broadcast::Sender<News>,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) pass: flagd::Pass,
    pub(crate) redactor: otlp::Redactor,
    pub(crate) known_names: KnownNames,
    pub(crate) key_hex: String,
    pub(crate) data_dir: String,
    pub(crate) rows_in: AtomicU64,
    pub(crate) rows_per_second: AtomicU64,
    pub(crate) disk_full: std::sync::atomic::AtomicBool,
    pub(crate) version: AtomicU64,
    /// Held while what is off and what is published change together. Order of locks: plane, publishing, emergency; the tap is
    /// never held with any of them.
    pub(crate) publishing: Mutex<()>,
    /// Held while tallies are written, so that an older one never replaces a newer one.
    pub(crate) checkpointing: Mutex<()>,
    /// Batches of the event log from this number on are not in every tally's checkpoint yet.
    pub(crate) keep_from: AtomicU64,
    /// When the watch loop last turned: without a watcher no lease is renewed.
    pub(crate) watched_at: Mutex<Instant>,
    /// Shares events with other servers, once it is started and if there is a bucket.
    pub(crate) mirror: OnceLock<bucket::Mirror>,
    /// Whether senders wait until their events are in the bucket.
    pub(crate) acknowledge_in_bucket: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shell's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl App {
    /// Who calls, if he may do what needs `role`.
    pub(crate) fn authorize(&self, headers: &HeaderMap, role: Role) -> Result<String, Problem> {
        self.known(headers, role).map(|(actor, _)| actor)
    }

    /// The same, with his token.
    pub(crate) fn known(&self, headers: &HeaderMap, role: Role) -> Result<(String, TokenRecord), Problem> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = bearer.or_else(|| headers.get("x-api-key").and_then(|v| v.to_str().ok()));
        let state = self.state.load();
        let known = token
            .and_then(|token| state.token(&TokenHash::of(token)))
            .filter(|record| !lock(&self.emergency).tokens.contains(&record.id));
        auth::authorize(known.map(|record| &record.token), role, now())?;
        let record = known.cloned().ok_or(auth::Denied::Unauthenticated)?;
        let kind = if record.delegation.is_some() { "delegation" } else { "token" };
        Ok((format!("{kind}:{}", record.token.name), record))
    }

    /// The flags as clients see them. With a pass: on the port that asks for tokens.
    pub(crate) fn face(&self, pass: Option<flagd::Pass>) -> flagd::Face {
        // Where no token is checked, whoever made one up for each request would have no limit.
        let by = if pass.is_some() { flagd::limit::By::Credential } else { flagd::limit::By::Address };
        let limiter = self.ofrep_rate.map(|rate| Arc::new(flagd::Limiter::new(rate, by)));
        flagd::Face { pass, limiter, ..flagd::Face::new(self.hub.clone()) }
    }

    /// With the answers that browsers want before pages of other origins may call.
    pub(crate) fn open_to_pages(&self, router: axum::Router) -> axum::Router {
        match &self.cors {
            Some(cors) => router.layer(cors.clone()),
            None => router,
        }
    }

    /// Whether changes are made at once, however many users they move.
    pub(crate) fn is_dev(&self, state: &State) -> bool {
        self.dev || state.environment().is_some_and(|environment| environment.kind == EnvironmentKind::Dev)
    }

    /// Decides, records, applies, publishes. Returns the audit index; of a batch the last.
    pub(crate) fn commit(&self, command: Command, actor: &str, reason: &str) -> Result<u64, Problem> {
        if let Command::Flags { changes, break_glass } = command {
            let how = How { break_glass, ..How::default() };
            return self.commit_flags(changes, &how, actor, reason).map(|changed| changed.index);
        }
        if let Command::Start { spec, .. } = &command {
            self.judge_start(spec)?;
        }
        let urgent = self.switch_off_first(&command);
        self.record(lock(&self.plane), command, urgent, actor, reason)
    }

    /// The same for flags and segments, with what the change does to the subjects seen lately. What is too much at once becomes a
    /// rollout. Judging takes its time, so it is done beside the plane, and counts if nothing has changed when the plane is ours.
    pub(crate) fn commit_flags(
        &self,
        changes: Vec<FlagChange>,
        how: &How,
        actor: &str,
        reason: &str,
    ) -> Result<Changed, Problem> {
        const BESIDE_MAX: usize = 3;
        for beside in (0..=BESIDE_MAX).rev() {
            // Others may change something all the time: the last time it is judged while nobody can.
            let held = (beside == 0).then(|| lock(&self.plane));
            let state = self.state.load_full();
            how.check(&state)?;
            let (impacts, jumps) = self.judge(&state, &changes)?;
            let break_glass = how.break_glass;
            let jumps = jumps.filter(|_| !break_glass && !how.back && !self.is_dev(&state));
            let command = match jumps {
                None => Command::Flags { changes: changes.clone(), break_glass },
                Some((jumps, after)) => {
                    let spec = Box::new(state.staged(changes.clone(), &jumps, &after, reason)?);
                    let (arm_salt, offset) = draw()?;
                    Command::Start { spec, arm_salt, offset }
                }
            };
            let plane = held.unwrap_or_else(|| lock(&self.plane));
            if plane.state.size() != state.size() {
                continue;
            }
            let became_rollout = matches!(command, Command::Start { .. });
            let index = self.record(plane, command, false, actor, reason)?;
            if !became_rollout && !break_glass {
                for impact in impacts.iter().filter(|impact| impact.changed > 0 && impact.subjects > 0) {
                    let share = impact.changed as f64 / impact.subjects as f64;
                    self.recent.note_moved(&impact.key, share, now());
                }
            }
            let rollout = became_rollout.then(|| Id::new(vocab::Kind::Experiment, index));
            return Ok(Changed { index, impacts, rollout });
        }
        Err(Problem::new(StatusCode::CONFLICT, "changed-meanwhile", "the flags change all the time", "try again"))
    }

    /// A person's own experiment on changes of flags is bounded as a rollout by itself is: what stages cannot carry out is refused.
    fn judge_start(&self, spec: &experiments::Spec) -> Result<(), Problem> {
        let Treatment::Flags(changes) = &spec.treatment else { return Ok(()) };
        let state = self.state.load_full();
        let jumps = self.judge(&state, changes)?.1.filter(|_| !self.is_dev(&state)).map(|(jumps, _)| jumps.0);
        let jumps: Vec<_> = jumps.into_iter().flatten().filter(|jump| !jump.can_be_staged).collect();
        if jumps.is_empty() {
            return Ok(());
        }
        Err(Jumps(jumps).refusal("leave that out, or let it come in steps of that size").into())
    }

    /// What changes do, and what of that is too much at once, with the flags as they would be.
    pub(crate) fn judge(&self, state: &State, changes: &[FlagChange]) -> Result<Judged, Problem> {
        let (before, after, impacts) = self.impacts(state, changes)?;
        let asked = |key: &str| self.recent.asked_lately(key, now());
        let judged = control::guard::judge(&impacts, &before, &after, &asked, self.recent.known_share(now()), &|key| {
            self.recent.moved(key, now())
        });
        Ok((impacts, judged.err().map(|jumps| (jumps, after))))
    }

    fn record(
        &self,
        mut plane: MutexGuard<'_, Plane>,
        command: Command,
        urgent: bool,
        actor: &str,
        reason: &str,
    ) -> Result<u64, Problem> {
        let entries = plane.state.decide(command.clone(), actor, reason, now())?;
        let bytes: Vec<Vec<u8>> = entries.iter().map(Entry::to_bytes).collect();
        let first = match plane.log.append(&bytes, urgent) {
            Ok(index) => index,
            Err(error) => {
                drop(plane);
                return Err(self.not_recorded(error, urgent, command, actor, reason));
            }
        };
        self.disk_full.store(false, Ordering::Relaxed);
        for (index, bytes) in (first..).zip(&bytes) {
            plane.state.apply(index, bytes);
        }
        {
            let _order = lock(&self.publishing);
            entries.iter().for_each(|entry| self.settled(entry));
            self.publish(&plane.state);
        }
        drop(plane);
        for (index, entry) in (first..).zip(&entries).take(NEWS_MAX) {
            let data = entry_json(index, entry).to_string();
            let _ = self.news.send(News { event: "audit", data });
        }
        // Of a batch the last: with it the whole counts.
        Ok(first + entries.len() as u64 - 1)
    }

    /// What changes of flags would do to the subjects seen lately: the flags before and after, and each flag's share.
    fn impacts(&self, state: &State, changes: &[FlagChange]) -> Result<(FlagSet, FlagSet, Vec<Impact>), Problem> {
        let after = state.candidate(changes)?;
        let before = state.served();
        let mut overlays = before.overlays().clone();
        // A change of a flag ends what an experiment promoted in front of it.
        for change in changes {
            if let FlagChange::Put { key, .. } | FlagChange::Delete(key) = change {
                overlays.remove(key);
            }
        }
        let after = state.with_announced(after).with_overlays(overlays);
        let (contexts, asks) = self.recent.sample(now());
        let asks = |n: usize, key: &str| asks.get(n).is_some_and(|asks| self.recent.asks(asks, key));
        let impacts = flags::impact(&before, &after, &contexts, &asks, now());
        Ok((before, after, impacts))
    }

    /// Getting safer needs no permission of the disk: off first.
    fn switch_off_first(&self, command: &Command) -> bool {
        let _order = lock(&self.publishing);
        let state = self.state.load_full();
        let harms = |id: &Id| state.experiment(&id.to_string()).is_some_and(|e| e.spec.harms());
        let mut emergency = lock(&self.emergency);
        match command {
            Command::Halt => emergency.all = true,
            // Another key is refused, and must not be off when somebody makes it later.
            Command::FlagKill(key) if state.can_be_killed(key) => {
                emergency.flags.insert(key.clone());
            }
            Command::Phase { id, transition }
                if !transition.to.is_live() && transition.to != experiments::Phase::Promoted =>
            {
                emergency.experiments.insert(*id);
            }
            // A held fault is off, whether or not the disk takes the note.
            Command::Phase { id, transition }
                if matches!(transition.to, experiments::Phase::Held { .. }) && harms(id) =>
            {
                emergency.experiments.insert(*id);
            }
            // Another id is refused, and must not be worth nothing when it is given later.
            Command::TokenRevoke(id) if state.tokens().any(|record| record.id == *id) => {
                emergency.tokens.insert(*id);
            }
            _ => return false,
        }
        drop(emergency);
        self.publish(&state);
        true
    }

    /// Switches an experiment's treatment off before anything is looked at or recorded.
    pub(crate) fn off_now(&self, id: Id) {
        let _order = lock(&self.publishing);
        lock(&self.emergency).experiments.insert(id);
        self.publish(&self.state.load_full());
    }

    /// It is on record now; the state says it.
    fn settled(&self, entry: &Entry) {
        let mut emergency = lock(&self.emergency);
        match &entry.action {
            Action::Halt => emergency.all = false,
            Action::FlagKill { key } | Action::FlagDelete { key } => {
                emergency.flags.remove(key);
            }
            Action::ExperimentPhase { id, .. } => {
                emergency.experiments.remove(id);
            }
            Action::TokenRevoke { id } => {
                emergency.tokens.remove(id);
            }
            _ => {}
        }
    }

    fn not_recorded(&self, error: AppendError, urgent: bool, command: Command, actor: &str, reason: &str) -> Problem {
        let full = matches!(error, AppendError::Full(_));
        self.disk_full.store(full, Ordering::Relaxed);
        tracing::error!(error = %error, "the audit log takes nothing");
        if urgent {
            let mut emergency = lock(&self.emergency);
            // The watch loop decides the same again each turn; once is enough.
            let again = match &command {
                Command::Phase { id, .. } => {
                    emergency.spool.iter().any(|(c, ..)| matches!(c, Command::Phase { id: other, .. } if other == id))
                }
                _ => false,
            };
            if emergency.spool.len() < 10_000 && !again {
                emergency.spool.push((command, actor.to_owned(), reason.to_owned()));
            }
            return Problem::new(
                StatusCode::ACCEPTED,
                "done-not-recorded",
                "it is off; the audit log cannot record it yet",
                "make room on the disk: it is recorded by itself then",
            );
        }
        let (status, code) = if full {
            (StatusCode::INSUFFICIENT_STORAGE, "disk-full")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "audit-unavailable")
        };
        Problem::new(
            status,
            code,
            format!("nothing was changed: {error}"),
            "make room on the disk, then try again; stop, kill and halt work all the same",
        )
    }

    /// Records what was spooled; called by the watch loop.
    pub(crate) fn retry_spool(&self) {
        let waiting = std::mem::take(&mut lock(&self.emergency).spool);
        for (command, actor, reason) in waiting {
            // What fails again is spooled again; what is refused by now (it ended another way) is done with.
            let _ = self.commit(command, &actor, &reason);
        }
    }

    /// Snapshots for SDKs and proxies from the state and what is switched off ahead of it.
    pub(crate) fn publish(&self, state: &State) {
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        let emergency = lock(&self.emergency);
        let mut flags = state.served();
        let mut overlays = flags.overlays().clone();
        // Off means off: what an experiment serves goes with the flag that was killed.
        let killed = emergency.flags.iter().filter_map(|key| overlays.get(key)).map(|overlay| overlay.experiment);
        let off: BTreeSet<Id> = killed.chain(emergency.experiments.iter().copied()).collect();
        for key in &emergency.flags {
            let Some(flag) = flags.flag(key) else { continue };
            let off = flags::Flag::compile(key, &flag.killed(), &Default::default(), &Default::default());
            if let Ok(off) = off {
                flags.insert(Arc::new(off));
            }
        }
        overlays.retain(|_, overlay| !off.contains(&overlay.experiment));
        let experiments: Vec<Value> = state
            .live()
            .filter(|e| !emergency.all && !emergency.experiments.contains(&e.id))
            .filter_map(|e| {
                let Treatment::Fault(fault) = &e.spec.treatment else { return None };
                let slice_part = vocab::Share::from_fraction(e.spec.rho()).unwrap_or(vocab::Share::NONE);
                let population = e.spec.population(e.phase.stage().unwrap_or(0));
                Some(json!({
                    "id": e.id, "epoch": e.epoch, "layer_salt": e.layer_salt, "arm_salt": e.arm_salt, "offset": e.offset,
                    "population": population.ppm(), "treatment_part": slice_part.ppm(), "route": fault.route,
                    "on": e.treatment_is_on() && !state.halted() && e.epoch == state.epoch(), "delay_ms": fault.delay, "abort": fault.abort,
                }))
            })
            .collect();
        let killed_now = emergency.flags.clone();
        drop(emergency);
        let snapshot =
            json!({"version": version, "epoch": state.epoch(), "key": self.key_hex, "experiments": experiments});
        self.previews.update(state, &killed_now);
        if let Some(environment) = state.environment() {
            flags =
                flags.with_metadata([("flagSetId".to_owned(), environment.to_string().into())].into_iter().collect());
        }
        let served = openfeature::Snapshot::new(flags.with_overlays(overlays), true)
            .watched(Some(self.recent.clone()))
            .previewed(Some(self.previews.clone()))
            .since(self.recent.nonce());
        self.hub.put(vec![flagd::Source { uri: "seaworthy".to_owned(), snapshot: served.clone() }]);
        self.flags.store(Arc::new(served));
        self.state.store(Arc::new(state.clone()));
        self.proxy_snapshot.send_replace(Arc::new((version, snapshot.to_string())));
    }

    /// Proxies that hold a lease, by instance.
    pub(crate) fn connected(&self) -> BTreeMap<String, ProxySeen> {
        let mut proxies = lock(&self.proxies);
        proxies.retain(|_, seen| seen.at.elapsed().as_secs() < 3_600);
        proxies
            .iter()
            .filter(|(_, p)| p.at.elapsed().as_secs_f64() < LEASE_SECS)
            .map(|(k, p)| (k.clone(), p.clone()))
            .collect()
    }
}

/// An audit entry for the API.
pub(crate) fn entry_json(index: u64, entry: &Entry) -> Value {
    let body = serde_json::to_value(&entry.action).unwrap_or_default();
    json!({
        "index": index, "ts": entry.time(), "actor": entry.actor, "action": body["action"], "resource": entry.resource(),
        "reason": entry.reason, "break_glass": entry.break_glass, "body": body.get("body").cloned().unwrap_or(Value::Null),
    })
}
