//! Gated short convolution of LFM2 (arXiv 2511.23404).

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Sequences, Slot, State};
use mlxk_tensor::ops::Ops;

use super::conv1d::Conv1d;
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mixer::TokenMixer;

/// Gated short convolution `out_proj(c * conv(b * x))`, with `b`, `c` and `x` from one projection.
pub struct ShortConv {
    in_proj: Linear,
    conv: Conv1d,
    out_proj: Linear,
    hidden: i32,
    ops: &'static dyn Ops,
}

impl ShortConv {
    /// Loads the layer at `w`, with a kernel of `taps` tokens.
    pub fn load(w: &mut Cursor, hidden: usize, taps: usize) -> mlxk_core::Result<ShortConv> {
        Ok(ShortConv {
            in_proj: Linear::load(w, "in_proj", 3 * hidden, hidden)?,
            conv: Conv1d::load(w, "conv", hidden, taps, false)?,
            out_proj: Linear::load(w, "out_proj", hidden, hidden)?,
            hidden: hidden as i32,
            ops: w.ops(),
        })
    }
}

impl TokenMixer for ShortConv {
    fn slot(&self) -> Slot {
        Slot::State(State::new(1))
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let [b, c, x] = self.ops.parts(&self.in_proj.forward(x)?, [self.hidden; 3])?;
        let y = sequences.each_state(slot, [&self.ops.multiply(&b, &x)?], |[x], state| {
            let [tail] = state.parts()?;
            self.conv.forward(x, tail)
        })?;
        self.out_proj.forward(&self.ops.multiply(&c, &y)?)
    }
}
