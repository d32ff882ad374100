//! A record: one JSON object on one line, the form in which the programs speak to one another.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};
use crate::spec::Spec;

/// An object whose fields keep their order; fields that nobody here knows pass through untouched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(Map<String, Value>);

impl Record {
    /// A line of input: a JSON object, or else the bare name of a model.
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

    /// The same record with `key` set, in place if it was there.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Record {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// The same record with every field of `other` set.
    pub fn merge(mut self, other: Record) -> Record {
        self.0.extend(other.0);
        self
    }

    /// All fields, in order.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Which model the record speaks of: `name`, and `hash` when it has one.
    ///
    /// A record that carries a `hash` field came from a listing and names its model exactly; a bare
    /// name is what a person types, and may be short.
    pub fn spec(&self) -> Result<Spec> {
        let name = self.str("name").ok_or_else(|| {
            Error::new(Kind::Validation, "", "a record without a `name`")
                .hint("a record names its model: {\"name\": \"org/model\"}")
        })?;
        match self.get("hash") {
            None => Spec::parse(name),
            Some(hash) => Spec::exact(name, hash.as_str()),
        }
    }
}

/// What is wrong with a line; it is one line, so a column says where.
fn malformed(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
    let message = format!("not a JSON record: {what}, column {}", error.column());
    Error::new(Kind::Validation, "", message)
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

/// The record on one line, without the newline.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        f.write_str(&line)
    }
}
