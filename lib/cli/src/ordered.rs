//! Parallel work whose results are delivered in the order of the items, each as early as possible.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::thread;

use mlxk_core::Result;
use rayon::prelude::*;

/// Calls `work` on `items` in parallel, starting with the first, and passes the results to `tell`
/// in the order of the items, until it says that it wants no more.
///
/// # Errors
/// The first error of `tell`, after which it is not called again.
pub fn ordered<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
    mut tell: impl FnMut(R) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let (sender, results) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let each = |sender: &mut std::sync::mpsc::Sender<_>, (place, item)| {
                // Sending fails once the receiver is dropped, which ends the work.
                sender.send((place, work(item))).map_err(drop)
            };
            let _ = items.into_iter().enumerate().par_bridge().try_for_each_with(sender, each);
        });
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (place, result) in results {
            early.insert(place, result);
            while let Some(result) = early.remove(&next) {
                if tell(result)?.is_break() {
                    return Ok(());
                }
                next += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_ends_early_waits_for_its_turn() {
        let mut told = Vec::new();
        let slow_at_first = |n: u64| {
            thread::sleep(Duration::from_millis(20 - n));
            n * n
        };
        ordered((0..20).collect(), slow_at_first, |n| {
            told.push(n);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(told, (0..20).map(|n| n * n).collect::<Vec<_>>());
    }

    #[test]
    fn work_that_nobody_waits_for_is_left() {
        let done = AtomicUsize::new(0);
        let count = |_| {
            thread::sleep(Duration::from_millis(1));
            done.fetch_add(1, Ordering::Relaxed)
        };
        ordered((0..10_000).collect(), count, |_| Ok(ControlFlow::Break(()))).unwrap();
        assert!(done.into_inner() < 1000);
    }
}
