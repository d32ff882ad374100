//! Tools that a model may or must call: `tools` and `tool_choice` in OpenAI's form.

use std::collections::BTreeMap;

use mlxk_core::Result;
use serde_json::{Value, json};

use crate::fields::invalid;

/// Choice among the tools.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ToolChoice {
    /// Any number of tools, as the model decides.
    #[default]
    Auto,
    /// No tool.
    None,
    /// At least one tool.
    Required,
    /// Tool with this name.
    Function(String),
}

impl ToolChoice {
    /// Reads a `tool_choice`: a word, or the name of a function, which may be nested in an object
    /// `function`.
    pub fn read(value: &Value) -> Option<ToolChoice> {
        match value.as_str() {
            Some("auto") => Some(ToolChoice::Auto),
            Some("none") => Some(ToolChoice::None),
            Some("required") => Some(ToolChoice::Required),
            Some(_) => None,
            None => Some(ToolChoice::Function(name(value)?.to_owned())),
        }
    }

    /// Tools one of which must be called, if a call is required.
    ///
    /// # Errors
    /// [`Kind::Validation`](mlxk_core::Kind::Validation) if none of `tools` is chosen.
    pub fn required(&self, tools: &[Value]) -> Result<Option<Vec<Value>>> {
        let required: Vec<Value> = match self {
            ToolChoice::Auto | ToolChoice::None => return Ok(None),
            ToolChoice::Required => tools.to_vec(),
            ToolChoice::Function(chosen) => {
                tools.iter().filter(|tool| name(tool) == Some(chosen)).cloned().collect()
            }
        };
        match required.is_empty() {
            true => Err(invalid("`tool_choice` is none of `tools`")),
            false => Ok(Some(required)),
        }
    }
}

/// Function of a tool, which may be nested in an object `function`.
pub fn function(tool: &Value) -> &Value {
    tool.get("function").unwrap_or(tool)
}

/// Name of a tool's function.
pub fn name(tool: &Value) -> Option<&str> {
    function(tool)["name"].as_str()
}

/// JSON schema of a tool's arguments.
pub fn parameters(tool: &Value) -> Value {
    match &function(tool)["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        parameters => parameters.clone(),
    }
}

/// True if a tool is strict: its calls follow its schema.
pub fn is_strict(tool: &Value) -> bool {
    function(tool)["strict"] == true
}

/// Field with the JSON schema of a tool's arguments in a request with the tools `all`, such as
/// `tools[2].function.parameters`, unless `fields` has it by the tool's name.
pub fn field(all: &[Value], tool: &Value, fields: &BTreeMap<String, String>) -> String {
    if let Some(field) = name(tool).and_then(|name| fields.get(name)) {
        return field.clone();
    }
    let place = all.iter().position(|other| name(other) == name(tool)).unwrap_or_default();
    let within = match tool.get("function") {
        Some(_) => "function.parameters",
        None => "parameters",
    };
    format!("tools[{place}].{within}")
}
