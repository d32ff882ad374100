//! Tools that a model may or must call: `tools` and `tool_choice` in OpenAI's form, and the JSON
//! schemas of their calls.

use mlxk_core::Result;
use serde_json::{Map, Value, json};

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

/// True if one of `tools` is strict: its calls follow its schema.
pub fn any_strict(tools: &[Value]) -> bool {
    tools.iter().any(|tool| function(tool)["strict"] == true)
}

/// JSON schema of one call of `tools`, or of a list of calls.
pub fn schema_of_calls(tools: &[Value]) -> Value {
    let mut schema = schema(tools, "arguments");
    schema["$defs"]["call"] = json!({"anyOf": schema["anyOf"]});
    let call = json!({"$ref": "#/$defs/call"});
    schema["anyOf"] = json!([call, {"type": "array", "items": call, "minItems": 1}]);
    schema
}

/// JSON schema of a call of one of `tools`: an object with the `name`, and the arguments as `key`.
pub fn schema(tools: &[Value], key: &str) -> Value {
    let mut all = Map::new();
    let calls: Vec<Value> = tools
        .iter()
        .enumerate()
        .map(|(place, tool)| {
            let mut parameters = parameters(tool);
            refer(&mut parameters, &format!("#/$defs/{place}"));
            all.insert(place.to_string(), parameters);
            let arguments = json!({"$ref": format!("#/$defs/{place}")});
            json!({
                "type": "object",
                "properties": {"name": {"const": name(tool)}, key: arguments},
                "required": ["name", key],
                "additionalProperties": false,
            })
        })
        .collect();
    json!({"anyOf": calls, "$defs": all})
}

/// Makes the references within a schema start at `root`, its place within another schema.
fn refer(schema: &mut Value, root: &str) {
    match schema {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "$ref" && text.starts_with('#') => {
                        text.replace_range(..1, root);
                    }
                    value => refer(value, root),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, root)),
        _ => {}
    }
}
