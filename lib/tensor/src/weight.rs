//! The weights of a matrix: dense, or quantised.

use mlx_rs::Array;
use mlxk_core::quantization::Mode;

/// Weights of a matrix, or of several in one array.
pub enum Weights {
    /// As they are, [.., outs, ins].
    Dense(Array),
    /// Packed a few bits each.
    Packed(Packed),
}

/// Weights packed `bits` at a time, with a scale for each `group_size` of a row.
pub struct Packed {
    /// [.., outs, ins * bits / 32].
    pub weight: Array,
    /// [.., outs, ins / group_size].
    pub scales: Array,
    /// As many as scales, if the packing has them.
    pub biases: Option<Array>,
    pub group_size: i32,
    pub bits: i32,
    pub packing: Mode,
}
