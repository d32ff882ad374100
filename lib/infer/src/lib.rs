//! How a model runs: the only crate that links MLX.

mod attention;
mod cache;
mod cpu;
mod decode;
mod eager;
mod kernels;
mod load;
mod matrix;
mod memory;
mod mlx;
mod models;
mod nn;
mod quantization;
mod rope;
mod sample;
mod weights;

pub use decode::{Model, Tokens};
pub use load::load;
pub use memory::estimate;
pub use mlx::on_cpu;
pub use sample::Sampling;
