//! Response formats: the conversion of the engine's events to one document or a stream.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::sse;
use mlxk_processor::ToolCall;
use mlxk_processor::event::{End, Event, FinishReason, Logprobs};
use serde_json::Value;
use uuid::Uuid;

use crate::error::ApiError;

/// The response format of an API. A value formats one response: either its document, or its stream
/// by [`start`](Format::start), [`event`](Format::event) and [`finish`](Format::finish) in this
/// order.
pub trait Format: Send {
    /// The document of a response whose completions have these outputs, by index.
    fn document(&mut self, outputs: Vec<Output>) -> Value;

    /// The first events of a stream; `prompt_tokens` are those of each completion, by index.
    fn start(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event>;

    /// The events of a stream for an event of the completion `index`.
    fn event(&mut self, index: usize, event: Event) -> Vec<sse::Event>;

    /// The last events of a stream, after all completions have ended.
    fn finish(&mut self) -> Vec<sse::Event>;

    /// The last events of a stream that fails, of the request `id`.
    fn fail(&mut self, error: &ApiError, id: &str) -> Vec<sse::Event>;
}

/// The collected events of one completion.
#[derive(Default)]
pub struct Output {
    /// The reasoning before the answer.
    pub reasoning: String,
    /// The answer's text.
    pub text: String,
    /// The tool calls.
    pub calls: Vec<ToolCall>,
    /// Log probabilities of the text's tokens; empty unless the request asks for them.
    pub logprobs: Vec<Logprobs>,
    /// The end, once the completion has one.
    pub end: Option<End>,
}

impl Output {
    /// Adds an event.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Started { .. } => {}
            Event::Logprobs(logprobs) => self.logprobs.push(logprobs),
            Event::Reasoning(text) => self.reasoning += &text,
            Event::Text(text) => self.text += &text,
            Event::ToolCall(call) => self.calls.push(call),
            Event::End(end) => self.end = Some(end),
        }
    }
}

/// The `finish_reason` of OpenAI's API, which has none for a completion that is interrupted.
pub fn finish_reason(end: &End) -> &'static str {
    match end.reason {
        FinishReason::Interrupted => FinishReason::Stop.name(),
        reason => reason.name(),
    }
}

/// An SSE event without a name.
pub fn data(value: &Value) -> sse::Event {
    sse::Event::default().data(value.to_string())
}

/// An SSE event that is named after its `type`.
pub fn named(value: &Value) -> sse::Event {
    let name = value["type"].as_str().unwrap_or_default();
    sse::Event::default().event(name).data(value.to_string())
}

/// A unique id that starts with `prefix`.
pub fn unique_id(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::new_v4().simple())
}

/// The current Unix time in seconds.
pub fn unix_time() -> u64 {
    // A clock that is set before 1970 counts as 1970.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
