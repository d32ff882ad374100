//! Limits of the scheduler, and the state that its threads share.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mlxk_core::{Error, Found, Kind, Task};
use mlxk_processor::Processor;
use mlxk_processor::engine::Figures;
use mlxk_processor::request::Preset;

use super::processors::Processors;
use crate::embed_processor::EmbedProcessor;
use crate::pair_processor::PairProcessor;
use crate::prefix_cache::CacheOptions;

/// Limits of an engine, and its defaults for requests.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Maximum number of requests of a model that run concurrently.
    pub batch: usize,
    /// Maximum number of requests that wait in the queue.
    pub queue: u64,
    /// Bytes for the weights of all models and the caches of running sequences.
    pub memory: u64,
    /// Time after which an idle model is unloaded; `None` means never.
    pub ttl: Option<Duration>,
    /// Options of the caches; `prefix_bytes` is for all models together.
    pub cache: CacheOptions,
    /// Defaults for all that a request does not state.
    pub preset: Preset,
}

/// State that the threads of an engine share.
#[derive(Default)]
pub struct Shared {
    /// Number of requests that wait.
    pub waiting: AtomicU64,
    /// Total number of tickets issued.
    pub issued: AtomicU64,
    /// Processors that prepare requests.
    pub processors: Processors<Processor>,
    /// Processors of embedding models.
    pub embedders: Processors<EmbedProcessor>,
    /// Processors of rerankers.
    pub rerankers: Processors<PairProcessor>,
    /// Figures of the scheduler after its last step.
    pub figures: Mutex<Figures>,
    /// Models in memory, with their tasks.
    pub loaded: Mutex<Vec<(Found, Task)>>,
}

/// Error of a request whose engine has ended.
pub fn stopped() -> Error {
    Error::new(Kind::ServerShutdown, "", "the models are gone")
}
