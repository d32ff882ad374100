//! Parts of a JSON schema that apply to one value, and to a property or an item of it.

use serde_json::Value;

use super::array::Items;
use super::refs::resolve;

/// Maximum number of schemas that are found to apply to one value.
const MAX_PARTS: usize = 64;

/// Schemas that may apply to a value of any of `schemas`, parts of `root`: these themselves, and
/// those that they refer to, combine or choose among.
pub fn variants<'a>(root: &'a Value, schemas: Vec<&'a Value>) -> Vec<&'a Value> {
    let mut all: Vec<&Value> = Vec::new();
    let mut open = schemas;
    while let Some(schema) = open.pop().filter(|_| all.len() < MAX_PARTS) {
        if all.iter().any(|known| std::ptr::eq(*known, schema)) {
            continue;
        }
        all.push(schema);
        for keyword in ["allOf", "anyOf", "oneOf"] {
            open.extend(schema[keyword].as_array().into_iter().flatten());
        }
        open.extend(["if", "then", "else"].iter().filter_map(|keyword| schema.get(keyword)));
        open.extend(
            schema["dependentSchemas"].as_object().into_iter().flat_map(|all| all.values()),
        );
        let reference = schema["$ref"].as_str();
        open.extend(reference.and_then(|name| resolve(root, name)).map(|(_, target)| target));
    }
    all
}

/// Schemas that `schema` states for the property `name`, and for any other.
pub fn property<'a>(schema: &'a Value, name: &str) -> Vec<&'a Value> {
    if let Some(property) = schema["properties"].get(name) {
        return vec![property];
    }
    let patterned =
        schema["patternProperties"].as_object().into_iter().flat_map(|all| all.values());
    patterned.chain(schema.get("additionalProperties")).collect()
}

/// Schema that `schema` states for the item at `place`.
pub fn items(schema: &Value, place: usize) -> Option<&Value> {
    let Items { first, rest } = Items::of(schema.as_object()?);
    first.get(place).or(rest)
}
