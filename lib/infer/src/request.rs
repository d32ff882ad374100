//! What is asked of a model: a prompt or a conversation, and how the answer is to be chosen.

use mlxk_core::{Record, Result};
use serde_json::{Value, json};

use crate::fields::{Fields, invalid, wrong};
pub use crate::options::Options;

/// One task for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the model is to go on from.
    pub prompt: Prompt,
    /// How.
    pub options: Options,
}

/// What a model goes on from.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation, `{"role", "content"}` each, for the chat template.
    Messages(Vec<Value>),
    /// Text for the model as it is.
    Text(String),
}

impl Prompt {
    /// What a user says, after what the system says if anything.
    pub fn chat(system: Option<&str>, user: &str) -> Prompt {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let system = system.map(|content| message("system", content));
        Prompt::Messages(system.into_iter().chain([message("user", user)]).collect())
    }
}

impl Request {
    /// Reads the fields of a record: `prompt` (with `system`) or `messages`, and those of
    /// [`Options`], where it has none `options` and `system`. With `raw`, a prompt is for the model
    /// as it is. Other fields are nothing to a model.
    ///
    /// # Errors
    /// [`Kind::Validation`] if a field is missing or has a value that it cannot have.
    pub fn parse(
        record: &Record,
        options: &Options,
        system: Option<&str>,
        raw: bool,
    ) -> Result<Request> {
        let fields = Fields::of(record);
        let prompt = match (fields.text("prompt")?, fields.present("messages")) {
            (Some(text), None) if raw => Prompt::Text(text.to_owned()),
            (Some(text), None) => Prompt::chat(fields.text("system")?.or(system), text),
            (None, Some(messages)) => Prompt::Messages(conversation(messages)?),
            (Some(_), Some(_)) => return Err(invalid("both a `prompt` and `messages`")),
            (None, None) => return Err(invalid("neither a `prompt` nor `messages`")),
        };
        if fields.present("system").is_some() && (raw || matches!(prompt, Prompt::Messages(_))) {
            return Err(invalid("`system` goes with a `prompt` that goes through the template"));
        }
        Ok(Request { prompt, options: Options::parse(&fields, options)? })
    }
}

fn conversation(messages: &Value) -> Result<Vec<Value>> {
    let what = "a list of objects with a `role`";
    let messages = messages.as_array().filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| wrong("messages", what))?;
    match messages.iter().all(|message| message["role"].is_string()) {
        true => Ok(messages.clone()),
        false => Err(wrong("messages", what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request> {
        let options = Options { temperature: Some(0.5), seed: Some(7), ..Options::default() };
        Request::parse(&Record::parse(line).unwrap(), &options, Some("Be brief."), false)
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
