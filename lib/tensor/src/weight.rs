//! The weights of a matrix: dense, or quantised.

use mlx_rs::Array;
use mlxk_core::quantization::Mode;

/// Weight of a matrix, or of several in one array.
pub enum Weight {
    /// As they are, [.., outs, ins].
    Dense(Array),
    /// Quantized a few bits each.
    Quantized(Quantized),
}

/// Weight packed `bits` at a time, with a scale for each `group_size` of a row.
pub struct Quantized {
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
