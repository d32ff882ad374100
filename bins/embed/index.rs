//! Records of an index: a line with a vector, as `mlxk-embed` writes them.

use std::fmt;

use mlxk_core::{Error, Record, Result};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::encoding::{Encoding, without_vector};

/// A record and its vector.
pub struct Indexed {
    /// The record, without the fields of the vector.
    pub record: Record,
    /// The vector.
    pub vector: Vec<f32>,
    /// File and line of the record.
    pub place: String,
}

/// The record of `line` at `place`.
///
/// # Errors
/// If the line is no record with a vector, or the vector is not as its encoding says, or not finite.
pub fn indexed(line: &str, place: &str) -> Result<Indexed> {
    let missing = || {
        Error::validation("a record without `embedding`")
            .hint("mlxk-embed MODEL FILE > INDEX writes records with it")
    };
    let parsed: Parsed = match serde_json::from_str(line) {
        Ok(parsed) => parsed,
        Err(_) => {
            Record::parse(line)?;
            return Err(missing());
        }
    };
    let embedding = parsed.embedding.filter(|raw| raw.get() != "null").ok_or_else(missing)?;
    let vector = Encoding::read(&parsed.fields, embedding)?;
    match vector.iter().all(|x| x.is_finite()) {
        true => {
            let record = without_vector(parsed.fields);
            Ok(Indexed { record, vector, place: place.to_owned() })
        }
        false => Err(Error::validation("`embedding` has numbers that are not finite")),
    }
}

/// A record whose vector is left as it is written: as a value, it would need many times the memory.
struct Parsed<'a> {
    fields: Map<String, Value>,
    embedding: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Parsed<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Parsed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(
        self,
        mut entries: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let mut parsed = Parsed { fields: Map::new(), embedding: None };
        while let Some(key) = entries.next_key::<String>()? {
            match key.as_str() {
                "embedding" => parsed.embedding = Some(entries.next_value()?),
                _ => {
                    parsed.fields.insert(key, entries.next_value()?);
                }
            }
        }
        Ok(parsed)
    }
}
