//! Forms of content that a template takes: texts, or lists of parts.

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
    pub(super) fn in_form(
        &self,
        conversation: &Conversation,
        tokens: &Map<String, Json>,
    ) -> Conversation {
        let forms = *self.forms.get_or_init(|| self.find_forms(tokens));
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
        formed
    }

    /// True if the template stands for a picture in a list of parts by `placeholder`.
    pub fn places_pictures(&self, placeholder: &str, tokens: &Map<String, Json>) -> bool {
        let mut asked = Conversation::new(None, MARK);
        asked.messages[0]["content"] = json!([{"type": "image"}, {"type": "text", "text": MARK}]);
        let text = self.render(&asked, tokens);
        text.is_ok_and(|text| text.contains(placeholder) && text.contains(MARK))
    }

    fn find_forms(&self, tokens: &Map<String, Json>) -> Forms {
        let user = self.form(&[("user", MARK)], tokens).unwrap_or(Form::Texts);
        let system = self.form(&[("system", MARK), ("user", "")], tokens).unwrap_or(user);
        let assistant = self.form(&[("user", ""), ("assistant", MARK)], tokens).unwrap_or(user);
        Forms { user, system, assistant }
    }

    /// Form of the content with the mark in a conversation of roles and texts, the others in either
    /// form; `None` if the template takes neither.
    fn form(&self, turns: &[(&str, &str)], tokens: &Map<String, Json>) -> Option<Form> {
        let render = |parts: bool| {
            let message = |(role, text): &(&str, &str)| match parts {
                true => json!({"role": role, "content": [{"type": "text", "text": text}]}),
                false => json!({"role": role, "content": text}),
            };
            let messages = turns.iter().map(message).collect();
            let text = self.render(&Conversation { messages, ..Conversation::default() }, tokens);
            text.ok().filter(|text| text.contains(MARK))
        };
        match (render(false), render(true)) {
            (Some(text), Some(parts)) if text == parts => Some(Form::Either),
            (Some(_), _) => Some(Form::Texts),
            (None, Some(_)) => Some(Form::Parts),
            (None, None) => None,
        }
    }
}

fn is_picture(part: &Json) -> bool {
    part["type"] != "text"
}
