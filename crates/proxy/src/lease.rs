//! The snapshot in force and the lease that faults need.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use flags::Slice;

use crate::baggage::Key;
use crate::snapshot::{Active, Snapshot};

/// How long a lease lasts after the proxy sent its renewal.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A snapshot made ready.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    pub(crate) version: u64,
    pub(crate) epoch: u64,
    pub(crate) key: Option<Key>,
    pub(crate) experiments: Vec<(Active, Slice)>,
}

#[derive(Debug)]
pub(crate) struct Plane {
    ready: ArcSwap<Ready>,
    /// Milliseconds after `began` until which the lease is valid.
    valid_until: AtomicI64,
    began: Instant,
}

impl Plane {
    pub(crate) fn new() -> Plane {
        Plane { ready: ArcSwap::default(), valid_until: AtomicI64::new(-1), began: Instant::now() }
    }

    pub(crate) fn ready(&self) -> arc_swap::Guard<Arc<Ready>> {
        self.ready.load()
    }

    /// Takes a snapshot unless it is of an older epoch: one global halt beats everything.
    pub(crate) fn take(&self, snapshot: Snapshot) {
        if snapshot.epoch < self.ready().epoch {
            return;
        }
        let key = Key::from_hex(&snapshot.key);
        let experiments = if snapshot.is_within_budget() {
            snapshot.experiments.iter().map(|e| (e.clone(), e.slice())).collect()
        } else {
            tracing::error!(version = snapshot.version, "the snapshot exceeds the budget of harm: no faults");
            Vec::new()
        };
        self.ready.store(Arc::new(Ready { version: snapshot.version, epoch: snapshot.epoch, key, experiments }));
    }

    /// A renewal that was sent at `sent` was answered.
    pub(crate) fn renewed(&self, sent: Instant) {
        let until = (sent + LEASE).duration_since(self.began).as_millis() as i64;
        self.valid_until.fetch_max(until, Ordering::Relaxed);
    }

    pub(crate) fn lease_is_valid(&self) -> bool {
        (self.began.elapsed().as_millis() as i64) < self.valid_until.load(Ordering::Relaxed)
    }

    /// Whether a fault of this experiment may act at this moment.
    pub(crate) fn may_harm(&self, id: &str) -> bool {
        self.lease_is_valid() && self.ready().experiments.iter().any(|(e, _)| e.on && e.id == id)
    }
}
