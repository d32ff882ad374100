//! The words of OpenAI's responses: an answer is a list of items.

use axum::response::sse;
use serde_json::{Map, Value, json};

use crate::engine::{Call, End, Event, Reason};
use crate::error::Refusal;
use crate::format::{self, Answer, Likely, Wording, likely, named};

/// The words of responses.
pub struct Responses {
    /// What is always the same in the response.
    response: Map<String, Value>,
    /// Whether it is told how likely tokens were.
    logprobs: bool,
    /// Items that are complete.
    output: Vec<Value>,
    /// The item that is not.
    open: Option<Item>,
    /// Likelihoods that are not told yet.
    pending: Vec<Likely>,
    end: Option<End>,
    /// Events told.
    told: u64,
}

/// An item in the making.
struct Item {
    kind: Kind,
    id: String,
    text: String,
    logprobs: Vec<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
}

impl Item {
    fn new(kind: Kind) -> Item {
        let prefix = match kind {
            Kind::Reasoning => "rs_",
            Kind::Message => "msg_",
        };
        Item { kind, id: format::fresh(prefix), text: String::new(), logprobs: Vec::new() }
    }

    fn part(&self) -> Value {
        match self.kind {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
            Kind::Message => json!({
                "type": "output_text",
                "text": self.text,
                "annotations": [],
                "logprobs": self.logprobs,
            }),
        }
    }

    fn value(&self, status: &str, content: &[Value]) -> Value {
        let mut value = match self.kind {
            Kind::Reasoning => json!({"id": self.id, "type": "reasoning", "summary": []}),
            Kind::Message => json!({"id": self.id, "type": "message", "role": "assistant"}),
        };
        value["status"] = status.into();
        value["content"] = content.into();
        value
    }

    /// What names its events.
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Reasoning => "reasoning_text",
            Kind::Message => "output_text",
        }
    }
}

