//! The types in which weights are written as plain numbers.

use std::str::FromStr;

use crate::tensors::Dtype;

/// A type of plain weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // named like the types
pub enum Float {
    F16,
    BF16,
    F32,
}

impl Float {
    /// The names that users give; `from_str` reads those of `config.json` too.
    pub const NAMES: [&str; 3] = ["f16", "bf16", "f32"];

    /// The name that weight files use.
    pub fn dtype(self) -> Dtype {
        match self {
            Float::F16 => Dtype::F16,
            Float::BF16 => Dtype::BF16,
            Float::F32 => Dtype::F32,
        }
    }

    /// Of one number.
    pub fn bytes(self) -> usize {
        self.dtype().bitsize() / 8
    }

    /// The name in `config.json`.
    pub fn torch(self) -> &'static str {
        match self {
            Float::F16 => "float16",
            Float::BF16 => "bfloat16",
            Float::F32 => "float32",
        }
    }
}

impl FromStr for Float {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Float, String> {
        match text {
            "f16" | "float16" => Ok(Float::F16),
            "bf16" | "bfloat16" => Ok(Float::BF16),
            "f32" | "float32" => Ok(Float::F32),
            _ => Err(format!("the types are {}", Float::NAMES.join(", "))),
        }
    }
}
