//! Progress of long work: what libraries report while they read, convert or transfer models.

use std::time::Duration;

/// A step of long work. Bytes are counts since the last report, unless said otherwise; paths are
/// relative to the model.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Bytes that are to be read, beside those announced before.
    Due(u64),
    /// Bytes that have been read.
    Read(u64),
    /// Total work of a transfer, reported before its first byte.
    Plan {
        /// Number of files to move.
        files: usize,
        /// Sum of their sizes in bytes.
        bytes: u64,
        /// Bytes of those that earlier runs have moved already.
        present: u64,
    },
    /// Bytes that are about to be hashed, since the plan of a transfer depends on their digests.
    Check {
        /// Number of bytes.
        bytes: u64,
    },
    /// Bytes that have been hashed for the plan of a transfer.
    Checked {
        /// Number of bytes.
        bytes: u64,
    },
    /// Start of the transfer of a file.
    Begin {
        /// Path of the file.
        path: &'a str,
        /// Size of the file in bytes.
        size: u64,
        /// Bytes of the file that earlier runs have moved already.
        present: u64,
    },
    /// Bytes of a file that have moved.
    Moved {
        /// Path of the file.
        path: &'a str,
        /// Number of bytes.
        bytes: u64,
    },
    /// Bytes that were transferred, found invalid, and are transferred again.
    Lost {
        /// Path of the file.
        path: &'a str,
        /// Number of bytes.
        bytes: u64,
    },
    /// Wait for another program that holds the lock of a file.
    Locked {
        /// Path of the file; empty for the model as a whole.
        path: &'a str,
    },
    /// Failure of an attempt that is repeated after a wait.
    Retry {
        /// Path of the file; empty for a request that is about no file.
        path: &'a str,
        /// Reason of the failure.
        reason: &'a str,
        /// Time until the next attempt.
        wait: Duration,
    },
    /// End of the transfer of a file, which is complete, verified and in its place.
    Done {
        /// Path of the file.
        path: &'a str,
    },
}

/// Receiver of the progress of a transfer, called from several threads.
pub type Listener<'a> = &'a (dyn Fn(Progress) + Sync);
