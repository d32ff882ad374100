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
    /// Codes as 32-bit words, [.., outs, ins * bits / 32].
    pub weight: Array,
    /// Scales of the groups, [.., outs, ins / group_size].
    pub scales: Array,
    /// Biases of the groups, of the shape of the scales; `Some` in affine mode only.
    pub biases: Option<Array>,
    /// Consecutive weights of a row that share a scale.
    pub group_size: i32,
    /// Bits of a code.
    pub bits: i32,
    /// Quantisation mode, which says what the codes and scales are.
    pub mode: Mode,
}
