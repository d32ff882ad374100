//! OpenAI's responses. None is stored: each request brings its whole conversation.

use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::error::Refusal;
use crate::fields::Fields;
use crate::job::{self, Task};
use crate::openai::messages;
use crate::openai::response_format;
use crate::openai::responses_format::Responses;
use crate::openai::tools::{self, Choice};

/// Reads a body.
pub fn read(mut fields: Fields) -> Result<Task, Refusal> {
    let echo = fields.echo(&ECHOED);
    let model = job::model(&mut fields)?;
    let messages = messages(&mut fields)?;
    let mut record = Record::default().with("messages", messages);
    record = job::choice(&mut fields, record)?;
    if let Some(most) = fields.whole("max_output_tokens", 1, u64::MAX)? {
        record = record.with("max_tokens", most);
    }
    let logprobs = likelihoods(&mut fields)?;
    if let Some(count) = logprobs {
        record = record.with("logprobs", count);
    }
    if let Some(schema) = format(&mut fields)? {
        record = record.with("json_schema", schema);
    }
    if let Some(variables) = reasoning(&mut fields)? {
        record = record.with("chat_template_kwargs", variables);
    }
    let tools = fields.list("tools", TOOLS)?.unwrap_or_default();
    let tools = tools.into_iter().map(function).collect::<Result<Vec<_>, _>>()?;
    let choice = fields.read("tool_choice", tools::CHOICE, Choice::read)?.unwrap_or(Choice::Auto);
    let single = tools::single(&mut fields)?;
    let record = tools::with(record, tools, choice)?;
    let stream = fields.truth("stream")?;
    only_defaults(&mut fields)?;
    fields.finish("responses")?;
    let wording = Box::new(Responses::new(echo, logprobs.is_some()));
    let requests = Box::new(job::repeated(model, false, record, 1));
    Ok(Task { requests, count: (1, "input"), single, stream, wording })
}

/// Fields that a response repeats.
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

/// The conversation in the form of chat templates.
fn messages(fields: &mut Fields) -> Result<Value, Refusal> {
    const WHAT: &str = "a text or a list of messages, calls and their outputs";
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = fields.text("instructions")? {
        messages.push(json!({"role": "system", "content": system}));
    }
    match fields.take("input") {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) if !items.is_empty() => {
            for item in items {
                add(item, &mut messages).ok_or_else(|| Refusal::wrong("input", WHAT))?;
            }
        }
        None => return Err(Refusal::invalid("`input` is missing")),
        Some(_) => return Err(Refusal::wrong("input", WHAT)),
    }
    messages::messages(Some(messages.into()))
}

/// Adds an item; nothing if it is none.
fn add(item: Value, messages: &mut Vec<Value>) -> Option<()> {
    match item["type"].as_str() {
        None | Some("message") => {
            let (role, content) = (item["role"].as_str()?, content(&item["content"])?);
            match role {
                "assistant" => {
                    assistant(messages, &["content"])?.insert("content".into(), content);
                }
                _ => messages.push(json!({"role": role, "content": content})),
            }
        }
        Some("function_call") => {
            let function = json!({"name": item["name"].as_str()?, "arguments": item["arguments"]});
            let call = json!({"id": item["call_id"], "type": "function", "function": function});
            assistant(messages, &[])?
                .entry("tool_calls")
                .or_insert(json!([]))
                .as_array_mut()?
                .push(call);
        }
        Some("function_call_output") => {
            let id = item["call_id"].as_str()?;
            let output = content(&item["output"])?;
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
        }
        Some("reasoning") => {
            let parts = item["content"].as_array().into_iter().flatten();
            let text: String = parts.filter_map(|part| part["text"].as_str()).collect();
            if !text.is_empty() {
                let turn = assistant(messages, &["reasoning_content", "content", "tool_calls"])?;
                turn.insert("reasoning_content".into(), text.into());
            }
        }
        Some(_) => return None,
    }
    Some(())
}

