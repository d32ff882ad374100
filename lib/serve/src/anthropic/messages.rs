//! Anthropic's messages.

use mlxk_processor::Conversation;
use mlxk_processor::request::{Prompt, Request, Rules, SchemaFields, ToolChoice};
use serde_json::{Map, Value, json};

use crate::anthropic::format::MessagesFormat;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::job::{self, Job};
use crate::openai::tools;
use crate::openai::{messages, response_format};

/// The expected value of `messages`.
const MESSAGES: &str = "a list of objects with a `role` and a `content`";

/// The expected value of `tools`.
const TOOLS: &str = "a list of functions with a `name`";

/// Parses the body of a message.
pub fn parse(mut fields: Fields) -> Result<Job, ApiError> {
    let max_tokens = fields.integer("max_tokens", 1, u64::MAX)?;
    let max_tokens = max_tokens.ok_or_else(|| ApiError::invalid("`max_tokens` is missing"))?;
    let Message { mut request, parallel_tool_calls, show_thinking } = message(&mut fields)?;
    request.options = job::options(&mut fields)?;
    request.options.max_tokens = Some(max_tokens);
    request.options.stop = job::stop(&mut fields, "stop_sequences")?;
    let stream = fields.boolean("stream")?;
    fields.ignore(&["metadata"]);
    fields.only("service_tier", &[json!("auto"), json!("standard_only")])?;
    fields.only("speed", &[json!("standard")])?;
    fields.finish("messages")?;
    let format = Box::new(MessagesFormat::new(&request.model, show_thinking));
    let requests = Box::new(job::requests(request, 1));
    Ok(Job { requests, count: 1, count_field: "messages", parallel_tool_calls, stream, format })
}

/// Parses the body of a request to count the tokens of a prompt.
pub fn parse_count(mut fields: Fields) -> Result<Request, ApiError> {
    let Message { request, .. } = message(&mut fields)?;
    fields.finish("messages")?;
    Ok(request)
}

/// The fields that a message and a request to count its tokens share.
struct Message {
    /// The request without options.
    request: Request,
    /// True if a completion may have several tool calls.
    parallel_tool_calls: bool,
    /// True if the response has the text of the reasoning.
    show_thinking: bool,
}

fn message(fields: &mut Fields) -> Result<Message, ApiError> {
    let thinking = thinking(fields)?;
    let model = job::model(fields)?;
    let mut conversation = conversation(fields)?;
    let (schema, effort) = output_config(fields)?;
    let variables = &mut conversation.variables;
    if let Some(enabled) = thinking.enabled {
        variables.insert("enable_thinking".into(), enabled.into());
    }
    if let Some(effort) = effort {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    // The prefix cache works without hints.
    fields.ignore(&["cache_control"]);
    let rules = schema.map(Rules::Schema);
    let schema_fields =
        SchemaFields { text: "output_config.format.schema", parameters: Some("input_schema") };
    let request = Request::new(Prompt::Chat(conversation));
    let request = Request { model, rules, schema_fields, ..request };
    let (request, parallel_tool_calls) = tools(fields, request)?;
    Ok(Message { request, parallel_tool_calls, show_thinking: thinking.show })
}

/// Takes `system` and `messages`.
fn conversation(fields: &mut Fields) -> Result<Conversation, ApiError> {
    let mut messages = Vec::new();
    if let Some(system) = fields.read("system", "a text or a list of texts", joined_text)? {
        messages.push(json!({"role": "system", "content": system}));
    }
    let given = fields.read("messages", MESSAGES, |value| value.as_array().cloned())?;
    for message in given.unwrap_or_default() {
        add_message(&message, &mut messages)?;
    }
    if messages.last().is_some_and(|message| message["role"] == "assistant") {
        return Err(ApiError::invalid("`messages`: an answer that is begun is not supported"));
    }
    messages::parse(Some(messages.into()))
}

fn invalid_messages() -> ApiError {
    ApiError::invalid_field("messages", MESSAGES)
}

/// Adds a message in the form of chat templates.
fn add_message(message: &Value, messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let role = message["role"].as_str().filter(|role| ["user", "assistant"].contains(role));
    let role = role.ok_or_else(invalid_messages)?;
    match &message["content"] {
        Value::String(text) => messages.push(json!({"role": role, "content": text})),
        Value::Array(blocks) => add_blocks(role, blocks, messages)?,
        _ => return Err(invalid_messages()),
    }
    Ok(())
}

/// Adds the message of a list of content blocks. Tool results are separate messages in chat
/// templates, and precede it.
fn add_blocks(role: &str, blocks: &[Value], messages: &mut Vec<Value>) -> Result<(), ApiError> {
    let (mut parts, mut calls, mut reasoning) = (Vec::new(), Vec::new(), String::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("thinking") => reasoning += block["thinking"].as_str().unwrap_or_default(),
            Some("redacted_thinking") => {}
            Some("tool_use") => calls.push(tool_call(block)),
            Some("tool_result") => messages.push(tool_result(block)?),
            _ => parts.push(part(block).ok_or_else(invalid_messages)?),
        }
    }
    if parts.is_empty() && calls.is_empty() {
        return Ok(());
    }
    let mut message = Map::from_iter([("role".to_owned(), role.into())]);
    if !reasoning.is_empty() {
        message.insert("reasoning_content".into(), reasoning.into());
    }
    let content = if parts.is_empty() { Value::Null } else { parts.into() };
    message.insert("content".into(), content);
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    messages.push(message.into());
    Ok(())
}

/// A tool call in the form of chat completions.
fn tool_call(block: &Value) -> Value {
    json!({
        "id": block["id"],
        "type": "function",
        "function": {"name": block["name"], "arguments": block["input"].to_string()},
    })
}

