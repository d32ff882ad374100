//! Sandbox: untrusted work on a thread of its own, with limits of memory and time.
//!
//! Only the allocator can limit the memory of an interpreter. A sandboxed thread that allocates
//! more than its limit, or allocates after its time, is parked and never resumes; the caller gets
//! the outcome, and the thread's memory is lost. This is the last resort: the inputs of requests
//! have limits of their own, and if parked threads hold too much memory, no further work is
//! accepted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

/// Largest memory that parked threads of one workload may hold together, in bytes.
const MAX_LOST: isize = 512 << 20;

/// Size of a sandboxed thread's stack, in bytes.
const STACK: usize = 16 << 20;

/// Kind of work. Each kind has its own account of lost memory.
#[derive(Clone, Copy)]
pub enum Workload {
    /// Rendering of a chat template.
    Template,
    /// Compiling of a grammar.
    Grammar,
}

/// Limits of work in a sandbox.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Kind of the work.
    pub workload: Workload,
    /// Largest memory that is allocated at once, in bytes.
    pub memory: usize,
    /// Memory of the input, which counts as allocated, in bytes.
    pub input: usize,
    /// Longest time.
    pub time: Duration,
}

/// Outcome of work in a sandbox.
#[derive(Debug, PartialEq)]
pub enum Outcome<T> {
    /// Result of the work.
    Done(T),
    /// The work exceeded its limit of memory.
    OutOfMemory,
    /// The work exceeded its limit of time.
    TimedOut,
}

/// Runs `work` within `limits`. A panic of the work is resumed here.
///
/// # Errors
/// [`Kind::Execution`] if no thread can be started; [`Kind::InsufficientMemory`] if parked threads
/// of the same workload hold too much memory.
pub fn run<T: Send + 'static>(
    limits: Limits,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Outcome<T>> {
    let lost = ALLOCATOR.lost(limits.workload);
    if lost.load(Ordering::Relaxed) >= MAX_LOST {
        let message = "work that did not end holds too much memory for more of its kind";
        let error = Error::new(Kind::InsufficientMemory, "", message);
        return Err(error.hint("it is free again when the program is started anew"));
    }
    let bytes = |bytes: usize| isize::try_from(bytes).unwrap_or(isize::MAX);
    let memory = bytes(limits.memory);
    let account = Arc::new(Account {
        memory,
        left: AtomicIsize::new(memory - bytes(limits.input)),
        lost: AtomicIsize::new(0),
        all_lost: lost,
        exceeded: AtomicBool::new(false),
        late: AtomicBool::new(false),
        waiting: thread::current(),
    });
    let result = Arc::new(Mutex::new(None));
    let (inner, place) = (Arc::clone(&account), Arc::clone(&result));
    let sandboxed = move || {
        let done = inner.within(|| panic::catch_unwind(AssertUnwindSafe(work)));
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        inner.recover();
        *place = Some(done);
        inner.waiting.unpark();
    };
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(sandboxed)
        .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
    let end = Instant::now() + limits.time;
    loop {
        let mut place = result.lock().unwrap_or_else(PoisonError::into_inner);
        match place.take() {
            Some(Ok(done)) => return Ok(Outcome::Done(done)),
            Some(Err(payload)) => panic::resume_unwind(payload),
            None if account.exceeded.load(Ordering::Relaxed) => {
                account.lose();
                return Ok(Outcome::OutOfMemory);
            }
            None => {}
        }
        let Some(left) = end.checked_duration_since(Instant::now()) else {
            account.late.store(true, Ordering::Relaxed);
            account.lose();
            return Ok(Outcome::TimedOut);
        };
        drop(place);
        thread::park_timeout(left);
    }
}

/// Approximate size of a JSON value in memory, in bytes.
pub fn weight(value: &Value) -> usize {
    /// Size of a name in an object, without its text.
    const NAME: usize = 48;
    let below: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| NAME + name.len() + weight(value)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + below
}

/// Account of a sandboxed thread.
struct Account {
    /// Limit of memory, in bytes.
    memory: isize,
    /// Memory that may still be allocated, in bytes.
    left: AtomicIsize,
    /// Memory that was lost with the thread, in bytes.
    lost: AtomicIsize,
    /// Lost memory of all threads of the same workload, in bytes.
    all_lost: &'static AtomicIsize,
    /// True if the thread exceeded its limit of memory.
    exceeded: AtomicBool,
    /// True if the thread exceeded its limit of time.
    late: AtomicBool,
    /// Thread that waits for the outcome.
    waiting: Thread,
}

thread_local! {
    /// Account of this thread, or null if it is not sandboxed.
    static ACCOUNT: Cell<*const Account> = const { Cell::new(ptr::null()) };
}

