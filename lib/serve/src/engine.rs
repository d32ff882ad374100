//! What answers: the seam between the server and the models.

use std::sync::Arc;

use mlxk_core::{Record, Result};
use tokio::sync::{mpsc, oneshot};

/// What can answer requests, many at once.
pub trait Engine: Send + Sync + 'static {
    /// The models that can be asked. May read the disk.
    ///
    /// # Errors
    /// If it cannot be read.
    fn models(&self) -> Result<Vec<Listed>>;

    /// Takes a request in, without waiting. Dropping what comes of it ends the work on it within a
    /// token.
    ///
    /// # Errors
    /// If the request means nothing, or there is no room for another one to wait.
    fn submit(&self, request: Request) -> Result<Events>;

    /// How many tokens the prompt of a request has.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    fn count(&self, request: Request) -> Result<oneshot::Receiver<Result<u64>>>;

    /// How many requests may wait at once.
    fn room(&self) -> u64;

    /// How the engine is doing.
    fn figures(&self) -> Figures;
}

/// What comes of a request, in order; after an [`Event::End`] or an error nothing.
pub type Events = mpsc::UnboundedReceiver<Result<Event>>;

/// A task for a model.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The model, as the client calls it.
    pub model: String,
    /// Whether the prompt is for the model as it is, without its chat template.
    pub raw: bool,
    /// The request in the suite's own form: see mlxk-record(7). Answers to the same share it.
    pub record: Arc<Record>,
    /// The seed of this answer, which goes before the record's.
    pub seed: Option<u64>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The model begins with it.
    Begun {
        /// Tokens of the prompt.
        prompt_tokens: u64,
    },
    /// How likely the next token is, and the likeliest ones, if that was asked.
    Logprobs(Likelihood, Vec<Likelihood>),
    /// More of what the model thinks before it answers.
    Reasoning(String),
    /// More of the answer.
    Text(String),
    /// A function that the model wants to be called.
    Call(Call),
    /// The answer is complete.
    End(End),
}

/// A token, and the natural logarithm of its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Its text, as far as it is one alone.
    pub text: String,
    /// What it adds to a text: a part of a character, perhaps.
    pub bytes: Vec<u8>,
    /// Before any filter and temperature.
    pub logprob: f32,
}

/// A function to be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What tells it from other calls.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: the JSON text of an object.
    pub arguments: String,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Those of them that were remembered, and not computed.
    pub cached_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Those of them with which it reasoned.
    pub reasoning_tokens: u64,
    /// The stop string that ended it, if one did.
    pub stop: Option<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model ended it, or a stop string.
    Stop,
    /// The model waits for what its calls give.
    Calls,
    /// It was as long as it may be.
    Length,
}

/// A model that can be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// Whether it lies in a workspace.
    pub workspace: bool,
    /// How many tokens a prompt and its answer may have together, if that is known.
    pub context_length: Option<u64>,
    /// Whether it is in memory.
    pub loaded: bool,
}

/// How an engine is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Requests that are being answered.
    pub running: u64,
    /// Requests that wait.
    pub waiting: u64,
    /// Models in memory.
    pub models: u64,
    /// Bytes of their weights.
    pub weights: u64,
    /// Bytes that the texts of requests that are being answered may take.
    pub texts: u64,
    /// Bytes of what is remembered of texts that are over.
    pub prefixes: u64,
}
