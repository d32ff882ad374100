//! Requests: a prompt or a conversation, the options of its completion, and the rules that the
//! completion follows.

use mlxk_core::{Record, Result};
use serde_json::{Map, Value};

use crate::conversation::{self, Conversation};
use crate::fields::{Fields, invalid};
pub use crate::grammar::{Rules, SchemaFields};
use crate::media::Image;
pub use crate::sampling::Options;
pub use crate::tools::ToolChoice;
use crate::tools::is_strict;
use crate::weight::weights;

/// Request for one completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Name of the model, as the client gave it; a program that has one model ignores it.
    pub model: String,
    /// Prompt that the model continues.
    pub prompt: Prompt,
    /// Options of the completion.
    pub options: Options,
    /// Rules that the completion follows.
    pub rules: Option<Rules>,
    /// True if tools are left out where the chat template has no place for them; otherwise they
    /// are an error.
    pub lenient: bool,
    /// Fields that errors about JSON schemas name.
    pub schema_fields: SchemaFields,
}

/// Prompt of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Conversation, which the chat template turns into text.
    Chat(Conversation),
    /// Text that reaches the model without a chat template.
    Text(String),
    /// Token ids that reach the model as they are.
    Tokens(Vec<u32>),
}

/// Defaults of requests, which a program or a server sets.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// Defaults of the options.
    pub options: Options,
    /// System prompt of requests that have a text as their prompt.
    pub system: Option<String>,
    /// True if a text as prompt reaches the model without a chat template.
    pub raw: bool,
    /// Variables of the chat template.
    pub variables: Map<String, Value>,
    /// Rules of completions.
    pub rules: Option<Rules>,
}

impl Preset {
    /// Prompt of a text: the text itself if `raw`, otherwise a conversation with the system prompt
    /// and the text as a message of the user.
    pub fn prompt(&self, system: Option<&str>, text: &str) -> Prompt {
        match self.raw {
            true => Prompt::Text(text.to_owned()),
            false => Prompt::chat(system.or(self.system.as_deref()), text),
        }
    }

    /// Fills these defaults into what `request` leaves open.
    pub fn apply(&self, mut request: Request) -> Request {
        if let Prompt::Chat(conversation) = &mut request.prompt {
            let own = std::mem::take(&mut conversation.variables);
            conversation.variables = self.variables.clone();
            conversation.variables.extend(own);
        }
        request.options = request.options.or(&self.options);
        request.rules = match request.rules {
            // Strict tools leave the text to other rules.
            None | Some(Rules::Strict) => self.rules.clone().or(request.rules),
            rules => rules,
        };
        request
    }
}

impl Prompt {
    /// Conversation of the system prompt, if any, and a text as a message of the user.
    pub fn chat(system: Option<&str>, user: &str) -> Prompt {
        Prompt::Chat(Conversation::new(system, user))
    }
}

impl Request {
    /// Request with a prompt alone.
    pub fn new(prompt: Prompt) -> Request {
        let (model, options) = (String::new(), Options::default());
        let schema_fields = SchemaFields::default();
        Request { model, prompt, options, rules: None, lenient: false, schema_fields }
    }

    /// Approximate size in memory, in bytes.
    pub fn weight(&self) -> usize {
        let prompt = match &self.prompt {
            Prompt::Chat(Conversation { messages, tools, variables, .. }) => {
                weights(messages.iter().chain(tools.iter().flatten()).chain(variables.values()))
            }
            Prompt::Text(text) => text.len(),
            Prompt::Tokens(ids) => size_of_val(ids.as_slice()),
        };
        prompt + self.rules.as_ref().map_or(0, Rules::weight)
    }

