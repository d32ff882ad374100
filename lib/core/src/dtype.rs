//! The floating-point types of unquantized weights.

use std::str::FromStr;

use crate::tensors::Dtype;

/// The floating-point type of unquantized weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each variant is named after its type
pub enum Float {
    F16,
    BF16,
    F32,
}

impl Float {
    /// The names that users type; `from_str` also reads the names of `config.json`.
    pub const NAMES: [&str; 3] = ["f16", "bf16", "f32"];

    /// The type in a safetensors header.
    pub fn dtype(self) -> Dtype {
        match self {
            Float::F16 => Dtype::F16,
            Float::BF16 => Dtype::BF16,
            Float::F32 => Dtype::F32,
        }
    }

    /// The size of one number in bytes.
    pub fn bytes(self) -> usize {
        self.dtype().bitsize() / 8
    }

    /// The name in `config.json`: the one of PyTorch.
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
