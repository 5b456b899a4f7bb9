//! The same work for many things, on two threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// More threads would take the processor from those who store events.
const THREADS: usize = 2;

/// Does `work` for each item, on two threads, in order of the items.
pub(crate) fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(place) else { return done };
            done.push((place, work(place, item)));
        }
    };
    let mut done = match items.len() {
        0 | 1 => run(),
        n => std::thread::scope(|scope| {
            let others: Vec<_> = (1..THREADS.min(n)).map(|_| scope.spawn(run)).collect();
            let mut done = run();
            for other in others {
                match other.join() {
                    Ok(more) => done.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            done
        }),
    };
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}
