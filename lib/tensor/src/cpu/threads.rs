//! Thread pool for the short kernels of decoding: workers spin for a moment between two jobs, because
//! waking a thread takes longer than many a kernel runs.
//!
//! Two pools share the cores. **This pool** runs what decoding repeats for every token and what takes
//! microseconds: products of a few rows with weights (`gemv_int`, `gemm_int`, `gemv_rows`) and
//! attention of a single query. **rayon** runs what takes longer or nests: prefill (`gemm_int` with
//! many rows, `gemm`, attention of many queries, long inputs of [`crate::array::for_each_row`]),
//! recurrent scans, experts (each of which may use this pool inside), and the loading and conversion
//! of checkpoints.
//!
//! There is one pool for the process and one job at a time. A caller that finds the pool busy runs its
//! job alone, since the cores are in use then.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{hint, slice};

use super::SharedPtr;

/// Time that an idle worker spins: longer than the gap between the kernels of a layer.
const SPIN: Duration = Duration::from_micros(100);

/// Calls `part` with each index below `count`, on all cores. A panic of a part is resumed here.
pub fn parallel_for(count: usize, part: &(dyn Fn(usize) + Sync)) {
    let submit = match POOL.submit.try_lock() {
        Ok(submit) => submit,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return (0..count).for_each(part),
    };
    if POOL.workers.is_empty() || count < 2 {
        return (0..count).for_each(part);
    }
    let panic = POOL.job.run(count, part, &POOL.workers);
    drop(submit);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

/// Calls `work` with the index and the elements of each row of `size` elements, on all cores.
pub fn parallel_rows(rows: &mut [f32], size: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let (count, all) = (rows.len() / size, SharedPtr(rows.as_mut_ptr()));
    parallel_for(count, &|n| {
        // SAFETY: the row lies within `rows`, and no other part gets it.
        work(n, unsafe { slice::from_raw_parts_mut(all.at(n * size), size) });
    });
}

/// Threads that run a job: the workers and the caller.
pub fn count() -> usize {
    POOL.workers.len() + 1
}

static POOL: LazyLock<Pool> = LazyLock::new(Pool::start);

struct Pool {
    job: &'static Job,
    workers: Vec<Thread>,
    /// Lock of the caller whose job runs.
    submit: Mutex<()>,
}

impl Pool {
    /// Starts a worker for each core but the caller's; fewer if the system refuses threads.
    fn start() -> Pool {
        let job: &Job = Box::leak(Box::default());
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let worker = |n| thread::Builder::new().name(format!("kernel {n}")).spawn(|| job.work());
        let workers = (1..cores).map_while(|n| worker(n).ok()); // without workers it is only slower
        let workers = workers.map(|worker| worker.thread().clone()).collect();
        Pool { job, workers, submit: Mutex::new(()) }
    }
}

/// Function that runs the part of an index.
type Part<'a> = &'a (dyn Fn(usize) + Sync);

/// The job that the threads of the pool run, and their state.
#[derive(Default)]
struct Job {
    /// Parts of the job in the upper 32 bits, parts that are taken in the lower 32 bits.
    parts: AtomicU64,
    /// Pointer to a [`Part`] that lives as long as a part that was taken is not done.
    part: AtomicPtr<Part<'static>>,
    done: AtomicUsize,
    asleep: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job {
    /// Runs a job of `count` parts together with the workers, and returns the panic of a part.
    fn run(&self, count: usize, part: Part, workers: &[Thread]) -> Option<Box<dyn Any + Send>> {
        self.done.store(0, Ordering::Relaxed);
        self.part.store((&raw const part).cast_mut().cast(), Ordering::Relaxed);
        self.parts.store((count as u64) << 32, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            workers.iter().for_each(Thread::unpark);
        }
        while self.take() {}
        let since = Instant::now();
        while self.done.load(Ordering::Acquire) < count {
            pause(since);
        }
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs a part that no thread has taken; false if there is none.
    fn take(&self) -> bool {
        let next = |parts: u64| ((parts as u32 as u64) < parts >> 32).then_some(parts + 1);
        let Ok(parts) = self.parts.fetch_update(Ordering::Acquire, Ordering::Acquire, next) else {
            return false;
        };
        // SAFETY: `run` stores the pointer before there are parts to take, and returns only after
        // this part is done.
        let part = unsafe { *self.part.load(Ordering::Relaxed) };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| part(parts as u32 as usize))) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        self.done.fetch_add(1, Ordering::Release);
        true
    }

    /// Loop of a worker: runs parts, spins while there are none, then sleeps until the next job.
    fn work(&self) {
        loop {
            let mut since = Instant::now();
            while since.elapsed() < SPIN {
                match self.take() {
                    true => since = Instant::now(),
                    false => pause(since),
                }
            }
            self.asleep.fetch_add(1, Ordering::SeqCst);
            // A job that starts after this check sees that a worker sleeps, and unparks it.
            if !self.pending() {
                thread::park();
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// True if a part is not taken yet.
    fn pending(&self) -> bool {
        let parts = self.parts.load(Ordering::SeqCst);
        (parts as u32 as u64) < parts >> 32
    }
}

/// One step of a spin that began at `since`: first within the thread, later by yielding the core.
fn pause(since: Instant) {
    if since.elapsed() < SPIN / 4 {
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
    fn every_part_runs_once_whoever_uses_the_pool_besides() {
        let rounds = |seed: usize| {
            for round in 0..2000 {
                let count = (round * 7 + seed) % 23;
                let parts: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
                parallel_for(count, &|n| {
                    parts[n].fetch_add(1, Ordering::Relaxed);
                    parallel_for(2, &|_| ());
                });
                assert!(parts.iter().all(|part| part.load(Ordering::Relaxed) == 1));
                if round % 500 == 0 {
                    thread::sleep(3 * SPIN); // until the workers sleep
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || rounds(seed)))));
    }

    #[test]
    fn a_panic_of_a_part_reaches_the_caller() {
        let failing = || parallel_for(8, &|n| assert!(n != 5, "the fifth"));
        assert!(catch_unwind(failing).is_err());
        let parts = AtomicU32::new(0);
        parallel_for(8, &|_| {
            parts.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(parts.into_inner(), 8);
    }
}