    /// The same request with pictures before the text of the user's last message.
    ///
    /// # Errors
    /// [`Kind::Validation`](mlxk_core::Kind::Validation) if the prompt is no conversation.
    pub fn with_images(mut self, images: Vec<Image>) -> Result<Request> {
        if images.is_empty() {
            return Ok(self);
        }
        self.prompt = match self.prompt {
            Prompt::Chat(conversation) => Prompt::Chat(conversation.with_images(images)?),
            Prompt::Text(_) | Prompt::Tokens(_) => {
                return Err(invalid("pictures are for the chat template"));
            }
        };
        Ok(self)
    }

    /// Adds the tools that the model may call, and the rules that follow from `choice`: a call that
    /// is required replaces other rules; tools that are strict have rules unless there are others.
    ///
    /// # Errors
    /// [`Kind::Validation`](mlxk_core::Kind::Validation) if a chosen tool is missing, or the prompt
    /// is no conversation.
    pub fn with_tools(mut self, tools: Vec<Value>, choice: &ToolChoice) -> Result<Request> {
        let required = choice.required(&tools)?;
        let forbidden = *choice == ToolChoice::None;
        let strict = forbidden || tools.iter().any(is_strict);
        if !tools.is_empty() && !forbidden {
            match &mut self.prompt {
                Prompt::Chat(conversation) => conversation.tools = Some(tools),
                Prompt::Text(_) | Prompt::Tokens(_) => return Err(no_template()),
            }
        }
        let rules = required.map(Rules::Call).or(self.rules);
        self.rules = rules.or(strict.then_some(Rules::Strict));
        Ok(self)
    }

    /// Reads the fields of a record (mlxk-record(7)); `preset` has the values of absent fields.
    /// Other fields are ignored.
    ///
    /// # Errors
    /// [`Kind::Validation`](mlxk_core::Kind::Validation) if a field is missing or invalid;
    /// [`Kind::CapabilityNotSupported`](mlxk_core::Kind::CapabilityNotSupported) if there is more
    /// than text.
    pub fn parse(record: &Record, preset: &Preset) -> Result<Request> {
        let fields = Fields::of(record);
        if let Some(media) = ["images", "audio"].iter().find(|name| fields.present(name).is_some())
        {
            return Err(conversation::not_text(&format!("`{media}`")));
        }
        let mut request = Request::new(prompt(&fields, preset)?);
        let variables = fields.read("chat_template_kwargs", "an object", Value::as_object)?;
        match (&mut request.prompt, variables) {
            (_, None) => {}
            (Prompt::Chat(conversation), Some(own)) => conversation.variables = own.clone(),
            (Prompt::Text(_) | Prompt::Tokens(_), Some(_)) => return Err(no_template()),
        }
        request.options = Options::parse(|name| fields.present(name))?;
        request.rules = rules(&fields)?;
        let tools = fields.present("tools").map(conversation::tools).transpose()?;
        let expected = "auto, none, required or a function";
        let choice = fields.read("tool_choice", expected, ToolChoice::read)?.unwrap_or_default();
        Ok(preset.apply(request.with_tools(tools.unwrap_or_default(), &choice)?))
    }
}

/// Prompt of a record: `prompt` (with `system`), `messages` or `prompt_ids`.
fn prompt(fields: &Fields, preset: &Preset) -> Result<Prompt> {
    let system = fields.text("system")?;
    let ids = fields.read("prompt_ids", "a list of tokens", tokens)?.filter(|_| preset.raw);
    let messages = fields.present("messages");
    if system.is_some() && (preset.raw || messages.is_some()) {
        return Err(invalid("`system` goes with a `prompt` that goes through the template"));
    }
    match (fields.text("prompt")?, messages) {
        (Some(text), None) => Ok(preset.prompt(system, text)),
        (None, Some(messages)) => Ok(Prompt::Chat(Conversation::parse(messages.clone())?)),
        (Some(_), Some(_)) => Err(invalid("both a `prompt` and `messages`")),
        (None, None) => match ids {
            Some(ids) => Ok(Prompt::Tokens(ids)),
            None => Err(invalid("neither a `prompt` nor `messages`")),
        },
    }
}

fn no_template() -> mlxk_core::Error {
    invalid("`tools` and `chat_template_kwargs` are for the chat template")
}

