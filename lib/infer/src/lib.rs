//! How a model runs: the only crate that links MLX.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod activation;
mod adapt;
mod adapter;
mod admit;
mod attention;
mod batch;
pub mod bench;
mod cache;
pub mod convert;
mod cpu;
mod decode;
pub mod distributed;
mod eager;
pub mod generate;
mod kernels;
mod load;
mod matrix;
mod memory;
mod mixture;
mod mlx;
mod models;
mod nn;
mod numbers;
mod prompt_cache;
mod quantization;
mod quantized;
mod recurrent;
mod remember;
mod room;
mod rope;
pub mod sample;
mod sparse;
mod weights;
mod working;

pub use admit::{admit, admit_part};
pub use batch::Step;
pub use decode::{Model, Tokens};
pub use generate::{Runner, Source};
pub use load::{load, load_adapted, load_for};
pub use memory::estimate;
pub use mlx::on_cpu;
pub use remember::Memory;
pub use room::free as free_memory;
pub use working::Working;
