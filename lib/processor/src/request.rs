//! What is asked of a model: a prompt or a conversation, and how the answer is to be chosen.

use mlxk_core::{Record, Result};
use serde_json::{Map, Value};

use crate::conversation::{self, Conversation};
use crate::fields::{Fields, invalid};
pub use crate::grammar::Rules;
pub use crate::options::Options;
use crate::tools::{Choice, any_strict};

/// One task for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the model is to go on from.
    pub prompt: Prompt,
    /// How.
    pub options: Options,
    /// What the answer has to follow.
    pub rules: Option<Rules>,
    /// Whether tools that the model cannot be told of are passed over.
    pub lenient: bool,
}

/// What holds for requests that do not say otherwise.
#[derive(Clone, Debug, Default)]
pub struct Preset {
    /// How to answer.
    pub options: Options,
    /// What the system says before a prompt.
    pub system: Option<String>,
    /// Whether a prompt is for the model as it is.
    pub raw: bool,
    /// What the chat template knows besides the conversation.
    pub variables: Map<String, Value>,
    /// What answers have to follow.
    pub rules: Option<Rules>,
    /// See [`Request`].
    pub lenient: bool,
}

/// What a model goes on from.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation for the chat template.
    Chat(Conversation),
    /// Text for the model as it is.
    Text(String),
    /// The tokens of such a text.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// What a user says, after what the system says if anything.
    pub fn chat(system: Option<&str>, user: &str) -> Prompt {
        Prompt::Chat(Conversation::new(system, user))
    }
}

impl Request {
    /// Reads the fields of a record: `prompt` (with `system`), `messages` or, for the model as they
    /// are, `prompt_ids`; `tools` with
    /// `tool_choice`, `chat_template_kwargs`, `json_schema` or `grammar`, and those of [`Options`], with `preset`
    /// for what it does not say. Other fields are nothing to a model.
    ///
    /// # Errors
    /// [`Kind::Validation`](mlxk_core::Kind) if a field is missing or has a value that it cannot
    /// have; another if there is more than text.
    pub fn parse(record: &Record, preset: &Preset) -> Result<Request> {
        let fields = Fields::of(record);
        if let Some(media) = ["images", "audio"].iter().find(|name| fields.present(name).is_some())
        {
            return Err(conversation::not_text(&format!("`{media}`")));
        }
        let system = fields.text("system")?;
        let ids = fields.read("prompt_ids", "a list of tokens", tokens)?.filter(|_| preset.raw);
        let prompt = match (fields.text("prompt")?, fields.present("messages")) {
            (Some(text), None) if preset.raw => Prompt::Text(text.to_owned()),
            (Some(text), None) => Prompt::chat(system.or(preset.system.as_deref()), text),
            (None, Some(messages)) => Prompt::Chat(Conversation {
                messages: conversation::messages(messages)?,
                ..Conversation::default()
            }),
            (Some(_), Some(_)) => return Err(invalid("both a `prompt` and `messages`")),
            (None, None) => {
                let none = || invalid("neither a `prompt` nor `messages`");
                Prompt::Tokens(ids.ok_or_else(none)?)
            }
        };
        if system.is_some() && (preset.raw || fields.present("messages").is_some()) {
            return Err(invalid("`system` goes with a `prompt` that goes through the template"));
        }
        let (tools, choice) = tools(&fields)?;
        let demanded = choice.demanded(tools.as_deref().unwrap_or_default())?;
        // Where none may be called, none of no functions is.
        let tools = tools.filter(|_| choice != Choice::None);
        let strict = choice == Choice::None || tools.as_deref().is_some_and(any_strict);
        let prompt = with_template(prompt, tools, &fields, preset)?;
        let options = Options::parse(&fields, &preset.options)?;
        let rules = rules(&fields)?.or_else(|| preset.rules.clone());
        // What an answer has to follow says nothing of a call.
        let rules = demanded.map(Rules::Call).or(rules).or(strict.then_some(Rules::Strict));
        Ok(Request { prompt, options, rules, lenient: preset.lenient })
    }
}

/// The tools that there are, and whether one of them is to be called.
fn tools(fields: &Fields) -> Result<(Option<Vec<Value>>, Choice)> {
    let tools = fields.present("tools").map(conversation::tools).transpose()?.flatten();
    let what = "auto, none, required or a function";
    let choice = fields.read("tool_choice", what, Choice::read)?.unwrap_or_default();
    Ok((tools, choice))
}

/// `prompt` with `tools` and what else its template is to know.
fn with_template(
    mut prompt: Prompt,
    tools: Option<Vec<Value>>,
    fields: &Fields,
    preset: &Preset,
) -> Result<Prompt> {
    let own = fields.read("chat_template_kwargs", "an object", Value::as_object)?;
    match &mut prompt {
        Prompt::Chat(conversation) => {
            conversation.tools = tools;
            conversation.variables = preset.variables.clone();
            conversation.variables.extend(own.cloned().unwrap_or_default());
        }
        Prompt::Text(_) | Prompt::Tokens(_) if tools.is_some() || own.is_some() => {
            let message = "`tools` and `chat_template_kwargs` are for the chat template";
            return Err(invalid(message));
        }
        Prompt::Text(_) | Prompt::Tokens(_) => {}
    }
    Ok(prompt)
}

fn tokens(value: &Value) -> Option<Vec<u32>> {
    let ids = value.as_array()?.iter();
    ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

fn rules(fields: &Fields) -> Result<Option<Rules>> {
    match (fields.present("json_schema"), fields.text("grammar")?) {
        (Some(_), Some(_)) => Err(invalid("both a `json_schema` and a `grammar`")),
        (Some(schema @ (Value::Object(_) | Value::Bool(_))), None) => {
            Ok(Some(Rules::Schema(schema.clone())))
        }
        (Some(_), None) => Err(invalid("`json_schema` is not an object")),
        (None, grammar) => Ok(grammar.map(|text| Rules::Grammar(text.to_owned()))),
    }
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
        assert_eq!(request.options.stop, ["\n"]);
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
                "a part of type `image_url`: only text is taken",
            ),
            (r#"{"messages":["a"]}"#, "`messages` is not a list of objects with a `role`"),
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
