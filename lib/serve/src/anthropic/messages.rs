//! Anthropic's messages.

use std::sync::Arc;

use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::anthropic::format::Messages;
use crate::engine::Request;
use crate::error::Refusal;
use crate::fields::Fields;
use crate::job::{self, Task};
use crate::openai::messages;
use crate::openai::response_format;
use crate::openai::tools::{self, Choice};

/// Reads a body.
pub fn read(mut fields: Fields) -> Result<Task, Refusal> {
    let most = fields.whole("max_tokens", 1, u64::MAX)?;
    let most = most.ok_or_else(|| Refusal::invalid("`max_tokens` is missing"))?;
    let thinking = thinking(&mut fields)?;
    let (model, record, single) = prompt(&mut fields, &thinking)?;
    let mut record = job::choice(&mut fields, record.with("max_tokens", most))?;
    if let Some(stop) = fields.take("stop_sequences") {
        record = record.with("stop", stop);
    }
    let stream = fields.truth("stream")?;
    fields.skip(&["metadata"]);
    fields.only("service_tier", &[json!("auto"), json!("standard_only")])?;
    fields.only("speed", &[json!("standard")])?;
    fields.finish("messages")?;
    let wording = Box::new(Messages::new(&model, thinking.shown));
    let requests = Box::new(job::repeated(model, false, record, 1));
    Ok(Task { requests, count: (1, "messages"), single, stream, wording })
}

/// Reads a body whose tokens are to be counted.
pub fn counted(mut fields: Fields) -> Result<Request, Refusal> {
    let thinking = thinking(&mut fields)?;
    let (model, record, _) = prompt(&mut fields, &thinking)?;
    fields.finish("messages")?;
    Ok(Request { model, raw: false, record: Arc::new(record), seed: None })
}

