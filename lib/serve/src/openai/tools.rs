//! Functions that a model may call, in OpenAI's form, and whether it must.

use mlxk_core::Record;
use serde_json::{Value, json};

use crate::engine::Call;
use crate::error::Refusal;
use crate::fields::Fields;

/// Whether a function is to be called.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// As the model thinks right.
    Auto,
    /// None.
    None,
    /// One of them.
    Any,
    /// This one.
    Named(String),
    /// None but these, and whether it has to be one of them.
    Allowed(Vec<String>, bool),
}

impl Choice {
    /// Reads a `tool_choice` of chats, where a function has an object of its own, or of responses.
    pub fn read(value: &Value) -> Option<Choice> {
        match (value.as_str(), value["type"].as_str()) {
            (Some("auto"), _) => Some(Choice::Auto),
            (Some("none"), _) => Some(Choice::None),
            (Some("required"), _) => Some(Choice::Any),
            (None, Some("function") | None) => Some(Choice::Named(name(value)?)),
            (None, Some("allowed_tools")) => {
                let inside = value.get("allowed_tools").unwrap_or(value);
                let tools = inside["tools"].as_array()?.iter();
                let functions = tools.map(|tool| match tool["type"] == "function" {
                    true => name(tool),
                    false => None,
                });
                let must = match inside["mode"].as_str()? {
                    "auto" => false,
                    "required" => true,
                    _ => return None,
                };
                Some(Choice::Allowed(functions.collect::<Option<_>>()?, must))
            }
            _ => None,
        }
    }
}

/// What a `tool_choice` may be.
pub const CHOICE: &str = "auto, none, required, a function or allowed_tools";

/// Reads the tools of a chat, and whether one alone may be called.
pub fn read(fields: &mut Fields, record: Record) -> Result<(Record, bool), Refusal> {
    let tools = fields.read("tools", "a list of functions", functions)?.unwrap_or_default();
    let choice = fields.read("tool_choice", CHOICE, Choice::read)?;
    let record = with(record, tools, choice.unwrap_or(Choice::Auto))?;
    Ok((record, single(fields)?))
}

/// Whether one function alone may be called.
pub fn single(fields: &mut Fields) -> Result<bool, Refusal> {
    let several = fields.read("parallel_tool_calls", "true or false", Value::as_bool)?;
    Ok(several == Some(false))
}

/// The record of a request whose model may call `tools`.
pub fn with(record: Record, mut tools: Vec<Value>, choice: Choice) -> Result<Record, Refusal> {
    let named = |name: &str| tools.iter().any(|tool| tool["function"]["name"] == name);
    let (there, said) = match choice {
        Choice::None => (true, "none".into()),
        Choice::Auto => (true, Value::Null),
        Choice::Any => (!tools.is_empty(), "required".into()),
        Choice::Named(name) => {
            (named(&name), json!({"type": "function", "function": {"name": name}}))
        }
        Choice::Allowed(names, must) => {
            let there = !names.is_empty() && names.iter().all(|name| named(name));
            tools.retain(|tool| names.iter().any(|name| tool["function"]["name"] == **name));
            (there, if must { "required".into() } else { Value::Null })
        }
    };
    if !there {
        return Err(Refusal::invalid("`tool_choice` is none of `tools`"));
    }
    let record = if tools.is_empty() { record } else { record.with("tools", tools) };
    Ok(if said.is_null() { record } else { record.with("tool_choice", said) })
}

/// A call as it stands in answers.
pub fn call(call: &Call) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}

fn functions(value: &Value) -> Option<Vec<Value>> {
    let tools = value.as_array()?;
    let named = |tool: &Value| tool["type"] == "function" && tool["function"]["name"].is_string();
    tools.iter().all(named).then(|| tools.clone())
}

/// What a function is called that is named with an object of its own or without.
fn name(value: &Value) -> Option<String> {
    Some(value.get("function").unwrap_or(value)["name"].as_str()?.to_owned())
}
