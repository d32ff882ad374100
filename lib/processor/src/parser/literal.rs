//! Literals in tool calls: JSON, Python's, and Gemma's, whose keys have no quotes and whose strings
//! have markers of their own.

use serde_json::{Map, Number, Value};

/// Markers before and after a string without escapes.
const RAW: [&str; 2] = ["<|\"|>", "<escape>"];

/// Maximum depth of nested values.
const MAX_DEPTH: usize = 64;

/// Value of a whole text; none if it is not a literal.
pub fn value(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let mut parser = LiteralParser { rest: text, depth: 0 };
    let value = parser.value()?;
    parser.skip();
    parser.rest.is_empty().then_some(value)
}

/// Names and arguments of Python calls `[name(key=value, ...), ...]`, or of one call without
/// brackets.
pub fn python_calls(text: &str) -> Option<Vec<(String, Map<String, Value>)>> {
    let mut parser = LiteralParser { rest: text, depth: 0 };
    let listed = parser.take("[");
    let mut calls = Vec::new();
    loop {
        let name = parser.name()?.to_owned();
        parser.take("(").then_some(())?;
        let arguments = parser.pairs("=", ")")?;
        calls.push((name, arguments));
        if !parser.take(",") {
            break;
        }
    }
    let closed = !listed || parser.take("]");
    parser.skip();
    (closed && parser.rest.is_empty()).then_some(calls)
}

/// Object of a whole text, such as the arguments `{key:value,...}` of Gemma's calls.
pub fn object(text: &str) -> Option<Map<String, Value>> {
    match value(text)? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

struct LiteralParser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> LiteralParser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Reads a name of letters, digits, `_`, `-`, `.` and `$`.
    fn name(&mut self) -> Option<&'a str> {
        self.skip();
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
        let end = self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn value(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.skip();
        let value = match self.rest.chars().next()? {
            '{' => {
                self.take("{");
                self.pairs(":", "}").map(Value::Object)
            }
            '[' => {
                self.take("[");
                self.list("]")
            }
            '(' => {
                self.take("(");
                self.list(")")
            }
            _ => match self.text() {
                Some(text) => Some(Value::String(text)),
                None => self.word(),
            },
        };
        self.depth -= 1;
        value
    }

    fn list(&mut self, end: &str) -> Option<Value> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.value()?);
            if !self.take(",") {
                self.take(end).then_some(())?;
                break;
            }
        }
        Some(Value::Array(items))
    }

    /// Reads pairs up to `end`, with `sign` between key and value.
    fn pairs(&mut self, sign: &str, end: &str) -> Option<Map<String, Value>> {
        let mut fields = Map::new();
        while !self.take(end) {
            let key = match self.text() {
                Some(key) => key,
                None => self.name()?.to_owned(),
            };
            self.take(sign).then_some(())?;
            fields.insert(key, self.value()?);
            if !self.take(",") {
                self.take(end).then_some(())?;
                break;
            }
        }
        Some(fields)
    }

    /// Reads a string between markers or quotes.
    fn text(&mut self) -> Option<String> {
        self.skip();
        for marker in RAW {
            if let Some(rest) = self.rest.strip_prefix(marker) {
                let (text, rest) = rest.split_once(marker)?;
                self.rest = rest;
                return Some(text.to_owned());
            }
        }
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let mut text = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Some(text);
                }
                '\\' => text.push(escaped(&mut chars)?),
                c => text.push(c),
            }
        }
        None
    }

    /// Reads a number, a boolean or null.
    fn word(&mut self) -> Option<Value> {
        let end = self.rest.find([',', '}', ']', ')', ':', '\n', ' ']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let value = match word {
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            "null" | "None" => Value::Null,
            word => Value::Number(word.parse::<Number>().ok()?),
        };
        self.rest = rest;
        Some(value)
    }
}

/// Character of an escape sequence, after its backslash.
fn escaped(chars: &mut std::str::CharIndices) -> Option<char> {
    let (_, c) = chars.next()?;
    let mut code = |digits: usize| {
        let digits: String = chars.take(digits).map(|(_, c)| c).collect();
        u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32)
    };
    match c {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'x' => code(2),
        'u' => code(4),
        'U' => code(8),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_literals_of_json_python_and_gemma_are_values() {
        for (text, known) in [
            ("{\"a\": [1, 2.5, null]}", json!({"a": [1, 2.5, null]})),
            ("{'a': 'it\\'s', \"b\": (True, None), }", json!({"a": "it's", "b": [true, null]})),
            (
                "{a:<|\"|>x \"y\" {}<|\"|>,b:{c:-1e3},d:[]}",
                json!({"a": "x \"y\" {}", "b": {"c": -1e3}, "d": []}),
            ),
            ("{k:<escape>é,}<escape>,n:2}", json!({"k": "é,}", "n": 2})),
            ("'\\n\\u00e9\\x41'", json!("\né\u{41}")),
        ] {
            assert_eq!(value(text), Some(known), "{text}");
        }
        for text in ["", "a", "{a", "[1", "'x", "1 2", "{a:}", "\\", "'\\u12", "<escape>"] {
            assert_eq!(value(text), None, "{text}");
        }
        assert_eq!(value(&"[".repeat(100_000)), None);
    }

    #[test]
    fn calls_of_python_functions_are_names_and_arguments() {
        let calls = python_calls("[f(a='x', b=[1]), g.h()]").unwrap();
        assert_eq!(calls[0].0, "f");
        assert_eq!(json!(calls[0].1), json!({"a": "x", "b": [1]}));
        assert_eq!((calls[1].0.as_str(), calls[1].1.len()), ("g.h", 0));
        assert_eq!(python_calls("f(x=1)").unwrap().len(), 1);
        assert!(python_calls("f(1)").is_none() && python_calls("[f(a=1)").is_none());
    }
}
