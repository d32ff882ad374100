//! Trait of encoders, which map the tokens of whole sequences to hidden states.

use mlx_rs::Array;
use mlx_rs::error::Result;

/// Encoder: every token attends to its whole sequence.
pub trait Encoder {
    /// Number of tokens in the vocabulary; ids are below this.
    fn vocabulary(&self) -> usize;

    /// Number of elements of a token's vector.
    fn hidden_size(&self) -> usize;

    /// Largest number of tokens of a sequence.
    fn max_length(&self) -> usize;

    /// Last hidden states [1, rows, hidden] of `ids` [1, rows]: sequences of `lengths` tokens, one
    /// after another.
    fn encode(&self, ids: &Array, lengths: &[usize]) -> Result<Array>;
}
