//! Rows to observations to tallies.
//!
//! An event belongs to an experiment by what it says itself (`experiment.id`), and to a subject by `user.id` (a pseudonym by
//! now) or else by its trace, if another event of that trace named the subject within the last while. A tally's checkpoint
//! holds the number of the next batch of the event log, so that after a restart nothing counts twice or is forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use experiments::{Experiment, KpiKind, Observation, Spec, Tally};
use rows::{Row, Value, names};
use serde::{Deserialize, Serialize};
use vocab::{Arm, Id, Pseudonym, Timestamp};

/// Traces whose subject is remembered: some minutes of a busy site. The oldest go first.
const TRACES_MAX: usize = 500_000;

/// Joins rows to subjects and experiments.
#[derive(Debug, Default)]
pub struct Joiner {
    subjects: HashMap<u128, u64>,
    order: VecDeque<u128>,
}

impl Joiner {
    /// The facts that a row holds for an experiment with this id and spec.
    pub fn observations(&mut self, row: &Row, id: Id, spec: &Spec) -> Vec<Observation> {
        let Some(subject) = self.subject(row) else { return Vec::new() };
        // The low half: the high half of some tracers' ids is a clock.
        let trace = row.trace as u64;
        let mut found = Vec::new();
        let is_exposure = matches!(row.get(names::EXPOSURE), Some(Value::Bool(true)))
            && row.text(names::EXPERIMENT).and_then(|text| Id::parse(text).ok()) == Some(id);
        if let Some(arm) = row.text(names::ARM).and_then(Arm::parse).filter(|_| is_exposure) {
            let injected = row.get(names::FAULT).is_some();
            found.push(Observation::Exposure { subject, arm, time: row.time, trace, injected });
        }
        let kpi = &spec.kpi;
        let attempt = kpi.attempt.as_ref().filter(|filter| filter.matches(row)).map(|_| KpiKind::Attempt);
        let outcome = if kpi.failure.matches(row) {
            Some(KpiKind::Failure)
        } else if kpi.success.matches(row) {
            Some(KpiKind::Success)
        } else {
            None
        };
        let is_latency = kpi.latency.as_ref().is_some_and(|filter| filter.matches(row));
        // A KPI counts work. An event of a span, a link or a point of a metric may well look like it to a filter.
        if (attempt.is_some() || outcome.is_some() || is_latency) && row.is_aside() {
            return found;
        }
        if let Some(kind) = attempt {
            found.push(Observation::Kpi { subject, time: row.time, trace, kind });
        }
        if let Some(kind) = outcome {
            found.push(Observation::Kpi { subject, time: row.end(), trace, kind });
        }
        if is_latency {
            if let Some(nanos) = row.duration_nanos {
                found.push(Observation::Latency { subject, time: row.time, ms: nanos as f64 / 1e6 });
            }
        }
        found
    }

    fn subject(&mut self, row: &Row) -> Option<u64> {
        let named = row.text(names::SUBJECT).and_then(|text| Pseudonym::parse(text).ok()).map(|p| p.hash64());
        match named {
            Some(subject) if row.trace != 0 => {
                if self.subjects.insert(row.trace, subject).is_none() {
                    self.order.push_back(row.trace);
                    if self.order.len() > TRACES_MAX {
                        if let Some(oldest) = self.order.pop_front() {
                            self.subjects.remove(&oldest);
                        }
                    }
                }
                named
            }
            Some(_) => named,
            None if row.trace != 0 => self.subjects.get(&row.trace).copied(),
            None => None,
        }
    }
}

/// One experiment's tally and what it needs to go on.
#[derive(Debug)]
struct Watched {
    spec: Arc<Spec>,
    tally: Tally,
}

/// All tallies, in step with the event log.
#[derive(Debug, Default)]
pub struct Tap {
    joiner: Joiner,
    watched: BTreeMap<Id, Watched>,
    /// The number of the batch that comes next.
    next: u64,
}

/// A tally between restarts.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    next: u64,
    tally: Tally,
}

impl Tap {
    /// Starts watching, from a checkpoint if there is one that fits.
    pub fn watch(&mut self, experiment: &Experiment, checkpoint: Option<&[u8]>) -> u64 {
        let began = experiment.era_began_at();
        let stored = checkpoint.and_then(|bytes| serde_json::from_slice::<Checkpoint>(bytes).ok());
        // A checkpoint of the warm-up is no use once the test has begun; its batches are still in the log.
        let (next, tally) = match stored {
            Some(stored) if stored.tally.began_at() == began => (stored.next, stored.tally),
            Some(stored) => (stored.next, stored.tally.begin_test(&experiment.spec, began)),
            None => (0, Tally::new(&experiment.spec, began)),
        };
        self.watched.insert(experiment.id, Watched { spec: experiment.spec.clone(), tally });
        next
    }

    /// Takes a batch of the log.
    pub fn take(&mut self, number: u64, received: Timestamp, rows: &[Row], from: &dyn Fn(Id) -> u64) {
        self.next = number + 1;
        for row in rows {
            self.joiner.subject(row);
        }
        for (id, watched) in &mut self.watched {
            if number < from(*id) {
                continue;
            }
            watched.tally.advance(received);
            for row in rows {
                for observation in self.joiner.observations(row, *id, &watched.spec) {
                    // Ordered by event time, but never later than receipt: a clock that runs ahead must not blind anything.
                    watched.tally.observe(observation.not_after(received));
                }
            }
        }
    }

    /// The tally of an experiment.
    pub fn tally(&self, id: Id) -> Option<&Tally> {
        self.watched.get(&id).map(|w| &w.tally)
    }

    /// Lets time pass for one experiment.
    pub fn advance(&mut self, id: Id, now: Timestamp) -> Option<&Tally> {
        let watched = self.watched.get_mut(&id)?;
        watched.tally.advance(now);
        Some(&watched.tally)
    }

    /// The warm-up is over: what counts for the test begins.
    pub fn begin_test(&mut self, experiment: &Experiment) {
        if let Some(watched) = self.watched.get_mut(&experiment.id) {
            watched.tally = watched.tally.begin_test(&experiment.spec, experiment.era_began_at());
        }
    }

    /// Stops watching.
    pub fn forget(&mut self, id: Id) {
        self.watched.remove(&id);
    }

    /// The experiments being watched.
    pub fn ids(&self) -> Vec<Id> {
        self.watched.keys().copied().collect()
    }

    /// The bytes of a checkpoint and the number of the batch it goes on with.
    pub fn checkpoint(&self, id: Id) -> Option<(Vec<u8>, u64)> {
        let tally = &self.watched.get(&id)?.tally;
        #[derive(Serialize)]
        struct Borrowed<'a> {
            next: u64,
            tally: &'a Tally,
        }
        serde_json::to_vec(&Borrowed { next: self.next, tally }).ok().map(|bytes| (bytes, self.next))
    }

    /// Where the log goes on.
    pub fn set_next(&mut self, next: u64) {
        self.next = next;
    }
}
