//! Encodings of vectors in records: numbers, or fewer bytes for the same direction.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use mlxk_core::{Error, Record, Result};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Encoding of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// Base64 of 32-bit floats, little-endian.
    Base64,
    /// A list of integers from -127 to 127, which times the field `scale` are the numbers.
    Int8,
    /// A list of integers from -128 to 127, each the signs of eight numbers, as in
    /// sentence-transformers.
    Binary,
}

impl Encoding {
    /// `record` with the field `embedding`, and those that tell how it is encoded.
    pub fn write(self, record: Record, vector: Vec<f32>) -> Record {
        match self {
            Encoding::Float => {
                // A field of that name that the record has already is not about the vector.
                let own = record.get("encoding").is_some();
                let record = if own { record.with("encoding", "float") } else { record };
                record.with("embedding", vector.into_iter().map(number).collect::<Vec<_>>())
            }
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
                record.with("encoding", "base64").with("embedding", STANDARD.encode(bytes))
            }
            Encoding::Int8 => {
                let largest = vector.iter().fold(0f32, |most, x| most.max(x.abs()));
                let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
                let integer = |x: f32| Value::from((x / scale).round() as i64);
                let integers: Vec<Value> = vector.into_iter().map(integer).collect();
                record
                    .with("encoding", "int8")
                    .with("scale", number(scale))
                    .with("embedding", integers)
            }
            Encoding::Binary => {
                let signs = |eight: &[f32]| {
                    let bit = |(place, x): (usize, &f32)| u8::from(*x > 0.0) << (7 - place);
                    let byte: u8 = eight.iter().enumerate().map(bit).sum();
                    Value::from(i64::from(byte) - 128)
                };
                let integers: Vec<Value> = vector.chunks(8).map(signs).collect();
                record.with("encoding", "binary").with("embedding", integers)
            }
        }
    }

    /// The vector that a record with `fields` has as `embedding`, encoded as `encoding` says: the numbers
    /// that it was made of, or those nearest to them, which for `binary` are 1 and -1. A number that
    /// JSON cannot hold is not finite.
    ///
    /// # Errors
    /// If the encoding is not known, or `embedding` is not in it.
    pub fn read(fields: &Map<String, Value>, embedding: &RawValue) -> Result<Vec<f32>> {
        let encoding = match fields.get("encoding") {
            None | Some(Value::Null) => Encoding::Float,
            Some(name) => named(name)?,
        };
        match encoding {
            Encoding::Float => numbers(embedding),
            Encoding::Base64 => floats(&parse::<String>(embedding, "base64")?),
            Encoding::Int8 => {
                let scale = fields.get("scale").and_then(Value::as_f64);
                let scale =
                    scale.ok_or_else(|| Error::validation("an int8 vector without `scale`"))?;
                Ok(numbers(embedding)?.into_iter().map(|x| x * scale as f32).collect())
            }
            Encoding::Binary => {
                let bytes = parse::<Vec<i8>>(embedding, "integers from -128 to 127")?;
                let sign =
                    |byte: i16, place: u8| if byte >> (7 - place) & 1 == 1 { 1.0 } else { -1.0 };
                let signs = |byte: i8| (0..8).map(move |place| sign(i16::from(byte) + 128, place));
                let mut signs: Vec<f32> = bytes.into_iter().flat_map(signs).collect();
                // The last integer may have room for more than there are.
                let count = fields.get("dimensions").and_then(Value::as_u64);
                signs.truncate(count.map_or(signs.len(), |count| count as usize));
                Ok(signs)
            }
        }
    }
}

/// The fields of a record without those that [`Encoding::write`] adds.
pub fn without_vector(mut fields: Map<String, Value>) -> Record {
    let encoding = fields.shift_remove("encoding");
    if encoding.is_some_and(|name| name == "int8") {
        fields.shift_remove("scale");
    }
    fields.shift_remove("embedding");
    fields.into()
}

/// The encoding called `name`.
fn named(name: &Value) -> Result<Encoding> {
    let known = name.as_str().and_then(|name| Encoding::from_str(name, false).ok());
    known.ok_or_else(|| {
        Error::validation(format!("`encoding` is {name}, not float, base64, int8 or binary"))
    })
}

/// A list of numbers; null, as which JSON writes a number that is not finite, is one.
fn numbers(embedding: &RawValue) -> Result<Vec<f32>> {
    let numbers = parse::<Vec<Option<f32>>>(embedding, "numbers")?;
    Ok(numbers.into_iter().map(|x| x.unwrap_or(f32::NAN)).collect())
}

fn floats(base64: &str) -> Result<Vec<f32>> {
    let bytes = STANDARD.decode(base64).ok();
    let (floats, rest) = bytes.as_deref().map(<[u8]>::as_chunks).ok_or_else(|| not("base64"))?;
    match rest.is_empty() {
        true => Ok(floats.iter().copied().map(f32::from_le_bytes).collect()),
        false => Err(not("32-bit floats in base64")),
    }
}

fn parse<T: DeserializeOwned>(embedding: &RawValue, what: &str) -> Result<T> {
    serde_json::from_str(embedding.get()).map_err(|_| not(what))
}

fn not(what: &str) -> Error {
    Error::validation(format!("`embedding` is not {what}"))
}

/// A number with no more digits than a 32-bit float needs.
pub fn number(x: f32) -> Value {
    x.to_string().parse::<f64>().unwrap_or_else(|_| x.into()).into()
}
