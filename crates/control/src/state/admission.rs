//! Whether an experiment may start: nothing else on what it changes, and room in the budget for what it harms.

use std::collections::BTreeSet;

use experiments::{Experiment, Spec, Treatment};
use vocab::{Id, Millis, Share, Timestamp};

use super::{Refusal, State, refuse};
use crate::entry::Action;
use crate::guard;

/// The share of subjects that all faults of a layer together may harm.
const BUDGET: Share = match Share::from_ppm(50_000) {
    Some(share) => share,
    None => Share::NONE,
};
/// Twice the proxies' lease.
const QUARANTINE: Millis = Millis::from_secs(6);
/// Live experiments at once; bounds what every tick and every proxy works through.
const LIVE_MAX: usize = 100;

impl State {
    /// Admission: atomic, since it is decided on the state that the entry will follow.
    pub(super) fn start(
        &self,
        spec: Box<Spec>,
        arm_salt: String,
        offset: u32,
        now: Timestamp,
    ) -> Result<Action, Refusal> {
        let findings = spec.findings();
        if !findings.is_empty() {
            let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
            return refuse("invalid-spec", list.join("; "), "mend the spec and send it again");
        }
        if self.halted {
            return refuse("halted", "everything is halted", "`seaworthy experiment resume` lifts it, as an admin");
        }
        if self.live().count() >= LIVE_MAX {
            return refuse("too-many-experiments", format!("{LIVE_MAX} experiments are live"), "wait for one to end");
        }
        if let Some((target, live)) = self.busy(&spec.treatment) {
            let remedy = "one change at a time: wait, or stop that one";
            return refuse("target-busy", format!("{target} is under experiment {live}"), remedy);
        }
        if let Some(same) = self.live().find(|e| e.spec.name == spec.name) {
            return refuse("name-taken", format!("{} is running as {}", spec.name, same.id), "choose another name");
        }
        if let Some((key, step)) = self.first_step_of(&spec.treatment) {
            if spec.stages[0].share > step {
                let detail = format!(
                    "the first stage is {}, and flag {key:?} may change for {step} at first",
                    spec.stages[0].share
                );
                return refuse("first-stage-too-large", detail, "begin with that share, or less");
            }
        }
        let unacknowledged =
            self.experiments.values().filter(|e| e.needs_ack() && e.verdict_was_harm()).find_map(|e| {
                let targets = e.targets();
                Some((e, spec.treatment.targets().into_iter().find(|target| targets.contains(target))?))
            });
        if let Some((stopped, target)) = unacknowledged {
            let detail = format!("experiment {} on {target} was stopped and nobody has acknowledged it", stopped.id);
            let remedy = format!("look at it, then `seaworthy experiment ack {}`", stopped.id);
            return refuse("needs-ack", detail, remedy);
        }
        let layer_salt;
        let offset = match &spec.treatment {
            Treatment::Flag(change) => {
                let record = self.known_flag(&change.key)?;
                if !record.flag.variants().iter().any(|(name, _)| *name == change.variant) {
                    let names: Vec<&str> = record.flag.variants().iter().map(|(name, _)| name.as_str()).collect();
                    let detail = format!("flag {:?} has no variant {:?}", change.key, change.variant);
                    return refuse("unknown-variant", detail, format!("choose one of {}", names.join(", ")));
                }
                if !record.flag.enabled() {
                    let detail = format!("flag {:?} is off", change.key);
                    return refuse("flag-off", detail, "set its state to ENABLED first");
                }
                layer_salt = format!("flag:{}", change.key);
                0
            }
            Treatment::Flags(changes) => {
                self.candidate(changes)?;
                // Whoever was first the last time is not first again.
                layer_salt = format!("change:{arm_salt}");
                0
            }
            Treatment::Fault(_) => {
                layer_salt = "faults".to_owned();
                self.admit_fault(&spec, offset, now)?
            }
        };
        Ok(Action::ExperimentStart { spec, arm_salt, layer_salt, offset })
    }

