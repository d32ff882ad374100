//! Messages in OpenAI's form, normalized for chat templates.

use axum::http::StatusCode;
use mlxk_processor::Conversation;
use serde_json::{Map, Value, json};

use crate::error::ApiError;

/// The conversation of a body: messages with roles that chat templates know, and content that is
/// text.
pub fn parse(messages: Option<Value>) -> Result<Conversation, ApiError> {
    let invalid = || ApiError::invalid_field("messages", "a list of objects with a `role`");
    let Some(Value::Array(messages)) = messages else { return Err(invalid()) };
    let has_role = |role: &'static str| move |message: &Value| message["role"] == role;
    let last_user = messages.iter().rposition(has_role("user")).unwrap_or(0);
    // Tool results before the last message of the user are as new as that message.
    let last_answer = messages[..last_user].iter().rposition(has_role("assistant"));
    let normalized = messages.into_iter().enumerate().map(|(index, message)| match message {
        Value::Object(message) => normalize(message, last_answer.is_none_or(|last| index > last)),
        _ => Err(invalid()),
    });
    let normalized: Vec<Value> = normalized.collect::<Result<_, _>>()?;
    Ok(Conversation::parse(normalized.into())?)
}

/// A message in the form that chat templates take. `is_new` is true if the model has not answered
/// it yet.
fn normalize(mut message: Map<String, Value>, is_new: bool) -> Result<Value, ApiError> {
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    match role {
        "system" | "user" | "assistant" | "tool" => {}
        // Most templates do not know the role developer, which succeeds system.
        "developer" => {
            message.insert("role".into(), "system".into());
        }
        _ => {
            let message =
                "a `role` of `messages` is not system, developer, user, assistant or tool";
            return Err(ApiError::invalid(message));
        }
    }
    let present = |name: &&&str| message.get(**name).is_some_and(|value| !value.is_null());
    if let Some(name) = ["audio", "function_call"].iter().find(present) {
        return Err(ApiError::invalid(format!(
            "`messages`: `{name}` is not supported in a message"
        )));
    }
    let calls = message.get("tool_calls").filter(|calls| !calls.is_null());
    if !calls.is_none_or(are_tool_calls) {
        return Err(ApiError::invalid(
            "`messages`: `tool_calls` is not a list of calls of functions",
        ));
    }
    // A refusal of the assistant is its content, as templates do not know refusals.
    if let Some(refusal) = message.shift_remove("refusal").filter(Value::is_string)
        && message.get("content").is_none_or(Value::is_null)
    {
        message.insert("content".into(), refusal);
    }
    if let Some(Value::Array(parts)) = message.get_mut("content") {
        *parts = std::mem::take(parts)
            .into_iter()
            .map(|part| text_part(part, is_new))
            .collect::<Result<_, _>>()?;
    }
    Ok(Value::Object(message))
}

/// True if a value is an array of function calls, each with a name and with arguments that are a
/// string or an object.
fn are_tool_calls(calls: &Value) -> bool {
    let is_call = |call: &Value| {
        let function = &call["function"];
        let arguments = &function["arguments"];
        function["name"].is_string() && (arguments.is_string() || arguments.is_object())
    };
    calls.as_array().is_some_and(|calls| calls.iter().all(is_call))
}

/// A content part as text. Media are an error in a new message. In older ones, which another model
/// may have answered, a note that media were attached replaces them.
fn text_part(part: Value, is_new: bool) -> Result<Value, ApiError> {
    let kind = part["type"].as_str().unwrap_or_default();
    let media = match kind {
        "refusal" => return Ok(json!({"type": "text", "text": part["refusal"]})),
        "image_url" => "image",
        "input_audio" => "audio",
        "file" => "file",
        _ => return Ok(part),
    };
    let url = part["image_url"]["url"].as_str().unwrap_or_default();
    if url.starts_with("http://") || url.starts_with("https://") {
        return Err(ApiError::invalid(
            "`messages`: an image comes as a data URL, nothing is fetched",
        ));
    }
    if is_new {
        let message = format!("a part of type `{kind}`: only text is taken");
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(ApiError::new(status, "capability_not_supported", message));
    }
    Ok(json!({"type": "text", "text": format!("[1 {media} was attached]")}))
}
