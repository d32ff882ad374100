//! Threads that work with MLX, and their end.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time that a thread may take to end.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Handle of a thread that works with MLX. Dropping it waits until the thread ends, which must have
/// been told to, but for two seconds at most: the thread may wait in MLX for a rank that has gone. MLX
/// must be idle when the process ends, since it frees its memory then.
#[derive(Debug)]
pub struct WorkerThread(Option<JoinHandle<()>>);

impl WorkerThread {
    /// The handle of a running thread.
    pub fn new(thread: JoinHandle<()>) -> WorkerThread {
        WorkerThread(Some(thread))
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        let Some(thread) = self.0.take() else { return };
        let late = Instant::now() + JOIN_TIMEOUT;
        while !thread.is_finished() && Instant::now() < late {
            thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
