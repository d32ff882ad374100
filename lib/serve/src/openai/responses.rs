//! OpenAI's responses. They are stateless: each request brings its whole conversation.

use mlxk_processor::Conversation;
use mlxk_processor::request::{Prompt, Request, Rules, SchemaFields};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::job::{self, Job};
use crate::openai::responses_format::ResponsesFormat;
use crate::openai::tools::{self, Choice};
use crate::openai::{messages, response_format};

/// Fields of the body that the response repeats.
const ECHOED: [&str; 10] = [
    "model",
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
];

/// The expected value of `input`.
const INPUT: &str = "a text or a list of messages, calls and their outputs";

/// The expected value of `tools`.
const TOOLS: &str = "a list of functions";

/// Parses the body of a response.
pub fn parse(mut fields: Fields) -> Result<Job, ApiError> {
    let echo = fields.copy(&ECHOED);
    let model = job::model(&mut fields)?;
    let mut conversation = conversation(&mut fields)?;
    let mut options = job::options(&mut fields)?;
    options.max_tokens = fields.integer("max_output_tokens", 1, u64::MAX)?;
    options.logprobs = top_logprobs(&mut fields)?;
    let logprobs = options.logprobs.is_some();
    let rules = json_schema(&mut fields)?.map(Rules::Schema);
    conversation.variables = template_variables(&mut fields)?;
    let schema_fields = SchemaFields { text: "text.format.schema", parameters: Some("parameters") };
    let request = Request::new(Prompt::Chat(conversation));
    let request = Request { model, options, rules, schema_fields, ..request };
    let (request, parallel_tool_calls) = tools(&mut fields, request)?;
    let stream = fields.boolean("stream")?;
    check_defaults(&mut fields)?;
    fields.finish("responses")?;
    let format = Box::new(ResponsesFormat::new(echo, logprobs));
    let requests = Box::new(job::requests(request, 1));
    Ok(Job { requests, count: 1, count_field: "input", parallel_tool_calls, stream, format })
}

/// Takes `instructions` and `input`.
fn conversation(fields: &mut Fields) -> Result<Conversation, ApiError> {
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = fields.text("instructions")? {
        messages.push(json!({"role": "system", "content": system}));
    }
    let invalid = || ApiError::invalid_field("input", INPUT);
    match fields.take("input") {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) if !items.is_empty() => {
            for item in items {
                add_item(&item, &mut messages).ok_or_else(invalid)?;
            }
        }
        None => return Err(ApiError::invalid("`input` is missing")),
        Some(_) => return Err(invalid()),
    }
    messages::parse(Some(messages.into()))
}

/// Adds an item of the input to the messages. Returns nothing if the item is malformed.
fn add_item(item: &Value, messages: &mut Vec<Value>) -> Option<()> {
    match item["type"].as_str() {
        None | Some("message") => add_message(item, messages),
        Some("function_call") => add_call(item, messages),
        Some("function_call_output") => {
            let id = item["call_id"].as_str()?;
            let output = content(&item["output"])?;
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
            Some(())
        }
        Some("reasoning") => add_reasoning(item, messages),
        Some(_) => None,
    }
}

fn add_message(item: &Value, messages: &mut Vec<Value>) -> Option<()> {
    let (role, content) = (item["role"].as_str()?, content(&item["content"])?);
    match role {
        "assistant" => {
            assistant_message(messages, &["content"])?.insert("content".into(), content);
        }
        _ => messages.push(json!({"role": role, "content": content})),
    }
    Some(())
}

fn add_call(item: &Value, messages: &mut Vec<Value>) -> Option<()> {
    let function = json!({"name": item["name"].as_str()?, "arguments": item["arguments"]});
    let call = json!({"id": item["call_id"], "type": "function", "function": function});
    let message = assistant_message(messages, &[])?;
    message.entry("tool_calls").or_insert(json!([])).as_array_mut()?.push(call);
    Some(())
}

fn add_reasoning(item: &Value, messages: &mut Vec<Value>) -> Option<()> {
    let parts = item["content"].as_array().into_iter().flatten();
    let text: String = parts.filter_map(|part| part["text"].as_str()).collect();
    if !text.is_empty() {
        let later = ["reasoning_content", "content", "tool_calls"];
        assistant_message(messages, &later)?.insert("reasoning_content".into(), text.into());
    }
    Some(())
}

/// The last message, if it is the assistant's and has none of the fields `absent` yet; otherwise a
/// new message of the assistant.
fn assistant_message<'a>(
    messages: &'a mut Vec<Value>,
    absent: &[&str],
) -> Option<&'a mut Map<String, Value>> {
    let lacks = |message: &Value| absent.iter().all(|name| message[*name].is_null());
    if !messages.last().is_some_and(|last| last["role"] == "assistant" && lacks(last)) {
        messages.push(json!({"role": "assistant", "content": null}));
    }
    messages.last_mut()?.as_object_mut()
}

