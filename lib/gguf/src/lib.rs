//! Import of GGUF files: one file becomes a directory that MLX loads.
//!
//! Data flows from `read` to `architecture` and `model` (names and dimensions), then to `weights`,
//! `assembly` and `tokenizer`, then to `import` and `convert`. This crate does not read the
//! environment, print, or exit.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod affine;
mod architecture;
mod assembly;
mod convert;
mod dequant;
mod dtype;
mod grid;
mod half;
mod import;
mod model;
mod read;
mod rope;
mod tokenizer;
mod value;
mod weights;

pub use convert::{Examine, ImportOptions, convert, convert_dequantized};
pub use dequant::dequantize;
pub use dtype::Type;
pub use import::{Import, Source};
pub use mlxk_core::Float;
pub use read::{Gguf, Tensor};
pub use tokenizer::tokenizer;
pub use value::{Array, Value};
pub use weights::Quantized;