/// The turn of the model that is last, if there is none of `these` in it yet, or a new one.
fn assistant<'a>(
    messages: &'a mut Vec<Value>,
    these: &[&str],
) -> Option<&'a mut Map<String, Value>> {
    let lacks = |turn: &Value| these.iter().all(|name| turn[*name].is_null());
    if !messages.last().is_some_and(|last| last["role"] == "assistant" && lacks(last)) {
        messages.push(json!({"role": "assistant", "content": null}));
    }
    messages.last_mut()?.as_object_mut()
}

/// A content in the form of chats.
fn content(value: &Value) -> Option<Value> {
    let part = |part: &Value| {
        Some(match part["type"].as_str()? {
            "input_text" | "output_text" | "text" => {
                json!({"type": "text", "text": part["text"].as_str()?})
            }
            "refusal" => json!({"type": "text", "text": part["refusal"].as_str()?}),
            "input_image" => {
                json!({"type": "image_url", "image_url": {"url": part["image_url"]}})
            }
            "input_audio" => json!({"type": "input_audio"}),
            "input_file" => json!({"type": "file"}),
            _ => return None,
        })
    };
    match value {
        Value::String(_) => Some(value.clone()),
        Value::Array(parts) => parts.iter().map(part).collect::<Option<Vec<_>>>().map(Value::from),
        _ => None,
    }
}

/// Of how many tokens it is to be told how likely they were; none if it is not.
fn likelihoods(fields: &mut Fields) -> Result<Option<u64>, Refusal> {
    let include = fields.read("include", "a list of texts", |value| value.as_array().cloned())?;
    let include = include.unwrap_or_default();
    let known = ["message.output_text.logprobs", "reasoning.encrypted_content"];
    if let Some(other) = include.iter().find(|name| !known.iter().any(|known| *name == known)) {
        return Err(Refusal::invalid(format!("`include`: {other} is not supported")));
    }
    let wanted = include.iter().any(|name| name == known[0]);
    let top = fields.whole("top_logprobs", 0, 20)?;
    Ok(if wanted || top.is_some_and(|top| top > 0) { Some(top.unwrap_or(0)) } else { None })
}

/// The schema that the answer has to follow.
fn format(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    let Some(mut text) = fields.object("text")? else { return Ok(None) };
    text.only("verbosity", &[json!("medium")])?;
    let format = text.object("format")?;
    text.finish("`text`")?;
    format.map_or(Ok(None), |format| response_format::read(format, "text"))
}

/// What the template is told of how to think.
fn reasoning(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    let Some(mut reasoning) = fields.object("reasoning")? else { return Ok(None) };
    let effort = reasoning.text("effort")?;
    // There are no summaries: what is thought is told itself.
    reasoning.skip(&["summary", "generate_summary"]);
    reasoning.finish("`reasoning`")?;
    Ok(effort
        .map(|effort| json!({"enable_thinking": effort != "none", "reasoning_effort": effort})))
}

const TOOLS: &str = "a list of functions";

/// A function in the form of chats, with whatever else its template may know.
fn function(mut tool: Fields) -> Result<Value, Refusal> {
    let wrong = || Refusal::wrong("tools", TOOLS);
    tool.text("type")?.filter(|kind| kind == "function").ok_or_else(wrong)?;
    // All are called by the model itself, and it is told of all.
    tool.only("allowed_callers", &[json!(["direct"])])?;
    tool.only("defer_loading", &[json!(false)])?;
    let function = tool.rest();
    function.get("name").and_then(Value::as_str).ok_or_else(wrong)?;
    Ok(json!({"type": "function", "function": function}))
}

/// Fields that change nothing, and those that can be what they are without being said.
fn only_defaults(fields: &mut Fields) -> Result<(), Refusal> {
    fields.skip(&["user", "metadata", "safety_identifier", "prompt_cache_key"]);
    fields.only("background", &[json!(false)])?;
    fields.only("prompt_cache_retention", &[json!("in-memory"), json!("in_memory")])?;
    fields.only("service_tier", &[json!("auto"), json!("default")])?;
    fields.only("store", &[json!(false)])?;
    fields.only("stream_options", &[json!({}), json!({"include_obfuscation": false})])?;
    fields.only("truncation", &[json!("disabled")])
}
