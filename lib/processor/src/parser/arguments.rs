//! Arguments of tool calls: values of the types that the tool's JSON schema states.

use serde_json::{Map, Value, json};

use super::literal;
use crate::schema::{Kinds, admits, follow, kinds, resolve};
use crate::tools::{function, name};

/// Maximum number of schemas in which an argument is looked up.
const MAX_PARTS: usize = 64;

/// Arguments of a call: an object, its text, or null for none.
pub fn object(arguments: Value) -> Option<Map<String, Value>> {
    match arguments {
        Value::Object(arguments) => Some(arguments),
        Value::String(text) => from_text(&text),
        Value::Null => Some(Map::new()),
        _ => None,
    }
}

/// Arguments of a call in a text: an object, or null or nothing for none.
pub fn from_text(text: &str) -> Option<Map<String, Value>> {
    match text.trim() {
        "" | "null" | "None" => Some(Map::new()),
        text => literal::object(text),
    }
}

/// Value of the argument `key` of the function `called` that is written without quotes. A text stays
/// a text, unless the tool's schema allows none; the text `null` is null where the schema names null.
pub fn typed(text: &str, called: &str, key: &str, tools: &[Value]) -> Value {
    let tool = tools.iter().find(|tool| name(tool) == Some(called));
    let root = tool.map_or(&Value::Null, |tool| &function(tool)["parameters"]);
    let schema = argument(root, key);
    let (kinds, as_text) = (kinds(root, &schema), Value::String(text.to_owned()));
    let trimmed = text.trim();
    // A text is the only way to write null.
    if trimmed == "null" && kinds != Kinds::ALL && kinds.has(Kinds::NULL) {
        return Value::Null;
    }
    if admits(root, &schema, &as_text) {
        return as_text;
    }
    match literal::value(trimmed)
        .map(|value| if kinds.has(Kinds::FRACTION) { value } else { whole(value) })
    {
        Some(value) if admits(root, &schema, &value) || !kinds.has(Kinds::STRING) => value,
        _ => as_text,
    }
}

/// Schema of the argument `key` in the schema of all arguments.
fn argument(root: &Value, key: &str) -> Value {
    let mut all = Vec::new();
    let mut open = vec![root];
    for _ in 0..MAX_PARTS {
        let Some(schema) = open.pop() else { break };
        let list = |keyword: &str| schema[keyword].as_array().into_iter().flatten();
        all.extend(property(schema, key).cloned());
        open.extend(list("allOf"));
        for keyword in ["anyOf", "oneOf"] {
            let each = list(keyword).filter_map(|part| property(follow(root, part), key));
            let each: Vec<Value> = each.cloned().collect();
            all.extend((!each.is_empty()).then(|| json!({"anyOf": each})));
        }
        let reference = schema["$ref"].as_str();
        open.extend(reference.and_then(|name| resolve(root, name)).map(|(_, target)| target));
    }
    json!({"allOf": all})
}

fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let rest = || schema.get("additionalProperties").filter(|rest| rest.is_object());
    schema["properties"].get(key).or_else(rest)
}

/// Number without a fraction as a whole number.
fn whole(value: Value) -> Value {
    match value.as_f64().filter(|n| value.is_f64() && n.fract() == 0.0 && n.abs() < 1e15) {
        Some(n) => json!(n as i64),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_of_the_type_that_its_schema_states() {
        let reference = json!({"$ref": "#/$defs/code"});
        for (schema, text, value) in [
            (json!({"type": "string"}), "12345", json!("12345")),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), "12345", json!("12345")),
            (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), "null", Value::Null),
            (json!({"type": ["string", "null"]}), "true", json!("true")),
            (json!({"type": "string", "nullable": true}), "null", Value::Null),
            (json!({"type": "string"}), "null", json!("null")),
            (json!({}), "5", json!("5")),
            (json!({}), "null", json!("null")),
            (json!({"description": "anything"}), "[1]", json!("[1]")),
            (reference.clone(), "007", json!("007")),
            (json!({"allOf": [reference], "default": "1"}), "1", json!("1")),
            (json!({"oneOf": [{"type": "integer"}, {"const": "auto"}]}), "5", json!(5)),
            (json!({"oneOf": [{"type": "integer"}, {"const": "auto"}]}), "auto", json!("auto")),
            (json!({"enum": [1, 2, "3"]}), "2", json!(2)),
            (json!({"enum": [1, 2, "3"]}), "3", json!("3")),
            (json!({"enum": ["1", "2"]}), "1", json!("1")),
            (json!({"const": 7}), "7", json!(7)),
            (json!({"type": "integer"}), "5.0", json!(5)),
            (json!({"type": ["integer", "null"]}), "null", Value::Null),
            (json!({"type": "number"}), "5.0", json!(5.0)),
            (json!({"type": "boolean"}), "True", json!(true)),
            (
                json!({"anyOf": [{"type": "array", "items": {}}, {"type": "null"}]}),
                "[1]",
                json!([1]),
            ),
            (json!({"type": "object"}), "{\"a\": 1}", json!({"a": 1})),
            (json!({"type": "integer"}), "many", json!("many")),
        ] {
            let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {
                "type": "object", "properties": {"a": schema},
                "$defs": {"code": {"type": "string"}}}}})];
            assert_eq!(typed(text, "f", "a", &tools), value, "{schema} {text}");
            assert_eq!(typed(text, "f", "b", &tools), json!(text));
            assert_eq!(typed(text, "g", "a", &tools), json!(text));
        }
        let apart = json!({"name": "f", "parameters": {"allOf": [{"$ref": "#/$defs/x"}],
            "$defs": {"x": {"properties": {"a": {"type": "integer"}}}}}});
        assert_eq!(typed("1", "f", "a", &[apart]), json!(1));
        let map = json!({"name": "f", "parameters": {"additionalProperties": {"type": "integer"}}});
        assert_eq!(typed("1", "f", "a", &[map]), json!(1));
    }

    #[test]
    fn arguments_are_an_object_its_text_or_none() {
        for arguments in [json!(null), json!({}), json!(""), json!(" null\n"), json!("{}")] {
            assert_eq!(object(arguments.clone()), Some(Map::new()), "{arguments}");
        }
        assert_eq!(object(json!("{\"a\": 1}")).map(Value::from), Some(json!({"a": 1})));
        for arguments in [json!(1), json!([]), json!("a"), json!("[1]")] {
            assert_eq!(object(arguments), None);
        }
    }
}
