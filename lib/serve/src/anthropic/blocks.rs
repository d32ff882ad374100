//! Messages of Anthropic's API: content blocks, as messages of chat completions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::omitted::Omitted;
use crate::openai::messages::Placed;

/// Blocks that only Anthropic's servers write and read, besides those with a type that ends with
/// `_tool_result`.
const LEFT_OUT: [&str; 6] = [
    "browser_state",
    "fallback",
    "mcp_tool_listing",
    "mcp_tool_use",
    "redacted_thinking",
    "server_tool_use",
];

/// The parsed messages.
#[derive(Default)]
pub struct Input {
    /// The messages in the form of chat completions.
    pub messages: Vec<Placed>,
    /// The tools that the messages last show to the model or hide from it: true, or false.
    pub shown: BTreeMap<String, bool>,
    /// The tools that the messages define.
    pub tools: Vec<Placed>,
    /// The types of blocks that are left out.
    pub omitted: Omitted,
    /// The effort of reasoning that the last message with one asks for.
    pub effort: Option<String>,
}

impl Input {
    /// Adds the field `system`.
    pub fn add_system(&mut self, system: &Value) -> Result<(), ApiError> {
        let content = match system {
            Value::String(text) => text.clone(),
            Value::Array(blocks) => {
                let mut texts = Vec::new();
                for (index, block) in blocks.iter().enumerate() {
                    texts.push(text(block, "text", &format!("system[{index}]"))?);
                }
                texts.join("\n")
            }
            _ => return Err(ApiError::invalid_field("system", "a text or a list of texts")),
        };
        self.messages.push(("system".into(), json!({"role": "system", "content": content})));
        Ok(())
    }

    /// Adds the message at `place` of the body.
    pub fn add(&mut self, message: &Value, place: &str) -> Result<(), ApiError> {
        if !message.is_object() {
            return Err(ApiError::invalid_field(place, "an object with a `role`"));
        }
        let roles = ["user", "assistant", "system", "developer"];
        let role = message["role"].as_str().filter(|role| roles.contains(role));
        let role = role.ok_or_else(|| {
            ApiError::invalid_field(&format!("{place}.role"), "user, assistant or system")
        })?;
        let effort = message["output_config"]["effort"].as_str();
        self.effort = effort.map(str::to_owned).or(self.effort.take());
        let blocks = match &message["content"] {
            Value::Array(blocks) => return self.add_blocks(role, blocks, place),
            Value::String(text) => text.clone(),
            Value::Null if message["output_config"].is_object() => return Ok(()),
            _ => {
                let place = format!("{place}.content");
                return Err(ApiError::invalid_field(&place, "a text or a list of blocks"));
            }
        };
        self.messages.push((place.to_owned(), json!({"role": role, "content": blocks})));
        Ok(())
    }

    /// Adds the message of a list of blocks. Tool results are separate messages in chat templates,
    /// and precede it.
    fn add_blocks(&mut self, role: &str, blocks: &[Value], place: &str) -> Result<(), ApiError> {
        let (mut parts, mut calls, mut reasoning) = (Vec::new(), Vec::new(), String::new());
        for (index, block) in blocks.iter().enumerate() {
            let place = format!("{place}.content[{index}]");
            // A part that is null keeps the places of those after it.
            let mut part = Value::Null;
            match kind(block, &place)? {
                "thinking" => reasoning += block["thinking"].as_str().unwrap_or_default(),
                "tool_use" => calls.push(tool_call(block, &place)?),
                "tool_result" => self.add_result(block, place)?,
                "tool_addition" | "tool_removal" => self.add_change(block, &place)?,
                kind if is_left_out(kind) => self.omitted.add(kind),
                _ => part = content_part(block, &place)?,
            }
            parts.push(part);
        }
        if parts.iter().all(Value::is_null) {
            parts.clear();
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
        self.messages.push((place.to_owned(), message.into()));
        Ok(())
    }

    /// Adds the message of a tool result. Chat templates have no field for a failure, so an error
    /// is marked in the text.
    fn add_result(&mut self, block: &Value, place: String) -> Result<(), ApiError> {
        let is_error = block["is_error"] == true;
        let content = match &block["content"] {
            Value::Null if is_error => "Error".into(),
            Value::Null => "".into(),
            Value::String(text) if is_error => format!("Error: {text}").into(),
            Value::String(text) => text.as_str().into(),
            Value::Array(blocks) => self.result_content(blocks, is_error, &place)?,
            _ => {
                let place = format!("{place}.content");
                return Err(ApiError::invalid_field(&place, "a text or a list of blocks"));
            }
        };
        let id = &block["tool_use_id"];
        let message = json!({"role": "tool", "tool_call_id": id, "content": content});
        self.messages.push((place, message));
        Ok(())
    }

    /// The content of a tool result: a string, or parts if it has more than text.
    fn result_content(
        &mut self,
        blocks: &[Value],
        is_error: bool,
        place: &str,
    ) -> Result<Value, ApiError> {
        let mut parts = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let place = format!("{place}.content[{index}]");
            let mut part = Value::Null;
            match kind(block, &place)? {
                "tool_reference" => {
                    let name = text(block, "tool_name", &place)?;
                    self.shown.insert(name.to_owned(), true);
                    let note = format!("The tool {name} is available.");
                    part = json!({"type": "text", "text": note});
                }
                kind if is_left_out(kind) => self.omitted.add(kind),
                _ => part = content_part(block, &place)?,
            }
            parts.push(part);
        }
        if parts.iter().any(|part| !part.is_null() && part["type"] != "text") {
            let error = is_error.then(|| json!({"type": "text", "text": "Error:"}));
            return Ok(error.into_iter().chain(parts).collect());
        }
        let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        let text = texts.join("\n");
        Ok(if is_error { format!("Error: {text}").into() } else { text.into() })
    }

