//! Wide events on their way to the control plane: a bounded queue, sent in batches, dropped and counted when it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rows::Row;
use tokio::sync::mpsc;

/// Rows that wait; at 1,000 requests/s that is a control plane gone for 50 s.
const QUEUE: usize = 50_000;
const BATCH: usize = 2_000;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Row>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// The recorder and the end that [`batches`] reads.
    pub(crate) fn new() -> (Recorder, mpsc::Receiver<Row>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Recorder { queue, dropped: Arc::default() }, receiver)
    }

    pub(crate) fn record(&self, row: Row) {
        if self.queue.try_send(row).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The next batch, at most a tenth of a second after its first row; none when the proxy is gone.
pub(crate) async fn next_batch(receiver: &mut mpsc::Receiver<Row>) -> Option<Vec<Row>> {
    let mut batch = Vec::new();
    if receiver.recv_many(&mut batch, BATCH).await == 0 {
        return None;
    }
    tokio::time::sleep(PAUSE).await;
    while batch.len() < BATCH {
        match receiver.try_recv() {
            Ok(row) => batch.push(row),
            Err(_) => break,
        }
    }
    Some(batch)
}
