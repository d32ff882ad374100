//! The input of OpenAI's responses: items of a conversation, as messages of chat completions.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::omitted::Omitted;
use crate::openai::calls::{custom_arguments, full_name};
use crate::openai::messages::Placed;

/// Calls of tools that clients run: the type of the item, and the field with the arguments. The
/// item of the output has the same type with `_output` at its end.
const CALLS: [(&str, &str); 5] = [
    ("function_call", "arguments"),
    ("custom_tool_call", "input"),
    ("local_shell_call", "action"),
    ("shell_call", "action"),
    ("apply_patch_call", "operation"),
];

/// Items that only another server writes and reads, besides those with a type that ends with
/// `_call` or `_call_output`.
const LEFT_OUT: [&str; 5] = [
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_list_tools",
    "program",
    "program_output",
];

/// The parsed input.
#[derive(Default)]
pub struct Input {
    /// The messages.
    pub messages: Vec<Placed>,
    /// Tools that items define, each with its place.
    pub tools: Vec<Placed>,
    /// The types of items that are left out.
    pub omitted: Omitted,
}

impl Input {
    /// Adds the item at `place` of the body.
    pub fn add(&mut self, item: &Value, place: &str) -> Result<(), ApiError> {
        if !item.is_object() {
            return Err(ApiError::invalid_field(place, "an object"));
        }
        let kind = item["type"].as_str().unwrap_or("message");
        let output_of = |(call, _): &&(&str, &str)| kind.strip_suffix("_output") == Some(call);
        if kind == "message" {
            self.add_message(item, place)
        } else if let Some((_, arguments)) = CALLS.iter().find(|(call, _)| *call == kind) {
            self.add_call(kind, item, arguments, place)
        } else if CALLS.iter().any(|call| output_of(&call)) {
            let content = content(&item["output"], &format!("{place}.output"))?;
            let id = item["call_id"].as_str().or(item["id"].as_str());
            let message = json!({"role": "tool", "tool_call_id": id, "content": content});
            self.messages.push((place.to_owned(), message));
            Ok(())
        } else {
            self.add_other(kind, item, place)
        }
    }

    fn add_other(&mut self, kind: &str, item: &Value, place: &str) -> Result<(), ApiError> {
        let refused = |reason: &str| {
            Err(ApiError::invalid(format!("`{place}.type`: `{kind}` is not supported{reason}")))
        };
        match kind {
            "reasoning" => self.add_reasoning(item, place),
            "additional_tools" | "tool_search_output" => {
                let tools = item["tools"].as_array().into_iter().flatten().enumerate();
                let placed =
                    |(index, tool): (_, &Value)| (format!("{place}.tools[{index}]"), tool.clone());
                self.tools.extend(tools.map(placed));
            }
            "item_reference" => return refused(": no items are stored, so send the item itself"),
            "compaction" | "compaction_summary" => {
                return refused(": only the server that encrypted it can read it");
            }
            _ if LEFT_OUT.contains(&kind) => self.omitted.add(kind),
            _ if kind.ends_with("_call") || kind.ends_with("_call_output") => {
                self.omitted.add(kind);
            }
            _ => return refused(""),
        }
        Ok(())
    }

    fn add_message(&mut self, item: &Value, place: &str) -> Result<(), ApiError> {
        let Some(role) = item["role"].as_str() else {
            return Err(ApiError::invalid_field(&format!("{place}.role"), "a text"));
        };
        let content = content(&item["content"], &format!("{place}.content"))?;
        match role {
            "assistant" => {
                self.assistant_message(place, &["content"])["content"] = content;
            }
            _ => {
                let message = json!({"role": role, "content": content});
                self.messages.push((place.to_owned(), message));
            }
        }
        Ok(())
    }

    fn add_call(
        &mut self,
        kind: &str,
        item: &Value,
        arguments: &str,
        place: &str,
    ) -> Result<(), ApiError> {
        let name = match kind {
            "function_call" | "custom_tool_call" => item["name"].as_str(),
            kind => kind.strip_suffix("_call"),
        };
        let Some(name) = name else {
            return Err(ApiError::invalid_field(&format!("{place}.name"), "a text"));
        };
        let arguments = match (kind, &item[arguments]) {
            ("custom_tool_call", input) => custom_arguments(input),
            (_, given @ (Value::Null | Value::String(_) | Value::Object(_))) => given.clone(),
            _ => {
                let place = format!("{place}.{arguments}");
                return Err(ApiError::invalid_field(&place, "a text or an object"));
            }
        };
        let name = full_name(item["namespace"].as_str(), name);
        let function = json!({"name": name, "arguments": arguments});
        let id = item["call_id"].as_str().or(item["id"].as_str());
        let call = json!({"id": id, "type": "function", "function": function});
        let message = self.assistant_message(place, &[]);
        match &mut message["tool_calls"] {
            Value::Array(calls) => calls.push(call),
            calls => *calls = json!([call]),
        }
        Ok(())
    }

    fn add_reasoning(&mut self, item: &Value, place: &str) {
        let parts = item["content"].as_array().into_iter().flatten();
        let text: String = parts.filter_map(|part| part["text"].as_str()).collect();
        if !text.is_empty() {
            let later = ["reasoning_content", "content", "tool_calls"];
            self.assistant_message(place, &later)["reasoning_content"] = text.into();
        } else if item["encrypted_content"].is_string() {
            self.omitted.add("reasoning");
        }
    }

    /// The last message, if it is the assistant's and has none of the fields `absent` yet;
    /// otherwise a new message of the assistant, whose first item is at `place`.
    fn assistant_message(&mut self, place: &str, absent: &[&str]) -> &mut Value {
        let lacks = |message: &Value| absent.iter().all(|name| message[*name].is_null());
        let last = self.messages.last().map(|(_, message)| message);
        if !last.is_some_and(|last| last["role"] == "assistant" && lacks(last)) {
            let message = json!({"role": "assistant", "content": null});
            self.messages.push((place.to_owned(), message));
        }
        let last = self.messages.len() - 1;
        &mut self.messages[last].1
    }
}

/// The content at `place` in the form of chat completions.
fn content(value: &Value, place: &str) -> Result<Value, ApiError> {
    match value {
        Value::Null => Ok("".into()),
        Value::String(_) => Ok(value.clone()),
        Value::Array(parts) => Ok(parts.iter().map(part).collect()),
        _ => Err(ApiError::invalid_field(place, "a text or a list of parts")),
    }
}

/// A content part in the form of chat completions.
fn part(part: &Value) -> Value {
    match part["type"].as_str() {
        Some("input_image" | "computer_screenshot") => {
            json!({"type": "image_url", "image_url": {"url": part["image_url"]}})
        }
        Some("input_file") => json!({"type": "file"}),
        // The output of a shell.
        None if part["stdout"].is_string() => json!({"type": "text", "text": part.to_string()}),
        _ => part.clone(),
    }
}
