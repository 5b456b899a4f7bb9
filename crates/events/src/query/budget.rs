//! What a query may take: time, memory, groups; and that it ends when nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads that work on one query. More would take from ingest what a person does not notice.
const THREADS_MAX: usize = 8;

/// Limits of one query. One that is hit ends the scan: the answer holds what was found until then and says so.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time from the start of the query. By default a little less than clients usually wait, so that they get what was found.
    pub time: Duration,
    /// Bytes of group keys and states, as estimated.
    pub memory: usize,
    /// Groups times time buckets. Further ones are left out.
    pub groups: usize,
    /// Set by whoever asked, when he no longer waits.
    pub cancel: Cancel,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { time: Duration::from_secs(25), memory: 512 << 20, groups: 1_000_000, cancel: Cancel::default() }
    }
}

/// Ends a query from outside.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends it within a few thousand rows.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a scan ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Time,
    Memory,
    Cancelled,
}

/// The limits of a running query, shared by its threads.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    began: Instant,
    used: AtomicUsize,
    groups_left_out: AtomicBool,
    stopped: AtomicU8,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Budget {
        Budget {
            limits: limits.clone(),
            began: Instant::now(),
            used: AtomicUsize::new(0),
            groups_left_out: AtomicBool::new(false),
            stopped: AtomicU8::new(0),
        }
    }

    pub(crate) fn elapsed_ms(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * 1e3
    }

    pub(crate) fn groups_max(&self) -> usize {
        self.limits.groups
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes.min(self.used.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    pub(crate) fn leave_out_groups(&self) {
        self.groups_left_out.store(true, Ordering::Relaxed);
    }

    /// Called once a block.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        let stop = if self.limits.cancel.is_cancelled() {
            Stop::Cancelled
        } else if self.used.load(Ordering::Relaxed) > self.limits.memory {
            Stop::Memory
        } else if self.began.elapsed() > self.limits.time {
            Stop::Time
        } else {
            return Ok(());
        };
        // The first reason is the one that is told.
        let _ = self.stopped.compare_exchange(0, stop as u8 + 1, Ordering::Relaxed, Ordering::Relaxed);
        Err(stop)
    }

    pub(crate) fn stopped(&self) -> Option<Stop> {
        match self.stopped.load(Ordering::Relaxed) {
            1 => Some(Stop::Time),
            2 => Some(Stop::Memory),
            3 => Some(Stop::Cancelled),
            _ => None,
        }
    }

    /// For people: which limit ended it.
    pub(crate) fn hit(&self) -> Option<String> {
        match self.stopped()? {
            Stop::Time => Some(format!("the time limit of {} s was hit", self.limits.time.as_secs_f64())),
            Stop::Memory => Some(format!("the memory limit of {} MiB was hit", self.limits.memory >> 20)),
            Stop::Cancelled => None,
        }
    }

    /// For people: which limits were hit.
    pub(crate) fn said(&self) -> Vec<String> {
        let mut said = Vec::new();
        let remedy = if self.stopped() == Some(Stop::Time) {
            "ask for a shorter time range"
        } else {
            "group by less or filter more"
        };
        said.extend(self.hit().map(|hit| format!("{hit}: not all events were looked at; {remedy}")));
        if self.groups_left_out.load(Ordering::Relaxed) {
            said.push(format!("more than {} groups: further ones were left out", self.limits.groups));
        }
        said
    }
}

/// Calls `work` for each item on a few threads, each with a state of its own; gives the states back. An item that fails
/// ends the thread's work; the others see the same limit.
pub(crate) fn share_out<I: Sync, S: Send>(
    items: &[I],
    make: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize, &I) -> Result<(), Stop> + Sync,
) -> Vec<S> {
    let n_threads =
        std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX).min(items.len()).max(1);
    let next = AtomicUsize::new(0);
    let run = || {
        let mut state = make();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return state };
            if work(&mut state, place, item).is_err() {
                return state;
            }
        }
    };
    if n_threads == 1 {
        return vec![run()];
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..n_threads).map(|_| scope.spawn(run)).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
