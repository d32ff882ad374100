//! Encodings of vectors in records: numbers, or fewer bytes for the same direction.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use mlxk_core::Record;
use serde_json::Value;

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
}

/// A number with no more digits than a 32-bit float needs.
fn number(x: f32) -> Value {
    x.to_string().parse::<f64>().unwrap_or_else(|_| x.into()).into()
}