    /// The flag of a treatment with the smallest first step, and that step.
    pub(super) fn first_step_of(&self, treatment: &Treatment) -> Option<(String, Share)> {
        let now = |key: &str| self.flags.get(key).map(|record| &*record.flag);
        let steps: Vec<(Share, String)> = match treatment {
            Treatment::Fault(_) => return None,
            Treatment::Flag(change) => vec![(guard::first_step(now(&change.key)), change.key.clone())],
            Treatment::Flags(changes) => {
                let patch = self.patch(changes)?;
                // A flag that is new says its own risk.
                let flag = |key: &str| now(key).or_else(|| patch.flags().get(key).map(|flag| &**flag));
                patch.touches(&self.flag_set()).into_iter().map(|key| (guard::first_step(flag(&key)), key)).collect()
            }
        };
        steps.into_iter().min().map(|(step, key)| (key, step))
    }

    /// What of a treatment is under another live experiment, and which.
    fn busy(&self, treatment: &Treatment) -> Option<(String, Id)> {
        let other = |target: &String| self.live().find(|e| e.targets().contains(target)).map(|e| e.id);
        let same = treatment.targets().into_iter().find_map(|target| other(&target).map(|id| (target, id)));
        let flags: BTreeSet<String> = match treatment {
            Treatment::Fault(_) => return same,
            Treatment::Flag(change) => BTreeSet::from([change.key.clone()]),
            Treatment::Flags(changes) => self.patch(changes)?.touches(&self.flag_set()),
        };
        same.or_else(|| {
            let under = self.experiments_by_flag();
            flags.into_iter().find_map(|key| under.get(&key).map(|id| (format!("flag {key}"), *id)))
        })
    }

    /// Budget and free space of the layer of faults.
    fn admit_fault(&self, spec: &Spec, wanted: u32, now: Timestamp) -> Result<u32, Refusal> {
        // Freed budget stays in quarantine until every proxy confirmed or must have lost its lease.
        let holds = |e: &&Experiment| {
            let lately = e.ended_at.is_some_and(|ended| now.since(ended) < QUARANTINE);
            e.spec.harms() && (e.phase.is_live() || lately && !self.off.contains_key(&e.id))
        };
        let share = |e: &Experiment| e.spec.stages.last().map_or(Share::NONE, |s| s.share);
        let used = self.experiments.values().filter(holds).map(share).fold(Share::NONE, Share::saturating_add);
        let asked = spec.stages.last().map_or(Share::NONE, |s| s.share);
        if used.ppm() + asked.ppm() > BUDGET.ppm() {
            let detail = format!("{asked} would be harmed on purpose, {used} are already, the budget is {BUDGET}");
            return refuse("over-budget", detail, "ask for less, or wait for another experiment to end");
        }
        let size = spec.population(spec.stages.len() - 1).ppm();
        let mut taken: Vec<(u32, u32)> = self
            .experiments
            .values()
            .filter(holds)
            .map(|e| (e.offset, e.spec.population(e.spec.stages.len() - 1).ppm()))
            .collect();
        taken.sort_unstable();
        let free = |from: u32| {
            taken.iter().all(|&(start, len)| {
                let ahead = (start + Share::WHOLE - from) % Share::WHOLE;
                let behind = (from + Share::WHOLE - start) % Share::WHOLE;
                ahead >= size && behind >= len
            })
        };
        let candidates = std::iter::once(wanted % Share::WHOLE)
            .chain(taken.iter().map(|&(start, len)| (start + len) % Share::WHOLE));
        match candidates.into_iter().find(|from| free(*from)) {
            Some(from) => Ok(from),
            None => refuse(
                "no-free-slice",
                "no free range of subjects is long enough: a subject is in at most one harmful experiment",
                "use a smaller baseline_ratio, or wait for another experiment to end",
            ),
        }
    }
}
