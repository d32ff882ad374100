//! Functions that a model may call, in OpenAI's form, and whether it must.

use mlxk_core::Record;
use serde_json::{Value, json};

use crate::engine::Call;
use crate::fields::Fields;
use crate::refusal::Refusal;

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
}

/// Reads the tools of a chat, and whether one alone may be called.
pub fn read(fields: &mut Fields, record: Record) -> Result<(Record, bool), Refusal> {
    let tools = fields.read("tools", "a list of functions", functions)?.unwrap_or_default();
    let choice = fields.take("tool_choice").map(|value| choice(&value)).transpose()?;
    let record = with(record, tools, choice.unwrap_or(Choice::Auto))?;
    Ok((record, single(fields)?))
}

/// Whether one function alone may be called.
pub fn single(fields: &mut Fields) -> Result<bool, Refusal> {
    let several = fields.read("parallel_tool_calls", "true or false", Value::as_bool)?;
    Ok(several == Some(false))
}

/// The record of a request whose model may call `tools`.
pub fn with(record: Record, tools: Vec<Value>, choice: Choice) -> Result<Record, Refusal> {
    let named = |name: &str| tools.iter().any(|tool| tool["function"]["name"] == name);
    let (there, said) = match choice {
        Choice::None => return Ok(record),
        Choice::Auto => (true, Value::Null),
        Choice::Any => (!tools.is_empty(), "required".into()),
        Choice::Named(name) => {
            (named(&name), json!({"type": "function", "function": {"name": name}}))
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

fn choice(value: &Value) -> Result<Choice, Refusal> {
    let name = || Some(value["function"]["name"].as_str()?.to_owned());
    match value.as_str() {
        Some("auto") => Ok(Choice::Auto),
        Some("none") => Ok(Choice::None),
        Some("required") => Ok(Choice::Any),
        _ => name()
            .map(Choice::Named)
            .ok_or_else(|| Refusal::wrong("tool_choice", "auto, none, required or a function")),
    }
}
