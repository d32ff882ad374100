//! The format of OpenAI's responses: a list of items, each of reasoning, text or a tool call.

use axum::response::sse;
use mlxk_processor::ToolCall;
use mlxk_processor::event::{End, Event, FinishReason, Logprobs};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::format::{Format, Output, named, unique_id, unix_time};
use crate::openai::calls::{Origins, custom_input};
use crate::openai::logprobs::logprobs;

/// The format of a response.
pub struct ResponsesFormat {
    /// The fields of the response that do not change.
    response: Map<String, Value>,
    /// True if the response has log probabilities.
    logprobs: bool,
    origins: Origins,
    /// Items that are complete.
    output: Vec<Value>,
    /// The item that is streaming.
    open: Option<Item>,
    /// Log probabilities for the next delta.
    pending: Vec<Logprobs>,
    end: Option<End>,
    /// The `sequence_number` of the next event.
    sequence_number: u64,
}

impl ResponsesFormat {
    /// The format of a response that repeats the fields `echo` of its request, with calls of
    /// `origins` as their client knows them.
    pub fn new(echo: Map<String, Value>, logprobs: bool, origins: Origins) -> ResponsesFormat {
        let defaults = json!({
            "id": unique_id("resp_"),
            "object": "response",
            "created_at": unix_time(),
            "background": false,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "max_output_tokens": null,
            "metadata": {},
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "store": false,
            "temperature": null,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": null,
            "truncation": "disabled",
        });
        let mut response = defaults.as_object().cloned().unwrap_or_default();
        response.extend(echo);
        ResponsesFormat {
            response,
            logprobs,
            origins,
            output: Vec::new(),
            open: None,
            pending: Vec::new(),
            end: None,
            sequence_number: 0,
        }
    }

    fn response(&self, status: &str) -> Value {
        let mut response = self.response.clone();
        response.insert("status".into(), status.into());
        response.insert("output".into(), self.output.clone().into());
        response.insert("usage".into(), self.end.as_ref().map(usage).into());
        if status == "incomplete" {
            let details = json!({"reason": "max_output_tokens"});
            response.insert("incomplete_details".into(), details);
        }
        response.into()
    }

    fn status(&self) -> &'static str {
        match &self.end {
            Some(End { reason: FinishReason::Length(_), .. }) => "incomplete",
            _ => "completed",
        }
    }

    /// An event of the stream.
    fn sse(&mut self, kind: &str, mut fields: Value) -> sse::Event {
        fields["type"] = kind.into();
        fields["sequence_number"] = self.sequence_number.into();
        self.sequence_number += 1;
        named(&fields)
    }

    /// An event about the item that follows the complete ones.
    fn item_sse(&mut self, kind: &str, mut fields: Value) -> sse::Event {
        fields["output_index"] = self.output.len().into();
        self.sse(kind, fields)
    }

    /// An event about the content of the item that is streaming.
    fn content_sse(&mut self, kind: &str, item: &Item, mut fields: Value) -> sse::Event {
        fields["item_id"] = item.id.clone().into();
        fields["output_index"] = self.output.len().into();
        fields["content_index"] = 0.into();
        self.sse(kind, fields)
    }

    /// The events for a delta of the item that is streaming, after those that open a new item if
    /// that one is of another kind.
    fn delta(&mut self, kind: ItemKind, text: &str) -> Vec<sse::Event> {
        let mut events = Vec::new();
        let mut item = match self.open.take() {
            Some(item) if item.kind == kind => item,
            other => {
                events.extend(self.close(other));
                let item = Item::new(kind);
                let added = json!({"item": item.value("in_progress", &[])});
                events.push(self.item_sse("response.output_item.added", added));
                let part = json!({"part": item.part()});
                events.push(self.content_sse("response.content_part.added", &item, part));
                item
            }
        };
        item.text += text;
        let logprobs: Vec<Value> = self.pending.drain(..).map(|token| logprobs(&token)).collect();
        let delta = json!({"delta": text, "logprobs": logprobs});
        events.push(self.content_sse(
            &format!("response.{}.delta", item.part_type()),
            &item,
            delta,
        ));
        item.logprobs.extend(logprobs);
        self.open = Some(item);
        events
    }

    /// The events that complete an item; the last item of an incomplete response is incomplete too.
    fn close(&mut self, item: Option<Item>) -> Vec<sse::Event> {
        let Some(item) = item else { return Vec::new() };
        let part = item.part();
        let done = item.value(self.status(), std::slice::from_ref(&part));
        let text = json!({"text": item.text, "logprobs": item.logprobs});
        let events = vec![
            self.content_sse(&format!("response.{}.done", item.part_type()), &item, text),
            self.content_sse("response.content_part.done", &item, json!({"part": part})),
            self.item_sse("response.output_item.done", json!({"item": done})),
        ];
        self.output.push(done);
        events
    }

    /// The events of a tool call, which is an item of its own.
    fn call(&mut self, call: &ToolCall) -> Vec<sse::Event> {
        let open = self.open.take();
        let mut events = self.close(open);
        let done = call_item(call, &self.origins);
        let custom = done["type"] == "custom_tool_call";
        let (event, field) = match custom {
            true => ("response.custom_tool_call_input", "input"),
            false => ("response.function_call_arguments", "arguments"),
        };
        let mut added = done.clone();
        added["status"] = "in_progress".into();
        added[field] = "".into();
        events.push(self.item_sse("response.output_item.added", json!({"item": added})));
        let (id, all) = (&done["id"], &done[field]);
        let delta = json!({"item_id": id, "delta": all});
        events.push(self.item_sse(&format!("{event}.delta"), delta));
        let mut all = json!({"item_id": id, field: all});
        if !custom {
            all["name"] = done["name"].clone();
        }
        events.push(self.item_sse(&format!("{event}.done"), all));
        events.push(self.item_sse("response.output_item.done", json!({"item": done})));
        self.output.push(done);
        events
    }
}

