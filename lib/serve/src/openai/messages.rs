//! Conversations in OpenAI's form, made ready for chat templates.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::error::Refusal;

/// The messages of a body, in the form of records.
pub fn messages(value: Option<Value>) -> Result<Value, Refusal> {
    let wrong = || Refusal::wrong("messages", "a list of objects with a `role`");
    let Some(Value::Array(messages)) = value else { return Err(wrong()) };
    let by = |role: &'static str| move |message: &Value| message["role"] == role;
    let asked = messages.iter().rposition(by("user")).unwrap_or(0);
    // What functions gave may come before what the user says with it.
    let answered = messages[..asked].iter().rposition(by("assistant"));
    let ready = messages.into_iter().enumerate().map(|(place, message)| match message {
        Value::Object(message) => ready(message, answered.is_none_or(|before| place > before)),
        _ => Err(wrong()),
    });
    let ready: Vec<Value> = ready.collect::<Result<_, _>>()?;
    if ready.is_empty() { Err(wrong()) } else { Ok(ready.into()) }
}

/// The message as templates take it; `new` if the model has not answered to it.
fn ready(mut message: Map<String, Value>, new: bool) -> Result<Value, Refusal> {
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    match role {
        "system" | "user" | "assistant" | "tool" => {}
        // Most templates know no other word for it.
        "developer" => {
            message.insert("role".into(), "system".into());
        }
        _ => {
            let message =
                "a `role` of `messages` is not system, developer, user, assistant or tool";
            return Err(Refusal::invalid(message));
        }
    }
    let there = |name: &&&str| message.get(**name).is_some_and(|value| !value.is_null());
    if let Some(name) = ["audio", "function_call"].iter().find(there) {
        return Err(Refusal::invalid(format!(
            "`messages`: `{name}` is not supported in a message"
        )));
    }
    let calls = message.get("tool_calls").filter(|calls| !calls.is_null());
    if !calls.is_none_or(are_calls) {
        return Err(Refusal::invalid(
            "`messages`: `tool_calls` is not a list of calls of functions",
        ));
    }
    // What an assistant refused with is what it said.
    if let Some(refusal) = message.shift_remove("refusal").filter(Value::is_string)
        && message.get("content").is_none_or(Value::is_null)
    {
        message.insert("content".into(), refusal);
    }
    if let Some(Value::Array(parts)) = message.get_mut("content") {
        *parts = std::mem::take(parts)
            .into_iter()
            .map(|part| text_part(part, new))
            .collect::<Result<_, _>>()?;
    }
    Ok(Value::Object(message))
}

/// Whether each is of a function that has a name, with arguments as a text or as what it stands for.
fn are_calls(calls: &Value) -> bool {
    let is_call = |call: &Value| {
        let function = &call["function"];
        let arguments = &function["arguments"];
        function["name"].is_string() && (arguments.is_string() || arguments.is_object())
    };
    calls.as_array().is_some_and(|calls| calls.iter().all(is_call))
}

/// A part as text. Media that the model is asked about now are refused; of those before, which
/// another model may have seen, it is told that they were there.
fn text_part(part: Value, new: bool) -> Result<Value, Refusal> {
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
        return Err(Refusal::invalid(
            "`messages`: an image comes as a data URL, nothing is fetched",
        ));
    }
    if new {
        let message = format!("a part of type `{kind}`: only text is taken");
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Refusal::new(status, "capability_not_supported", message));
    }
    Ok(json!({"type": "text", "text": format!("[1 {media} was attached]")}))
}
