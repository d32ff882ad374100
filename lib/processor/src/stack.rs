//! Work that needs a large stack, on a thread of its own.

use std::{panic, thread};

use mlxk_core::{Error, Kind, Result};

/// Runs `work` with a stack of `size` bytes, of which only what is used takes memory. A panic goes
/// on in the caller.
///
/// # Errors
/// [`Kind::Execution`] if no thread can be started.
pub fn run_on_stack<T: Send>(size: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(size).spawn_scoped(scope, work);
        let thread =
            thread.map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        thread.join().map_or_else(|panic| panic::resume_unwind(panic), Ok)
    })
}