impl Format for ResponsesFormat {
    fn document(&mut self, outputs: Vec<Output>) -> Value {
        let output = outputs.into_iter().next().unwrap_or_default();
        self.end = output.end;
        let last = match output.text.is_empty() {
            true => ItemKind::Reasoning,
            false => ItemKind::Message,
        };
        let texts = [(ItemKind::Reasoning, output.reasoning), (ItemKind::Message, output.text)];
        for (kind, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            let mut item = Item { text, ..Item::new(kind) };
            if kind == ItemKind::Message && self.logprobs {
                item.logprobs = output.logprobs.iter().map(logprobs).collect();
            }
            let status = if kind == last { self.status() } else { "completed" };
            self.output.push(item.value(status, &[item.part()]));
        }
        self.output.extend(output.calls.iter().map(|call| call_item(call, &self.origins)));
        self.response(self.status())
    }

    fn start(&mut self, _: &[u64]) -> Vec<sse::Event> {
        let response = self.response("in_progress");
        ["response.created", "response.in_progress"]
            .map(|kind| self.sse(kind, json!({"response": response})))
            .into()
    }

    fn event(&mut self, _: usize, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Started { .. } => Vec::new(),
            Event::Logprobs(token) => {
                self.pending.push(token);
                Vec::new()
            }
            Event::Reasoning(text) => self.delta(ItemKind::Reasoning, &text),
            Event::Text(text) => self.delta(ItemKind::Message, &text),
            Event::ToolCall(call) => self.call(&call),
            Event::End(end) => {
                self.end = Some(end);
                let open = self.open.take();
                self.close(open)
            }
        }
    }

    fn finish(&mut self) -> Vec<sse::Event> {
        let status = self.status();
        let response = self.response(status);
        vec![self.sse(&format!("response.{status}"), json!({"response": response}))]
    }

    fn fail(&mut self, error: &ApiError, _: &str) -> Vec<sse::Event> {
        let mut response = self.response("failed");
        response["error"] = json!({"code": error.kind, "message": error.message});
        vec![self.sse("response.failed", json!({"response": response}))]
    }
}

/// An item of reasoning or text.
struct Item {
    kind: ItemKind,
    id: String,
    text: String,
    logprobs: Vec<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Reasoning,
    Message,
}

impl Item {
    fn new(kind: ItemKind) -> Item {
        let prefix = match kind {
            ItemKind::Reasoning => "rs_",
            ItemKind::Message => "msg_",
        };
        Item { kind, id: unique_id(prefix), text: String::new(), logprobs: Vec::new() }
    }

    /// The type of the item's content part, which is also in the names of its events.
    fn part_type(&self) -> &'static str {
        match self.kind {
            ItemKind::Reasoning => "reasoning_text",
            ItemKind::Message => "output_text",
        }
    }

    /// The item's content part.
    fn part(&self) -> Value {
        let mut part = json!({"type": self.part_type(), "text": self.text});
        if self.kind == ItemKind::Message {
            part["annotations"] = json!([]);
            part["logprobs"] = self.logprobs.clone().into();
        }
        part
    }

    fn value(&self, status: &str, content: &[Value]) -> Value {
        let mut value = match self.kind {
            ItemKind::Reasoning => json!({"id": self.id, "type": "reasoning", "summary": []}),
            ItemKind::Message => json!({"id": self.id, "type": "message", "role": "assistant"}),
        };
        value["status"] = status.into();
        value["content"] = content.into();
        value
    }
}

/// The item of a call: of a custom tool, or of a function.
fn call_item(call: &ToolCall, origins: &Origins) -> Value {
    let origin = origins.get(&call.name);
    let mut item = match origin.is_some_and(|origin| origin.custom) {
        true => json!({
            "id": unique_id("ctc_"),
            "type": "custom_tool_call",
            "input": custom_input(call),
        }),
        false => json!({
            "id": unique_id("fc_"),
            "type": "function_call",
            "arguments": call.arguments_json(),
        }),
    };
    item["status"] = "completed".into();
    item["call_id"] = call.id.clone().into();
    item["name"] = origin.map_or(&call.name, |origin| &origin.name).clone().into();
    if let Some(namespace) = origin.and_then(|origin| origin.namespace.clone()) {
        item["namespace"] = namespace.into();
    }
    item
}

fn usage(end: &End) -> Value {
    json!({
        "input_tokens": end.prompt_tokens,
        "input_tokens_details": {"cached_tokens": end.cached_tokens},
        "output_tokens": end.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": end.reasoning_tokens},
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    })
}
