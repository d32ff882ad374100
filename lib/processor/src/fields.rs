//! The fields of a request, read as what they have to be.

use mlxk_core::{Error, Kind, Record, Result};
use serde_json::{Map, Value};

/// The fields of a record; one that is null is not there.
pub struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// Those of `record`.
    pub fn of(record: &'a Record) -> Fields<'a> {
        Fields(record.fields())
    }

    /// Whatever `name` is, if it is there.
    pub fn present(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// What `read` makes of `name`; errors that it is not `what` if that is nothing.
    pub fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let value = self.present(name);
        value.map(|value| read(value).ok_or_else(|| wrong(name, what))).transpose()
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.read(name, "a text", Value::as_str)
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<Option<f32>> {
        self.read(name, "a number", |value| value.as_f64().map(|value| value as f32))
    }

    /// A number without a sign and a fraction.
    pub fn whole(&self, name: &str) -> Result<Option<u64>> {
        self.read(name, "a whole number from 0", Value::as_u64)
    }

    /// The same, where those that are too large for it are as good as the largest.
    pub fn count(&self, name: &str) -> Result<Option<u32>> {
        Ok(self.whole(name)?.map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
    }
}

/// That the field is not what it has to be.
pub fn wrong(field: &str, what: &str) -> Error {
    invalid(&format!("`{field}` is not {what}"))
}

/// That a request means nothing.
pub fn invalid(message: &str) -> Error {
    Error::new(Kind::Validation, "", message)
}
