//! Rows on their way into the event store: one thread, group commit, then the tap.
//!
//! Whoever sends rows is answered when they are durable. Jobs that arrive while a commit is under way share the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use events::{AppendError, Appended, Batch};
use rows::Row;
use tokio::sync::{mpsc, oneshot};

use crate::app::{App, lock, now};

/// Requests that wait; further senders wait at the door.
pub(crate) const QUEUE: usize = 1_024;
const GROUP: usize = 256;

/// Rows of one request.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) rows: Vec<Row>,
    /// See [`Batch::key`].
    pub(crate) key: Option<u128>,
    pub(crate) done: oneshot::Sender<Result<Taken, Refused>>,
}

/// What became of rows that are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// They are new.
    Stored,
    /// They were stored before, and are counted already.
    Before,
}

/// Why rows were not taken. But for [`Refused::NotInBucket`] nothing of the request is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No room on the disk.
    Full,
    /// They are on this disk and not in the bucket yet, where the sender wants to know them.
    NotInBucket(Taken),
    /// The store is broken.
    Broken,
}

/// Works until all senders are gone.
pub(crate) fn work(app: &Arc<App>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match jobs.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        let (batches, answers): (Vec<Batch>, Vec<_>) =
            group.into_iter().map(|job| (Batch { rows: job.rows, key: job.key }, job.done)).unzip();
        // The tap stays locked from the commit on, so that tallies and checkpoints are in step with the log; the time of receipt
        // is taken under the lock, so that it never lies before a turn of the watch loop that the replay would not know.
        let mut tap = lock(&app.tap);
        let received = now();
        let outcome = match app.store.append(received, &batches) {
            Ok(appended) => Ok(appended
                .into_iter()
                .zip(&batches)
                .map(|(appended, batch)| {
                    let Appended::Stored(number) = appended else { return Taken::Before };
                    tap.take(number, received, &batch.rows, &|_| 0);
                    app.rows_in.fetch_add(batch.rows.len() as u64, Ordering::Relaxed);
                    Taken::Stored
                })
                .collect::<Vec<Taken>>()),
            Err(AppendError::Full(_)) => Err(Refused::Full),
            Err(AppendError::Wal(error)) => {
                tracing::error!(error = %error, "events cannot be stored");
                Err(Refused::Broken)
            }
        };
        drop(tap);
        let tell = move |in_bucket: bool| {
            for (n, answer) in answers.into_iter().enumerate() {
                let outcome = match &outcome {
                    Ok(taken) if in_bucket => Ok(taken[n]),
                    Ok(taken) => Err(Refused::NotInBucket(taken[n])),
                    Err(refused) => Err(*refused),
                };
                let _ = answer.send(outcome);
            }
        };
        match app.mirror.get().filter(|_| app.acknowledge_in_bucket) {
            // What came before counts as well: it may have been refused for the same reason.
            Some(mirror) => mirror.when_sent(app.store.next_batch().saturating_sub(1), Box::new(tell)),
            None => tell(true),
        }
    }
}
