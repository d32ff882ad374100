//! Traits of the two kinds of sublayers: token mixers and feed-forward layers.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Kv, Sequences, Slot};

use super::attention::Attention;
use super::mlp::Mlp;

/// Sublayer that combines a token with those before it: attention, convolution, or a state space.
pub trait TokenMixer {
    /// Cache slot of the sublayer before the first token of a sequence.
    fn slot(&self) -> Slot;
    /// Output [1, rows, hidden] for `x` of that shape, with the cache slot number `slot` of each
    /// sequence.
    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array>;
}

/// Sublayer that maps each token independently.
pub trait FeedForward {
    /// Output [1, rows, hidden] for `x` of that shape.
    fn forward(&self, x: &Array) -> Result<Array>;
}

/// Attention over all tokens of the sequence so far.
impl TokenMixer for Attention {
    fn slot(&self) -> Slot {
        Slot::Kv(Kv::new(None))
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        self.forward(x, sequences, slot)
    }
}

impl FeedForward for Mlp {
    fn forward(&self, x: &Array) -> Result<Array> {
        self.forward(x)
    }
}
