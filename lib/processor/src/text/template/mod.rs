//! Chat templates, which turn a conversation into the text that the model was trained to continue.
//!
//! Templates are Jinja in the dialect of Hugging Face's transformers. They come with the checkpoint
//! and are not trusted: they include no files, and have limits of work, depth and text size.

mod arguments;
mod compare;
mod content;
mod filters;
mod fit;
mod formatting;
mod fuel;
mod json_dumps;
mod lexer;
mod limited;
mod markup;
mod methods;
mod number_filters;
mod operators;
mod predicates;
mod printf;
mod python;
mod repr;
mod rewrite;
mod sequences;
mod str_format;
mod string_methods;
mod strings;
#[cfg(test)]
mod tests;
mod values;
mod wrap;

use std::iter;
use std::sync::{Arc, OnceLock};

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error as Fault, ErrorKind};
use mlxk_core::{Error, Facts, Kind, Result};
use serde_json::{Map, Value as Json, json};

use self::content::Forms;
use self::fit::Fitting;
use self::fuel::{BRAKE, Brake};
use self::limited::Limited;
use crate::conversation::Conversation;
use crate::stack::run_on_stack;
use crate::weight::weights;

/// Largest work of a template: an instruction, or 64 bytes of data that it makes or goes through.
/// It bounds the time to about a second and the memory to 256 MB; a conversation of 10,000 turns
/// needs a quarter.
const MAX_FUEL: u64 = 4_000_000;

/// Largest depth of nested calls and blocks.
const MAX_DEPTH: usize = 100;

/// Largest size of a template, in bytes; the largest in use have 20 kB.
const MAX_SOURCE: usize = 1 << 20;

/// Largest size of the text, in bytes.
const MAX_TEXT: usize = 16 << 20;

/// Largest size of the conversation, in bytes. Converting it to values of the template takes as
/// much again.
const MAX_CONVERSATION: usize = 64 << 20;

/// Size of a conversation in bytes, from which exceeded limits are put down to the conversation
/// rather than to the template.
const LARGE: usize = 64 << 10;

/// Size of the stack for rendering, in bytes: values are nested up to 300 deep, and a template may
/// go through them by calls of itself.
const STACK: usize = 16 << 20;

/// Name of the template that transformers uses for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// Compiled chat template of a model.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    /// Name of the template's file, for errors.
    file: String,
    source: String,
    /// True if there is a separate template for conversations with tools.
    tool_use: bool,
    /// Forms of the contents that it takes, found when they are first needed.
    forms: OnceLock<Forms>,
}

impl Template {
    /// Finds the chat template of a model, if it has one: chat_template.jinja (with those in
    /// additional_chat_templates), chat_template.json, or `chat_template` in tokenizer_config.json.
    /// A list has a template `default`, and may have `tool_use` for conversations with tools.
    ///
    /// # Errors
    /// If a template cannot be read or compiled.
    pub fn find(facts: &Facts) -> Result<Option<Template>> {
        if let Some(text) = read(facts, "chat_template.jinja")? {
            let tools = read(facts, "additional_chat_templates/tool_use.jinja")?;
            return Template::compile("chat_template.jinja", &text, tools.as_deref()).map(Some);
        }
        let (file, value) = match read(facts, "chat_template.json")? {
            Some(text) => ("chat_template.json", field(&text)?),
            None => ("tokenizer_config.json", facts.tokenizer_config.get("chat_template")),
        };
        match value {
            None | Some(Json::Null) => Ok(None),
            Some(value) => {
                let (default, tools) = choose(file, &value)?;
                Template::compile(file, default, tools).map(Some)
            }
        }
    }

    /// Compiles the template `source`; errors name `file`.
    ///
    /// # Errors
    /// [`Kind::InvalidModel`] if the template is malformed or too large.
    pub fn new(file: &str, source: &str) -> Result<Template> {
        Template::compile(file, source, None)
    }

