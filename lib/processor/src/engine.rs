//! Interface of the engine that runs the models, for programs and servers.

use mlxk_core::policy::encoder::EncoderPlan;
use mlxk_core::{Error, Kind, Result, Task};
use tokio::sync::{mpsc, oneshot};

use crate::event::Event;
use crate::request::Request;
use crate::transcript::{TranscribeRequest, TranscriptEvent};

/// Engine that runs models and answers many requests concurrently.
pub trait Engine: Send + Sync + 'static {
    /// Models that requests can name. May read the disk.
    ///
    /// # Errors
    /// If the disk cannot be read.
    fn models(&self) -> Result<Vec<ModelInfo>>;

    /// Queues a request for a completion and returns at once. Dropping the returned events cancels
    /// the request within one token.
    ///
    /// # Errors
    /// If the request is invalid, or the queue is full.
    fn submit(&self, request: Request) -> Result<Events>;

    /// Counts the tokens of a request's prompt.
    ///
    /// # Errors
    /// If the request is invalid, or the queue is full.
    fn count(&self, request: Request) -> Result<oneshot::Receiver<Result<u64>>>;

    /// Computes embeddings, one vector for each input. Dropping the receiver cancels the request.
    ///
    /// # Errors
    /// [`Kind::CapabilityNotSupported`] if the engine has no models for embeddings; if the request
    /// is invalid, or the queue is full.
    fn embed(&self, request: EmbedRequest) -> Result<oneshot::Receiver<Result<Embeddings>>> {
        Err(not_supported(&request.model, "this engine computes no embeddings"))
    }

    /// Scores documents against queries with a reranker. Dropping the receiver cancels the request.
    ///
    /// # Errors
    /// [`Kind::CapabilityNotSupported`] if the engine has no rerankers; if the request is invalid, or
    /// the queue is full.
    fn score(&self, request: ScoreRequest) -> Result<oneshot::Receiver<Result<Scores>>> {
        Err(not_supported(&request.model, "this engine has no rerankers"))
    }

    /// Queues a request to write down speech and returns at once. Dropping the returned events
    /// cancels the request.
    ///
    /// # Errors
    /// [`Kind::CapabilityNotSupported`] if the engine has no models for speech; if the request is
    /// invalid, or the queue is full.
    fn transcribe(&self, request: TranscribeRequest) -> Result<TranscriptEvents> {
        Err(not_supported(&request.model, "this engine transcribes no speech"))
    }

    /// Capacity of the queue, in requests.
    fn queue_capacity(&self) -> u64;

    /// Current load of the engine, for metrics.
    fn figures(&self) -> Figures;
}

fn not_supported(model: &str, message: &str) -> Error {
    Error::new(Kind::CapabilityNotSupported, model, message)
}

/// Events of a request, in order; an [`Event::End`] or an error is the last one.
pub type Events = mpsc::UnboundedReceiver<Result<Event>>;

/// Events of a transcription, in order; a [`TranscriptEvent::End`] or an error is the last one.
pub type TranscriptEvents = mpsc::UnboundedReceiver<Result<TranscriptEvent>>;

/// Model that requests can name.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Name of the model.
    pub id: String,
    /// True if the model is in a workspace, false if it is in the cache.
    pub workspace: bool,
    /// Context length in tokens, prompt and completion together, if it is known.
    pub context_length: Option<u64>,
    /// True if the model is in memory.
    pub loaded: bool,
    /// Task of the model.
    pub task: Task,
    /// Properties of an embedding model or of a reranker.
    pub encoder: Option<EncoderPlan>,
}

/// Load of an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Number of requests that are running.
    pub running: u64,
    /// Number of requests in the queue.
    pub waiting: u64,
    /// Number of models in memory.
    pub models: u64,
    /// Size of all weights in memory, in bytes.
    pub weight_bytes: u64,
    /// Maximum size that the KV caches of running requests may reach, in bytes.
    pub sequence_bytes: u64,
    /// Size of the prefix cache, in bytes.
    pub prefix_bytes: u64,
}

/// Request for embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedRequest {
    /// Name of the model, as the client gave it; empty if the engine has one model for embeddings in
    /// memory, which is meant.
    pub model: String,
    /// Inputs, each of which gets a vector.
    pub inputs: Vec<EmbedInput>,
    /// Number of leading dimensions that the vectors keep (Matryoshka embeddings); all if absent.
    pub dimensions: Option<usize>,
    /// Text that is put before each input.
    pub prompt: EmbedPrompt,
    /// True if vectors get length 1, false if they do not; the model's modules decide if absent.
    pub normalize: Option<bool>,
    /// True if inputs longer than the model's context are cut; otherwise they are an error.
    pub truncate: bool,
}

/// Text that is put before each input of an embedding. Models name such texts in
/// `config_sentence_transformers.json`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum EmbedPrompt {
    /// The model's default prompt, if it has one.
    #[default]
    Default,
    /// The model's prompt of this name.
    Named(String),
    /// The model's prompt for the questions of a search.
    Query,
    /// The model's prompt for the documents of a search.
    Document,
    /// This text.
    Text(String),
}

/// Input of an embedding.
#[derive(Clone, Debug, PartialEq)]
pub enum EmbedInput {
    /// Text.
    Text(String),
    /// Token ids, which no prompt and no special token is added to.
    Tokens(Vec<u32>),
}

/// Embeddings of the inputs of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embeddings {
    /// Vectors, one for each input, in the order of the inputs.
    pub vectors: Vec<Vec<f32>>,
    /// Number of tokens of all inputs.
    pub prompt_tokens: u64,
    /// Number of inputs that were cut.
    pub truncated: u64,
}

/// Request to score documents against queries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreRequest {
    /// Name of the model, as the client gave it; empty if the engine has one reranker in memory,
    /// which is meant.
    pub model: String,
    /// Queries: one for all documents, or one for each.
    pub queries: Vec<String>,
    /// Documents, each of which gets a score.
    pub documents: Vec<String>,
    /// True if scores are the network's outputs, without the model's activation.
    pub raw: bool,
    /// True if documents that do not fit beside their query are cut; otherwise they are an error.
    pub truncate: bool,
}

/// Scores of the documents of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Scores, one for each document, in the order of the documents; higher is more relevant.
    pub scores: Vec<f32>,
    /// Number of tokens of all pairs of a query and a document.
    pub prompt_tokens: u64,
    /// Number of documents that were cut.
    pub truncated: u64,
}