impl Account {
    /// Runs `work` on this thread, which is charged to the account.
    fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        ACCOUNT.set(self);
        let done = work();
        ACCOUNT.set(ptr::null());
        done
    }

    /// Counts the thread's memory as lost.
    fn lose(&self) {
        let held = self.memory - self.left.load(Ordering::Relaxed);
        self.lost.store(held, Ordering::Relaxed);
        self.all_lost.fetch_add(held, Ordering::Relaxed);
    }

    /// Counts lost memory as available again, when a late thread ends.
    fn recover(&self) {
        let held = self.lost.swap(0, Ordering::Relaxed);
        self.all_lost.fetch_sub(held, Ordering::Relaxed);
    }

    /// Charges `bytes`, or parks the thread if a limit is exceeded.
    fn charge(&self, bytes: isize) {
        let left = self.left.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        let over = left < 0 || self.late.load(Ordering::Relaxed);
        // A thread that panics may hold locks that others need, so it is not parked.
        if bytes > 0 && over && !thread::panicking() {
            self.left.fetch_add(bytes, Ordering::Relaxed);
            self.exceeded.store(true, Ordering::Relaxed);
            self.waiting.unpark();
            loop {
                thread::park();
            }
        }
    }
}

/// Allocator of the system, which charges sandboxed threads.
struct Allocator {
    /// Lost memory of templates and of grammars, in bytes.
    lost: [AtomicIsize; 2],
}

impl Allocator {
    fn lost(&self, workload: Workload) -> &AtomicIsize {
        let [templates, grammars] = &self.lost;
        match workload {
            Workload::Template => templates,
            Workload::Grammar => grammars,
        }
    }
}

#[global_allocator]
static ALLOCATOR: Allocator = Allocator { lost: [AtomicIsize::new(0), AtomicIsize::new(0)] };

/// Charges this thread for `bytes`, if it is sandboxed.
fn charge(bytes: isize) {
    let account = ACCOUNT.get();
    if !account.is_null() {
        // SAFETY: `within` borrows the account for as long as the pointer is set.
        unsafe { &*account }.charge(bytes);
    }
}

// SAFETY: the system's allocator does all the work; charging it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        charge(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        charge(size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(memory: usize, input: usize, time: Duration) -> Limits {
        Limits { workload: Workload::Grammar, memory, input, time }
    }

    #[test]
    fn work_within_its_bounds_gives_its_result() {
        let work = || (0..100).map(|_| vec![0u8; 900_000].len()).sum::<usize>();
        assert_eq!(run(limits(1 << 20, 0, 60 * SECOND), work).unwrap(), Outcome::Done(90_000_000));
    }

    #[test]
    fn work_that_doubles_its_memory_again_and_again_is_left_behind() {
        let work = || {
            let mut text = "x".to_owned();
            loop {
                text = text.clone() + &text;
            }
        };
        assert_eq!(
            run::<()>(limits(64 << 20, 0, 60 * SECOND), work).unwrap(),
            Outcome::OutOfMemory
        );
    }

    #[test]
    fn what_work_brings_is_a_part_of_its_limits() {
        let work = || vec![0u8; 600_000].len();
        assert_eq!(run(limits(1 << 20, 1 << 19, 60 * SECOND), work).unwrap(), Outcome::OutOfMemory);
    }

    #[test]
    fn what_a_late_thread_holds_is_free_when_it_ends() {
        const HELD: usize = 200 << 20;
        let work = || {
            let held = vec![0u8; HELD];
            thread::sleep(SECOND / 2);
            held.len()
        };
        assert_eq!(run(limits(2 * HELD, 0, SECOND / 10), work).unwrap(), Outcome::TimedOut);
        // The other tests lose less.
        let lost = || ALLOCATOR.lost(Workload::Grammar).load(Ordering::Relaxed) >= HELD as isize;
        assert!(lost());
        (0..100).take_while(|_| lost()).for_each(|_| thread::sleep(SECOND / 20));
        assert!(!lost());
    }

    #[test]
    fn work_that_does_not_end_is_left_behind() {
        let work = || {
            loop {
                std::hint::black_box(vec![0u8; 9]);
            }
        };
        assert_eq!(run::<()>(limits(1 << 20, 0, SECOND / 10), work).unwrap(), Outcome::TimedOut);
    }

    #[test]
    fn a_panic_goes_on_where_it_is_waited_for() {
        let waited = || run(limits(1 << 20, 0, 60 * SECOND), || -> () { panic!("{}", "boo") });
        let payload = panic::catch_unwind(waited).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "boo");
    }
}
