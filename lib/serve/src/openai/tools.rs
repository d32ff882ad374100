//! Tools that a model may call, and the choice among them, in OpenAI's form.

use mlxk_processor::request::ToolChoice;
use mlxk_processor::{Request, ToolCall};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;

/// A `tool_choice`, which may narrow the tools before the choice among them.
#[derive(Default)]
pub struct Choice {
    /// The choice among the tools.
    pub choice: ToolChoice,
    /// The names of the tools that are left, if others are dropped.
    pub allowed: Option<Vec<String>>,
}

impl Choice {
    /// The expected values of `tool_choice`, for the error about another one.
    pub const EXPECTED: &str = "auto, none, required, a function or allowed_tools";

    /// Parses a `tool_choice` of chat completions, which nest a function in an object, or of
    /// responses, which do not.
    pub fn parse(value: &Value) -> Option<Choice> {
        match value["type"].as_str() {
            Some("function") | None => ToolChoice::read(value).map(Choice::from),
            Some("allowed_tools") => {
                Choice::parse_allowed(value.get("allowed_tools").unwrap_or(value))
            }
            Some(_) => None,
        }
    }

    fn parse_allowed(value: &Value) -> Option<Choice> {
        let choice = match value["mode"].as_str()? {
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => return None,
        };
        let tools = value["tools"].as_array()?.iter();
        let function = |tool: &Value| (tool["type"] == "function").then(|| name(tool)).flatten();
        let allowed = Some(tools.map(function).collect::<Option<_>>()?);
        Some(Choice { choice, allowed })
    }
}

impl From<ToolChoice> for Choice {
    fn from(choice: ToolChoice) -> Choice {
        Choice { choice, allowed: None }
    }
}

/// Takes the tools of a chat completion into a request, and [`parallel_tool_calls`].
pub fn parse(fields: &mut Fields, request: Request) -> Result<(Request, bool), ApiError> {
    let tools = fields.read("tools", "a list of functions", functions)?.unwrap_or_default();
    let choice = fields.read("tool_choice", Choice::EXPECTED, Choice::parse)?;
    let request = with_tools(request, tools, choice.unwrap_or_default())?;
    Ok((request, parallel_tool_calls(fields)?))
}

/// Takes `parallel_tool_calls`: true, also if it is absent, if a completion may have several tool
/// calls.
pub fn parallel_tool_calls(fields: &mut Fields) -> Result<bool, ApiError> {
    let parallel = fields.read("parallel_tool_calls", "true or false", Value::as_bool)?;
    Ok(parallel.unwrap_or(true))
}

/// The request with its tools and the choice among them; an error if a chosen tool is missing.
pub fn with_tools(
    request: Request,
    mut tools: Vec<Value>,
    Choice { choice, allowed }: Choice,
) -> Result<Request, ApiError> {
    if let Some(names) = allowed {
        let has = |name: &String| tools.iter().any(|tool| tool["function"]["name"] == **name);
        if names.is_empty() || !names.iter().all(has) {
            return Err(ApiError::invalid("`tool_choice` is none of `tools`"));
        }
        tools.retain(|tool| names.iter().any(|name| tool["function"]["name"] == **name));
    }
    Ok(request.with_tools(tools, &choice)?)
}

/// A tool call of a chat completion.
pub fn tool_call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json()},
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
