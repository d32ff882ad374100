//! Limits of the scheduler, and what its threads share.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mlxk_core::{Error, Found, Kind};
use mlxk_processor::engine::Figures;
use mlxk_processor::request::Preset;

use super::processors::Processors;
use crate::prefix_cache::Memory;

/// What an engine may take, and what it does without being told.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Requests that are answered at once.
    pub batch: usize,
    /// Requests that may wait besides.
    pub queue: u64,
    /// Bytes for weights, texts and what is remembered of them.
    pub memory: u64,
    /// How long a model stays in memory that nobody asks.
    pub ttl: Option<Duration>,
    /// What models remember; `prefix_bytes` are for all together.
    pub texts: Memory,
    /// What holds for requests that do not say otherwise.
    pub preset: Preset,
}

/// What the threads of an engine have in common.
#[derive(Default)]
pub struct Shared {
    /// Requests that were taken in and wait.
    pub waiting: AtomicU64,
    /// Requests that were ever taken in.
    pub taken: AtomicU64,
    /// What makes them ready.
    pub processors: Processors,
    /// What else is known.
    pub figures: Mutex<Figures>,
    /// The models in memory.
    pub loaded: Mutex<Vec<Found>>,
}

/// That the thread of the models has ended.
pub fn stopped() -> Error {
    Error::new(Kind::ServerShutdown, "", "the models are gone")
}
