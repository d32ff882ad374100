//! Conversations: messages as clients send them, checked and normalized for chat templates.

use mlxk_core::{Error, Kind, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::fields::{invalid, wrong};
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
        for (index, message) in messages.iter_mut().enumerate() {
            let place = format!("messages[{index}]");
            let malformed = || wrong(&place, "an object with a `role`");
            let message = message.as_object_mut().ok_or_else(malformed)?;
            if !message.get("role").is_some_and(Value::is_string) {
                return Err(malformed());
            }
            let content = message.get("content").unwrap_or(&Value::Null);
            check_content(content, &format!("{place}.content"))?;
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

    /// Conversation in which `placeholder` and a line break are written in the place of each picture,
    /// for templates that take texts only.
    pub fn with_placeholders(&self, placeholder: &str) -> Conversation {
        self.with_messages(&|message| {
            let Some(Value::Array(parts)) = message.get("content") else { return };
            let written = |part: &Value| match part["type"] == "image" {
                true => format!("{placeholder}\n"),
                false => part["text"].as_str().unwrap_or_default().to_owned(),
            };
            let text: String = parts.iter().map(written).collect();
            message.insert("content".into(), text.into());
        })
    }

    /// True if a message of the system has others before it.
    pub fn has_later_system(&self) -> bool {
        self.messages.iter().skip(1).any(is_system)
    }

    /// Conversation whose messages of the system are one, the first, for templates that refuse or
    /// omit later ones.
    pub fn with_one_system(&self) -> Conversation {
        let (system, others): (Vec<_>, Vec<_>) = self.messages.iter().cloned().partition(is_system);
        let system = system.into_iter().reduce(|first, next| append(first, &next));
        Conversation { messages: system.into_iter().chain(others).collect(), ..self.clone() }
    }

    /// Conversation in which neighbouring messages of the user are one, for templates that refuse
    /// two turns of the same role.
    pub fn with_turns(&self) -> Conversation {
        let mut messages: Vec<Value> = Vec::new();
        for message in &self.messages {
            match messages.pop() {
                Some(last) if last["role"] == "user" && message["role"] == "user" => {
                    messages.push(append(last, message));
                }
                last => messages.extend(last.into_iter().chain([message.clone()])),
            }
        }
        Conversation { messages, ..self.clone() }
    }

    /// Conversation whose first message, if it is the system's, is a part of the message of the user
    /// that follows it, for templates that refuse the system.
    pub fn without_system(&self) -> Conversation {
        let mut messages = self.messages.clone();
        if let [system, user, ..] = messages.as_mut_slice()
            && is_system(system)
            && user["role"] == "user"
        {
            let joined = append(system.clone(), user)["content"].take();
            user["content"] = joined;
            messages.remove(0);
        }
        Conversation { messages, ..self.clone() }
    }

    /// Conversation whose texts are short and unlike, and the texts of its messages of the system,
    /// by which to see what a template does with them.
    pub fn skeleton(&self) -> (Conversation, Vec<String>) {
        let mark = |index: usize| format!("text-{index}-end");
        let mut skeleton = Conversation { images: Vec::new(), ..self.clone() };
        for (index, message) in skeleton.messages.iter_mut().enumerate() {
            message["content"] = match &message["content"] {
                Value::Null => Value::Null,
                Value::Array(_) => json!([{"type": "text", "text": mark(index)}]),
                _ => mark(index).into(),
            };
        }
        let system = skeleton.messages.iter().enumerate();
        let system = system.filter(|(_, message)| is_system(message));
        let marks = system.map(|(index, _)| mark(index)).collect();
        (skeleton, marks)
    }

    /// Variants for templates that fail on this form: tool call arguments as JSON text, an empty
    /// string as missing content, or both; arguments that are no object as one with that text.
    pub fn variants(&self) -> impl Iterator<Item = Conversation> {
        let filled = self.with_messages(&|message| {
            if message.get("content").is_none_or(Value::is_null) {
                message.insert("content".into(), "".into());
            }
        });
        let written = |conversation: &Conversation| {
            conversation.with_messages(&|message| each_arguments(message, &write_arguments))
        };
        let wrapped = filled.with_messages(&|message| each_arguments(message, &wrap_arguments));
        let variants = [written(self), filled.clone(), written(&filled), wrapped];
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

fn check_content(content: &Value, place: &str) -> Result<()> {
    let parts = match content {
        Value::Null | Value::String(_) => return Ok(()),
        Value::Array(parts) => parts,
        _ => return Err(wrong(place, "a text or a list of parts")),
    };
    for (index, part) in parts.iter().enumerate() {
        let place = format!("{place}[{index}]");
        match part["type"].as_str() {
            Some("text") if part["text"].is_string() => {}
            Some("text") | None => return Err(wrong(&place, "a part with a text")),
            Some(kind) => return Err(not_text(&format!("`{place}`: a part of type `{kind}`"))),
        }
    }
    Ok(())
}

fn is_system(message: &Value) -> bool {
    message["role"] == "system"
}

/// The message `first` with the content of `next` after its own, as a paragraph of its own.
fn append(mut first: Value, next: &Value) -> Value {
    let gap = "\n\n";
    first["content"] = match (first["content"].take(), &next["content"]) {
        (Value::String(first), Value::String(next)) => format!("{first}{gap}{next}").into(),
        (Value::Null, content) => content.clone(),
        (content, Value::Null) => content,
        (first, next) => {
            let gap = Value::from(gap);
            [&first, &gap, next].into_iter().flat_map(parts).collect()
        }
    };
    first
}

/// The parts of a content.
fn parts(content: &Value) -> Vec<Value> {
    match content {
        Value::Array(parts) => parts.clone(),
        text => vec![json!({"type": "text", "text": text})],
    }
}

/// Error about input that is not text; `what` names the input.
pub fn not_text(what: &str) -> Error {
    Error::new(Kind::CapabilityNotSupported, "", format!("{what}: only text is taken"))
}

/// Changes the arguments of each tool call of a message.
fn each_arguments(message: &mut Map<String, Value>, change: &dyn Fn(&mut Value)) {
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten() {
        if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
            change(function.entry("arguments").or_insert(Value::Null));
        }
    }
}

/// Parses JSON text into its object: OpenAI's messages have the text, most templates take the
/// object. Nothing, or null, is an object without fields.
fn parse_arguments(arguments: &mut Value) {
    if arguments.as_str().is_some_and(|text| ["", "null"].contains(&text.trim())) {
        *arguments = Value::Null;
    }
    let object = arguments.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(object) = object.filter(Value::is_object) {
        *arguments = object;
    } else if arguments.is_null() {
        *arguments = json!({});
    }
}

/// Puts arguments that are no object, such as JSON that a model has broken off, into one.
fn wrap_arguments(arguments: &mut Value) {
    if !arguments.is_object() {
        *arguments = json!({"arguments": arguments.take()});
    }
}

fn write_arguments(arguments: &mut Value) {
    if arguments.is_object() {
        *arguments = Value::String(arguments.to_string());
    }
}
