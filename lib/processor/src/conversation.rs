//! Conversations: messages as clients send them, checked and normalized for chat templates.

use mlxk_core::{Error, Kind, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::fields::invalid;
use crate::media::Image;

/// Input of a chat template.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Conversation {
    /// Messages, each an object with a `role`, a `content` and further fields that templates read.
    pub messages: Vec<Value>,
    /// Tools that the model may call, each an object with the JSON schema of a function.
    pub tools: Option<Vec<Value>>,
    /// Variables of the template besides messages and tools.
    #[serde(flatten)]
    pub variables: Map<String, Value>,
    /// Pictures, in the order of the parts of type `image` in the messages.
    #[serde(skip)]
    pub images: Vec<Image>,
}

impl Conversation {
    /// Conversation of the system prompt, if any, and a text as a message of the user.
    pub fn new(system: Option<&str>, user: &str) -> Conversation {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let system = system.map(|content| message("system", content));
        let messages = system.into_iter().chain([message("user", user)]).collect();
        Conversation { messages, ..Conversation::default() }
    }

    /// Conversation with the messages of a JSON array: objects with a `role`, whose content is
    /// text.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the messages are malformed, [`Kind::CapabilityNotSupported`] if
    /// their content is more than text.
    pub fn parse(messages: Value) -> Result<Conversation> {
        let malformed = || invalid("`messages` is not a list of objects with a `role`");
        let Value::Array(mut messages) = messages else { return Err(malformed()) };
        if messages.is_empty() {
            return Err(malformed());
        }
        for message in &mut messages {
            let message = message.as_object_mut().ok_or_else(malformed)?;
            if !message.get("role").is_some_and(Value::is_string) {
                return Err(malformed());
            }
            check_content(message.get("content").unwrap_or(&Value::Null))?;
            each_arguments(message, &parse_arguments);
        }
        Ok(Conversation { messages, ..Conversation::default() })
    }

    /// The same conversation with `images` before the text of the last message of the user.
    ///
    /// # Errors
    /// [`Kind::Validation`] if there is no message of the user.
    pub fn with_images(mut self, images: Vec<Image>) -> Result<Conversation> {
        let said = self.messages.iter_mut().rev().find(|message| message["role"] == "user");
        let said = said.ok_or_else(|| invalid("pictures go with a message of the user"))?;
        let parts = images.iter().map(|_| json!({"type": "image"}));
        let text = match said["content"].take() {
            Value::Array(parts) => parts,
            Value::String(text) => vec![json!({"type": "text", "text": text})],
            _ => Vec::new(),
        };
        said["content"] = parts.chain(text).collect();
        self.images.extend(images);
        Ok(self)
    }

    /// Text of the only message if it is the user's and there are no tools.
    pub fn only_text(&self) -> Option<&str> {
        match self.messages.as_slice() {
            [only] if only["role"] == "user" && self.tools.is_none() => only["content"].as_str(),
            _ => None,
        }
    }

    /// Conversation whose contents in parts are joined to one text each.
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

    /// Variants for templates that fail on this form: tool call arguments as JSON text, an empty
    /// string as missing content, or both.
    pub fn variants(&self) -> impl Iterator<Item = Conversation> {
        let filled = self.with_messages(&|message| {
            if message.get("content").is_none_or(Value::is_null) {
                message.insert("content".into(), "".into());
            }
        });
        let written = |conversation: &Conversation| {
            conversation.with_messages(&|message| each_arguments(message, &write_arguments))
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

/// Tools of a JSON array of objects.
///
/// # Errors
/// [`Kind::Validation`] if the value is not an array of objects.
pub fn tools(value: &Value) -> Result<Vec<Value>> {
    match value.as_array() {
        Some(tools) if tools.iter().all(Value::is_object) => Ok(tools.clone()),
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

/// Error about input that is not text; `what` names the input.
pub fn not_text(what: &str) -> Error {
    Error::new(Kind::CapabilityNotSupported, "", format!("{what}: only text is taken"))
}

/// Changes the arguments of each tool call of a message.
fn each_arguments(message: &mut Map<String, Value>, change: &dyn Fn(&mut Value)) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        if let Some(arguments) = call.get_mut("function").and_then(|f| f.get_mut("arguments")) {
            change(arguments);
        }
    }
}

/// Parses JSON text into its object: OpenAI's messages have the text, most templates take the
/// object.
fn parse_arguments(arguments: &mut Value) {
    let object = arguments.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(object) = object.filter(Value::is_object) {
        *arguments = object;
    }
}

fn write_arguments(arguments: &mut Value) {
    if arguments.is_object() {
        *arguments = Value::String(arguments.to_string());
    }
}
