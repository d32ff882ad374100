//! What comes of a request.

use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::parser::{Call, Piece};

/// What comes of a request, in order: parts of the answer, then one end.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// How likely the next token of the answer was, if that was asked.
    Logprobs(Told),
    /// More of what the model thinks before it answers.
    Reasoning(String),
    /// More of the answer.
    Text(String),
    /// A function that the model wants to be called.
    Call(Call),
    /// The answer is complete.
    End(End),
}

/// How likely a token was.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Of the token that was chosen.
    pub own: Likelihood,
    /// Of the most likely ones, the likeliest first.
    pub top: Vec<Likelihood>,
    /// Whether it is of the text, and not of reasoning, a call, a mark or the end.
    pub of_text: bool,
}

/// A token, and the natural logarithm of its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Its number.
    pub id: u32,
    /// Its text, as far as it is one alone.
    pub text: String,
    /// What it adds to a text.
    pub bytes: Vec<u8>,
    /// Before any filter and temperature.
    pub logprob: f32,
}

impl Told {
    /// As it stands in records.
    pub fn record(&self) -> Value {
        let top: Vec<Value> = self.top.iter().map(|token| Value::Object(token.record())).collect();
        let mut record = self.own.record();
        record.insert("top".into(), top.into());
        Value::Object(record)
    }
}

impl Likelihood {
    fn record(&self) -> Map<String, Value> {
        let fields = [
            ("id", self.id.into()),
            ("token", self.text.as_str().into()),
            ("logprob", self.logprob.into()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// Tokens of the prompt, with all that the template and the tokenizer put around it.
    pub prompt_tokens: u64,
    /// Those of them that were remembered, and not computed.
    pub cached_tokens: u64,
    /// Tokens that the model gave, with the one that ended the answer.
    pub completion_tokens: u64,
    /// Those of them with which it reasoned.
    pub reasoning_tokens: u64,
    /// The stop string that ended the answer, if one did.
    pub stop: Option<String>,
    /// The seed in use.
    pub seed: u64,
}

impl End {
    /// The fields of a record that tell of an answer besides its text.
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

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model ended it, or a stop string.
    Stop,
    /// The model waits for what its calls give.
    Calls,
    /// It was as long as it may be.
    Length(Bound),
    /// The caller ended it.
    Interrupted,
}

/// What bounds the length of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `max_tokens`.
    Asked,
    /// What is given to those who do not ask.
    Default,
    /// The longest text that the model was made for.
    Window,
    /// The memory that there is.
    Memory,
}

impl Reason {
    /// The `finish_reason` of records.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Stop => "stop",
            Reason::Calls => "tool_calls",
            Reason::Length(_) => "length",
            Reason::Interrupted => "interrupted",
        }
    }
}

impl From<Piece> for Event {
    fn from(piece: Piece) -> Event {
        match piece {
            Piece::Reasoning(text) => Event::Reasoning(text),
            Piece::Text(text) => Event::Text(text),
            Piece::Call(call) => Event::Call(call),
        }
    }
}
