//! The two kinds of parts that layers are made of.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Kv, Sequences, Slot};

use super::attention::Attention;
use super::mlp::Mlp;

/// A part that lets each token see something of those before it.
pub trait TokenMixer {
    /// What it remembers of a text, before the first token.
    fn slot(&self) -> Slot;
    /// [1, rows, hidden] to the same, by what slot number `slot` of each text remembers.
    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array>;
}

/// A part that looks at each token by itself.
pub trait FeedForward {
    /// [1, rows, hidden] to the same.
    fn forward(&self, x: &Array) -> Result<Array>;
}

/// Over all tokens so far.
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
