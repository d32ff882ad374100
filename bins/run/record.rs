//! Record of an answer.

use mlxk_core::Record;
use mlxk_processor::Event;
use serde_json::Value;

/// Answer to a request, as far as it has been generated.
#[derive(Default)]
pub struct Answer {
    reasoning: String,
    text: String,
    calls: Vec<Value>,
    logprobs: Vec<Value>,
}

impl Answer {
    /// Adds an event. The start and the end add nothing: the end has a record of its own.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Logprobs(logprobs) => self.logprobs.push(logprobs.record()),
            Event::Reasoning(text) => self.reasoning += &text,
            Event::Text(text) => self.text += &text,
            Event::ToolCall(call) => self.calls.push(call.record()),
            Event::Started { .. } | Event::End(_) => {}
        }
    }

    /// `{response}`, and `reasoning`, `logprobs` and `tool_calls` if there are any.
    pub fn record(&self) -> Record {
        let mut record = Record::default().with("response", &*self.text);
        if !self.reasoning.is_empty() {
            record = record.with("reasoning", &*self.reasoning);
        }
        if !self.logprobs.is_empty() {
            record = record.with("logprobs", self.logprobs.clone());
        }
        match self.calls.is_empty() {
            true => record,
            false => record.with("tool_calls", self.calls.clone()),
        }
    }
}
