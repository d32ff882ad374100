//! Work that is not trusted with memory or time, on a thread of its own.
//!
//! Only the allocator can bound what an interpreter takes. A fenced thread that asks it for more
//! than its share, or asks when its time is over, never gets an answer: it sleeps for good with
//! what it holds, and whoever waits for it is told.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mlxk_core::{Error, Kind, Result};

/// Stack of a fenced thread, in bytes.
const STACK: usize = 16 << 20;

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

/// Does `work` with at most `memory` bytes at once, and within `time`. A panic of it goes on here.
///
/// # Errors
/// If there can be no thread.
pub fn run<T: Send + 'static>(
    memory: usize,
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Fenced<T>> {
    let fence = Arc::new(Fence {
        left: AtomicIsize::new(isize::try_from(memory).unwrap_or(isize::MAX)),
        exceeded: AtomicBool::new(false),
        late: AtomicBool::new(false),
        waiting: thread::current(),
    });
    let result = Arc::new(Mutex::new(None));
    let (inner, place) = (Arc::clone(&fence), Arc::clone(&result));
    let fenced = move || {
        let done = inner.within(|| panic::catch_unwind(AssertUnwindSafe(work)));
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        inner.waiting.unpark();
    };
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(fenced)
        .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
    let end = Instant::now() + time;
    loop {
        match result.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Ok(done)) => return Ok(Fenced::Done(done)),
            Some(Err(payload)) => panic::resume_unwind(payload),
            None if fence.exceeded.load(Ordering::Relaxed) => return Ok(Fenced::Memory),
            None => {}
        }
        match end.checked_duration_since(Instant::now()) {
            Some(left) => thread::park_timeout(left),
            None => {
                fence.late.store(true, Ordering::Relaxed);
                return Ok(Fenced::Time);
            }
        }
    }
}

/// The share of a thread.
struct Fence {
    /// Bytes that may still be taken.
    left: AtomicIsize,
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

    /// Takes `bytes`, or sleeps for good.
    fn take(&self, bytes: isize) {
        let left = self.left.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        let over = left < 0 || self.late.load(Ordering::Relaxed);
        // A panic is on its way out, with locks that others need.
        if bytes > 0 && over && !thread::panicking() {
            self.exceeded.store(true, Ordering::Relaxed);
            self.waiting.unpark();
            loop {
                thread::park();
            }
        }
    }
}

/// The system's allocator, with a fence where a thread has one.
struct Fencing;

#[global_allocator]
static ALLOCATOR: Fencing = Fencing;

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

    #[test]
    fn work_within_its_bounds_gives_its_result() {
        let work = || (0..100).map(|_| vec![0u8; 900_000].len()).sum::<usize>();
        assert_eq!(run(1 << 20, 60 * SECOND, work).unwrap(), Fenced::Done(90_000_000));
    }

    #[test]
    fn work_that_doubles_its_memory_again_and_again_is_left_behind() {
        let work = || {
            let mut text = "x".to_owned();
            loop {
                text = text.clone() + &text;
            }
        };
        assert_eq!(run::<()>(64 << 20, 60 * SECOND, work).unwrap(), Fenced::Memory);
    }

    #[test]
    fn work_that_does_not_end_is_left_behind() {
        let work = || {
            loop {
                std::hint::black_box(vec![0u8; 9]);
            }
        };
        assert_eq!(run::<()>(1 << 20, SECOND / 10, work).unwrap(), Fenced::Time);
    }

    #[test]
    fn a_panic_goes_on_where_it_is_waited_for() {
        let waited = || run(1 << 20, 60 * SECOND, || -> () { panic!("{}", "boo") });
        let payload = panic::catch_unwind(waited).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "boo");
    }
}