/// A content in the form of chat completions; none if it is malformed.
fn content(value: &Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value.clone()),
        Value::Array(parts) => parts.iter().map(part).collect::<Option<Vec<_>>>().map(Value::from),
        _ => None,
    }
}

fn part(part: &Value) -> Option<Value> {
    Some(match part["type"].as_str()? {
        "input_text" | "output_text" | "text" => {
            json!({"type": "text", "text": part["text"].as_str()?})
        }
        "refusal" => json!({"type": "text", "text": part["refusal"].as_str()?}),
        "input_image" => json!({"type": "image_url", "image_url": {"url": part["image_url"]}}),
        "input_audio" => json!({"type": "input_audio"}),
        "input_file" => json!({"type": "file"}),
        _ => return None,
    })
}

/// Takes `include` and `top_logprobs`: the number of most likely tokens at each position, or none
/// without log probabilities.
fn top_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let include = fields.read("include", "a list of texts", |value| value.as_array().cloned())?;
    let include = include.unwrap_or_default();
    let known = ["message.output_text.logprobs", "reasoning.encrypted_content"];
    if let Some(other) = include.iter().find(|name| !known.iter().any(|known| *name == known)) {
        return Err(ApiError::invalid(format!("`include`: {other} is not supported")));
    }
    let included = include.iter().any(|name| name == known[0]);
    let top = job::top_logprobs(fields, "top_logprobs")?;
    Ok((included || top.is_some_and(|top| top > 0)).then(|| top.unwrap_or(0)))
}

/// Takes `text`: the JSON schema of the answer.
fn json_schema(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(mut text) = fields.object("text")? else { return Ok(None) };
    text.only("verbosity", &[json!("medium")])?;
    let format = text.object("format")?;
    text.finish("`text`")?;
    format.map_or(Ok(None), |format| response_format::parse(format, "text"))
}

/// Takes `reasoning`: the variables of the chat template for an effort.
fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let Some(mut reasoning) = fields.object("reasoning")? else { return Ok(Map::new()) };
    let effort = reasoning.text("effort")?;
    // The response has the reasoning itself instead of a summary.
    reasoning.ignore(&["summary", "generate_summary"]);
    reasoning.finish("`reasoning`")?;
    let mut variables = Map::new();
    if let Some(effort) = effort {
        variables.insert("enable_thinking".into(), (effort != "none").into());
        variables.insert("reasoning_effort".into(), effort.into());
    }
    Ok(variables)
}

/// Takes the tools into a request, and `parallel_tool_calls`.
fn tools(fields: &mut Fields, request: Request) -> Result<(Request, bool), ApiError> {
    let tools = fields.objects("tools", TOOLS)?.unwrap_or_default();
    let tools = tools.into_iter().map(function).collect::<Result<_, _>>()?;
    let choice = fields.read("tool_choice", Choice::EXPECTED, Choice::parse)?;
    let parallel_tool_calls = tools::parallel_tool_calls(fields)?;
    let request = tools::with_tools(request, tools, choice.unwrap_or_default())?;
    Ok((request, parallel_tool_calls))
}

/// A function in the form of chat completions, with all further fields, which templates may use.
fn function(mut tool: Fields) -> Result<Value, ApiError> {
    let invalid = || ApiError::invalid_field("tools", TOOLS);
    tool.text("type")?.filter(|kind| kind == "function").ok_or_else(invalid)?;
    // Tools are always called by the model itself and always in its prompt.
    tool.only("allowed_callers", &[json!(["direct"])])?;
    tool.only("defer_loading", &[json!(false)])?;
    let function = tool.rest();
    function.get("name").and_then(Value::as_str).ok_or_else(invalid)?;
    Ok(json!({"type": "function", "function": function}))
}

/// Takes fields that have no effect here, and fields of which only the default is supported.
fn check_defaults(fields: &mut Fields) -> Result<(), ApiError> {
    fields.ignore(&["user", "metadata", "safety_identifier", "prompt_cache_key"]);
    fields.only("background", &[json!(false)])?;
    fields.only("prompt_cache_retention", &[json!("in-memory"), json!("in_memory")])?;
    fields.only("service_tier", &[json!("auto"), json!("default")])?;
    fields.only("store", &[json!(false)])?;
    fields.only("stream_options", &[json!({}), json!({"include_obfuscation": false})])?;
    fields.only("truncation", &[json!("disabled")])
}
