//! What a transfer tells while it runs.

use std::time::Duration;

/// A step of a transfer; paths are those of the repository.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// All that there is to do: known before the first byte moves.
    Plan {
        /// Files to move.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// Bytes of those that earlier runs have moved already.
        present: u64,
    },
    /// So many bytes are about to be hashed, since what there is to move depends on it.
    Check {
        /// How many.
        bytes: u64,
    },
    /// More of those have been hashed.
    Checked {
        /// How many more.
        bytes: u64,
    },
    /// Work on a file begins.
    Begin {
        /// Which file.
        path: &'a str,
        /// Its bytes.
        size: u64,
        /// Bytes that earlier runs have moved already.
        present: u64,
    },
    /// More bytes of a file have moved.
    Moved {
        /// Which file.
        path: &'a str,
        /// How many more.
        bytes: u64,
    },
    /// Bytes that had moved turned out to be worthless, and move once more.
    Lost {
        /// Which file.
        path: &'a str,
        /// How many.
        bytes: u64,
    },
    /// Another program has the file; this one waits for it.
    Locked {
        /// Which file; empty for the model as a whole.
        path: &'a str,
    },
    /// Something failed that may succeed later.
    Retry {
        /// Which file; empty for a question to the Hub.
        path: &'a str,
        /// What failed.
        reason: &'a str,
        /// How long to wait before the next attempt.
        wait: Duration,
    },
    /// A file is whole, verified and in its place.
    Done {
        /// Which file.
        path: &'a str,
    },
}

/// Who is told; called from several threads.
pub type Listener<'a> = &'a (dyn Fn(Event) + Sync);
