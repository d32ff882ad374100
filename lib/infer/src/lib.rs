//! How a model runs: the only crate that links MLX.

mod cache;
pub mod cpu;
mod decode;
mod load;
mod matrix;
mod mlx;
mod models;
mod nn;
mod quantization;
mod rope;
mod sample;
mod weights;

pub use decode::{Model, Tokens};
pub use load::load;
pub use sample::Sampling;
