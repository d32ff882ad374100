//! Interface of a model in memory, whatever its task.

use std::time::{Duration, Instant};

use mlxk_core::Found;

use crate::prefill::Prefill;

/// Model in memory.
pub trait Resident {
    /// The model on disk.
    fn found(&self) -> &Found;

    /// Task whose adapter the model has been loaded with.
    fn adapter(&self) -> Option<&str> {
        None
    }

    /// Time at which the model last worked, or a request joined.
    fn used(&self) -> Instant;

    /// Bytes of the weights.
    fn weights(&self) -> u64;

    /// Number of running requests.
    fn running(&self) -> usize;

    /// True if the model panicked and must be unloaded.
    fn failed(&self) -> bool;

    /// Bytes that are reserved for the sequences of running requests.
    fn sequence_bytes(&self) -> u64 {
        0
    }

    /// Bytes of the prefix cache.
    fn prefix_bytes(&self) -> u64 {
        0
    }

    /// Limits the prefix cache to `bytes`.
    fn limit_prefix_cache(&mut self, _bytes: u64) {}

    /// Time of a step without prompts; zero if no request has a token yet, `None` if it is not known.
    fn decode_time(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    /// True if the model works in [`Resident::step`]; otherwise on a thread of its own.
    fn steps(&self) -> bool {
        true
    }

    /// True if whole texts wait to be read.
    fn prefills(&self) -> bool;

    /// Advances all requests by one step. `prefill` bounds the rows of texts that are read.
    fn step(&mut self, prefill: Prefill);

    /// Reserves more of the `free` bytes for answers that have used up their reservation.
    fn extend(&mut self, _free: u64) {}
}
