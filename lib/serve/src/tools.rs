//! Functions that a model may call, in OpenAI's form, and whether it must.

use mlxk_core::Record;
use serde_json::{Value, json};

use crate::engine::Call;
use crate::fields::Fields;
use crate::refusal::Refusal;
use crate::task::Shape;

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

/// Reads the tools of a chat.
pub fn read(fields: &mut Fields, record: Record) -> Result<(Record, Shape), Refusal> {
    let tools = fields.read("tools", "a list of functions", functions)?.unwrap_or_default();
    let choice = fields.take("tool_choice").map(|value| choice(&value)).transpose()?;
    let single = single(fields)?;
    with(record, tools, choice.unwrap_or(Choice::Auto), single, "response_format")
}

/// Whether one function alone may be called.
pub fn single(fields: &mut Fields) -> Result<bool, Refusal> {
    let several = fields.read("parallel_tool_calls", "true or false", Value::as_bool)?;
    Ok(several == Some(false))
}

/// The record of a request whose model may call `tools`. A call that must be is a form of the
/// answer, which is read as one; no other form goes with tools, `format` being the field that asks
/// for one.
pub fn with(
    record: Record,
    tools: Vec<Value>,
    choice: Choice,
    single: bool,
    format: &str,
) -> Result<(Record, Shape), Refusal> {
    let wanted: Vec<&Value> = match &choice {
        Choice::None => return Ok((record, Shape::default())),
        Choice::Auto => Vec::new(),
        Choice::Any => tools.iter().collect(),
        Choice::Named(name) => {
            tools.iter().filter(|tool| tool["function"]["name"] == **name).collect()
        }
    };
    if choice != Choice::Auto && wanted.is_empty() {
        return Err(Refusal::invalid("`tool_choice` is none of `tools`"));
    }
    let forced = !wanted.is_empty();
    let format = if record.get("grammar").is_some() { "grammar" } else { format };
    if !tools.is_empty() && record.get("json_schema").or(record.get("grammar")).is_some() {
        let message = format!("`{format}` leaves no way to call one of `tools`");
        return Err(Refusal::invalid(message + "; it goes with the tool choice none"));
    }
    let schemas: Vec<Value> = wanted.into_iter().map(schema).collect();
    let record = match forced {
        true => record.with("json_schema", json!({"anyOf": schemas})),
        false => record,
    };
    let record = if tools.is_empty() { record } else { record.with("tools", tools) };
    Ok((record, Shape { forced, single }))
}

/// A call as it stands in answers.
pub fn call(call: &Call) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}

/// The schema of a call of a function.
fn schema(tool: &Value) -> Value {
    let function = &tool["function"];
    let parameters = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        parameters => parameters.clone(),
    };
    json!({
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": false,
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
