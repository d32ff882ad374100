//! Weights of linear layers: dense, or quantised in one of MLX's modes.

use mlx_rs::Array;
use mlxk_core::quantization::Mode;

/// Weight of one linear layer, or of several layers stacked in one array.
pub enum Weight {
    /// Floating-point weights, [.., outs, ins].
    Dense(Array),
    /// Quantised weights.
    Quantized(Quantized),
}

/// Quantised weights [.., outs, ins]: codes of `bits` bits and a scale for each group of a row.
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
