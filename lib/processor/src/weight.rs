//! Approximate sizes in memory of what requests bring.

use serde_json::Value;

/// Size of a name in an object, without its text, in bytes.
const NAME: usize = 48;

/// Approximate size of a JSON value in memory, in bytes.
pub fn weight(value: &Value) -> usize {
    let below: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => weights(items),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| NAME + name.len() + weight(value)).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + below
}

/// Approximate size of JSON values in memory, in bytes.
pub fn weights<'a>(values: impl IntoIterator<Item = &'a Value>) -> usize {
    values.into_iter().map(weight).sum()
}
