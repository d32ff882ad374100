//! The format of Anthropic's messages: a list of content blocks.

use axum::response::sse;
use mlxk_processor::ToolCall;
use mlxk_processor::event::{End, Event, FinishReason};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::format::{Format, Output, named, unique_id};

/// The format of a message.
pub struct MessagesFormat {
    id: String,
    model: String,
    /// True if blocks of reasoning have their text, false if they are empty.
    show_thinking: bool,
    /// Number of blocks so far, with the open one.
    blocks: usize,
    /// The kind of the open block.
    open: Option<BlockKind>,
}

/// The kind of a block that is streamed in deltas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Thinking,
    Text,
}

impl MessagesFormat {
    /// The format of a message by `model`.
    pub fn new(model: &str, show_thinking: bool) -> MessagesFormat {
        let (id, model) = (unique_id("msg_"), model.to_owned());
        MessagesFormat { id, model, show_thinking, blocks: 0, open: None }
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

    /// The events for a delta of a block, after those that open a new block if the open one is of
    /// another kind.
    fn block_delta(&mut self, kind: BlockKind, text: &str) -> Vec<sse::Event> {
        let mut events = Vec::new();
        if self.open != Some(kind) {
            events.extend(self.close());
            let block = match kind {
                BlockKind::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
                BlockKind::Text => json!({"type": "text", "text": ""}),
            };
            events.push(self.start_block(&block));
            self.open = Some(kind);
        }
        let delta = match kind {
            BlockKind::Thinking if !self.show_thinking => return events,
            BlockKind::Thinking => json!({"type": "thinking_delta", "thinking": text}),
            BlockKind::Text => json!({"type": "text_delta", "text": text}),
        };
        events.push(self.delta(&delta));
        events
    }

    /// The events of a tool call, which is a block of its own.
    fn call(&mut self, call: &ToolCall) -> Vec<sse::Event> {
        let mut events: Vec<_> = self.close().into_iter().collect();
        let block = json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
        events.push(self.start_block(&block));
        let delta = json!({"type": "input_json_delta", "partial_json": call.arguments_json()});
        events.push(self.delta(&delta));
        events.push(self.stop());
        events
    }

    fn start_block(&mut self, block: &Value) -> sse::Event {
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

impl Format for MessagesFormat {
    fn document(&mut self, outputs: Vec<Output>) -> Value {
        let output = outputs.into_iter().next().unwrap_or_default();
        let mut content = Vec::new();
        if !output.reasoning.is_empty() {
            let thinking = if self.show_thinking { output.reasoning } else { String::new() };
            content.push(json!({"type": "thinking", "thinking": thinking, "signature": ""}));
        }
        if !output.text.is_empty() {
            content.push(json!({"type": "text", "text": output.text}));
        }
        content.extend(output.calls.iter().map(tool_use));
        let end = output.end.as_ref();
        self.message(content, end, &usage(end))
    }

    fn start(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event> {
        let prompt = prompt_tokens.first().copied().unwrap_or_default();
        let usage = json!({
            "input_tokens": prompt, "output_tokens": 0,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        });
        let message = self.message(Vec::new(), None, &usage);
        vec![named(&json!({"type": "message_start", "message": message}))]
    }

    fn event(&mut self, _: usize, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Started { .. } | Event::Logprobs(_) => Vec::new(),
            Event::Reasoning(text) => self.block_delta(BlockKind::Thinking, &text),
            Event::Text(text) => self.block_delta(BlockKind::Text, &text),
            Event::ToolCall(call) => self.call(&call),
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

    fn finish(&mut self) -> Vec<sse::Event> {
        vec![named(&json!({"type": "message_stop"}))]
    }

    fn fail(&mut self, error: &ApiError, id: &str) -> Vec<sse::Event> {
        vec![named(&error.anthropic(id))]
    }
}

/// The block of a tool call.
fn tool_use(call: &ToolCall) -> Value {
    json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})
}

fn stop_reason(end: &End) -> &'static str {
    match end.reason {
        FinishReason::Stop if end.stop.is_some() => "stop_sequence",
        FinishReason::Stop | FinishReason::Interrupted => "end_turn",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::Length(_) => "max_tokens",
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
