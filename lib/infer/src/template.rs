//! Chat templates: a conversation to the text that the model was trained to continue.
//!
//! Templates are Jinja as Hugging Face's transformers runs it, with the same settings and
//! functions. They come with the checkpoint and are not trusted: no includes, no files, and limits
//! on time, depth and the size of the text. What a template builds beside that text (a string that
//! it doubles again and again) only memory limits: minijinja has no bound to set for it.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error as Fault, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use mlxk_core::{Error, Facts, Kind, Result};
use serde::Serialize;
use serde_json::{Value as Json, ser};

/// Instructions that a template may execute; a conversation of 10,000 turns needs a tenth.
const MAX_FUEL: u64 = 10_000_000;

/// Nested calls and blocks.
const MAX_DEPTH: usize = 100;

/// Bytes of the text, and of the template.
const MAX_SIZE: usize = 16 << 20;

/// A chat template, compiled.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    name: String,
}

/// What a template is given.
#[derive(Serialize)]
struct Context<'a> {
    messages: &'a [Json],
    tools: (),
    documents: (),
    add_generation_prompt: bool,
    #[serde(flatten)]
    tokens: &'a serde_json::Map<String, Json>,
}

impl Template {
    /// The template of a model, if it has one: chat_template.jinja, chat_template.json, or the
    /// `chat_template` of tokenizer_config.json, where one of several is called `default`.
    ///
    /// # Errors
    /// If there is one that cannot be read or compiled.
    pub fn find(facts: &Facts) -> Result<Option<Template>> {
        if let Some(text) = read(facts, "chat_template.jinja")? {
            return Template::new("chat_template.jinja", &text).map(Some);
        }
        let (name, value) = match read(facts, "chat_template.json")? {
            Some(text) => ("chat_template.json", field(&text)?),
            None => ("tokenizer_config.json", facts.tokenizer_config.get("chat_template")),
        };
        match value {
            None | Some(Json::Null) => Ok(None),
            Some(value) => Template::new(name, default(name, &value)?).map(Some),
        }
    }

    /// Compiles `source`, which `name` calls in messages.
    pub fn new(name: &str, source: &str) -> Result<Template> {
        if source.len() > MAX_SIZE {
            let message = format!("a chat template of {} bytes", source.len());
            return Err(Error::new(Kind::InvalidModel, name, message));
        }
        let environment = environment()
            .and_then(|mut environment| {
                environment.add_template_owned(name.to_owned(), without_generation_tags(source))?;
                Ok(environment)
            })
            .map_err(|fault| invalid(name, &fault))?;
        Ok(Template { environment, name: name.to_owned() })
    }

    /// The text of `messages` up to where the model's answer begins. `tokens` are the special
    /// tokens by name (`bos_token`, ...).
    ///
    /// # Errors
    /// [`Kind::Validation`] if the template refuses the messages, [`Kind::InvalidModel`] if it
    /// fails or goes beyond its limits.
    pub fn render(
        &self,
        messages: &[Json],
        tokens: &serde_json::Map<String, Json>,
    ) -> Result<String> {
        let context =
            Context { messages, tools: (), documents: (), add_generation_prompt: true, tokens };
        let mut text = Limited(Vec::new());
        self.environment
            .get_template(&self.name)
            .and_then(|template| {
                template.render_captured_to(Value::from(Serde(&context)), &mut text).map(|_| ())
            })
            .map_err(|fault| invalid(&self.name, &fault))?;
        String::from_utf8(text.0).map_err(|e| {
            Error::new(Kind::Internal, &self.name, "text that is not UTF-8").caused_by(e)
        })
    }
}

fn read(facts: &Facts, name: &str) -> Result<Option<String>> {
    if !facts.has(name) {
        return Ok(None);
    }
    let path = facts.path(name);
    std::fs::read_to_string(&path).map(Some).map_err(|e| Error::io(&path, e))
}

fn field(text: &str) -> Result<Option<Json>> {
    let name = "chat_template.json";
    let mut object: serde_json::Map<String, Json> = serde_json::from_str(text).map_err(|e| {
        Error::new(Kind::InvalidModel, name, format!("not a JSON object: {e}")).caused_by(e)
    })?;
    Ok(object.remove("chat_template"))
}

/// The template itself, or the default one of a list.
fn default<'a>(file: &str, value: &'a Json) -> Result<&'a str> {
    let templates = match value {
        Json::String(source) => return Ok(source),
        Json::Array(templates) => templates.as_slice(),
        _ => &[],
    };
    let default = templates.iter().find(|template| template["name"] == "default");
    default.and_then(|template| template["template"].as_str()).ok_or_else(|| {
        let message = "`chat_template` is neither a text nor a list with a template `default`";
        Error::new(Kind::InvalidModel, file, message)
    })
}

fn environment() -> std::result::Result<Environment<'static>, Fault> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_fuel(Some(MAX_FUEL));
    environment.set_recursion_limit(MAX_DEPTH);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    Ok(environment)
}

/// What a template says of messages that it does not take.
#[derive(Debug, thiserror::Error)]
#[error("refused by the chat template")]
struct Refusal;

fn raise_exception(message: String) -> std::result::Result<Value, Fault> {
    Err(Fault::new(ErrorKind::InvalidOperation, message).with_source(Refusal))
}

fn strftime_now(format: String) -> std::result::Result<String, Fault> {
    jiff::fmt::strtime::format(&format, &jiff::Zoned::now())
        .map_err(|e| Fault::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// As Python's `json.dumps` lays it out, with nothing escaped that JSON can hold as it is.
fn tojson(value: Value, options: Kwargs) -> std::result::Result<String, Fault> {
    let indent: Option<usize> = options.get("indent")?;
    // Given by some templates to say what is the case anyway.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(16));
            let layout = ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, layout))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Spaced)),
    };
    written
        .map_err(|e| e.to_string())
        .and_then(|()| String::from_utf8(text).map_err(|e| e.to_string()))
        .map_err(|e| Fault::new(ErrorKind::InvalidOperation, e))
}

/// JSON on one line with a space after each comma and colon.
struct Spaced;

impl ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// `{% generation %}` marks the answers for training and is no part of Jinja: here it is a
/// condition that always holds, so that the white space around it is treated as it should be.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        out.push_str(before);
        let end = tag.find("%}").unwrap_or(tag.len());
        let (inside, after) = tag.split_at(end);
        let word = inside.trim_matches(['-', '+']).trim();
        out.push_str(&match word {
            "generation" => inside.replacen(word, "if true", 1),
            "endgeneration" => inside.replacen(word, "endif", 1),
            _ => inside.to_owned(),
        });
        rest = after;
    }
    out + rest
}

fn invalid(name: &str, fault: &Fault) -> Error {
    let source = std::error::Error::source(fault);
    let detail = match (fault.detail(), source) {
        (_, Some(source)) if fault.kind() == ErrorKind::WriteFailure => source.to_string(),
        (Some(detail), _) => detail.to_owned(),
        (None, Some(source)) => source.to_string(),
        (None, None) => fault.kind().to_string(),
    };
    if source.is_some_and(|source| source.is::<Refusal>()) {
        return Error::new(Kind::Validation, name, format!("the chat template refuses: {detail}"));
    }
    let line = fault.line().map_or_else(String::new, |line| format!("line {line}: "));
    Error::new(Kind::InvalidModel, name, format!("{line}{detail}"))
}

/// Bytes up to a limit.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_SIZE {
            return Err(io::Error::other(format!("more than {MAX_SIZE} bytes of text")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