/// The message of a tool result.
fn tool_result(block: &Value) -> Result<Value, ApiError> {
    let content = result_content(&block["content"], block["is_error"] == true)?;
    Ok(json!({"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}))
}

/// The content of a tool result: a string, or parts if it has more than text. Chat templates have
/// no field for a failure, so an error is marked in the text.
fn result_content(content: &Value, is_error: bool) -> Result<Value, ApiError> {
    let expected = "texts, images or documents in a `tool_result`";
    let invalid = || ApiError::invalid(format!("`messages`: there may be {expected}"));
    match (content, joined_text(content)) {
        (Value::Null, _) if is_error => Ok("Error".into()),
        (Value::Null, _) => Ok("".into()),
        (_, Some(text)) if is_error => Ok(format!("Error: {text}").into()),
        (_, Some(text)) => Ok(text.into()),
        (Value::Array(blocks), None) => {
            let error = is_error.then(|| Some(json!({"type": "text", "text": "Error:"})));
            let parts = error.into_iter().chain(blocks.iter().map(part));
            parts.collect::<Option<Vec<Value>>>().map(Value::from).ok_or_else(invalid)
        }
        _ => Err(invalid()),
    }
}

/// A content block as a part of a chat completion's content; none if it has another type.
fn part(block: &Value) -> Option<Value> {
    match block["type"].as_str()? {
        "text" => Some(json!({"type": "text", "text": block["text"].as_str()?})),
        "image" => Some(json!({"type": "image_url", "image_url": block["source"]})),
        "document" => Some(json!({"type": "file"})),
        _ => None,
    }
}

/// A string, or the joined texts of blocks; none if a block has no text.
fn joined_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(blocks) => {
            let texts = blocks.iter().map(|block| block["text"].as_str());
            texts.collect::<Option<Vec<_>>>().map(|texts| texts.join("\n"))
        }
        _ => None,
    }
}

/// The options of reasoning.
struct Thinking {
    /// True or false if the request turns reasoning on or off.
    enabled: Option<bool>,
    /// True if the response has the text of the reasoning.
    show: bool,
}

/// Takes `thinking`.
fn thinking(fields: &mut Fields) -> Result<Thinking, ApiError> {
    let Some(mut thinking) = fields.object("thinking")? else {
        return Ok(Thinking { enabled: None, show: true });
    };
    let enabled = match thinking.text("type")?.as_deref() {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => return Err(ApiError::invalid_field("thinking", "enabled, adaptive or disabled")),
    };
    let show =
        thinking.read("display", "summarized or omitted", |value| match value.as_str()? {
            "summarized" => Some(true),
            "omitted" => Some(false),
            _ => None,
        })?;
    // No chat template takes a budget, so the model ends its reasoning itself.
    thinking.integer("budget_tokens", 1, u64::MAX)?;
    thinking.finish("`thinking`")?;
    Ok(Thinking { enabled: Some(enabled), show: show.unwrap_or(true) })
}

/// Takes `output_config`: the JSON schema of the answer, and the effort of reasoning.
fn output_config(fields: &mut Fields) -> Result<(Option<Value>, Option<String>), ApiError> {
    let Some(mut config) = fields.object("output_config")? else { return Ok((None, None)) };
    let (format, effort) = (config.object("format")?, config.text("effort")?);
    config.finish("`output_config`")?;
    let Some(mut format) = format else { return Ok((None, effort)) };
    format.only("type", &[json!("json_schema")])?;
    Ok((Some(response_format::json_schema(format, "output_config")?), effort))
}

/// Takes the tools into a request. Also returns true if a completion may have several tool calls.
fn tools(fields: &mut Fields, request: Request) -> Result<(Request, bool), ApiError> {
    let tools = fields.objects("tools", TOOLS)?.unwrap_or_default();
    let tools = tools.into_iter().map(function).collect::<Result<_, _>>()?;
    let (choice, parallel_tool_calls) = tool_choice(fields)?;
    Ok((tools::with_tools(request, tools, choice.into())?, parallel_tool_calls))
}

/// A tool as a function of chat completions.
fn function(mut tool: Fields) -> Result<Value, ApiError> {
    let custom = tool.text("type")?.is_none_or(|kind| kind == "custom");
    let name = tool.text("name")?.filter(|_| custom);
    let name = name.ok_or_else(|| ApiError::invalid_field("tools", TOOLS))?;
    let mut function = json!({"name": name, "parameters": tool.take("input_schema")});
    if let Some(description) = tool.take("description") {
        function["description"] = description;
    }
    if tool.boolean("strict")? {
        function["strict"] = true.into();
    }
    tool.ignore(&["cache_control", "eager_input_streaming"]);
    tool.only("allowed_callers", &[json!(["direct"])])?;
    tool.only("defer_loading", &[json!(false)])?;
    tool.finish("`tools`")?;
    Ok(json!({"type": "function", "function": function}))
}

/// Takes `tool_choice`, with true if a completion may have several tool calls.
fn tool_choice(fields: &mut Fields) -> Result<(ToolChoice, bool), ApiError> {
    let Some(mut choice) = fields.object("tool_choice")? else {
        return Ok((ToolChoice::Auto, true));
    };
    let parallel_tool_calls = !choice.boolean("disable_parallel_tool_use")?;
    let name = choice.text("name")?;
    let kind = choice.text("type")?;
    choice.finish("`tool_choice`")?;
    let choice = match (kind.as_deref(), name) {
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("none"), _) => ToolChoice::None,
        (Some("any"), _) => ToolChoice::Required,
        (Some("tool"), Some(name)) => ToolChoice::Function(name),
        _ => {
            let expected = "auto, any, none, or a tool with a name";
            return Err(ApiError::invalid_field("tool_choice", expected));
        }
    };
    Ok((choice, parallel_tool_calls))
}
