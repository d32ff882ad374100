//! OpenAI's chat completions.

use axum::response::sse;
use mlxk_processor::Event;
use mlxk_processor::request::{Prompt, Request, Rules, SchemaFields};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::{Format, Output, finish_reason};
use crate::job::{self, Job};
use crate::openai::calls::Origins;
use crate::openai::envelope::{Ends, Envelope};
use crate::openai::logprobs::logprobs;
use crate::openai::tools::{Choice, Tools, parallel_tool_calls, tool_call};
use crate::openai::{messages, response_format, responses};

/// The `object` of a document, and of a chunk of a stream.
const OBJECTS: [&str; 2] = ["chat.completion", "chat.completion.chunk"];

/// Parses the body of a chat completion.
pub fn parse(mut fields: Fields) -> Result<Job, ApiError> {
    let model = job::model(&mut fields)?;
    let mut conversation = messages::parse(messages::placed(fields.take("messages"))?)?;
    conversation.variables = template_variables(&mut fields)?;
    let mut options = job::options(&mut fields)?;
    options.stop = job::stop(&mut fields, "stop")?;
    options.max_tokens = max_tokens(&mut fields)?;
    options.logprobs = top_logprobs(&mut fields)?;
    let logprobs = options.logprobs.is_some();
    let (schema, schema_fields) = json_schema(&mut fields)?;
    let rules = Rules::parse(schema.as_ref(), fields.text("grammar")?.as_deref())?;
    let request = Request::new(Prompt::Chat(conversation));
    let request = Request { model: model.clone(), options, rules, schema_fields, ..request };
    let tools = Tools::parse(&mut fields)?;
    let (omitted, origins) = (tools.omitted(), tools.origins.clone());
    let request = tools.into_request(request, Choice::parse(&mut fields)?)?;
    let parallel_tool_calls = parallel_tool_calls(&mut fields)?;
    let n = job::n(&mut fields)?;
    let (stream, include_usage) = job::stream(&mut fields)?;
    fields.only("modalities", &[json!(["text"])])?;
    fields.finish()?;
    let envelope = Envelope::new("chatcmpl-", OBJECTS, &model, n as usize, include_usage);
    let format = Box::new(ChatFormat::new(envelope, logprobs, origins));
    let requests = Box::new(job::requests(request, n));
    Ok(Job { requests, count: n, count_field: "n", parallel_tool_calls, stream, format, omitted })
}

/// Takes the maximum number of tokens, from its current or its deprecated field.
fn max_tokens(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let deprecated = fields.integer("max_tokens", 1, u64::MAX)?;
    let current = fields.integer("max_completion_tokens", 1, u64::MAX)?;
    if deprecated.is_some() && current.is_some() && deprecated != current {
        let message = "`max_tokens` and `max_completion_tokens` say different things";
        return Err(ApiError::invalid(message));
    }
    Ok(current.or(deprecated))
}

/// Takes the variables of the chat template: `chat_template_kwargs`, and those derived from
/// `reasoning_effort` or, as other servers of this API have it, from `reasoning` or `thinking`.
fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let given = fields.object("chat_template_kwargs")?.map(Fields::rest);
    let mut variables = Map::new();
    if let Some(mut thinking) = fields.object("thinking")? {
        let kind = thinking.text("type")?;
        variables.insert("enable_thinking".into(), (kind.as_deref() != Some("disabled")).into());
        // No chat template takes a budget, so the model ends its reasoning itself.
        thinking.integer("budget_tokens", 1, u64::MAX)?;
        thinking.finish()?;
    }
    variables.extend(responses::reasoning(fields)?);
    if let Some(effort) = fields.text("reasoning_effort")? {
        variables.extend(responses::effort(effort));
    }
    variables.extend(given.unwrap_or_default());
    Ok(variables)
}

/// Takes `logprobs` and `top_logprobs`: the number of most likely tokens at each position, or none
/// without log probabilities.
fn top_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let logprobs = fields.boolean("logprobs")?;
    match (logprobs, job::top_logprobs(fields, "top_logprobs")?) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid("`top_logprobs` goes with `logprobs`")),
    }
}

