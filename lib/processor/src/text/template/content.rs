//! Forms of content that a template takes: texts, or lists of parts.

use mlxk_core::Result;
use serde_json::{Map, Value as Json, json};

use super::Template;
use crate::conversation::Conversation;

/// Text by which to see what a template does with contents.
const MARK: &str = "text-0-end";

/// Form of the contents that a template takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// Texts and lists of parts, which render alike.
    Either,
    /// Texts; a list renders to something else, or fails.
    Texts,
    /// Lists of parts; a text is lost, or fails.
    Parts,
}

/// Forms of the contents of the user, the system and the assistant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forms {
    user: Form,
    system: Form,
    assistant: Form,
}

impl Template {
    /// Conversation whose contents have the form that the template takes of their roles. Contents with
    /// pictures stay lists.
    ///
    /// # Errors
    /// [`Kind::Execution`](mlxk_core::Kind::Execution) if `gone` is true before the forms are found.
    pub(super) fn in_form(
        &self,
        conversation: &Conversation,
        tokens: &Map<String, Json>,
        gone: &dyn Fn() -> bool,
    ) -> Result<Conversation> {
        let forms = match self.forms.get() {
            Some(forms) => *forms,
            None => {
                let found = self.find_forms(tokens, gone)?;
                *self.forms.get_or_init(|| found)
            }
        };
        let mut formed = conversation.clone();
        for message in &mut formed.messages {
            let form = match message["role"].as_str() {
                Some("system" | "developer") => forms.system,
                Some("assistant") => forms.assistant,
                _ => forms.user,
            };
            match (form, &message["content"]) {
                (Form::Parts, Json::String(text)) => {
                    message["content"] = json!([{"type": "text", "text": text}]);
                }
                (Form::Texts, Json::Array(parts)) if !parts.iter().any(is_picture) => {
                    let texts = parts.iter().filter_map(|part| part["text"].as_str());
                    message["content"] = texts.collect::<String>().into();
                }
                _ => {}
            }
        }
        Ok(formed)
    }

    /// True if the template stands for a picture in a list of parts by `placeholder`.
    pub fn places_pictures(&self, placeholder: &str, tokens: &Map<String, Json>) -> bool {
        let mut asked = Conversation::new(None, MARK);
        asked.messages[0]["content"] = json!([{"type": "image"}, {"type": "text", "text": MARK}]);
        let text = self.render(&asked, tokens);
        text.is_ok_and(|text| text.contains(placeholder) && text.contains(MARK))
    }

    fn find_forms(&self, tokens: &Map<String, Json>, gone: &dyn Fn() -> bool) -> Result<Forms> {
        let form = |turns: &[(&str, &str)]| self.form(turns, tokens, gone);
        let user = form(&[("user", MARK)])?.unwrap_or(Form::Texts);
        let system = form(&[("system", MARK), ("user", "")])?.unwrap_or(user);
        let assistant = form(&[("user", ""), ("assistant", MARK)])?.unwrap_or(user);
        Ok(Forms { user, system, assistant })
    }

    /// Form of the content with the mark in a conversation of roles and texts, the others in either
    /// form; `None` if the template takes neither.
    fn form(
        &self,
        turns: &[(&str, &str)],
        tokens: &Map<String, Json>,
        gone: &dyn Fn() -> bool,
    ) -> Result<Option<Form>> {
        let render = |parts: bool| {
            let message = |(role, text): &(&str, &str)| match parts {
                true => json!({"role": role, "content": [{"type": "text", "text": text}]}),
                false => json!({"role": role, "content": text}),
            };
            let messages = turns.iter().map(message).collect();
            let asked = Conversation { messages, ..Conversation::default() };
            match self.attempt(&asked, tokens, gone) {
                Ok(text) => Ok(text.ok().filter(|text| text.contains(MARK))),
                Err(e) if gone() => Err(e),
                // A template that exceeds its limits says so when the conversation is rendered.
                Err(_) => Ok(None),
            }
        };
        Ok(match (render(false)?, render(true)?) {
            (Some(text), Some(parts)) if text == parts => Some(Form::Either),
            (Some(_), _) => Some(Form::Texts),
            (None, Some(_)) => Some(Form::Parts),
            (None, None) => None,
        })
    }
}

fn is_picture(part: &Json) -> bool {
    part["type"] != "text"
}