    fn compile(file: &str, source: &str, tools: Option<&str>) -> Result<Template> {
        let mut environment = python::environment().map_err(|fault| invalid(file, &fault))?;
        environment.set_fuel(Some(MAX_FUEL));
        environment.set_recursion_limit(MAX_DEPTH);
        for (name, source) in
            [Some(("default", source)), tools.map(|tools| (TOOL_USE, tools))].into_iter().flatten()
        {
            if source.len() > MAX_SOURCE {
                let message = format!("a chat template of {} bytes", source.len());
                let hint = format!("the largest that is taken has {MAX_SOURCE}");
                return Err(Error::new(Kind::InvalidModel, file, message).hint(hint));
            }
            let source = rewrite::rewrite(source).map_err(|malformed| {
                let message = format!("line {}: {}", malformed.line, malformed.message);
                Error::new(Kind::InvalidModel, file, message)
            })?;
            environment.add_template_owned(name, source).map_err(|fault| invalid(file, &fault))?;
        }
        Ok(Template {
            environment,
            file: file.to_owned(),
            source: source.to_owned(),
            tool_use: tools.is_some(),
            forms: OnceLock::new(),
        })
    }

    /// Source of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// True if the template has a place for tools.
    pub fn knows_tools(&self) -> bool {
        self.tool_use || self.source.contains("tools")
    }

    /// Renders a conversation in the form that the template takes.
    ///
    /// # Errors
    /// [`Kind::Validation`] if the template refuses the messages, or they are too large;
    /// [`Kind::InvalidModel`] if the template fails or exceeds its limits.
    pub fn fit(&self, conversation: &Conversation, tokens: &Map<String, Json>) -> Result<String> {
        self.fit_unless(conversation, tokens, &|| false)
    }

    /// Renders a conversation as [`Template::fit`] does; the work ends when `gone` is true.
    ///
    /// # Errors
    /// [`Kind::Execution`] if `gone` is true; [`Kind::Validation`] if the template refuses the messages,
    /// or they are too large; [`Kind::InvalidModel`] if the template fails or exceeds its limits.
    pub fn fit_unless(
        &self,
        conversation: &Conversation,
        tokens: &Map<String, Json>,
        gone: &dyn Fn() -> bool,
    ) -> Result<String> {
        let render = |conversation: &Conversation| {
            let rendered = self.attempt(conversation, tokens, gone)?;
            Ok(rendered.map_err(|fault| invalid(&self.file, &fault)))
        };
        Fitting { render: &render }.fit(&self.in_form(conversation, tokens, gone)?)
    }

    /// Renders a conversation up to the start of the completion, unless its variables have another
    /// `add_generation_prompt`. `tokens` are the special tokens by name (`bos_token`, ...).
    ///
    /// # Errors
    /// [`Kind::Validation`] if the template refuses the messages, or they are too large;
    /// [`Kind::InvalidModel`] if the template fails or exceeds its limits.
    pub fn render(
        &self,
        conversation: &Conversation,
        tokens: &Map<String, Json>,
    ) -> Result<String> {
        let rendered = self.attempt(conversation, tokens, &|| false)?;
        rendered.map_err(|fault| invalid(&self.file, &fault))
    }

    /// Renders a conversation. The inner error is a failure of the template itself, for which other
    /// variants may be tried; exceeded limits are the outer one, as is the end of the work when `gone`
    /// is true.
    fn attempt(
        &self,
        conversation: &Conversation,
        tokens: &Map<String, Json>,
        gone: &dyn Fn() -> bool,
    ) -> Result<std::result::Result<String, Fault>> {
        let Conversation { messages, tools, variables, .. } = conversation;
        let values = messages.iter().chain(tools.iter().flatten()).chain(variables.values());
        let size = weights(values);
        if size > MAX_CONVERSATION {
            let message = format!("the values of the conversation take {size} bytes");
            let hint = format!("a chat template gets {MAX_CONVERSATION} at most");
            return Err(Error::new(Kind::Validation, "", message).hint(hint));
        }
        let mut conversation = conversation.clone();
        conversation.messages.iter_mut().for_each(name_reasoning);
        let given = std::mem::take(&mut conversation.variables);
        let general = [("documents", Json::Null), ("add_generation_prompt", json!(true))];
        let general = general.into_iter().map(|(name, value)| (name.to_owned(), value));
        conversation.variables = general.chain(tokens.clone()).chain(given).collect();
        conversation.variables.retain(|name, _| name != "messages" && name != "tools");
        match self.run(&conversation, gone)? {
            Err(fault) if is_limit(&fault) => Err(self.exceeded(size)),
            text => Ok(text),
        }
    }

