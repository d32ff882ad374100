//! Fields of a record, read with their types.

use mlxk_core::{Error, Kind, Record, Result};
use serde_json::{Map, Value};

/// Fields of a record. A field that is null counts as absent.
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// Fields of `record`.
    pub fn of(record: &'a Record) -> Fields<'a> {
        Fields(record.fields())
    }

    /// Value of the field `name`, if it is present.
    pub fn present(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Reads the field `name`; an error if `read` gives nothing, as the field is then not the
    /// `expected`.
    pub fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let value = self.present(name);
        value.map(|value| read(value).ok_or_else(|| wrong(name, expected))).transpose()
    }

    /// Reads a string.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.read(name, "a text", Value::as_str)
    }
}

/// Error about a field that is not the `expected`.
pub fn wrong(field: &str, expected: &str) -> Error {
    invalid(&format!("`{field}` is not {expected}"))
}

/// Error about a request that is invalid.
pub fn invalid(message: &str) -> Error {
    Error::new(Kind::Validation, "", message)
}
