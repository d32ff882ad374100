//! What is asked of a model: a prompt or a conversation, and how the answer is to be chosen.

use mlxk_core::{Error, Kind, Record, Result};
use serde_json::{Map, Value, json};

use crate::Sampling;

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

/// Wishes for an answer; what is not wished is the model's to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// At most this many tokens.
    pub max_tokens: Option<u64>,
    /// See [`Sampling`].
    pub temperature: Option<f32>,
    /// See [`Sampling`].
    pub top_p: Option<f32>,
    /// See [`Sampling`].
    pub top_k: Option<u32>,
    /// See [`Sampling`].
    pub min_p: Option<f32>,
    /// See [`Sampling`].
    pub repetition_penalty: Option<f32>,
    /// See [`Sampling`].
    pub seed: Option<u64>,
    /// Strings that end the answer and are no part of it.
    pub stop: Vec<String>,
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
        let fields = Fields(record.fields());
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
        let options = Options::parse(&fields, options)?;
        options.check()?;
        Ok(Request { prompt, options })
    }
}

impl Options {
    fn parse(fields: &Fields, or: &Options) -> Result<Options> {
        let stop = match fields.present("stop") {
            None => or.stop.clone(),
            Some(Value::String(stop)) => vec![stop.clone()],
            Some(Value::Array(all)) => {
                let texts = all.iter().map(|stop| stop.as_str().map(str::to_owned));
                texts
                    .collect::<Option<_>>()
                    .ok_or_else(|| wrong("stop", "a text or a list of texts"))?
            }
            Some(_) => return Err(wrong("stop", "a text or a list of texts")),
        };
        let top_k = fields.whole("top_k")?.map(|k| u32::try_from(k).unwrap_or(u32::MAX));
        Ok(Options {
            max_tokens: fields.whole("max_tokens")?.or(or.max_tokens),
            temperature: fields.number("temperature")?.or(or.temperature),
            top_p: fields.number("top_p")?.or(or.top_p),
            top_k: top_k.or(or.top_k),
            min_p: fields.number("min_p")?.or(or.min_p),
            repetition_penalty: fields.number("repetition_penalty")?.or(or.repetition_penalty),
            seed: fields.whole("seed")?.or(or.seed),
            stop,
        })
    }

    /// Refuses values that mean nothing.
    pub fn check(&self) -> Result<()> {
        let within = |name, value: Option<f32>, low: f32, high: f32, what| match value {
            Some(value) if !(low..=high).contains(&value) => Err(wrong(name, what)),
            _ => Ok(()),
        };
        within("temperature", self.temperature, 0.0, f32::MAX, "a number from 0")?;
        within("top_p", self.top_p, 0.0, 1.0, "a number from 0 to 1")?;
        within("min_p", self.min_p, 0.0, 1.0, "a number from 0 to 1")?;
        let penalty = self.repetition_penalty;
        within("repetition_penalty", penalty, f32::MIN_POSITIVE, f32::MAX, "a number above 0")?;
        match self.max_tokens {
            Some(0) => Err(wrong("max_tokens", "a whole number from 1")),
            _ => Ok(()),
        }
    }

    /// How to sample, with `default` for what is not wished; without a seed one is drawn.
    pub fn sampling(&self, default: &Sampling) -> Result<Sampling> {
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_p: self.top_p.unwrap_or(default.top_p),
            top_k: self.top_k.unwrap_or(default.top_k),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            seed: match self.seed {
                Some(seed) => seed,
                None => draw_seed()?,
            },
        })
    }
}

/// A seed that every JSON reader can represent: below 2^53.
fn draw_seed() -> Result<u64> {
    getrandom::u64()
        .map(|seed| seed >> 11)
        .map_err(|e| Error::new(Kind::Execution, "", format!("no seed can be drawn: {e}")))
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

/// The fields of a record; one that is null is not there.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn present(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let value = self.present(name);
        value.map(|value| read(value).ok_or_else(|| wrong(name, what))).transpose()
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.read(name, "a text", Value::as_str)
    }

    fn number(&self, name: &str) -> Result<Option<f32>> {
        self.read(name, "a number", |value| value.as_f64().map(|value| value as f32))
    }

    fn whole(&self, name: &str) -> Result<Option<u64>> {
        self.read(name, "a whole number from 0", Value::as_u64)
    }
}

fn wrong(field: &str, what: &str) -> Error {
    invalid(&format!("`{field}` is not {what}"))
}

fn invalid(message: &str) -> Error {
    Error::new(Kind::Validation, "", message)
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
        ] {
            assert_eq!(parse(line).unwrap_err().message, message, "{line}");
        }
    }

    #[test]
    fn a_drawn_seed_can_be_told_and_given_back() {
        let default = Sampling {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
        };
        let draw = || Options::default().sampling(&default).unwrap();
        assert!(draw().seed < 1 << 53);
        assert_ne!(draw().seed, draw().seed);
        assert_eq!(
            Options { seed: Some(3), ..Options::default() }.sampling(&default).unwrap().seed,
            3
        );
    }
}