fn tokens(value: &Value) -> Option<Vec<u32>> {
    let ids = value.as_array()?.iter();
    ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

fn rules(fields: &Fields) -> Result<Option<Rules>> {
    Rules::parse(fields.present("json_schema"), fields.text("grammar")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request> {
        let options = Options { temperature: Some(0.5), seed: Some(7), ..Options::default() };
        let system = Some("Be brief.".to_owned());
        Request::parse(&Record::parse(line)?, &Preset { options, system, ..Preset::default() })
    }

    #[test]
    fn a_request_goes_before_the_command_line() {
        let request =
            parse(r#"{"id":1,"prompt":"Hi","temperature":0,"stop":"\n","top_k":null}"#).unwrap();
        assert_eq!(request.prompt, Prompt::chat(Some("Be brief."), "Hi"));
        assert_eq!(request.options.temperature, Some(0.0));
        assert_eq!(request.options.seed, Some(7));
        assert_eq!(request.options.stop, Some(vec!["\n".to_owned()]));
        assert_eq!(request.options.top_k, None);
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (line, message) in [
            (r#"{"id":1}"#, "neither a `prompt` nor `messages`"),
            (r#"{"prompt":"a","messages":[{"role":"user"}]}"#, "both a `prompt` and `messages`"),
            (r#"{"prompt":1}"#, "`prompt` is not a text"),
            (r#"{"messages":[]}"#, "`messages` is not a list of objects with a `role`"),
            (r#"{"prompt":"","tools":1}"#, "`tools` is not a list of objects"),
            (
                r#"{"prompt":"","tool_choice":"any"}"#,
                "`tool_choice` is not auto, none, required or a function",
            ),
            (r#"{"prompt":"","tool_choice":"required"}"#, "`tool_choice` is none of `tools`"),
            (
                r#"{"prompt":"","tools":[{"name":"a"}],"tool_choice":{"function":{"name":"b"}}}"#,
                "`tool_choice` is none of `tools`",
            ),
            (r#"{"prompt":"","json_schema":1}"#, "`json_schema` is not an object"),
            (
                r#"{"prompt":"","json_schema":{},"grammar":""}"#,
                "both a `json_schema` and a `grammar`",
            ),
            (r#"{"prompt":"","images":["a.png"]}"#, "`images`: only text is taken"),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#,
                "`messages[0].content[0]`: a part of type `image_url`: only text is taken",
            ),
            (r#"{"messages":["a"]}"#, "`messages[0]` is not an object with a `role`"),
            (
                r#"{"messages":[{"role":"user"},{"role":"user","content":5}]}"#,
                "`messages[1].content` is not a text or a list of parts",
            ),
            (r#"{"prompt":"","max_tokens":-1}"#, "`max_tokens` is not a whole number from 0"),
            (r#"{"prompt":"","max_tokens":0}"#, "`max_tokens` is not a whole number from 1"),
            (r#"{"prompt":"","top_p":1.5}"#, "`top_p` is not a number from 0 to 1"),
            (r#"{"prompt":"","stop":[1]}"#, "`stop` is not a text or a list of texts"),
            (r#"{"prompt":"","temperature":1e99}"#, "`temperature` is not a number from 0"),
            (
                r#"{"prompt":"","xtc_threshold":0.6}"#,
                "`xtc_threshold` is not a number from 0 to 0.5",
            ),
            (
                r#"{"prompt":"","penalty_context":0}"#,
                "`penalty_context` is not a whole number from 1",
            ),
            (r#"{"prompt":"","logprobs":21}"#, "`logprobs` is not a whole number from 0 to 20"),
            (r#"{"prompt":"","stop_ids":["a"]}"#, "`stop_ids` is not a list of tokens"),
            (
                r#"{"prompt":"","logit_bias":{"a":1}}"#,
                "`logit_bias` is not an object of numbers by token",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err().message, message, "{line}");
        }
    }
}
