//! Numbers in JSON schemas, as far as a grammar holds them.

use serde_json::Value;

/// Largest whole number up to which all have a float of their own.
const MAX_EXACT: u64 = 1 << 53;

/// True if all numbers within a value are as exact as floats.
pub fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(whole), _) => whole <= MAX_EXACT,
            (None, Some(whole)) => whole.unsigned_abs() <= MAX_EXACT,
            (None, None) => true,
        },
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Whole number that is not negative, which may be written as a float.
pub fn count(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..1e15).contains(n));
    value.as_u64().or_else(|| float().map(|n| n as u64))
}
