//! Conversations as people send them, checked and put into the form that templates take.

use mlxk_core::{Error, Kind, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What a chat template is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Conversation {
    /// `{"role", "content"}` each, and what else a template may know.
    pub messages: Vec<Value>,
    /// What the model may call: JSON schemas of functions.
    pub tools: Option<Vec<Value>>,
    /// What the template knows besides; goes before all else but messages and tools.
    #[serde(flatten)]
    pub variables: Map<String, Value>,
}

impl Conversation {
    /// What a user says, after what the system says if anything.
    pub fn new(system: Option<&str>, user: &str) -> Conversation {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let system = system.map(|content| message("system", content));
        let messages = system.into_iter().chain([message("user", user)]).collect();
        Conversation { messages, ..Conversation::default() }
    }

    /// The text of the one message of a user, if there is nothing else.
    pub fn only_text(&self) -> Option<&str> {
        match self.messages.as_slice() {
            [only] if only["role"] == "user" && self.tools.is_none() => only["content"].as_str(),
            _ => None,
        }
    }

    /// The same with each list of text parts as one text.
    pub fn joined(&self) -> Conversation {
        self.with_messages(&|message| {
            if let Some(Value::Array(parts)) = message.get("content") {
                let texts = parts.iter().filter_map(|part| part["text"].as_str());
                let text: String = texts.collect();
                message.insert("content".into(), text.into());
            }
        })
    }

    /// True if a message has its content in parts.
    pub fn has_parts(&self) -> bool {
        self.messages.iter().any(|message| message["content"].is_array())
    }

    /// The same in other words, for templates that fail at it as it is: with the arguments of calls
    /// as the text of an object, with an empty content where there is none, or both.
    pub fn variants(&self) -> impl Iterator<Item = Conversation> {
        let filled = self.with_messages(&|message| {
            if message.get("content").is_none_or(Value::is_null) {
                message.insert("content".into(), "".into());
            }
        });
        let written = |conversation: &Conversation| {
            conversation.with_messages(&|message| each_arguments(message, &write))
        };
        let variants = [written(self), filled.clone(), written(&filled)];
        variants.into_iter().filter(|variant| variant != self).collect::<Vec<_>>().into_iter()
    }

    fn with_messages(&self, change: &dyn Fn(&mut Map<String, Value>)) -> Conversation {
        let mut conversation = self.clone();
        conversation.messages.iter_mut().filter_map(Value::as_object_mut).for_each(change);
        conversation
    }
}

/// The messages of a record: objects with a `role`, whose content is text.
///
/// # Errors
/// [`Kind::Validation`] if they are not, [`Kind::CapabilityNotSupported`] if there is more in them
/// than text.
pub fn messages(value: &Value) -> Result<Vec<Value>> {
    let wrong = || invalid("`messages` is not a list of objects with a `role`");
    let messages = value.as_array().filter(|messages| !messages.is_empty()).ok_or_else(wrong)?;
    let mut messages = messages.clone();
    for message in &mut messages {
        let message = message.as_object_mut().ok_or_else(wrong)?;
        if !message.get("role").is_some_and(Value::is_string) {
            return Err(wrong());
        }
        check_content(message.get("content").unwrap_or(&Value::Null))?;
        each_arguments(message, &read);
    }
    Ok(messages)
}

/// The tools of a record: objects.
///
/// # Errors
/// [`Kind::Validation`] if they are not.
pub fn tools(value: &Value) -> Result<Option<Vec<Value>>> {
    match value.as_array() {
        Some(tools) if tools.is_empty() => Ok(None),
        Some(tools) if tools.iter().all(Value::is_object) => Ok(Some(tools.clone())),
        _ => Err(invalid("`tools` is not a list of objects")),
    }
}

fn check_content(content: &Value) -> Result<()> {
    let parts = match content {
        Value::Null | Value::String(_) => return Ok(()),
        Value::Array(parts) => parts,
        _ => {
            return Err(invalid("a `content` of `messages` is neither a text nor a list of parts"));
        }
    };
    for part in parts {
        match part["type"].as_str() {
            Some("text") if part["text"].is_string() => {}
            Some("text") | None => return Err(invalid("a part of a `content` is not a text")),
            Some(kind) => return Err(not_text(&format!("a part of type `{kind}`"))),
        }
    }
    Ok(())
}

/// What is refused because it is not text.
pub fn not_text(what: &str) -> Error {
    Error::new(Kind::CapabilityNotSupported, "", format!("{what}: only text is taken"))
}

/// Changes the arguments of each call of a message.
fn each_arguments(message: &mut Map<String, Value>, change: &dyn Fn(&mut Value)) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        if let Some(arguments) = call.get_mut("function").and_then(|f| f.get_mut("arguments")) {
            change(arguments);
        }
    }
}

/// The object that a text holds; OpenAI's messages carry the text, most templates take the object.
fn read(arguments: &mut Value) {
    let object = arguments.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(object) = object.filter(Value::is_object) {
        *arguments = object;
    }
}

fn write(arguments: &mut Value) {
    if arguments.is_object() {
        *arguments = Value::String(arguments.to_string());
    }
}

fn invalid(message: &str) -> Error {
    Error::new(Kind::Validation, "", message)
}
