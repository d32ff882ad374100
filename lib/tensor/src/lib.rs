//! Arrays: what MLX leaves to its user, the operations of layers for CPU and GPU, kv caches, and
//! quantised weights. With the crates above it, the only one that links MLX.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

pub mod affine;
pub mod array;
pub mod cache;
pub mod collective;
pub mod cpu;
pub mod floats;
pub mod mlx;
pub mod ops;
pub mod positions;
pub mod quantized;
pub mod weight;
