//! OpenAI's chat completions.

use axum::response::sse;
use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::engine::Event;
use crate::error::Refusal;
use crate::fields::Fields;
use crate::format::{self, Answer, Ends, Wording, finish_reason, likely};
use crate::job::{self, Task};
use crate::openai::envelope::Heading;
use crate::openai::messages;
use crate::openai::response_format;
use crate::openai::tools;

/// Reads a body.
pub fn read(mut fields: Fields) -> Result<Task, Refusal> {
    let model = job::model(&mut fields)?;
    let mut record =
        Record::default().with("messages", messages::messages(fields.take("messages"))?);
    record = job::choice(&mut fields, record)?;
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
    let (record, single) = tools::read(&mut fields, record)?;
    let n = job::count(&mut fields)?;
    let (stream, usage) = job::stream(&mut fields)?;
    only_defaults(&mut fields)?;
    fields.finish("chat completions")?;
    let wording = Chat::new(&model, n as usize, usage, logprobs.is_some());
    let requests = Box::new(job::repeated(model, false, record, n));
    Ok(Task { requests, count: (n, "n"), single, stream, wording: Box::new(wording) })
}

/// Under its new name and its old one.
fn length(fields: &mut Fields, record: Record) -> Result<Record, Refusal> {
    let old = fields.whole("max_tokens", 1, u64::MAX)?;
    let new = fields.whole("max_completion_tokens", 1, u64::MAX)?;
    if old.is_some() && new.is_some() && old != new {
        let message = "`max_tokens` and `max_completion_tokens` say different things";
        return Err(Refusal::invalid(message));
    }
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

/// The schema that the answer has to follow, in either field.
fn format(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    let own = fields.take("json_schema");
    let format = fields.object("response_format")?;
    let asked =
        format.map_or(Ok(None), |format| response_format::read(format, "response_format"))?;
    match (own, asked) {
        (Some(_), Some(_)) => {
            Err(Refusal::invalid("`json_schema` and `response_format` both ask for a form"))
        }
        (own, asked) => Ok(own.or(asked)),
    }
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
    heading: Heading,
    logprobs: bool,
    choices: Vec<Pending>,
    ends: Ends,
}

/// What is known of an answer and not told yet.
#[derive(Clone, Default)]
struct Pending {
    calls: usize,
    logprobs: Vec<Value>,
}

impl Chat {
    fn new(model: &str, n: usize, usage: bool, logprobs: bool) -> Chat {
        let objects = ["chat.completion", "chat.completion.chunk"];
        let heading = Heading::new("chatcmpl-", objects, model, usage);
        Chat { heading, logprobs, choices: vec![Pending::default(); n], ends: Ends::new() }
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
        self.heading.chunk(choice)
    }
}

impl Wording for Chat {
    fn whole(&mut self, answers: Vec<Answer>) -> Value {
        let ends = format::ends(&answers);
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
        self.heading.whole(choices, &ends, self.choices.len())
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
                self.ends.insert(number, end);
                return vec![last];
            }
        };
        vec![self.chunk(number, delta, None)]
    }

    fn end(&mut self) -> Vec<sse::Event> {
        self.heading.end(&self.ends, self.choices.len())
    }

    fn fail(&mut self, refusal: &Refusal, id: &str) -> Vec<sse::Event> {
        self.heading.fail(refusal, id)
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
