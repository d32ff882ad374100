//! Models in memory by their task, and the requests that they take.

use std::ops::{Deref, DerefMut};

use mlxk_core::{Error, Kind, Result, Task};
use mlxk_processor::{Prepared, Processor};

use super::costed::{self, Costed};
use super::encoder::{Job, LoadedEncoder};
use super::loaded::{EventSender, LoadedModel};
use super::processors::Processors;
use super::resident::Resident;
use super::speech::{LoadedSpeech, SpeechJob};
use crate::embed::{EmbedForm, Embedder};
use crate::prefix_cache::CacheOptions;
use crate::rerank::Reranker;
use crate::transcribe::Transcriber;

/// Model in memory, by its task.
pub enum Loaded {
    /// Model that writes text.
    Text(Box<LoadedModel>),
    /// Embedding model.
    Embedder(Box<LoadedEncoder<Embedder>>),
    /// Reranker.
    Reranker(Box<LoadedEncoder<Reranker>>),
    /// Speech model.
    Speech(Box<LoadedSpeech>),
}

/// Prepared request, by the task of its model.
pub enum Work {
    /// Request for text, and the channel of its events.
    Text(Box<Prepared>, EventSender),
    /// Request for embeddings.
    Embed(Job<Embedder>),
    /// Request for scores.
    Score(Job<Reranker>),
    /// Request to write down speech.
    Speech(Box<SpeechJob>),
}

impl Work {
    /// True if the client has disconnected.
    pub fn is_closed(&self) -> bool {
        match self {
            Work::Text(_, send) => send.is_closed(),
            Work::Embed(job) => job.is_closed(),
            Work::Score(job) => job.is_closed(),
            Work::Speech(job) => job.is_closed(),
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
            Work::Speech(job) => job.fail(error),
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
                let form = EmbedForm { task: adapter.clone(), pooling: None };
                let network = Embedder::load(facts, plan, form)?;
                let model = LoadedEncoder::new(network, found, adapter, weights);
                Loaded::Embedder(Box::new(model))
            }
            Task::Rerank => {
                let network = Reranker::load(facts, plan)?;
                Loaded::Reranker(Box::new(LoadedEncoder::new(network, found, None, weights)))
            }
            Task::Audio => {
                let Costed { facts, plan, .. } = costed;
                let load = move || Transcriber::load(&facts, &plan);
                Loaded::Speech(Box::new(LoadedSpeech::open(load, found, weights)?))
            }
            Task::Text | Task::Vision => {
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
            Loaded::Speech(_) => Task::Audio,
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
            (Loaded::Speech(model), Work::Speech(job)) => model.join(*job),
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
            Loaded::Speech(model) => &**model,
        }
    }
}

impl DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut (dyn Resident + 'static) {
        match self {
            Loaded::Text(model) => &mut **model,
            Loaded::Embedder(model) => &mut **model,
            Loaded::Reranker(model) => &mut **model,
            Loaded::Speech(model) => &mut **model,
        }
    }
}
