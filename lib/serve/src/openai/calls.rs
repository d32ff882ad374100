//! Tools that the model sees as functions, though clients know them as something else: custom tools,
//! which take a text, and members of a namespace. Their definitions, and the way back of a call.

use std::collections::BTreeMap;

use mlxk_processor::ToolCall;
use serde_json::{Map, Value, json};

/// The parameter of the function that stands for a custom tool.
const INPUT: &str = "input";

/// A tool as its client knows it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The tool's namespace, if it has one.
    pub namespace: Option<String>,
    /// The tool's name.
    pub name: String,
    /// True if the tool takes a text instead of arguments.
    pub custom: bool,
}

/// The tools that are not plain functions, by the names under which the model sees them.
pub type Origins = BTreeMap<String, Origin>;

/// The name under which the model sees a member of a namespace.
pub fn full_name(namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) if namespace.ends_with("__") => format!("{namespace}{name}"),
        Some(namespace) => format!("{namespace}__{name}"),
        None => name.to_owned(),
    }
}

/// The definition, without a name, of a function that stands for a custom tool. The grammar of its
/// text, if it has one, is told to the model in the description, and not enforced.
pub fn custom_function(tool: &Map<String, Value>) -> Map<String, Value> {
    let format = tool.get("format").unwrap_or(&Value::Null);
    // Chat completions nest the grammar in an object.
    let grammar = format.get("grammar").unwrap_or(format);
    let description = tool.get("description").and_then(Value::as_str).map(str::to_owned);
    let rule = grammar["definition"].as_str().map(|definition| {
        let syntax = grammar["syntax"].as_str().unwrap_or_default();
        format!("The text in `{INPUT}` follows this grammar ({syntax}):\n{definition}")
    });
    let description: Vec<String> = description.into_iter().chain(rule).collect();
    let mut function = Map::new();
    if !description.is_empty() {
        function.insert("description".into(), description.join("\n\n").into());
    }
    let parameters = json!({
        "type": "object",
        "properties": {INPUT: {"type": "string"}},
        "required": [INPUT],
        "additionalProperties": false,
    });
    function.insert("parameters".into(), parameters);
    function
}

/// The arguments of the function that stands for a custom tool, of a call with the text `input`.
pub fn custom_arguments(input: &Value) -> Value {
    json!({INPUT: input.as_str().unwrap_or_default()})
}

/// The text of a call of a custom tool; all arguments as JSON if the model gave other ones.
pub fn custom_input(call: &ToolCall) -> String {
    match call.arguments.get(INPUT).and_then(Value::as_str) {
        Some(input) => input.to_owned(),
        None => call.arguments_json(),
    }
}
