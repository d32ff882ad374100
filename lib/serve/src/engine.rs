//! The engine's interface: what the server asks of whatever runs the models.

use std::sync::Arc;

use mlxk_core::{Record, Result};
use tokio::sync::{mpsc, oneshot};

/// An engine that runs models and answers many requests at once.
pub trait Engine: Send + Sync + 'static {
    /// The models that requests can name. May read the disk.
    ///
    /// # Errors
    /// If the disk cannot be read.
    fn models(&self) -> Result<Vec<Listed>>;

    /// Queues a request and returns at once. Dropping the returned events cancels the request
    /// within one token.
    ///
    /// # Errors
    /// If the request is invalid, or the queue is full.
    fn submit(&self, request: Request) -> Result<Events>;

    /// Counts the tokens of a request's prompt.
    ///
    /// # Errors
    /// If the request is invalid, or the queue is full.
    fn count(&self, request: Request) -> Result<oneshot::Receiver<Result<u64>>>;

    /// The capacity of the queue, in requests.
    fn room(&self) -> u64;

    /// The engine's current load, for metrics.
    fn figures(&self) -> Figures;
}

/// The events of a request, in order; an [`Event::End`] or an error is the last one.
pub type Events = mpsc::UnboundedReceiver<Result<Event>>;

/// A request to generate one completion.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The model's name, as the client gave it.
    pub model: String,
    /// True if the prompt reaches the model without a chat template.
    pub raw: bool,
    /// The messages or prompt and all options, in the form of mlxk-record(7). Requests that differ
    /// in their seed alone share it.
    pub record: Arc<Record>,
    /// The seed of this completion, which overrides the record's.
    pub seed: Option<u64>,
}

/// An event of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The model starts on the prompt.
    Begun {
        /// Number of tokens of the prompt.
        prompt_tokens: u64,
    },
    /// Log probabilities of the next token and of the most likely ones, if the request asks for
    /// them.
    Logprobs(Likelihood, Vec<Likelihood>),
    /// A delta of the reasoning before the answer.
    Reasoning(String),
    /// A delta of the answer's text.
    Text(String),
    /// A complete tool call.
    Call(Call),
    /// The end of the completion.
    End(End),
}

/// A token and its log probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// The token's text; bytes that are no whole character are replaced.
    pub text: String,
    /// The token's bytes, perhaps a part of a character.
    pub bytes: Vec<u8>,
    /// The natural logarithm of the token's probability, before filters and temperature.
    pub logprob: f32,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The call's id, which its result refers to.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The function's arguments: the JSON text of an object.
    pub arguments: String,
}

/// The end of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// The reason why the completion ended.
    pub reason: Reason,
    /// Number of tokens of the prompt.
    pub prompt_tokens: u64,
    /// Number of the prompt's tokens that came from the prefix cache.
    pub cached_tokens: u64,
    /// Number of tokens that were generated.
    pub completion_tokens: u64,
    /// Number of the generated tokens that are reasoning.
    pub reasoning_tokens: u64,
    /// The stop string that ended the completion, if one did.
    pub stop: Option<String>,
}

/// The reason why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model generated an end token or a stop string.
    Stop,
    /// The model called tools and expects their results.
    Calls,
    /// The completion reached its largest length.
    Length,
}

impl Reason {
    /// The reason as OpenAI's `finish_reason`, which logs and metrics use too.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Stop => "stop",
            Reason::Calls => "tool_calls",
            Reason::Length => "length",
        }
    }
}

/// A model that requests can name.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The model's name.
    pub id: String,
    /// True if the model is in a workspace, false if it is in the cache.
    pub workspace: bool,
    /// The context length in tokens, prompt and completion together, if it is known.
    pub context_length: Option<u64>,
    /// True if the model is in memory.
    pub loaded: bool,
}

/// The load of an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Number of requests that are running.
    pub running: u64,
    /// Number of requests in the queue.
    pub waiting: u64,
    /// Number of models in memory.
    pub models: u64,
    /// Size of all weights in memory, in bytes.
    pub weights: u64,
    /// Largest size that the kv caches of running requests may reach, in bytes.
    pub texts: u64,
    /// Size of the prefix cache, in bytes.
    pub prefixes: u64,
}
