//! Records: JSON objects, one per line, which the programs exchange through pipes.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::printable::is_printable;
use crate::spec::Spec;

/// A JSON object whose fields keep their order; unknown fields are kept unchanged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(Map<String, Value>);

impl Record {
    /// Parses a line of input: a JSON object, or the plain name of a model.
    ///
    /// # Errors
    /// If the line begins with a brace and is not a JSON object.
    pub fn parse(line: &str) -> Result<Record> {
        let line = line.trim();
        if line.starts_with('{') {
            return match serde_json::from_str(line) {
                Ok(Value::Object(fields)) => Ok(Record(fields)),
                Ok(_) => unreachable!("a JSON text that starts with a brace is an object"),
                Err(e) => Err(malformed(&e)),
            };
        }
        Ok(Record::default().with("name", line))
    }

    /// The field `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The field `key` if it is a string.
    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// Sets the field `key`; an existing field keeps its place.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Record {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Sets every field of `other`.
    pub fn merge(mut self, other: Record) -> Record {
        self.0.extend(other.0);
        self
    }

    /// The fields in order.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The model that the record names by `name` and, if present, `hash`.
    ///
    /// A record with a `hash` field comes from a listing, so its name is exact; a plain name was typed
    /// and may be short.
    ///
    /// # Errors
    /// If the record has no `name`, or the name is malformed.
    pub fn spec(&self) -> Result<Spec> {
        let name = self.str("name").ok_or_else(|| {
            Error::validation("a record without a `name`")
                .hint("a record names its model: {\"name\": \"org/model\"}")
        })?;
        match self.get("hash") {
            None => Spec::parse(name),
            Some(hash) => Spec::exact(name, hash.as_str()),
        }
    }
}

/// The error for a malformed line; the position is a column, since the input is one line.
fn malformed(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
    Error::validation(format!("not a JSON record: {what}, column {}", error.column()))
}

impl From<Map<String, Value>> for Record {
    fn from(fields: Map<String, Value>) -> Self {
        Record(fields)
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Self {
        Value::Object(record.0)
    }
}

/// Writes the record as one line of JSON, without a newline. Characters that a terminal would obey
/// are escaped.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        let mut rest = line.as_str();
        // Those that are left in JSON text are in strings, and of one UTF-16 unit each.
        while let Some(at) = rest.find(|c| !is_printable(c)) {
            let (before, from) = rest.split_at(at);
            let mut after = from.chars();
            let code = after.next().map_or(0, u32::from);
            write!(f, "{before}\\u{code:04x}")?;
            rest = after.as_str();
        }
        f.write_str(rest)
    }
}
