//! OpenAI's chat completions.

use axum::response::sse;
use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::conversation;
use crate::engine::{End, Event, Request};
use crate::fields::Fields;
use crate::refusal::Refusal;
use crate::task::{self, Task};
use crate::tools;
use crate::wording::{self, Answer, Wording, data, finish_reason, likely, usage};

/// Reads a body.
pub fn read(mut fields: Fields) -> Result<Task, Refusal> {
    let model = task::model(&mut fields)?;
    let mut record =
        Record::default().with("messages", conversation::messages(fields.take("messages"))?);
    record = task::choice(&mut fields, record)?;
    record = fields.pass(&["stop", "grammar"], record);
    record = length(&mut fields, record)?;
    record = variables(&mut fields, record)?;
    let logprobs = likelihoods(&mut fields)?;
    if let Some(count) = logprobs {
        record = record.with("logprobs", count);
    }
    if let Some(schema) = format(&mut fields)? {
        record = record.with("json_schema", schema);
    }
    let (record, shape) = tools::read(&mut fields, record)?;
    let n = task::count(&mut fields)?;
    let (stream, usage) = task::stream(&mut fields)?;
    only_defaults(&mut fields)?;
    fields.finish("chat completions")?;
    let wording = Chat::new(&model, n as usize, usage, logprobs.is_some());
    let requests = task::repeated(&Request { model, raw: false, record }, n);
    Ok(Task { requests, shape, stream, wording: Box::new(wording) })
}

/// Under its new name and its old one.
fn length(fields: &mut Fields, record: Record) -> Result<Record, Refusal> {
    let old = fields.whole("max_tokens", 1, u64::MAX)?;
    let new = fields.whole("max_completion_tokens", 1, u64::MAX)?;
    Ok(match new.or(old) {
        Some(most) => record.with("max_tokens", most),
        None => record,
    })
}

/// What the chat template knows besides.
fn variables(fields: &mut Fields, record: Record) -> Result<Record, Refusal> {
    let given = fields.object("chat_template_kwargs")?.map(Fields::rest);
    let effort = fields.text("reasoning_effort")?;
    let mut variables = Map::new();
    if let Some(effort) = effort {
        variables.insert("enable_thinking".into(), (effort != "none").into());
        variables.insert("reasoning_effort".into(), effort.into());
    }
    variables.extend(given.unwrap_or_default());
    Ok(match variables.is_empty() {
        true => record,
        false => record.with("chat_template_kwargs", variables),
    })
}

/// Of how many tokens it is to be told how likely they were; none if it is not.
fn likelihoods(fields: &mut Fields) -> Result<Option<u64>, Refusal> {
    let wanted = fields.truth("logprobs")?;
    match (wanted, fields.whole("top_logprobs", 0, 20)?) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Refusal::invalid("`top_logprobs` goes with `logprobs`")),
    }
}

/// The schema that the answer has to follow.
fn format(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    let own = fields.take("json_schema");
    let Some(mut format) = fields.object("response_format")? else { return Ok(own) };
    let schema = match format.text("type")?.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(json!({"type": "object"})),
        Some("json_schema") => {
            let schema = format.object("json_schema")?.and_then(|mut named| named.take("schema"));
            Some(schema.ok_or_else(|| Refusal::invalid("`response_format`: no `schema`"))?)
        }
        _ => {
            let what = "of the type text, json_object or json_schema";
            return Err(Refusal::wrong("response_format", what));
        }
    };
    format.finish("`response_format`")?;
    Ok(schema.or(own))
}

/// Fields that change nothing, and those that can be what they are without being said.
fn only_defaults(fields: &mut Fields) -> Result<(), Refusal> {
    fields.skip(&["user", "metadata", "safety_identifier", "prompt_cache_key"]);
    fields.only("prompt_cache_retention", &[json!("in-memory"), json!("in_memory")])?;
    fields.only("modalities", &[json!(["text"])])?;
    fields.only("service_tier", &[json!("auto"), json!("default")])?;
    fields.only("store", &[json!(false)])?;
    fields.only("verbosity", &[json!("medium")])
}

