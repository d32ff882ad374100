//! Calls of tools in a grammar: the JSON schemas of their arguments, lowered, and of whole calls.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::bounds::check_schema;
use crate::cancel::Cancel;
use crate::schema::{Kinds, Lowered, Unheld, kinds, lower};
use crate::tools::{is_strict, name, parameters};

/// Call of a tool.
#[derive(Clone)]
pub struct Call {
    /// Name of the function.
    pub name: String,
    /// Field of the request with the schema of the arguments.
    pub field: String,
    /// True if the arguments follow the schema in all; otherwise what a grammar does not hold is
    /// left to the model.
    pub strict: bool,
    /// What is left to the model: keywords of the schema, or the schema as a whole.
    pub unheld: Vec<String>,
    /// Schema of the arguments, whose definitions no other call has.
    arguments: Lowered,
}

impl Call {
    /// Call of a tool, whose schema is in a `field` of the request.
    ///
    /// # Errors
    /// The reason, if the tool is strict and a grammar does not hold its schema.
    pub fn new(
        tool: &Value,
        field: String,
        number: usize,
        cancel: &Arc<Cancel>,
    ) -> Result<Call, String> {
        let (name, strict) = (name(tool).unwrap_or_default().to_owned(), is_strict(tool));
        let schema = parameters(tool);
        let prefix = format!("{number}-");
        let lowered = check_schema(&schema).and_then(|()| lower(&schema, &prefix, false, cancel));
        let mut call =
            Call { name, field, strict, unheld: Vec::new(), arguments: Lowered::any_object() };
        let refused = |why: &str| Err(format!("`{}`: {why}", call.field));
        match lowered {
            Ok(Lowered { unheld, .. }) if strict && !unheld.is_empty() => {
                return refused(&unheld[0].to_string());
            }
            Ok(lowered) => {
                let place = |Unheld { keyword, pointer, .. }: &Unheld| {
                    format!("`{keyword}` at #{pointer} in `{}`", call.field)
                };
                call.unheld = lowered.unheld.iter().map(place).collect();
                call.arguments = lowered;
                if kinds(&schema, &schema) != Kinds::OBJECT {
                    let all = [json!({"type": "object"}), call.arguments.schema.take()];
                    call.arguments.schema = json!({"allOf": all});
                }
            }
            Err(why) if strict => return refused(&why),
            Err(why) => call.free(&why),
        }
        Ok(call)
    }

    /// Leaves the arguments to the model, as a grammar does not hold their schema.
    pub fn free(&mut self, why: &str) {
        self.arguments = Lowered::any_object();
        self.unheld = vec![format!("`{}`: {why}", self.field)];
    }

    /// Schema of the arguments.
    pub fn arguments(&self) -> Value {
        self.arguments.clone().document()
    }
}

/// JSON schema of one of `calls`, or of a list of them.
pub fn schema_of_list(calls: &[Call]) -> Value {
    let mut schema = schema(calls, "arguments");
    schema["$defs"]["call"] = json!({"anyOf": schema["anyOf"]});
    let call = json!({"$ref": "#/$defs/call"});
    schema["anyOf"] = json!([call, {"type": "array", "items": call, "minItems": 1}]);
    schema
}

/// JSON schema of one of `calls`: an object with the `name`, and the arguments as `key`.
pub fn schema(calls: &[Call], key: &str) -> Value {
    let mut definitions = Map::new();
    let either = calls.iter().map(|call| {
        definitions.extend(call.arguments.definitions.clone());
        json!({
            "type": "object",
            "properties": {"name": {"const": call.name}, key: call.arguments.schema},
            "required": ["name", key],
            "additionalProperties": false,
        })
    });
    let either: Vec<Value> = either.collect();
    json!({"anyOf": either, "$defs": definitions})
}
