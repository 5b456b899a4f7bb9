//! What everything shares, and the one commit path.
//!
//! A commit is: decide on the present state → entry durable in the audit log → apply → publish to SDKs, proxies and the
//! console. What makes things safer is published first and recorded at the same time: with a full disk it still works, and
//! is recorded as soon as there is room (`spool`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use audit::{AppendError, Log};
use auth::{Role, TokenHash};
use control::{Action, Command, Entry, FlagChange, State};
use events::Store;
use experiments::Treatment;
use files::Files;
use flags::{FlagSet, Impact};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};
use vocab::{Id, Timestamp};

use crate::intake::Job;
use crate::lifecycle::Lifecycle;
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
    /// Who reports which flag. Its locks are never held with any other but [`Recent`]'s.
    pub(crate) lifecycle: Lifecycle,
    /// The same flags for clients.
    pub(crate) hub: Arc<flagd::Hub>,
    pub(crate) ofrep_rate: Option<flagd::limit::Rate>,
    pub(crate) cors: Option<flagd::http::Cors>,
    pub(crate) proxy_snapshot: watch::Sender<Arc<(u64, String)>>,
    pub(crate) proxies: Mutex<HashMap<String, ProxySeen>>,
    pub(crate) emergency: Mutex<Emergency>,
    pub(crate) store: Arc<Store>,
    pub(crate) tap: Mutex<Tap>,
    pub(crate) intake: mpsc::Sender<Job>,
    pub(crate) news: broadcast::Sender<News>,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) pass: flagd::Pass,
    pub(crate) redactor: otlp::Redactor,
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
    /// When the watch loop last turned: without a watcher no lease is renewed.
    pub(crate) watched_at: Mutex<Instant>,
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
        let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = bearer.or_else(|| headers.get("x-api-key").and_then(|v| v.to_str().ok()));
        let state = self.state.load();
        let known = token
            .and_then(|token| state.token(&TokenHash::of(token)))
            .filter(|record| !lock(&self.emergency).tokens.contains(&record.id))
            .map(|record| &record.token);
        auth::authorize(known, role, now())?;
        Ok(format!("token:{}", known.map_or("", |t| t.name.as_str())))
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

    /// Decides, records, applies, publishes. Returns the audit index; of a batch the last.
    pub(crate) fn commit(&self, command: Command, actor: &str, reason: &str) -> Result<u64, Problem> {
        if let Command::Flags { changes, break_glass } = command {
            return self.commit_flags(changes, break_glass, actor, reason).map(|(index, _)| index);
        }
        let urgent = self.switch_off_first(&command);
        self.record(lock(&self.plane), command, urgent, actor, reason)
    }

    /// The same for flags and segments, with what the change does to the subjects seen lately. Judging takes its time, so it is done
    /// beside the plane, and counts if nothing has changed when the plane is ours.
    pub(crate) fn commit_flags(
        &self,
        changes: Vec<FlagChange>,
        break_glass: bool,
        actor: &str,
        reason: &str,
    ) -> Result<(u64, Vec<Impact>), Problem> {
        const BESIDE_MAX: usize = 3;
        let command = Command::Flags { changes: changes.clone(), break_glass };
        for _ in 0..BESIDE_MAX {
            let state = self.state.load_full();
            let impacts = self.judge(&state, &changes, break_glass)?;
            let plane = lock(&self.plane);
            if plane.state.size() == state.size() {
                return self.record(plane, command, false, actor, reason).map(|index| (index, impacts));
            }
        }
        // Others change something all the time: judged while nobody can.
        let plane = lock(&self.plane);
        let impacts = self.judge(&plane.state, &changes, break_glass)?;
        self.record(plane, command, false, actor, reason).map(|index| (index, impacts))
    }

    fn judge(&self, state: &State, changes: &[FlagChange], break_glass: bool) -> Result<Vec<Impact>, Problem> {
        let (before, after, impacts) = self.impacts(state, changes)?;
        if !break_glass && !self.dev {
            control::guard::judge(&impacts, &before, &after, &|key| self.recent.asked_lately(key, now()))?;
        }
        Ok(impacts)
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
    pub(crate) fn impacts(
        &self,
        state: &State,
        changes: &[FlagChange],
    ) -> Result<(FlagSet, FlagSet, Vec<Impact>), Problem> {
        let after = state.candidate(changes)?;
        let before = state.flag_set().with_overlays(state.overlays());
        let mut overlays = state.overlays();
        // A change of a flag ends what an experiment promoted in front of it.
        for change in changes {
            if let FlagChange::Put { key, .. } | FlagChange::Delete(key) = change {
                overlays.remove(key);
            }
        }
        let after = after.with_overlays(overlays);
        let impacts = flags::impact(&before, &after, &self.recent.contexts(now()), now());
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
            Command::FlagKill(key) if state.flags().contains_key(key) => {
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
            Command::TokenRevoke(id) => {
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
        let mut overlays = state.overlays();
        overlays.retain(|_, overlay| !emergency.experiments.contains(&overlay.experiment));
        let mut flags = state.flag_set();
        for key in &emergency.flags {
            let Some(flag) = flags.flag(key) else { continue };
            let off = flags::Flag::compile(key, &flag.killed(), &Default::default(), &Default::default());
            if let Ok(off) = off {
                flags.insert(Arc::new(off));
            }
        }
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
        drop(emergency);
        let snapshot =
            json!({"version": version, "epoch": state.epoch(), "key": self.key_hex, "experiments": experiments});
        let served = openfeature::Snapshot::new(flags.with_overlays(overlays), true).watched(Some(self.recent.clone()));
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