/// The words of chat completions.
struct Chat {
    id: String,
    created: u64,
    model: String,
    /// Whether a stream ends with a count of tokens.
    usage: bool,
    logprobs: bool,
    choices: Vec<Pending>,
    ends: Vec<End>,
}

/// What is known of an answer and not told yet.
#[derive(Clone, Default)]
struct Pending {
    calls: usize,
    logprobs: Vec<Value>,
}

impl Chat {
    fn new(model: &str, n: usize, usage: bool, logprobs: bool) -> Chat {
        Chat {
            id: wording::fresh("chatcmpl-"),
            created: wording::now(),
            model: model.to_owned(),
            usage,
            logprobs,
            choices: vec![Pending::default(); n],
            ends: Vec::new(),
        }
    }

    fn document(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn chunk(&mut self, number: usize, delta: Value, reason: Option<&str>) -> sse::Event {
        let mut choice = json!({"index": number, "delta": delta, "finish_reason": reason});
        if self.logprobs {
            let told = std::mem::take(&mut self.choices[number].logprobs);
            choice["logprobs"] = match told.is_empty() {
                true => Value::Null,
                false => json!({"content": told}),
            };
        }
        let mut chunk = self.document("chat.completion.chunk", json!([choice]));
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }
}

impl Wording for Chat {
    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let ends: Vec<End> = answers.iter().filter_map(|answer| answer.end.clone()).collect();
        let choice = |(number, answer): (usize, &Answer)| {
            let logprobs: Vec<Value> = answer.logprobs.iter().map(likely).collect();
            json!({
                "index": number,
                "message": message(answer),
                "logprobs": self.logprobs.then(|| json!({"content": logprobs, "refusal": null})),
                "finish_reason": answer.end.as_ref().map(finish_reason),
            })
        };
        let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
        let mut document = self.document("chat.completion", choices.into());
        document["usage"] = usage(&ends, true);
        document
    }

    fn begin(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event> {
        let opening = json!({"role": "assistant", "content": ""});
        (0..prompt_tokens.len()).map(|number| self.chunk(number, opening.clone(), None)).collect()
    }

    fn piece(&mut self, number: usize, event: Event) -> Vec<sse::Event> {
        let delta = match event {
            Event::Begun { .. } => return Vec::new(),
            Event::Logprobs(own, top) => {
                self.choices[number].logprobs.push(likely(&(own, top)));
                return Vec::new();
            }
            Event::Reasoning(text) => json!({"reasoning_content": text}),
            Event::Text(text) => json!({"content": text}),
            Event::Call(call) => {
                let mut told = tools::call(&call);
                told["index"] = self.choices[number].calls.into();
                self.choices[number].calls += 1;
                json!({"tool_calls": [told]})
            }
            Event::End(end) => {
                let last = self.chunk(number, json!({}), Some(finish_reason(&end)));
                self.ends.push(end);
                return vec![last];
            }
        };
        vec![self.chunk(number, delta, None)]
    }

    fn end(&mut self) -> Vec<sse::Event> {
        let mut last = Vec::new();
        if self.usage {
            let mut chunk = self.document("chat.completion.chunk", json!([]));
            chunk["usage"] = usage(&self.ends, true);
            last.push(data(&chunk));
        }
        last.push(sse::Event::default().data("[DONE]"));
        last
    }

    fn fail(&mut self, refusal: &Refusal, id: &str) -> Vec<sse::Event> {
        let mut chunk = self.document("chat.completion.chunk", json!([]));
        chunk["error"] = refusal.openai(id)["error"].take();
        vec![data(&chunk)]
    }
}

fn message(answer: &Answer) -> Value {
    let silent = answer.text.is_empty() && !answer.calls.is_empty();
    let content = (!silent).then_some(&answer.text);
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = answer.reasoning.clone().into();
    }
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer.calls.iter().map(tools::call).collect();
    }
    message
}