    /// Runs the template on a large stack.
    fn run(
        &self,
        conversation: &Conversation,
        gone: &dyn Fn() -> bool,
    ) -> Result<std::result::Result<String, Fault>> {
        let tools = self.tool_use && conversation.tools.is_some();
        run_on_stack(STACK, gone, |cancel| {
            let mut text = Limited::new(MAX_TEXT, cancel);
            let mut environment = self.environment.clone();
            environment.add_global(BRAKE, Value::from_object(Brake(Arc::clone(cancel))));
            let template = environment.get_template(if tools { TOOL_USE } else { "default" })?;
            template.render_captured_to(Value::from(Serde(conversation)), &mut text)?;
            String::from_utf8(text.into_bytes())
                .map_err(|e| Fault::new(ErrorKind::BadSerialization, e.to_string()))
        })
    }

    /// Error about limits that a conversation of `size` bytes exceeds.
    fn exceeded(&self, size: usize) -> Error {
        match size > LARGE {
            true => {
                let message = "the conversation is too large for the chat template";
                Error::new(Kind::Validation, "", message)
                    .hint("tool definitions that are nested deep take the most")
            }
            false => {
                let message = "the chat template does too much work, or makes too much text";
                Error::new(Kind::InvalidModel, &self.file, message)
            }
        }
    }
}

/// True if a template failed by a limit of work or of its text.
fn is_limit(fault: &Fault) -> bool {
    let causes = iter::successors(Some(fault as &dyn std::error::Error), |e| e.source());
    let kinds = causes.filter_map(|cause| Some(cause.downcast_ref::<Fault>()?.kind()));
    kinds.into_iter().any(|kind| matches!(kind, ErrorKind::OutOfFuel | ErrorKind::WriteFailure))
}

/// Copies the reasoning of a message to both fields that templates read, as transformers does.
/// Clients use three names for it.
fn name_reasoning(message: &mut Json) {
    let Json::Object(fields) = message else { return };
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = names.iter().find_map(|name| fields.get(*name).filter(|v| !v.is_null()));
    if let Some(reasoning) = reasoning.cloned() {
        fields.entry("thinking").or_insert_with(|| reasoning.clone());
        fields.insert("reasoning_content".into(), reasoning);
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
    let mut object: Map<String, Json> = serde_json::from_str(text).map_err(|e| {
        Error::new(Kind::InvalidModel, name, format!("not a JSON object: {e}")).caused_by(e)
    })?;
    Ok(object.remove("chat_template"))
}

/// Default template, and the template for tools if there is one.
fn choose<'a>(file: &str, value: &'a Json) -> Result<(&'a str, Option<&'a str>)> {
    let templates = match value {
        Json::String(source) => return Ok((source, None)),
        Json::Array(templates) => templates.as_slice(),
        _ => &[],
    };
    let named = |name: &str| {
        let template = templates.iter().find(|template| template["name"] == name);
        template.and_then(|template| template["template"].as_str())
    };
    named("default").map(|default| (default, named(TOOL_USE))).ok_or_else(|| {
        let message = "`chat_template` is neither a text nor a list with a template `default`";
        Error::new(Kind::InvalidModel, file, message)
    })
}

fn invalid(name: &str, fault: &Fault) -> Error {
    let source = std::error::Error::source(fault);
    let detail = match (fault.detail(), source) {
        (Some(detail), _) => detail.to_owned(),
        (None, Some(source)) => source.to_string(),
        (None, None) => fault.kind().to_string(),
    };
    if source.is_some_and(|source| source.is::<python::Refusal>()) {
        return Error::new(Kind::Validation, name, format!("the chat template refuses: {detail}"));
    }
    let line = fault.line().map_or_else(String::new, |line| format!("line {line}: "));
    Error::new(Kind::InvalidModel, name, format!("{line}{detail}"))
}
