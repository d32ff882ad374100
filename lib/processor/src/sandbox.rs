//! Work that is not trusted with memory or time, on a thread of its own.
//!
//! Only the allocator can bound what an interpreter takes. A fenced thread that asks it for more
//! than its share, or asks when its time is over, never gets an answer: it sleeps for good with
//! what it holds, and whoever waits for it is told. That is the last resort: what comes of requests
//! is bounded before, and when sleepers hold too much no other work is begun.

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

/// Bytes that work which was left behind may hold, all of a kind together.
const MAX_LOST: isize = 512 << 20;

/// Stack of a fenced thread, in bytes.
const STACK: usize = 16 << 20;

/// Kinds of work, none of which is to suffer from what others lose.
#[derive(Clone, Copy)]
pub enum Work {
    /// A chat template.
    Template,
    /// Rules for an answer.
    Rules,
}

/// What work may take.
#[derive(Clone, Copy)]
pub struct Share {
    /// What it is.
    pub work: Work,
    /// Bytes at once.
    pub memory: usize,
    /// Those of them that it brings.
    pub own: usize,
    /// How long.
    pub time: Duration,
}

/// How fenced work ended.
#[derive(Debug, PartialEq)]
pub enum Fenced<T> {
    /// With its result.
    Done(T),
    /// It wanted too much memory.
    Memory,
    /// It took too long.
    Time,
}

/// Does `work` with a `share`. A panic of it goes on here.
///
/// # Errors
/// If there can be no thread, or what was left behind of its kind holds too much memory.
pub fn run<T: Send + 'static>(
    share: Share,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Fenced<T>> {
    let lost = ALLOCATOR.lost(share.work);
    if lost.load(Ordering::Relaxed) >= MAX_LOST {
        let message = "work that did not end holds too much memory for more of its kind";
        let error = Error::new(Kind::InsufficientMemory, "", message);
        return Err(error.hint("it is free again when the program is started anew"));
    }
    let bytes = |bytes: usize| isize::try_from(bytes).unwrap_or(isize::MAX);
    let memory = bytes(share.memory);
    let fence = Arc::new(Fence {
        memory,
        left: AtomicIsize::new(memory - bytes(share.own)),
        lost: AtomicIsize::new(0),
        all_lost: lost,
        exceeded: AtomicBool::new(false),
        late: AtomicBool::new(false),
        waiting: thread::current(),
    });
    let result = Arc::new(Mutex::new(None));
    let (inner, place) = (Arc::clone(&fence), Arc::clone(&result));
    let fenced = move || {
        let done = inner.within(|| panic::catch_unwind(AssertUnwindSafe(work)));
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        inner.find();
        *place = Some(done);
        inner.waiting.unpark();
    };
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(fenced)
        .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
    let end = Instant::now() + share.time;
    loop {
        let mut place = result.lock().unwrap_or_else(PoisonError::into_inner);
        match place.take() {
            Some(Ok(done)) => return Ok(Fenced::Done(done)),
            Some(Err(payload)) => panic::resume_unwind(payload),
            None if fence.exceeded.load(Ordering::Relaxed) => {
                fence.lose();
                return Ok(Fenced::Memory);
            }
            None => {}
        }
        let Some(left) = end.checked_duration_since(Instant::now()) else {
            fence.late.store(true, Ordering::Relaxed);
            fence.lose();
            return Ok(Fenced::Time);
        };
        drop(place);
        thread::park_timeout(left);
    }
}