/// Takes the JSON schema of the answer, in `json_schema` or in `response_format`, and the fields that
/// hold schemas.
fn json_schema(fields: &mut Fields) -> Result<(Option<Value>, SchemaFields), ApiError> {
    let schema = fields.take("json_schema");
    let format = fields.object("response_format")?;
    let format = format.map_or(Ok(None), response_format::parse)?;
    if schema.is_some() && format.is_some() {
        let message = "`json_schema` and `response_format` both ask for a form";
        return Err(ApiError::invalid(message));
    }
    let text = match format {
        Some(_) => "response_format.json_schema.schema",
        None => "json_schema",
    };
    Ok((schema.or(format), SchemaFields { text, ..SchemaFields::default() }))
}

/// The format of chat completions.
struct ChatFormat {
    envelope: Envelope,
    /// True if the response has log probabilities.
    logprobs: bool,
    /// The state of each choice of a stream.
    choices: Vec<ChoiceState>,
    ends: Ends,
    origins: Origins,
}

/// The state of a choice of a stream.
#[derive(Clone, Default)]
struct ChoiceState {
    /// Number of tool calls so far.
    calls: usize,
    /// Log probabilities for the next chunk.
    logprobs: Vec<Value>,
}

impl ChatFormat {
    fn new(envelope: Envelope, logprobs: bool, origins: Origins) -> ChatFormat {
        let choices = vec![ChoiceState::default(); envelope.n()];
        ChatFormat { envelope, logprobs, choices, ends: Ends::new(), origins }
    }

    fn chunk(&mut self, index: usize, delta: Value, finish_reason: Option<&str>) -> sse::Event {
        let mut choice = json!({"index": index, "delta": delta, "finish_reason": finish_reason});
        if self.logprobs {
            let logprobs = std::mem::take(&mut self.choices[index].logprobs);
            choice["logprobs"] = match logprobs.is_empty() {
                true => Value::Null,
                false => json!({"content": logprobs}),
            };
        }
        self.envelope.chunk(choice)
    }
}

impl Format for ChatFormat {
    fn document(&mut self, outputs: Vec<Output>) -> Value {
        self.envelope.document(&outputs, |index, output| {
            let content: Vec<Value> = output.logprobs.iter().map(logprobs).collect();
            json!({
                "index": index,
                "message": message(output, &self.origins),
                "logprobs": self.logprobs.then(|| json!({"content": content, "refusal": null})),
                "finish_reason": output.end.as_ref().map(finish_reason),
            })
        })
    }

    fn start(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event> {
        let opening = json!({"role": "assistant", "content": ""});
        (0..prompt_tokens.len()).map(|index| self.chunk(index, opening.clone(), None)).collect()
    }

    fn event(&mut self, index: usize, event: Event) -> Vec<sse::Event> {
        let choice = &mut self.choices[index];
        let delta = match event {
            Event::Started { .. } => return Vec::new(),
            Event::Logprobs(token) => {
                choice.logprobs.push(logprobs(&token));
                return Vec::new();
            }
            Event::Reasoning(text) => json!({"reasoning_content": text}),
            Event::Text(text) => json!({"content": text}),
            Event::ToolCall(call) => {
                let mut call = tool_call(&call, &self.origins);
                call["index"] = choice.calls.into();
                choice.calls += 1;
                json!({"tool_calls": [call]})
            }
            Event::End(end) => {
                let last = self.chunk(index, json!({}), Some(finish_reason(&end)));
                self.ends.insert(index, end);
                return vec![last];
            }
        };
        vec![self.chunk(index, delta, None)]
    }

    fn finish(&mut self) -> Vec<sse::Event> {
        self.envelope.finish(&self.ends)
    }

    fn fail(&mut self, error: &ApiError, id: &str) -> Vec<sse::Event> {
        self.envelope.fail(error, id)
    }
}

/// The message of a choice; its content is null if there are tool calls and no text.
fn message(output: &Output, origins: &Origins) -> Value {
    let content = (!output.text.is_empty() || output.calls.is_empty()).then_some(&output.text);
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    if !output.reasoning.is_empty() {
        message["reasoning_content"] = output.reasoning.clone().into();
    }
    if !output.calls.is_empty() {
        message["tool_calls"] = output.calls.iter().map(|call| tool_call(call, origins)).collect();
    }
    message
}
