//! Time limits of the steps of grammars.
//!
//! A step of a grammar is work on the thread that all answers of a model share. llguidance bounds
//! the states that a step visits, but not the time: the work of one state may grow with the square
//! of the grammar. It ends when it is told to, by a thread that looks at the clock.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{mem, thread};

use llguidance::CancellationHandle;
use mlxk_core::{Error, Kind, Result};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(10);

/// Number of looks without any step after which the thread sleeps until the next one.
const IDLE: u32 = 100;

/// Thread that ends steps at their time limits. It ends when the watch is dropped.
pub struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    steps: Mutex<Steps>,
    begun: Condvar,
}

/// Steps that are taken now.
#[derive(Default)]
struct Steps {
    running: Vec<(u64, Instant, CancellationHandle)>,
    /// Number of the next step.
    next: u64,
    asleep: bool,
    closed: bool,
}

impl Watch {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Kind::Execution`] if there is no thread.
    pub fn start() -> Result<Watch> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name("grammar clock".to_owned());
        thread
            .spawn(move || own.run())
            .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        Ok(Watch(shared))
    }

    /// Takes a `step` of the grammar of `handle`, which is cancelled after `limit`.
    pub fn limit<T>(
        &self,
        limit: Duration,
        handle: CancellationHandle,
        step: impl FnOnce() -> T,
    ) -> T {
        let number = self.0.begin(Instant::now() + limit, handle);
        let result = step();
        self.0.steps().running.retain(|(other, ..)| *other != number);
        result
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.steps().closed = true;
        self.0.begun.notify_all();
    }
}

impl Shared {
    fn steps(&self) -> std::sync::MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, end: Instant, handle: CancellationHandle) -> u64 {
        let mut steps = self.steps();
        let number = steps.next;
        steps.next += 1;
        steps.running.push((number, end, handle));
        if mem::take(&mut steps.asleep) {
            self.begun.notify_all();
        }
        number
    }

    fn run(&self) {
        let (mut steps, mut idle, mut seen) = (self.steps(), 0, 0);
        while !steps.closed {
            let now = Instant::now();
            steps.running.iter().filter(|(_, end, _)| *end <= now).for_each(|step| step.2.cancel());
            idle = if steps.next == seen { idle + 1 } else { 0 };
            seen = steps.next;
            steps = if idle > IDLE && steps.running.is_empty() {
                steps.asleep = true;
                self.begun.wait(steps).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.begun.wait_timeout(steps, TICK);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_cancelled_after_its_time_also_after_a_rest() {
        let watch = Watch::start().unwrap();
        for rest in [0, 1_200] {
            thread::sleep(Duration::from_millis(rest));
            let handle = CancellationHandle::default();
            let start = Instant::now();
            watch.limit(Duration::from_millis(20), handle.clone(), || {
                while !handle.is_cancelled() && start.elapsed() < Duration::from_secs(10) {
                    thread::sleep(Duration::from_millis(1));
                }
            });
            assert!(handle.is_cancelled());
            let other = CancellationHandle::default();
            watch.limit(Duration::from_secs(10), other.clone(), || {});
            thread::sleep(2 * TICK);
            assert!(!other.is_cancelled());
        }
    }
}