/// Bytes that `value` holds, about: what work that takes it brings.
pub fn weight(value: &Value) -> usize {
    /// What an object keeps with a name, besides its text.
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

/// The share of a thread.
struct Fence {
    /// Bytes of it.
    memory: isize,
    /// Those that may still be taken.
    left: AtomicIsize,
    /// Those that were given up.
    lost: AtomicIsize,
    /// The same of all work of its kind.
    all_lost: &'static AtomicIsize,
    /// Set when more was asked for.
    exceeded: AtomicBool,
    /// Set when nobody waits any more.
    late: AtomicBool,
    /// Who waits.
    waiting: Thread,
}

thread_local! {
    /// The fence of this thread, or null.
    static FENCE: Cell<*const Fence> = const { Cell::new(ptr::null()) };
}

impl Fence {
    /// Does `work` on this thread, fenced.
    fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        FENCE.set(self);
        let done = work();
        FENCE.set(ptr::null());
        done
    }

    /// Gives up what the thread holds.
    fn lose(&self) {
        let held = self.memory - self.left.load(Ordering::Relaxed);
        self.lost.store(held, Ordering::Relaxed);
        self.all_lost.fetch_add(held, Ordering::Relaxed);
    }

    /// Counts on it again, if it was given up: the thread has ended.
    fn find(&self) {
        let held = self.lost.swap(0, Ordering::Relaxed);
        self.all_lost.fetch_sub(held, Ordering::Relaxed);
    }

    /// Takes `bytes`, or sleeps for good.
    fn take(&self, bytes: isize) {
        let left = self.left.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        let over = left < 0 || self.late.load(Ordering::Relaxed);
        // A panic is on its way out, with locks that others need.
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

/// The system's allocator, with a fence where a thread has one.
struct Fencing {
    /// Bytes that threads hold which sleep for good: with templates, and with rules. There is one
    /// memory, and one count of it.
    lost: [AtomicIsize; 2],
}

impl Fencing {
    fn lost(&self, work: Work) -> &AtomicIsize {
        let [templates, rules] = &self.lost;
        match work {
            Work::Template => templates,
            Work::Rules => rules,
        }
    }
}

#[global_allocator]
static ALLOCATOR: Fencing = Fencing { lost: [AtomicIsize::new(0), AtomicIsize::new(0)] };

/// Charges the fence of this thread, if it has one, with `bytes` more.
fn charge(bytes: isize) {
    let fence = FENCE.get();
    if !fence.is_null() {
        // SAFETY: `within` has borrowed the fence for as long as the pointer is set.
        unsafe { &*fence }.take(bytes);
    }
}

// SAFETY: the system's allocator does all the work; charging it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Fencing {
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

    fn share(memory: usize, own: usize, time: Duration) -> Share {
        Share { work: Work::Rules, memory, own, time }
    }

    #[test]
    fn work_within_its_bounds_gives_its_result() {
        let work = || (0..100).map(|_| vec![0u8; 900_000].len()).sum::<usize>();
        assert_eq!(run(share(1 << 20, 0, 60 * SECOND), work).unwrap(), Fenced::Done(90_000_000));
    }

    #[test]
    fn work_that_doubles_its_memory_again_and_again_is_left_behind() {
        let work = || {
            let mut text = "x".to_owned();
            loop {
                text = text.clone() + &text;
            }
        };
        assert_eq!(run::<()>(share(64 << 20, 0, 60 * SECOND), work).unwrap(), Fenced::Memory);
    }

    #[test]
    fn what_work_brings_is_a_part_of_its_share() {
        let work = || vec![0u8; 600_000].len();
        assert_eq!(run(share(1 << 20, 1 << 19, 60 * SECOND), work).unwrap(), Fenced::Memory);
    }

    #[test]
    fn what_a_late_thread_holds_is_free_when_it_ends() {
        const HELD: usize = 200 << 20;
        let work = || {
            let held = vec![0u8; HELD];
            thread::sleep(SECOND / 2);
            held.len()
        };
        assert_eq!(run(share(2 * HELD, 0, SECOND / 10), work).unwrap(), Fenced::Time);
        // The other tests lose less.
        let lost = || ALLOCATOR.lost(Work::Rules).load(Ordering::Relaxed) >= HELD as isize;
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
        assert_eq!(run::<()>(share(1 << 20, 0, SECOND / 10), work).unwrap(), Fenced::Time);
    }

    #[test]
    fn a_panic_goes_on_where_it_is_waited_for() {
        let waited = || run(share(1 << 20, 0, 60 * SECOND), || -> () { panic!("{}", "boo") });
        let payload = panic::catch_unwind(waited).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "boo");
    }
}
