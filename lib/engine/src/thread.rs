//! A thread that works with MLX, and its end.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a thread may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for the thread when it is dropped, which must have been told to end: when the process ends,
/// MLX tidies up, and nothing may be at work in it then. What waits in MLX for somebody who has gone
/// is not waited for any longer than two seconds.
#[derive(Debug)]
pub struct WorkerThread(Option<JoinHandle<()>>);

impl WorkerThread {
    /// A thread that runs.
    pub fn new(thread: JoinHandle<()>) -> WorkerThread {
        WorkerThread(Some(thread))
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        let Some(thread) = self.0.take() else { return };
        let late = Instant::now() + PATIENCE;
        while !thread.is_finished() && Instant::now() < late {
            thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A panic has told of itself.
            let _ = thread.join();
        }
    }
}
