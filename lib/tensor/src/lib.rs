//! Arrays: the parts of MLX that mlx-rs does not cover, the operations of layers with an MLX and a
//! CPU backend, caches of sequences, quantised weights, and communication between ranks. No crate
//! below this one links MLX.

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
