//! The functions that a model may call, and whether it must: `tools` and `tool_choice` as OpenAI has
//! them.

use mlxk_core::Result;
use serde_json::{Map, Value, json};

use crate::fields::invalid;

/// Whether a function is to be called.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Choice {
    /// As the model thinks right.
    #[default]
    Auto,
    /// None.
    None,
    /// One of them.
    Any,
    /// The one of this name.
    Named(String),
}

impl Choice {
    /// Reads a `tool_choice`.
    pub fn read(value: &Value) -> Option<Choice> {
        match value.as_str() {
            Some("auto") => Some(Choice::Auto),
            Some("none") => Some(Choice::None),
            Some("required") => Some(Choice::Any),
            Some(_) => None,
            None => Some(Choice::Named(function(value)["name"].as_str()?.to_owned())),
        }
    }

    /// Those of `tools` one of which has to be called, if one has to.
    ///
    /// # Errors
    /// If there is none of them.
    pub fn demanded(&self, tools: &[Value]) -> Result<Option<Vec<Value>>> {
        let demanded: Vec<Value> = match self {
            Choice::Auto | Choice::None => return Ok(None),
            Choice::Any => tools.to_vec(),
            Choice::Named(wanted) => {
                tools.iter().filter(|tool| name(tool) == Some(wanted)).cloned().collect()
            }
        };
        match demanded.is_empty() {
            true => Err(invalid("`tool_choice` is none of `tools`")),
            false => Ok(Some(demanded)),
        }
    }
}

/// What a tool says of its function.
pub fn function(tool: &Value) -> &Value {
    tool.get("function").unwrap_or(tool)
}

/// What the function of a tool is called.
pub fn name(tool: &Value) -> Option<&str> {
    function(tool)["name"].as_str()
}

/// The schema of its arguments.
pub fn parameters(tool: &Value) -> Value {
    match &function(tool)["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        parameters => parameters.clone(),
    }
}

/// Whether one of `tools` is called as its schema has it, or not at all.
pub fn any_strict(tools: &[Value]) -> bool {
    tools.iter().any(|tool| function(tool)["strict"] == true)
}

/// The schema of a list of calls of `tools`, or of one.
pub fn schema_of_calls(tools: &[Value]) -> Value {
    let mut schema = schema(tools, "arguments");
    schema["$defs"]["call"] = json!({"anyOf": schema["anyOf"]});
    let call = json!({"$ref": "#/$defs/call"});
    schema["anyOf"] = json!([call, {"type": "array", "items": call, "minItems": 1}]);
    schema
}

/// The schema of a call of one of `tools`: an object of the `name`, and the arguments as `key`.
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

/// Has the references within a schema begin at `root`, where it stands as a part of another one.
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
