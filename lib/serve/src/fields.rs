//! Fields of a JSON body or a form. The parser of an API takes each field that it supports. Of the remaining
//! fields hints are accepted and all others refused, so that nothing that would change the answer is
//! ignored silently.

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::hints;

/// Maximum number of values and names in a body, each of which takes many times the memory of its
/// text. The limit allows a prompt of token ids as long as most context windows.
const MAX_VALUES: usize = 300_000;

/// The fields of an object that are not taken yet. A field that is null counts as absent.
pub struct Fields {
    fields: Map<String, Value>,
    /// The object's place in the body, such as `tools[1]`; empty for the body itself.
    place: String,
    /// The names of the fields that were taken, present or not.
    known: Vec<String>,
    /// True if unsupported fields and values are ignored instead of refused.
    lenient: bool,
}

impl Fields {
    /// Parses a body, which must be a JSON object of at most 300,000 values.
    pub fn parse(body: &[u8], lenient: bool) -> Result<Fields, ApiError> {
        if count_values(body) > MAX_VALUES {
            return Err(ApiError::invalid(format!("the body has more than {MAX_VALUES} values")));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields::new(fields, String::new(), lenient)),
            Ok(_) => Err(ApiError::invalid("the body is not a JSON object")),
            Err(e) => Err(ApiError::invalid(format!("the body is not JSON: {e}"))),
        }
    }

    /// The fields of a form.
    pub fn of_form(fields: Map<String, Value>, lenient: bool) -> Fields {
        Fields::new(fields, String::new(), lenient)
    }

    fn new(fields: Map<String, Value>, place: String, lenient: bool) -> Fields {
        Fields { fields, place, known: Vec::new(), lenient }
    }

    /// The place of the field `name` in the body, such as `tools[1].name`.
    pub fn place(&self, name: &str) -> String {
        match self.place.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.place),
        }
    }

    /// Takes a field of any type.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.known.push(name.to_owned());
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// The value of the field `name`, which stays.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Copies the fields `names` that are present, without taking them.
    pub fn copy(&self, names: &[&str]) -> Map<String, Value> {
        let present = names.iter().filter_map(|name| Some((*name, self.fields.get(*name)?)));
        present
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }

    /// Takes a field and parses it; an error if `parse` gives nothing, as the field is then not the
    /// `expected`.
    pub fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let invalid = || ApiError::invalid_field(&self.place(name), expected);
        parse(&value).ok_or_else(invalid).map(Some)
    }

    /// Takes a string.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.read(name, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// Takes a boolean; false if it is absent.
    pub fn boolean(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or_default())
    }

    /// Takes an integer of the range `from..=to`.
    pub fn integer(&mut self, name: &str, from: u64, to: u64) -> Result<Option<u64>, ApiError> {
        let expected = match to {
            u64::MAX => format!("a whole number from {from}"),
            to => format!("a whole number from {from} to {to}"),
        };
        self.read(name, &expected, |value| value.as_u64().filter(|n| (from..=to).contains(n)))
    }

    /// Takes an object, as fields of its own.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        let fields = self.read(name, "an object", |value| value.as_object().cloned())?;
        Ok(fields.map(|fields| Fields::new(fields, self.place(name), self.lenient)))
    }

    /// Takes an array of objects, each as fields of its own.
    pub fn objects(&mut self, name: &str) -> Result<Vec<Fields>, ApiError> {
        let values = self.read(name, "a list of objects", |value| value.as_array().cloned())?;
        let place = self.place(name);
        let values = values.unwrap_or_default().into_iter().enumerate();
        values.map(|(index, value)| self.element(value, format!("{place}[{index}]"))).collect()
    }

    /// The fields of a value at `place`, which must be an object; lenient if these are.
    pub fn element(&self, value: Value, place: String) -> Result<Fields, ApiError> {
        match value {
            Value::Object(fields) => Ok(Fields::new(fields, place, self.lenient)),
            _ => Err(ApiError::invalid_field(&place, "an object")),
        }
    }

    /// Takes fields that have no effect on the completion.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Takes a field that supports `values` only; an error for another value, unless lenient.
    pub fn only(&mut self, name: &str, values: &[Value]) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !values.contains(&value) && !self.lenient => {
                let values: Vec<_> = values.iter().map(Value::to_string).collect();
                let (place, values) = (self.place(name), values.join(" or "));
                Err(ApiError::invalid(format!("`{place}`: only {values} is supported")))
            }
            _ => Ok(()),
        }
    }

    /// Takes all fields that are left.
    pub fn rest(self) -> Map<String, Value> {
        self.fields
    }

    /// Checks that only hints are left, unless lenient.
    pub fn finish(self) -> Result<(), ApiError> {
        let unknown = |(name, value): &(&String, &Value)| !hints::is_hint(name, value);
        match self.fields.iter().find(unknown) {
            Some((name, _)) if !self.lenient => {
                let known = |other: &str| self.known.iter().any(|known| known == other);
                let hint = hints::renamed(name, known).map(|other| format!("; use `{other}`"));
                let (place, hint) = (self.place(name), hint.unwrap_or_default());
                Err(ApiError::invalid(format!("`{place}` is not supported{hint}")))
            }
            _ => Ok(()),
        }
    }
}

/// The number of values and names of a JSON text, estimated from the punctuation outside of its
/// strings.
fn count_values(body: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (0, false, false);
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'[' | b'{' | b',' | b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}
