//! Anthropic's messages.

use mlxk_core::Record;
use serde_json::{Map, Value, json};

use crate::conversation;
use crate::engine::Request;
use crate::fields::Fields;
use crate::messages_wording::Messages;
use crate::refusal::Refusal;
use crate::task::{self, Shape, Task};
use crate::tools::{self, Choice};

/// Reads a body.
pub fn read(mut fields: Fields) -> Result<Task, Refusal> {
    let most = fields.whole("max_tokens", 1, u64::MAX)?;
    let most = most.ok_or_else(|| Refusal::invalid("`max_tokens` is missing"))?;
    let (model, record, shape) = prompt(&mut fields)?;
    let mut record = task::choice(&mut fields, record.with("max_tokens", most))?;
    if let Some(stop) = fields.take("stop_sequences") {
        record = record.with("stop", stop);
    }
    if let Some(schema) = format(&mut fields)? {
        record = record.with("json_schema", schema);
    }
    let stream = fields.truth("stream")?;
    fields.skip(&["metadata"]);
    fields.only("service_tier", &[json!("auto"), json!("standard_only")])?;
    fields.finish("messages")?;
    let wording = Box::new(Messages::new(&model));
    let requests = vec![Request { model, raw: false, record }];
    Ok(Task { requests, shape, stream, wording })
}

/// Reads a body whose tokens are to be counted.
pub fn counted(mut fields: Fields) -> Result<Request, Refusal> {
    let (model, record, _) = prompt(&mut fields)?;
    format(&mut fields)?;
    fields.finish("messages")?;
    Ok(Request { model, raw: false, record })
}

/// The model, and what the prompt is made of.
fn prompt(fields: &mut Fields) -> Result<(String, Record, Shape), Refusal> {
    let model = task::model(fields)?;
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
    let messages = conversation::messages(Some(messages.into()))?;
    let mut record = Record::default().with("messages", messages);
    if let Some(thinking) = thinking(fields)? {
        record = record.with("chat_template_kwargs", json!({"enable_thinking": thinking}));
    }
    cached(fields);
    let tools = fields.read("tools", "a list of functions with a `name`", functions)?;
    let (choice, single) = choice(fields)?;
    let (record, shape) = tools::with(record, tools.unwrap_or_default(), choice, single)?;
    Ok((model, record, shape))
}

const WHAT: &str = "a list of objects with a `role` and a `content`";

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
            Some("text") if block["text"].is_string() => {
                parts.push(json!({"type": "text", "text": block["text"]}));
            }
            Some("image") => parts.push(json!({"type": "image_url", "image_url": block["source"]})),
            Some("document") => parts.push(json!({"type": "file"})),
            Some("thinking") => reasoning += block["thinking"].as_str().unwrap_or_default(),
            Some("redacted_thinking") => {}
            Some("tool_use") => calls.push(json!({
                "id": block["id"],
                "type": "function",
                "function": {"name": block["name"], "arguments": block["input"].to_string()},
            })),
            Some("tool_result") => {
                let content = texts(&block["content"]).unwrap_or_default();
                let id = &block["tool_use_id"];
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
            }
            _ => return Err(wrong()),
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

/// Whether the model is to think first, as far as its template lets it be told.
fn thinking(fields: &mut Fields) -> Result<Option<bool>, Refusal> {
    let Some(mut thinking) = fields.object("thinking")? else { return Ok(None) };
    let on = match thinking.text("type")?.as_deref() {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => return Err(Refusal::wrong("thinking", "enabled, adaptive or disabled")),
    };
    thinking.skip(&["budget_tokens", "display"]);
    thinking.finish("`thinking`")?;
    Ok(Some(on))
}

/// The schema that the answer has to follow.
fn format(fields: &mut Fields) -> Result<Option<Value>, Refusal> {
    let Some(mut config) = fields.object("output_config")? else { return Ok(None) };
    let format = config.object("format")?;
    config.finish("`output_config`")?;
    let Some(mut format) = format else { return Ok(None) };
    format.only("type", &[json!("json_schema")])?;
    let schema = format.take("schema");
    format.finish("`output_config`")?;
    schema.map(Some).ok_or_else(|| Refusal::invalid("`output_config`: no `schema`"))
}

/// Functions in OpenAI's form.
fn functions(value: &Value) -> Option<Vec<Value>> {
    let function = |tool: &Value| {
        let own = matches!(tool["type"].as_str(), None | Some("custom"));
        let name = tool["name"].as_str().filter(|_| own)?;
        let mut function = json!({"name": name, "parameters": tool["input_schema"]});
        if let Some(about) = tool.get("description") {
            function["description"] = about.clone();
        }
        Some(json!({"type": "function", "function": function}))
    };
    value.as_array()?.iter().map(function).collect()
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
