//! Models in memory, whatever their task.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use mlxk_core::{Error, Found, Kind, Result, Task};
use mlxk_processor::Prepared;

use super::costed::{self, Costed};
use super::encoder::{Job, LoadedEncoder};
use super::loaded::{EventSender, LoadedModel};
use super::processors::Processors;
use crate::embed::Embedder;
use crate::prefill::Prefill;
use crate::prefix_cache::CacheOptions;
use crate::rerank::Reranker;
use mlxk_processor::Processor;

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

    /// True if whole texts wait to be read.
    fn prefills(&self) -> bool;

    /// Advances all requests by one step. `prefill` bounds the rows of texts that are read.
    fn step(&mut self, prefill: Prefill);

    /// Reserves more of the `free` bytes for answers that have used up their reservation.
    fn extend(&mut self, _free: u64) {}
}

/// Model in memory, by its task.
pub enum Loaded {
    /// Model that writes text.
    Text(Box<LoadedModel>),
    /// Embedding model.
    Embedder(Box<LoadedEncoder<Embedder>>),
    /// Reranker.
    Reranker(Box<LoadedEncoder<Reranker>>),
}

/// Prepared request, by the task of its model.
pub enum Work {
    /// Request for text, and the channel of its events.
    Text(Box<Prepared>, EventSender),
    /// Request for embeddings.
    Embed(Job<Embedder>),
    /// Request for scores.
    Score(Job<Reranker>),
}

impl Work {
    /// True if the client has disconnected.
    pub fn is_closed(&self) -> bool {
        match self {
            Work::Text(_, send) => send.is_closed(),
            Work::Embed(job) => job.is_closed(),
            Work::Score(job) => job.is_closed(),
        }
    }

    /// Ends the request with an error.
    pub fn fail(self, error: Error) {
        match self {
            Work::Text(_, send) => {
                // A client that has disconnected needs no error.
                let _ = send.send(Err(error));
            }
            Work::Embed(job) => job.fail(error),
            Work::Score(job) => job.fail(error),
        }
    }
}

impl Loaded {
    /// Loads a model by its task, an embedding model with its adapter for the task `adapter`.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub fn open(
        costed: Costed,
        adapter: Option<String>,
        processors: &Processors<Processor>,
        options: &CacheOptions,
    ) -> Result<Loaded> {
        let Costed { facts, plan, cost } = &costed;
        let (found, weights) = (facts.found.clone(), cost.weights);
        Ok(match plan.task {
            Task::Embedding => {
                let network = match &adapter {
                    Some(task) => Embedder::load_adapted(facts, plan, task)?,
                    None => Embedder::load(facts, plan)?,
                };
                let model = LoadedEncoder::new(network, found, adapter, weights);
                Loaded::Embedder(Box::new(model))
            }
            Task::Rerank => {
                let network = Reranker::load(facts, plan)?;
                Loaded::Reranker(Box::new(LoadedEncoder::new(network, found, None, weights)))
            }
            Task::Text | Task::Vision | Task::Audio => {
                let processor = processors.find(&found, costed::processor)?;
                Loaded::Text(Box::new(LoadedModel::open(costed, processor, options)?))
            }
        })
    }

    /// Task of the model.
    pub fn task(&self) -> Task {
        match self {
            Loaded::Text(_) => Task::Text,
            Loaded::Embedder(_) => Task::Embedding,
            Loaded::Reranker(_) => Task::Rerank,
        }
    }

    /// Bytes to reserve for a request when it joins.
    pub fn need(&self, work: &Work) -> u64 {
        match (self, work) {
            (Loaded::Text(model), Work::Text(prepared, _)) => model.need(prepared),
            _ => 0,
        }
    }

    /// Adds a request.
    pub fn join(&mut self, work: Work) {
        match (self, work) {
            (Loaded::Text(model), Work::Text(prepared, send)) => model.join(*prepared, send),
            (Loaded::Embedder(model), Work::Embed(job)) => model.join(job),
            (Loaded::Reranker(model), Work::Score(job)) => model.join(job),
            (model, work) => {
                let message = "the model in memory is for another task";
                work.fail(Error::new(Kind::Internal, &model.found().name, message));
            }
        }
    }
}

impl Deref for Loaded {
    type Target = dyn Resident;

    fn deref(&self) -> &(dyn Resident + 'static) {
        match self {
            Loaded::Text(model) => &**model,
            Loaded::Embedder(model) => &**model,
            Loaded::Reranker(model) => &**model,
        }
    }
}

impl DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut (dyn Resident + 'static) {
        match self {
            Loaded::Text(model) => &mut **model,
            Loaded::Embedder(model) => &mut **model,
            Loaded::Reranker(model) => &mut **model,
        }
    }
}
