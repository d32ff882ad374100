//! Messages in OpenAI's form, normalized for chat templates.

use axum::http::StatusCode;
use mlxk_processor::Conversation;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::openai::calls::custom_arguments;

/// A message, and its place in the body, such as `messages[2]`.
pub type Placed = (String, Value);

/// The messages of the field `messages`, each with its place.
pub fn placed(messages: Option<Value>) -> Result<Vec<Placed>, ApiError> {
    match messages {
        Some(Value::Array(messages)) if !messages.is_empty() => {
            let placed = |(index, message)| (format!("messages[{index}]"), message);
            Ok(messages.into_iter().enumerate().map(placed).collect())
        }
        _ => Err(ApiError::invalid_field("messages", "a list of objects with a `role`")),
    }
}

/// The conversation of some messages: roles that chat templates know, and content that is text. A
/// part of a content that is null stands for one that has become something else.
pub fn parse(messages: Vec<Placed>) -> Result<Conversation, ApiError> {
    let has_role = |role: &'static str| move |(_, message): &Placed| message["role"] == role;
    let last_user = messages.iter().rposition(has_role("user")).unwrap_or(0);
    // Tool results before the last message of the user are as new as that message.
    let last_answer = messages[..last_user].iter().rposition(has_role("assistant"));
    let normalized = messages.into_iter().enumerate().map(|(index, (place, message))| {
        let Value::Object(message) = message else {
            return Err(ApiError::invalid_field(&place, "an object with a `role`"));
        };
        normalize(message, &place, last_answer.is_none_or(|last| index > last))
    });
    let normalized: Vec<Value> = normalized.collect::<Result<_, _>>()?;
    Ok(Conversation::parse(normalized.into())?)
}

/// The message at `place` in the form that chat templates take. `is_new` is true if the model has
/// not answered it yet.
fn normalize(
    mut message: Map<String, Value>,
    place: &str,
    is_new: bool,
) -> Result<Value, ApiError> {
    match message.get("role").and_then(Value::as_str).unwrap_or_default() {
        "system" | "user" | "assistant" | "tool" => {}
        // Most templates do not know the role developer, which succeeds system.
        "developer" => {
            message.insert("role".into(), "system".into());
        }
        _ => {
            let expected = "system, developer, user, assistant or tool";
            return Err(ApiError::invalid_field(&format!("{place}.role"), expected));
        }
    }
    let present = |name: &&(&str, &str)| message.get(name.0).is_some_and(|value| !value.is_null());
    if let Some((name, hint)) =
        [("audio", ""), ("function_call", "; use `tool_calls`")].iter().find(present)
    {
        return Err(ApiError::invalid(format!("`{place}.{name}` is not supported{hint}")));
    }
    if let Some(calls) = message.get_mut("tool_calls").filter(|calls| !calls.is_null()) {
        let place = format!("{place}.tool_calls");
        let calls = calls.as_array_mut();
        let calls = calls.ok_or_else(|| ApiError::invalid_field(&place, "a list of calls"))?;
        for (index, call) in calls.iter_mut().enumerate() {
            normalize_call(call, &format!("{place}[{index}]"))?;
        }
    }
    // A refusal of the assistant is its content, as templates do not know refusals.
    if let Some(refusal) = message.shift_remove("refusal").filter(Value::is_string)
        && message.get("content").is_none_or(Value::is_null)
    {
        message.insert("content".into(), refusal);
    }
    let mut thought = String::new();
    match message.get_mut("content") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(Value::Array(parts)) => {
            let mut texts = Vec::new();
            for (index, part) in std::mem::take(parts).into_iter().enumerate() {
                match part["type"].as_str() {
                    Some("thinking" | "reasoning" | "redacted_thinking") => {
                        let text = part["thinking"].as_str().or(part["text"].as_str());
                        thought += text.unwrap_or_default();
                    }
                    _ if part.is_null() => {}
                    _ => texts.push(text_part(part, &format!("{place}.content[{index}]"), is_new)?),
                }
            }
            *parts = texts;
        }
        Some(_) => {
            let expected = "a text or a list of parts";
            return Err(ApiError::invalid_field(&format!("{place}.content"), expected));
        }
    }
    if !thought.is_empty() {
        message.entry("reasoning_content").or_insert(thought.into());
    }
    Ok(Value::Object(message))
}

/// Makes a tool call one of a function with arguments that are a text or an object.
fn normalize_call(call: &mut Value, place: &str) -> Result<(), ApiError> {
    if let Some(custom) = call.get_mut("custom").map(Value::take).filter(Value::is_object) {
        let arguments = custom_arguments(&custom["input"]);
        let function = json!({"name": custom["name"], "arguments": arguments});
        *call = json!({"id": call["id"], "type": "function", "function": function});
    }
    let invalid = |name: &str, expected: &str| {
        Err(ApiError::invalid_field(&format!("{place}{name}"), expected))
    };
    let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
        return invalid("", "a call of a function");
    };
    if !function.get("name").is_some_and(Value::is_string) {
        return invalid(".function.name", "a text");
    }
    match function.entry("arguments").or_insert(Value::Null) {
        Value::Null | Value::String(_) | Value::Object(_) => Ok(()),
        _ => invalid(".function.arguments", "a text or an object"),
    }
}

/// The content part at `place` as text. Media are an error in a new message. In older ones, which
/// another model may have answered, a note that media were attached replaces them.
fn text_part(part: Value, place: &str, is_new: bool) -> Result<Value, ApiError> {
    let Some(kind) = part["type"].as_str() else {
        let message = format!("`{place}` is not an object with a `type`");
        return Err(ApiError::invalid(message));
    };
    let text = |name: &str| match part[name].as_str() {
        Some(text) => Ok(json!({"type": "text", "text": text})),
        None => Err(ApiError::invalid_field(&format!("{place}.{name}"), "a text")),
    };
    let media = match kind {
        "text" => return text("text").map(|_| part),
        "input_text" | "output_text" | "summary_text" | "reasoning_text" => return text("text"),
        "refusal" => return text("refusal"),
        "image_url" => Some("image"),
        "input_audio" => Some("audio"),
        "video_url" => Some("video"),
        "file" => Some("file"),
        _ => None,
    };
    let url = part["image_url"]["url"].as_str().unwrap_or_default();
    if url.starts_with("http://") || url.starts_with("https://") {
        let message =
            format!("`{place}.image_url`: an image comes as a data URL, nothing is fetched");
        return Err(ApiError::invalid(message));
    }
    match media {
        Some(media) if !is_new => {
            Ok(json!({"type": "text", "text": format!("[1 {media} was attached]")}))
        }
        _ => {
            let what = media.map_or_else(
                || format!("a part of type `{kind}`"),
                |media| format!("{media} input"),
            );
            let hint = match kind {
                "input_audio" => "; POST /v1/audio/transcriptions writes down speech",
                _ => "",
            };
            let message = format!("`{place}`: {what} is not supported, only text is{hint}");
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let error = ApiError::new(status, "capability_not_supported", message);
            Err(ApiError { param: Some(place.to_owned()), ..error })
        }
    }
}
