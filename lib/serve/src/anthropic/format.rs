//! The words of Anthropic's messages: an answer is a list of blocks.

use axum::response::sse;
use serde_json::{Value, json};

use crate::engine::{Call, End, Event, Reason};
use crate::error::Refusal;
use crate::format::{self, Answer, Wording, named};

/// The words of messages.
pub struct Messages {
    id: String,
    model: String,
    /// Whether it is told what the model thinks, and not only that it does.
    shown: bool,
    /// Blocks that are told, the open one included.
    blocks: usize,
    /// What the open block is of.
    open: Option<Kind>,
}

/// What pieces of a block are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
}

impl Messages {
    /// For an answer of `model`; what it thinks is left out if it is not `shown`.
    pub fn new(model: &str, shown: bool) -> Messages {
        let id = format::fresh("msg_");
        Messages { id, model: model.to_owned(), shown, blocks: 0, open: None }
    }

    fn message(&self, content: Vec<Value>, end: Option<&End>, usage: &Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": end.map(stop_reason),
            "stop_sequence": end.and_then(|end| end.stop.as_deref()),
            "usage": usage,
        })
    }

    /// A piece of a block of the kind, which is opened if another one is open.
    fn more(&mut self, kind: Kind, text: &str) -> Vec<sse::Event> {
        let mut events = Vec::new();
        if self.open != Some(kind) {
            events.extend(self.close());
            let block = match kind {
                Kind::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                Kind::Text => json!({"type": "text", "text": ""}),
            };
            events.push(self.start(&block));
            self.open = Some(kind);
        }
        let delta = match kind {
            Kind::Thinking if !self.shown => return events,
            Kind::Thinking => json!({"type": "thinking_delta", "thinking": text}),
            Kind::Text => json!({"type": "text_delta", "text": text}),
        };
        events.push(self.delta(&delta));
        events
    }

    /// A block for a call, complete.
    fn call(&mut self, call: &Call) -> Vec<sse::Event> {
        let mut events: Vec<_> = self.close().into_iter().collect();
        let block = json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
        events.push(self.start(&block));
        let delta = json!({"type": "input_json_delta", "partial_json": call.arguments});
        events.push(self.delta(&delta));
        events.push(self.stop());
        events
    }

    fn start(&mut self, block: &Value) -> sse::Event {
        self.blocks += 1;
        let index = self.blocks - 1;
        named(&json!({"type": "content_block_start", "index": index, "content_block": block}))
    }

    fn delta(&self, delta: &Value) -> sse::Event {
        let index = self.blocks - 1;
        named(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
    }

    fn stop(&self) -> sse::Event {
        named(&json!({"type": "content_block_stop", "index": self.blocks - 1}))
    }

    fn close(&mut self) -> Option<sse::Event> {
        self.open.take().map(|_| self.stop())
    }
}

impl Wording for Messages {
    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let answer = answers.into_iter().next().unwrap_or_default();
        let mut content = Vec::new();
        if !answer.reasoning.is_empty() {
            let thinking = if self.shown { answer.reasoning } else { String::new() };
            content.push(json!({"type": "thinking", "thinking": thinking, "signature": ""}));
        }
        if !answer.text.is_empty() {
            content.push(json!({"type": "text", "text": answer.text}));
        }
        content.extend(answer.calls.iter().map(tool_use));
        let end = answer.end.as_ref();
        self.message(content, end, &usage(end))
    }

    fn begin(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event> {
        let prompt = prompt_tokens.first().copied().unwrap_or_default();
        let usage = json!({
            "input_tokens": prompt, "output_tokens": 0,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        });
        let message = self.message(Vec::new(), None, &usage);
        vec![named(&json!({"type": "message_start", "message": message}))]
    }

    fn piece(&mut self, _: usize, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Begun { .. } | Event::Logprobs(..) => Vec::new(),
            Event::Reasoning(text) => self.more(Kind::Thinking, &text),
            Event::Text(text) => self.more(Kind::Text, &text),
            Event::Call(call) => self.call(&call),
            Event::End(end) => {
                let mut events: Vec<_> = self.close().into_iter().collect();
                let delta = json!({"stop_reason": stop_reason(&end), "stop_sequence": end.stop});
                let usage = usage(Some(&end));
                let last = json!({"type": "message_delta", "delta": delta, "usage": usage});
                events.push(named(&last));
                events
            }
        }
    }

    fn end(&mut self) -> Vec<sse::Event> {
        vec![named(&json!({"type": "message_stop"}))]
    }

    fn fail(&mut self, refusal: &Refusal, id: &str) -> Vec<sse::Event> {
        vec![named(&refusal.anthropic(id))]
    }
}

/// A call as a block; arguments that are cut are none.
fn tool_use(call: &Call) -> Value {
    let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
}

fn stop_reason(end: &End) -> &'static str {
    match end.reason {
        Reason::Stop if end.stop.is_some() => "stop_sequence",
        Reason::Stop => "end_turn",
        Reason::Calls => "tool_use",
        Reason::Length => "max_tokens",
    }
}

fn usage(end: Option<&End>) -> Value {
    let count = |of: fn(&End) -> u64| end.map(of).unwrap_or_default();
    json!({
        "input_tokens": count(|end| end.prompt_tokens - end.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": count(|end| end.cached_tokens),
        "output_tokens": count(|end| end.completion_tokens),
    })
}