/// The model, what the prompt is made of, and whether one function alone may be called.
fn prompt(fields: &mut Fields, thinking: &Thinking) -> Result<(String, Record, bool), Refusal> {
    let model = job::model(fields)?;
    let mut messages = Vec::new();
    if let Some(system) = fields.read("system", "a text or a list of texts", texts)? {
        messages.push(json!({"role": "system", "content": system}));
    }
    for message in
        fields.read("messages", WHAT, |value| value.as_array().cloned())?.unwrap_or_default()
    {
        turn(&message, &mut messages)?;
    }
    if messages.last().is_some_and(|message| message["role"] == "assistant") {
        return Err(Refusal::invalid("`messages`: an answer that is begun is not supported"));
    }
    let messages = messages::messages(Some(messages.into()))?;
    let mut record = Record::default().with("messages", messages);
    let (schema, effort) = config(fields)?;
    let mut variables = Map::new();
    if let Some(on) = thinking.on {
        variables.insert("enable_thinking".into(), on.into());
    }
    if let Some(effort) = effort {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    if !variables.is_empty() {
        record = record.with("chat_template_kwargs", variables);
    }
    if let Some(schema) = schema {
        record = record.with("json_schema", schema);
    }
    cached(fields);
    let tools = fields.list("tools", TOOLS)?.unwrap_or_default();
    let tools = tools.into_iter().map(function).collect::<Result<Vec<_>, _>>()?;
    let (choice, single) = choice(fields)?;
    let record = tools::with(record, tools, choice)?;
    Ok((model, record, single))
}

const WHAT: &str = "a list of objects with a `role` and a `content`";
const TOOLS: &str = "a list of functions with a `name`";

/// What is remembered is up to the server.
fn cached(fields: &mut Fields) {
    fields.skip(&["cache_control"]);
}

/// Adds a message in the form of chat templates: results of functions are messages of their own.
fn turn(message: &Value, messages: &mut Vec<Value>) -> Result<(), Refusal> {
    let wrong = || Refusal::wrong("messages", WHAT);
    let role = message["role"].as_str().filter(|role| ["user", "assistant"].contains(role));
    let role = role.ok_or_else(wrong)?;
    let blocks = match &message["content"] {
        Value::String(_) => {
            messages.push(json!({"role": role, "content": message["content"]}));
            return Ok(());
        }
        Value::Array(blocks) => blocks,
        _ => return Err(wrong()),
    };
    let (mut parts, mut calls, mut reasoning) = (Vec::new(), Vec::new(), String::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("thinking") => reasoning += block["thinking"].as_str().unwrap_or_default(),
            Some("redacted_thinking") => {}
            Some("tool_use") => calls.push(json!({
                "id": block["id"],
                "type": "function",
                "function": {"name": block["name"], "arguments": block["input"].to_string()},
            })),
            Some("tool_result") => {
                let content = outcome(&block["content"], block["is_error"] == true)?;
                let id = &block["tool_use_id"];
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
            _ => parts.push(part(block).ok_or_else(wrong)?),
        }
    }
    let mut told = Map::from_iter([("role".to_owned(), role.into())]);
    if !reasoning.is_empty() {
        told.insert("reasoning_content".into(), reasoning.into());
    }
    let silent = parts.is_empty();
    told.insert("content".into(), if silent { Value::Null } else { parts.into() });
    if !calls.is_empty() {
        told.insert("tool_calls".into(), calls.into());
    } else if silent {
        return Ok(());
    }
    messages.push(told.into());
    Ok(())
}

/// A block as a part of a content; none if it is of another kind.
fn part(block: &Value) -> Option<Value> {
    match block["type"].as_str()? {
        "text" => Some(json!({"type": "text", "text": block["text"].as_str()?})),
        "image" => Some(json!({"type": "image_url", "image_url": block["source"]})),
        "document" => Some(json!({"type": "file"})),
        _ => None,
    }
}

/// What a function gave, or why it failed: a text, or parts if there is more in it.
fn outcome(content: &Value, failed: bool) -> Result<Value, Refusal> {
    let what = "texts, images or documents in a `tool_result`";
    let wrong = || Refusal::invalid(format!("`messages`: there may be {what}"));
    match (content, texts(content)) {
        (Value::Null, _) if failed => Ok("Error".into()),
        (Value::Null, _) => Ok("".into()),
        // No template has another place for it.
        (_, Some(text)) if failed => Ok(format!("Error: {text}").into()),
        (_, Some(text)) => Ok(text.into()),
        (Value::Array(blocks), None) => {
            let error = failed.then(|| Some(json!({"type": "text", "text": "Error:"})));
            let parts = error.into_iter().chain(blocks.iter().map(part));
            parts.collect::<Option<Vec<Value>>>().map(Value::from).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

/// A text, or the texts of blocks together.
fn texts(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(blocks) => {
            let texts = blocks.iter().map(|block| block["text"].as_str());
            texts.collect::<Option<Vec<_>>>().map(|texts| texts.join("\n"))
        }
        _ => None,
    }
}

/// Whether the model is to think first, as far as its template lets it be told, and whether it is
/// shown what it thinks.
struct Thinking {
    on: Option<bool>,
    shown: bool,
}

fn thinking(fields: &mut Fields) -> Result<Thinking, Refusal> {
    let Some(mut thinking) = fields.object("thinking")? else {
        return Ok(Thinking { on: None, shown: true });
    };
    let on = match thinking.text("type")?.as_deref() {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => return Err(Refusal::wrong("thinking", "enabled, adaptive or disabled")),
    };
    let shown =
        thinking.read("display", "summarized or omitted", |value| match value.as_str()? {
            "summarized" => Some(true),
            "omitted" => Some(false),
            _ => None,
        })?;
    // No template can be told it: a model thinks as long as it does.
    thinking.whole("budget_tokens", 1, u64::MAX)?;
    thinking.finish("`thinking`")?;
    Ok(Thinking { on: Some(on), shown: shown.unwrap_or(true) })
}

/// The schema that the answer has to follow, and how much the model is to think.
fn config(fields: &mut Fields) -> Result<(Option<Value>, Option<String>), Refusal> {
    let Some(mut config) = fields.object("output_config")? else { return Ok((None, None)) };
    let (format, effort) = (config.object("format")?, config.text("effort")?);
    config.finish("`output_config`")?;
    let Some(mut format) = format else { return Ok((None, effort)) };
    format.only("type", &[json!("json_schema")])?;
    Ok((Some(response_format::named(format, "output_config")?), effort))
}

/// A function in OpenAI's form.
fn function(mut tool: Fields) -> Result<Value, Refusal> {
    let own = tool.text("type")?.is_none_or(|kind| kind == "custom");
    let name = tool.text("name")?.filter(|_| own).ok_or_else(|| Refusal::wrong("tools", TOOLS))?;
    let mut function = json!({"name": name, "parameters": tool.take("input_schema")});
    if let Some(about) = tool.take("description") {
        function["description"] = about;
    }
    if tool.truth("strict")? {
        function["strict"] = true.into();
    }
    tool.skip(&["cache_control", "eager_input_streaming"]);
    tool.only("allowed_callers", &[json!(["direct"])])?;
    tool.only("defer_loading", &[json!(false)])?;
    tool.finish("`tools`")?;
    Ok(json!({"type": "function", "function": function}))
}

fn choice(fields: &mut Fields) -> Result<(Choice, bool), Refusal> {
    let Some(mut choice) = fields.object("tool_choice")? else { return Ok((Choice::Auto, false)) };
    let single = choice.truth("disable_parallel_tool_use")?;
    let name = choice.text("name")?;
    let kind = choice.text("type")?;
    choice.finish("`tool_choice`")?;
    let choice = match (kind.as_deref(), name) {
        (Some("auto"), _) => Choice::Auto,
        (Some("none"), _) => Choice::None,
        (Some("any"), _) => Choice::Any,
        (Some("tool"), Some(name)) => Choice::Named(name),
        _ => return Err(Refusal::wrong("tool_choice", "auto, any, none, or a tool with a name")),
    };
    Ok((choice, single))
}