impl Responses {
    /// For a response that repeats the fields `echo`.
    pub fn new(echo: Map<String, Value>, logprobs: bool) -> Responses {
        let plain = json!({
            "id": format::fresh("resp_"),
            "object": "response",
            "created_at": format::now(),
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
        let mut response = plain.as_object().cloned().unwrap_or_default();
        response.extend(echo);
        let (output, pending) = (Vec::new(), Vec::new());
        Responses { response, logprobs, output, open: None, pending, end: None, told: 0 }
    }

    fn response(&self, status: &str) -> Value {
        let mut response = self.response.clone();
        response.insert("status".into(), status.into());
        response.insert("output".into(), self.output.clone().into());
        response.insert("usage".into(), self.end.as_ref().map(usage).into());
        if status == "incomplete" {
            let why = json!({"reason": "max_output_tokens"});
            response.insert("incomplete_details".into(), why);
        }
        response.into()
    }

    fn status(&self) -> &'static str {
        match &self.end {
            Some(End { reason: Reason::Length, .. }) => "incomplete",
            _ => "completed",
        }
    }

    fn event(&mut self, kind: &str, mut fields: Value) -> sse::Event {
        fields["type"] = kind.into();
        fields["sequence_number"] = self.told.into();
        self.told += 1;
        named(&fields)
    }

    /// An event about the open item.
    fn about(&mut self, kind: &str, item: &Item, mut fields: Value) -> sse::Event {
        fields["item_id"] = item.id.clone().into();
        fields["output_index"] = self.output.len().into();
        fields["content_index"] = 0.into();
        self.event(kind, fields)
    }

    /// More of an item of the kind, which is opened if another one is open.
    fn more(&mut self, kind: Kind, text: &str) -> Vec<sse::Event> {
        let mut events = Vec::new();
        let mut item = match self.open.take() {
            Some(item) if item.kind == kind => item,
            other => {
                events.extend(self.close(other));
                let item = Item::new(kind);
                let added = json!({"item": item.value("in_progress", &[])});
                events.push(self.item_event("response.output_item.added", added));
                let part = json!({"part": item.part()});
                events.push(self.about("response.content_part.added", &item, part));
                item
            }
        };
        item.text += text;
        let logprobs: Vec<Value> = self.pending.drain(..).map(|token| likely(&token)).collect();
        let name = format!("response.{}.delta", item.name());
        let delta = json!({"delta": text, "logprobs": logprobs});
        events.push(self.about(&name, &item, delta));
        item.logprobs.extend(logprobs);
        self.open = Some(item);
        events
    }

    /// Ends an item; the last of an answer that was cut is not complete.
    fn close(&mut self, item: Option<Item>) -> Vec<sse::Event> {
        let Some(item) = item else { return Vec::new() };
        let part = item.part();
        let done = item.value(self.status(), std::slice::from_ref(&part));
        let name = format!("response.{}.done", item.name());
        let text = json!({"text": item.text, "logprobs": item.logprobs});
        let events = vec![
            self.about(&name, &item, text),
            self.about("response.content_part.done", &item, json!({"part": part})),
            self.item_event("response.output_item.done", json!({"item": done})),
        ];
        self.output.push(done);
        events
    }

    fn item_event(&mut self, kind: &str, mut fields: Value) -> sse::Event {
        fields["output_index"] = self.output.len().into();
        self.event(kind, fields)
    }

    /// An item for a call, complete.
    fn call(&mut self, call: &Call) -> Vec<sse::Event> {
        let open = self.open.take();
        let mut events = self.close(open);
        let done = function_call(call);
        let mut begun = done.clone();
        begun["status"] = "in_progress".into();
        begun["arguments"] = "".into();
        events.push(self.item_event("response.output_item.added", json!({"item": begun})));
        let id = &done["id"];
        let delta = json!({"item_id": id, "delta": call.arguments});
        events.push(self.item_event("response.function_call_arguments.delta", delta));
        let all = json!({"item_id": id, "name": call.name, "arguments": call.arguments});
        events.push(self.item_event("response.function_call_arguments.done", all));
        events.push(self.item_event("response.output_item.done", json!({"item": done})));
        self.output.push(done);
        events
    }
}

impl Wording for Responses {
    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let answer = answers.into_iter().next().unwrap_or_default();
        self.end = answer.end;
        let cut = match answer.text.is_empty() {
            true => Kind::Reasoning,
            false => Kind::Message,
        };
        for (kind, text) in [(Kind::Reasoning, answer.reasoning), (Kind::Message, answer.text)] {
            if !text.is_empty() {
                let mut item = Item { text, ..Item::new(kind) };
                if kind == Kind::Message && self.logprobs {
                    item.logprobs = answer.logprobs.iter().map(likely).collect();
                }
                let status = if kind == cut { self.status() } else { "completed" };
                self.output.push(item.value(status, &[item.part()]));
            }
        }
        self.output.extend(answer.calls.iter().map(function_call));
        self.response(self.status())
    }

    fn begin(&mut self, _: &[u64]) -> Vec<sse::Event> {
        let response = self.response("in_progress");
        ["response.created", "response.in_progress"]
            .map(|kind| self.event(kind, json!({"response": response})))
            .into()
    }

    fn piece(&mut self, _: usize, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Begun { .. } => Vec::new(),
            Event::Logprobs(own, top) => {
                self.pending.push((own, top));
                Vec::new()
            }
            Event::Reasoning(text) => self.more(Kind::Reasoning, &text),
            Event::Text(text) => self.more(Kind::Message, &text),
            Event::Call(call) => self.call(&call),
            Event::End(end) => {
                self.end = Some(end);
                let open = self.open.take();
                self.close(open)
            }
        }
    }

    fn end(&mut self) -> Vec<sse::Event> {
        let status = self.status();
        let response = self.response(status);
        vec![self.event(&format!("response.{status}"), json!({"response": response}))]
    }

    fn fail(&mut self, refusal: &Refusal, _: &str) -> Vec<sse::Event> {
        let mut response = self.response("failed");
        response["error"] = json!({"code": refusal.kind, "message": refusal.message});
        vec![self.event("response.failed", json!({"response": response}))]
    }
}

fn function_call(call: &Call) -> Value {
    json!({
        "id": format::fresh("fc_"),
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    })
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
