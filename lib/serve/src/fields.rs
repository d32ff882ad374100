//! The fields of a body. Each is taken out by what heeds it, and what is left over is refused: no
//! wish is passed over in silence.

use mlxk_core::Record;
use serde_json::{Map, Value};

use crate::error::Refusal;

/// Values and names of a body at most: each takes many times the memory of its text. A prompt of
/// tokens that fills the windows of most models has fewer.
const MOST: usize = 300_000;

/// The fields of a body that are not heeded yet; one that is null is not there.
pub struct Fields {
    fields: Map<String, Value>,
    /// Whether what nobody heeds is passed over.
    lenient: bool,
}

impl Fields {
    /// Those of a body. Errors if it is not the JSON text of an object.
    pub fn parse(body: &[u8], lenient: bool) -> Result<Fields, Refusal> {
        if values(body) > MOST {
            return Err(Refusal::invalid(format!("the body has more than {MOST} values")));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Fields { fields, lenient }),
            Ok(_) => Err(Refusal::invalid("the body is not a JSON object")),
            Err(e) => Err(Refusal::invalid(format!("the body is not JSON: {e}"))),
        }
    }

    /// Whatever `name` is.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// What is said for `names`, which stay.
    pub fn echo(&self, names: &[&str]) -> Map<String, Value> {
        let said = names.iter().filter_map(|name| Some((*name, self.fields.get(*name)?)));
        said.filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    }

    /// What `read` makes of `name`; errors that it is not `what` if that is nothing.
    pub fn read<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let value = self.take(name);
        value.map(|value| read(&value).ok_or_else(|| Refusal::wrong(name, what))).transpose()
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.read(name, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// True or false; false if it is not there.
    pub fn truth(&mut self, name: &str) -> Result<bool, Refusal> {
        Ok(self.read(name, "true or false", Value::as_bool)?.unwrap_or_default())
    }

    /// A whole number of a range.
    pub fn whole(&mut self, name: &str, from: u64, to: u64) -> Result<Option<u64>, Refusal> {
        let what = match to {
            u64::MAX => format!("a whole number from {from}"),
            to => format!("a whole number from {from} to {to}"),
        };
        self.read(name, &what, |value| value.as_u64().filter(|n| (from..=to).contains(n)))
    }

    /// An object, as fields of its own.
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, Refusal> {
        let fields = self.read(name, "an object", |value| value.as_object().cloned())?;
        Ok(fields.map(|fields| Fields { fields, lenient: self.lenient }))
    }

    /// A list of objects, each as fields of its own; errors that it is not `what` if it is none.
    pub fn list(&mut self, name: &str, what: &str) -> Result<Option<Vec<Fields>>, Refusal> {
        let lenient = self.lenient;
        let fields = |value: &Value| Some(Fields { fields: value.as_object()?.clone(), lenient });
        self.read(name, what, |value| value.as_array()?.iter().map(fields).collect())
    }

    /// Hands `names` on as they are; what takes them checks them.
    pub fn pass(&mut self, names: &[&str], record: Record) -> Record {
        names.iter().fold(record, |record, name| match self.take(name) {
            Some(value) => record.with(name, value),
            None => record,
        })
    }

    /// Takes fields that change no answer.
    pub fn skip(&mut self, names: &[&str]) {
        for name in names {
            self.fields.shift_remove(*name);
        }
    }

    /// Takes a field whose only value that can be heeded are `these`.
    pub fn only(&mut self, name: &str, these: &[Value]) -> Result<(), Refusal> {
        match self.take(name) {
            Some(value) if !these.contains(&value) && !self.lenient => {
                let these: Vec<_> = these.iter().map(Value::to_string).collect();
                Err(Refusal::invalid(format!("`{name}`: only {} is supported", these.join(" or "))))
            }
            _ => Ok(()),
        }
    }

    /// All that is left, to be handed on.
    pub fn rest(self) -> Map<String, Value> {
        self.fields
    }

    /// Errors if a field is left, which is one `of` something.
    pub fn finish(self, of: &str) -> Result<(), Refusal> {
        let left = self.fields.iter().find(|(_, value)| !value.is_null());
        match left {
            Some((name, _)) if !self.lenient => {
                Err(Refusal::invalid(format!("`{name}` is not supported in {of}")))
            }
            _ => Ok(()),
        }
    }
}

/// How many values and names a JSON text has, as far as commas and the like outside of its texts
/// tell.
fn values(body: &[u8]) -> usize {
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
