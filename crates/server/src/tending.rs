//! A thread that writes segments, merges them, and lets old ones go, beside everything else: none of it may hold up the watch loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::{Keep, OpenError};

use crate::app::{App, now};

/// How often it is asked whether something is due.
const PAUSE: Duration = Duration::from_secs(1);
/// After a failure, such as a full disk; meanwhile the write-ahead log keeps everything.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(15);

/// Runs until `stop` says so.
pub(crate) fn work(app: &Arc<App>, keep: &Keep, stop: &AtomicBool) {
    for damage in app.store.damage() {
        tracing::error!(damage, "stored events are damaged and left out of answers; see `seaworthy events check`");
    }
    while !stop.load(Ordering::Relaxed) {
        // Without this thread the log would grow for ever: a fault of ours in one turn must not end it.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turn(app, keep, stop)));
        let pause = match done {
            Ok(Ok(())) => PAUSE,
            Err(_) => PAUSE_AFTER_FAILURE,
            Ok(Err(error)) => {
                let error = with_causes(&error);
                tracing::error!(error, "a segment cannot be written; the event log is kept instead");
                PAUSE_AFTER_FAILURE
            }
        };
        std::thread::park_timeout(pause);
    }
}

fn turn(app: &Arc<App>, keep: &Keep, stop: &AtomicBool) -> Result<(), OpenError> {
    // Before rows leave the write-ahead log. Without the file names are counted anew: no reason to stop here.
    if let Err(error) = app.known_names.save(&*app.files) {
        tracing::warn!(error = %error, "names of attributes cannot be written down; it is tried again");
    }
    app.store.forget(keep, now())?;
    if app.store.wants_flush() {
        app.store.flush(app.keep_from.load(Ordering::Acquire), false)?;
    }
    while !stop.load(Ordering::Relaxed) && app.store.tend(keep, now())? {}
    Ok(())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
