//! Events of a completion: what an engine sends while it answers a request.

use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::parser::{Delta, ToolCall};

/// Event of a completion. Events come in order; [`Event::End`] is the last one.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The model starts on the prompt. Engines with a queue send it when a request leaves the
    /// queue.
    Started {
        /// Number of tokens of the prompt.
        prompt_tokens: u64,
        /// What the constraint leaves to the model, as [`Prepared::unheld`] has it.
        ///
        /// [`Prepared::unheld`]: crate::processor::Prepared::unheld
        unheld: Vec<String>,
    },
    /// Log probabilities of the next token, if the request asks for them.
    Logprobs(Logprobs),
    /// Delta of the reasoning before the answer.
    Reasoning(String),
    /// Delta of the answer's text.
    Text(String),
    /// Complete tool call.
    ToolCall(ToolCall),
    /// End of the completion.
    End(End),
}

/// Log probabilities at one position: of the token that was chosen, and of the most likely ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Token that was chosen.
    pub token: TokenLogprob,
    /// Most likely tokens at this position, in descending order.
    pub top: Vec<TokenLogprob>,
    /// True if the chosen token belongs to the answer's text; false for reasoning, tool calls,
    /// markers and the end token.
    pub in_text: bool,
}

/// Token with its log probability.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Id of the token.
    pub id: u32,
    /// Text of the token alone; bytes of incomplete characters are replaced.
    pub text: String,
    /// Bytes that the token adds to a text, perhaps a part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of the token's probability, before filters and temperature.
    pub logprob: f32,
}

impl Logprobs {
    /// Entry of the field `logprobs` of a record: `{id, token, logprob, top}`.
    pub fn record(&self) -> Value {
        let top: Vec<Value> = self.top.iter().map(|token| Value::Object(token.record())).collect();
        let mut record = self.token.record();
        record.insert("top".into(), top.into());
        Value::Object(record)
    }
}

impl TokenLogprob {
    fn record(&self) -> Map<String, Value> {
        let fields = [
            ("id", self.id.into()),
            ("token", self.text.as_str().into()),
            ("logprob", self.logprob.into()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// End of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Reason why the completion ended.
    pub reason: FinishReason,
    /// Number of tokens of the prompt, with those that the template and the tokenizer add.
    pub prompt_tokens: u64,
    /// Number of the prompt's tokens that came from the prefix cache.
    pub cached_tokens: u64,
    /// Number of tokens that were generated, the end token included.
    pub completion_tokens: u64,
    /// Number of the generated tokens that are reasoning.
    pub reasoning_tokens: u64,
    /// Stop string that ended the completion, if any.
    pub stop: Option<String>,
    /// Seed of the sampler.
    pub seed: u64,
}

impl End {
    /// Fields of a record that describe the end: `finish_reason`, `usage` and `seed`.
    pub fn record(&self) -> Record {
        let usage = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        });
        let record = Record::default().with("finish_reason", self.reason.name());
        record.with("usage", usage).with("seed", self.seed)
    }
}

/// Reason why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model generated an end token, or a stop string was found.
    Stop,
    /// The model called tools and expects their results.
    ToolCalls,
    /// The completion reached its maximum length.
    Length(LengthLimit),
    /// The caller interrupted the completion.
    Interrupted,
}

/// Limit that determines the maximum length of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthLimit {
    /// `max_tokens` of the request.
    MaxTokens,
    /// Default for requests without `max_tokens`.
    Default,
    /// Context length of the model.
    ContextLength,
    /// Memory of the machine.
    Memory,
}

impl FinishReason {
    /// Name of the reason in the field `finish_reason`, in logs and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::Length(_) => "length",
            FinishReason::Interrupted => "interrupted",
        }
    }
}

impl From<Delta> for Event {
    fn from(delta: Delta) -> Event {
        match delta {
            Delta::Reasoning(text) => Event::Reasoning(text),
            Delta::Text(text) => Event::Text(text),
            Delta::ToolCall(call) => Event::ToolCall(call),
        }
    }
}
