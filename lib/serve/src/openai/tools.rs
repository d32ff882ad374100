//! Tools that a model may call, and the choice among them, in OpenAI's form.

use mlxk_core::Record;
use serde_json::{Value, json};

use crate::engine::Call;
use crate::error::ApiError;
use crate::fields::Fields;

/// The tools that a model may or must call.
pub enum ToolChoice {
    /// Any number of tools, as the model decides.
    Auto,
    /// No tool.
    None,
    /// At least one tool.
    Required,
    /// The tool with this name.
    Function(String),
    /// Only the tools with these names.
    Allowed {
        /// Names of the tools.
        names: Vec<String>,
        /// True if the model must call one of them.
        required: bool,
    },
}

impl ToolChoice {
    /// The expected values of `tool_choice`, for the error about another one.
    pub const EXPECTED: &str = "auto, none, required, a function or allowed_tools";

    /// Parses a `tool_choice` of chat completions, which nest a function in an object, or of
    /// responses, which do not.
    pub fn parse(value: &Value) -> Option<ToolChoice> {
        match (value.as_str(), value["type"].as_str()) {
            (Some("auto"), _) => Some(ToolChoice::Auto),
            (Some("none"), _) => Some(ToolChoice::None),
            (Some("required"), _) => Some(ToolChoice::Required),
            (None, Some("function") | None) => Some(ToolChoice::Function(name(value)?)),
            (None, Some("allowed_tools")) => {
                ToolChoice::parse_allowed(value.get("allowed_tools").unwrap_or(value))
            }
            _ => None,
        }
    }

    fn parse_allowed(value: &Value) -> Option<ToolChoice> {
        let required = match value["mode"].as_str()? {
            "auto" => false,
            "required" => true,
            _ => return None,
        };
        let tools = value["tools"].as_array()?.iter();
        let function = |tool: &Value| (tool["type"] == "function").then(|| name(tool)).flatten();
        let names = tools.map(function).collect::<Option<_>>()?;
        Some(ToolChoice::Allowed { names, required })
    }
}

/// Takes the tools of a chat completion into a record, and [`parallel_tool_calls`].
pub fn parse(fields: &mut Fields, record: Record) -> Result<(Record, bool), ApiError> {
    let tools = fields.read("tools", "a list of functions", functions)?.unwrap_or_default();
    let choice = fields.read("tool_choice", ToolChoice::EXPECTED, ToolChoice::parse)?;
    let record = with_tools(record, tools, choice.unwrap_or(ToolChoice::Auto))?;
    Ok((record, parallel_tool_calls(fields)?))
}

/// Takes `parallel_tool_calls`: true, also if it is absent, if a completion may have several tool
/// calls.
pub fn parallel_tool_calls(fields: &mut Fields) -> Result<bool, ApiError> {
    let parallel = fields.read("parallel_tool_calls", "true or false", Value::as_bool)?;
    Ok(parallel.unwrap_or(true))
}

/// The record with its tools and the choice among them; an error if a chosen tool is missing.
pub fn with_tools(
    record: Record,
    mut tools: Vec<Value>,
    choice: ToolChoice,
) -> Result<Record, ApiError> {
    let has = |name: &str| tools.iter().any(|tool| tool["function"]["name"] == name);
    let (found, choice) = match choice {
        ToolChoice::None => (true, "none".into()),
        ToolChoice::Auto => (true, Value::Null),
        ToolChoice::Required => (!tools.is_empty(), "required".into()),
        ToolChoice::Function(name) => {
            (has(&name), json!({"type": "function", "function": {"name": name}}))
        }
        ToolChoice::Allowed { names, required } => {
            let found = !names.is_empty() && names.iter().all(|name| has(name));
            tools.retain(|tool| names.iter().any(|name| tool["function"]["name"] == **name));
            (found, if required { "required".into() } else { Value::Null })
        }
    };
    if !found {
        return Err(ApiError::invalid("`tool_choice` is none of `tools`"));
    }
    let record = if tools.is_empty() { record } else { record.with("tools", tools) };
    Ok(if choice.is_null() { record } else { record.with("tool_choice", choice) })
}

/// A tool call of a chat completion.
pub fn tool_call(call: &Call) -> Value {
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

/// The name of a function, which may be nested in an object `function`.
fn name(value: &Value) -> Option<String> {
    Some(value.get("function").unwrap_or(value)["name"].as_str()?.to_owned())
}
