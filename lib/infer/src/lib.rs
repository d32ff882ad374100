//! How a model runs: the only crate that links MLX.

pub mod sample;

pub use sample::Sampling;
