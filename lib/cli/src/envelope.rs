//! The JSON envelope of `--json`: `{status, command, data, error}`, the layout that scripts rely on.
//!
//! The indent is two spaces, characters beyond ASCII are escaped, and all four keys are present.

use mlxk_core::{Error, Kind};
use serde_json::{Value, json};

/// The envelope of a success.
pub fn success(command: &str, data: Value) -> String {
    text(&json!({"status": "success", "command": command, "data": data, "error": null}))
}

/// The envelope of a failure, whose `error` has the type `kind`; `data` may be null. `command` is null
/// if the command line itself was wrong.
pub fn failure(command: Option<&str>, data: Value, error: &Error, kind: &str) -> String {
    let error = object(error, kind);
    text(&json!({"status": "error", "command": command, "data": data, "error": error}))
}

/// The `data` of a run that has several: those of the first, with all of them in `results`.
pub fn joined(mut all: Vec<Value>) -> Value {
    match all.len() {
        0 => Value::Null,
        1 => all.remove(0),
        _ => {
            let mut data = all[0].clone();
            data["results"] = all.into();
            data
        }
    }
}

/// The error object: `type`, `message`, and details that help to resolve the error.
fn object(error: &Error, kind: &str) -> Value {
    let mut object = json!({"type": kind, "message": error.to_string()});
    if let Some(hint) = &error.hint {
        object["hint"] = json!(hint);
    }
    if !error.matches.is_empty() {
        let key = match error.kind {
            Kind::HashNotFound => "available_hashes",
            _ => "matches",
        };
        object[key] = json!(error.matches);
    }
    object
}

fn text(value: &Value) -> String {
    let mut out = String::new();
    for c in format!("{value:#}\n").chars() {
        match c {
            '\n' | ' '..='~' => out.push(c),
            // A character beyond ASCII occurs only in a string, where it may be escaped.
            c => {
                out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")))
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_beyond_ascii_is_escaped_and_read_back() {
        let data = json!({"name": "é\u{7f}😀\"\n", "empty": [], "none": {}});
        let text = success("list", data.clone());
        assert!(text.is_ascii());
        assert!(text.contains(r#""name": "\u00e9\u007f\ud83d\ude00\"\n""#), "{text}");
        assert!(text.contains("    \"empty\": [],\n"), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["data"], data);
    }

    #[test]
    fn several_results_are_one_document() {
        let (a, b) = (json!({"model": "a"}), json!({"model": "b"}));
        assert_eq!(joined(vec![a.clone()]), a);
        assert_eq!(joined(vec![a.clone(), b.clone()]), json!({"model": "a", "results": [a, b]}));
    }
}