    fn add_change(&mut self, block: &Value, place: &str) -> Result<(), ApiError> {
        let (tool, place) = (&block["tool"], format!("{place}.tool"));
        match kind(tool, &place)? {
            "tool_definition" => {
                self.tools.push((format!("{place}.definition"), tool["definition"].clone()));
            }
            "tool_reference" => {
                let name = text(tool, "name", &place)?.to_owned();
                self.shown.insert(name, block["type"] == "tool_addition");
            }
            // Those of tools that do not run here.
            other => self.omitted.add(other),
        }
        Ok(())
    }
}

fn is_left_out(kind: &str) -> bool {
    LEFT_OUT.contains(&kind) || kind.ends_with("_tool_result")
}

/// The type of the block at `place`.
fn kind<'a>(block: &'a Value, place: &str) -> Result<&'a str, ApiError> {
    match block.is_object() {
        true => text(block, "type", place),
        false => Err(ApiError::invalid_field(place, "an object")),
    }
}

/// The text in the field `name` of the block at `place`.
fn text<'a>(block: &'a Value, name: &str, place: &str) -> Result<&'a str, ApiError> {
    let text = block[name].as_str();
    text.ok_or_else(|| ApiError::invalid_field(&format!("{place}.{name}"), "a text"))
}

/// A tool call in the form of chat completions.
fn tool_call(block: &Value, place: &str) -> Result<Value, ApiError> {
    let arguments = match &block["input"] {
        Value::Null => json!({}),
        Value::String(text) if text.trim().is_empty() => json!({}),
        input @ (Value::Object(_) | Value::String(_)) => input.clone(),
        _ => return Err(ApiError::invalid_field(&format!("{place}.input"), "an object")),
    };
    let function = json!({"name": text(block, "name", place)?, "arguments": arguments});
    Ok(json!({"id": block["id"], "type": "function", "function": function}))
}

/// A content block as a part of a chat completion's content.
fn content_part(block: &Value, place: &str) -> Result<Value, ApiError> {
    let part = |text: &str| Ok(json!({"type": "text", "text": text}));
    let source = &block["source"];
    match text(block, "type", place)? {
        "text" => part(text(block, "text", place)?),
        "image" => {
            let url = source["url"].as_str().map(|url| json!({"url": url}));
            Ok(json!({"type": "image_url", "image_url": url.unwrap_or(source.clone())}))
        }
        "document" if source["type"] == "text" => {
            let title = block["title"].as_str().map(|title| format!("{title}\n"));
            let data = text(source, "data", &format!("{place}.source"))?;
            part(&format!("{}{data}", title.unwrap_or_default()))
        }
        "document" | "container_upload" => Ok(json!({"type": "file"})),
        "search_result" => {
            let texts = block["content"].as_array().into_iter().flatten();
            let texts = texts.filter_map(|block| block["text"].as_str());
            let head = [&block["title"], &block["source"]].map(Value::as_str);
            let lines: Vec<&str> = head.into_iter().flatten().chain(texts).collect();
            part(&lines.join("\n"))
        }
        // The summary of a conversation that was compacted.
        "compaction" if block["content"].is_string() => part(text(block, "content", place)?),
        "compaction" if block["encrypted_content"].is_null() => Ok(Value::Null),
        kind => Err(ApiError::invalid(format!("`{place}.type`: `{kind}` is not supported"))),
    }
}
