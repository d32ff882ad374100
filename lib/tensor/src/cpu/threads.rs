//! Threads that share short work: between two tasks they wait awake for a moment, since to wake a
//! thread takes longer than many a product does.
//!
//! There is one crew for the cores of the machine. Who finds it at work does his own alone: the
//! cores are busy then.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{hint, slice};

use super::Shared;

/// How long a thread waits awake: longer than what lies between the products of a layer.
const AWAKE: Duration = Duration::from_micros(100);

/// Calls `work` with each number below `count`, on all cores.
pub fn share(count: usize, work: &(dyn Fn(usize) + Sync)) {
    let lead = match CREW.lead.try_lock() {
        Ok(lead) => lead,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return (0..count).for_each(work),
    };
    if CREW.helpers.is_empty() || count < 2 {
        return (0..count).for_each(work);
    }
    let failed = CREW.board.post(count, work, &CREW.helpers);
    drop(lead);
    if let Some(failure) = failed {
        resume_unwind(failure);
    }
}

/// Calls `work` with each row of `size` and its number, on all cores.
pub fn share_rows(rows: &mut [f32], size: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let (count, all) = (rows.len() / size, Shared(rows.as_mut_ptr()));
    share(count, &|n| {
        // SAFETY: the row is there, and nobody else's.
        work(n, unsafe { slice::from_raw_parts_mut(all.from(n * size), size) });
    });
}

/// How many threads share work.
pub fn size() -> usize {
    CREW.helpers.len() + 1
}

static CREW: LazyLock<Crew> = LazyLock::new(Crew::gather);

struct Crew {
    board: &'static Board,
    helpers: Vec<Thread>,
    /// Held by the thread whose work is shared.
    lead: Mutex<()>,
}

impl Crew {
    /// A helper for each core but the one of the thread that leads; fewer if the system gives no
    /// more.
    fn gather() -> Crew {
        let board: &Board = Box::leak(Box::default());
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let helper = |n| thread::Builder::new().name(format!("crew {n}")).spawn(|| board.help());
        let helpers = (1..cores).map_while(|n| helper(n).ok()); // alone it is only slower
        let helpers = helpers.map(|helper| helper.thread().clone()).collect();
        Crew { board, helpers, lead: Mutex::new(()) }
    }
}

/// A part of some work, by its number.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// The work at hand.
#[derive(Default)]
struct Board {
    /// How many parts it has, and below them in 32 bits how many are taken.
    parts: AtomicU64,
    /// A [`Work`] that is there as long as a part that was taken is not done.
    work: AtomicPtr<Work<'static>>,
    done: AtomicUsize,
    asleep: AtomicUsize,
    failure: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Board {
    /// Does work together with the helpers; what a part that failed says.
    fn post(&self, count: usize, work: Work, helpers: &[Thread]) -> Option<Box<dyn Any + Send>> {
        self.done.store(0, Ordering::Relaxed);
        self.work.store((&raw const work).cast_mut().cast(), Ordering::Relaxed);
        self.parts.store((count as u64) << 32, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            helpers.iter().for_each(Thread::unpark);
        }
        while self.take() {}
        let since = Instant::now();
        while self.done.load(Ordering::Acquire) < count {
            pause(since);
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Does a part that nobody has taken, if there is one.
    fn take(&self) -> bool {
        let next = |parts: u64| ((parts as u32 as u64) < parts >> 32).then_some(parts + 1);
        let Ok(parts) = self.parts.fetch_update(Ordering::Acquire, Ordering::Acquire, next) else {
            return false;
        };
        // SAFETY: it was posted before there were parts to take, and whoever did so waits for this
        // one.
        let work = unsafe { *self.work.load(Ordering::Relaxed) };
        if let Err(failure) = catch_unwind(AssertUnwindSafe(|| work(parts as u32 as usize))) {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    /// What a helper does all its life.
    fn help(&self) {
        loop {
            let mut since = Instant::now();
            while since.elapsed() < AWAKE {
                match self.take() {
                    true => since = Instant::now(),
                    false => pause(since),
                }
            }
            self.asleep.fetch_add(1, Ordering::SeqCst);
            // Who posts work after this look sees that somebody sleeps.
            if !self.pending() {
                thread::park();
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn pending(&self) -> bool {
        let parts = self.parts.load(Ordering::SeqCst);
        (parts as u32 as u64) < parts >> 32
    }
}

/// Lets a moment pass after `since`; the longer that is ago, the more must others have the core if
/// they need it.
fn pause(since: Instant) {
    if since.elapsed() < AWAKE / 4 {
        (0..16).for_each(|_| hint::spin_loop());
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn every_part_is_done_once_whoever_shares_work_besides() {
        let rounds = |seed: usize| {
            for round in 0..2000 {
                let count = (round * 7 + seed) % 23;
                let parts: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
                share(count, &|n| {
                    parts[n].fetch_add(1, Ordering::Relaxed);
                    share(2, &|_| ());
                });
                assert!(parts.iter().all(|part| part.load(Ordering::Relaxed) == 1));
                if round % 500 == 0 {
                    thread::sleep(3 * AWAKE); // until the helpers sleep
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || rounds(seed)))));
    }

    #[test]
    fn who_shares_work_learns_that_a_part_failed() {
        let failing = || share(8, &|n| assert!(n != 5, "the fifth"));
        assert!(catch_unwind(failing).is_err());
        let parts = AtomicU32::new(0);
        share(8, &|_| {
            parts.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(parts.into_inner(), 8);
    }
}
