//! Import of GGUF files: what a model's one file holds becomes a directory that MLX loads.
//!
//! The data goes one way: `read` → `architecture` and `model` (names and dimensions) → `weights`,
//! `job` and `tokenizer` → `import` → `convert`. Nothing here reads the environment, prints, or exits.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod affine;
mod architecture;
mod convert;
mod dequant;
mod dtype;
mod grid;
mod import;
mod job;
mod model;
mod read;
mod rope;
mod tokenizer;
mod value;
mod weights;

pub use convert::{Examine, Way, convert, unpack};
pub use dequant::dequantize;
pub use dtype::Type;
pub use import::{Import, Source};
pub use mlxk_core::Float;
pub use read::{Gguf, Tensor};
pub use tokenizer::tokenizer;
pub use value::{Array, Value};
pub use weights::Packed;
