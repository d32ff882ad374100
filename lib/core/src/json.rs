//! The small JSON files of a model, parsed field by field on demand.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A file that should hold a JSON object.
#[derive(Debug, Default)]
pub enum Document {
    /// The file does not exist.
    #[default]
    Absent,
    /// The file cannot be read, with the reason.
    Unreadable(String),
    /// The file is not JSON, with the reason and position.
    Invalid(String),
    /// The file is JSON of another type, which is named: "a list", "a number".
    NotObject(&'static str),
    /// The file holds a JSON object.
    Object(Object),
}

impl Document {
    /// Parses the text of a file.
    ///
    /// `NaN` and `Infinity`, which Python writes and published models contain, become null.
    pub fn parse(text: &[u8]) -> Document {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        match serde_json::from_slice(text) {
            Ok(object) => Document::Object(object),
            Err(error) => match serde_json::from_slice(&without_infinities(text)) {
                Ok(object) => Document::Object(object),
                Err(_) => Document::refused(text, &error),
            },
        }
    }

    fn refused(text: &[u8], error: &serde_json::Error) -> Document {
        match kind(text) {
            kind if error.is_data() && kind != "an object" => Document::NotObject(kind),
            _ => Document::Invalid(error.to_string()),
        }
    }

    /// The object; none if the file does not exist.
    ///
    /// # Errors
    /// If the file is not an object; the message continues a sentence that begins with its name.
    pub fn checked(&self) -> Result<Option<&Object>, String> {
        match self {
            Document::Absent => Ok(None),
            Document::Unreadable(reason) => Err(format!("cannot be read: {reason}")),
            Document::Invalid(reason) => Err(format!("contains invalid JSON: {reason}")),
            Document::NotObject(kind) => Err(format!("is empty or invalid: {kind}, not an object")),
            Document::Object(object) => Ok(Some(object)),
        }
    }

    /// The object, if the file holds one.
    pub fn object(&self) -> Option<&Object> {
        match self {
            Document::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The field `key` of the object; none if the object or the field is absent.
    pub fn get(&self, key: &str) -> Option<Value> {
        self.object().and_then(|object| object.get(key))
    }

    /// The field `key` of the object if it is a string.
    pub fn str(&self, key: &str) -> Option<String> {
        match self.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// True if the file exists.
    pub fn exists(&self) -> bool {
        !matches!(self, Document::Absent)
    }
}

/// The fields of an object in order, unparsed: most are never read, and the configuration of a
/// tokenizer can be large.
#[derive(Debug, Default)]
pub struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// The field `key`, the last one if it is repeated; none if it is absent, or if a number in it is
    /// out of range or its nesting too deep.
    pub fn get(&self, key: &str) -> Option<Value> {
        serde_json::from_str(self.text(key)?).ok()
    }

    /// The JSON text of the field `key`.
    pub fn text(&self, key: &str) -> Option<&str> {
        let (_, raw) = self.0.iter().rev().find(|(name, _)| name == key)?;
        Some(raw.get())
    }

    /// The whole object as the type `T`, such as [`Value`].
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&serde_json::to_string(self)?)
    }

    /// True if the object has no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, raw)| (key, raw)))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The type of a JSON text, judged by its first character.
fn kind(text: &[u8]) -> &'static str {
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a truth value",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The text with null in the place of `NaN`, `Infinity` and `-Infinity`, which are not JSON.
fn without_infinities(text: &[u8]) -> Vec<u8> {
    const NAMES: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut clean = Vec::with_capacity(text.len());
    let (mut at, mut quoted) = (0, false);
    while let Some(&byte) = text.get(at) {
        let rest = &text[at..];
        if let Some(name) = NAMES.iter().find(|name| !quoted && rest.starts_with(name)) {
            clean.extend(b"null");
            at += name.len();
            continue;
        }
        // An escaped quote does not end a string, so the byte after a backslash is skipped.
        let taken = if quoted && byte == b'\\' { rest.len().min(2) } else { 1 };
        quoted ^= byte == b'"';
        clean.extend(&rest[..taken]);
        at += taken;
    }
    clean
}
