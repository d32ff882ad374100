//! Work that needs a large stack, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use std::{panic, thread};

use mlxk_core::{Error, Kind, Result};

use crate::cancel::{Cancel, cancelled};

/// Time between two questions whether anybody still waits for the work.
const POLL: Duration = Duration::from_millis(10);

/// Runs `work` with a stack of `size` bytes, of which only what is used takes memory. Once `gone` is
/// true, the work is asked to end, and its result is dropped. A panic goes on in the caller.
///
/// # Errors
/// [`Kind::Execution`] if no thread can be started, or `gone` is true.
pub fn run_on_stack<T: Send>(
    size: usize,
    gone: &dyn Fn() -> bool,
    work: impl FnOnce(&Arc<Cancel>) -> T + Send,
) -> Result<T> {
    let cancel = Arc::new(Cancel::default());
    let (done, is_done) = sync_channel::<()>(1);
    let result = thread::scope(|scope| {
        let cancel = &cancel;
        let work = move || {
            let result = work(cancel);
            // Dropping it tells the caller, also after a panic.
            drop(done);
            result
        };
        let thread = thread::Builder::new().stack_size(size).spawn_scoped(scope, work);
        let thread =
            thread.map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        while is_done.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
            if gone() {
                cancel.request();
            }
        }
        thread.join().map_or_else(|panic| panic::resume_unwind(panic), Ok)
    })?;
    match cancel.is_requested() {
        true => Err(cancelled()),
        false => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_that_nobody_waits_for_is_asked_to_end() {
        let start = Instant::now();
        let gone = || start.elapsed() > Duration::from_millis(30);
        let ended = run_on_stack(1 << 20, &gone, |cancel| {
            while !cancel.is_requested() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(ended.unwrap_err().kind, Kind::Execution);
        assert_eq!(run_on_stack(1 << 20, &|| false, |_| 1).unwrap(), 1);
    }
}
