//! Depthwise causal convolution over tokens.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::ops::{Ops, conv1d};

use crate::checkpoint::cursor::Cursor;

/// Depthwise causal convolution.
pub struct Conv1d {
    op: conv1d::Conv1d,
    ops: &'static dyn Ops,
}

impl Conv1d {
    /// Loads the layer `name` of `w`, with weights [channels, taps, 1]; SiLU follows if `silu`.
    ///
    /// # Errors
    /// If there are fewer than two taps, or the weights are missing or of another shape.
    pub fn load(
        w: &mut Cursor,
        name: &str,
        channels: usize,
        taps: usize,
        silu: bool,
    ) -> mlxk_core::Result<Conv1d> {
        let mut w = w.at(name);
        if taps < 2 {
            return Err(w.invalid("weight", format!("expected 2 taps or more, not {taps}")));
        }
        let weight = w.floats("weight", &[channels, taps, 1])?;
        let bias = w.optional("bias", &[channels])?;
        Ok(Conv1d { op: conv1d::Conv1d { weight, bias, silu }, ops: w.ops() })
    }

    /// Output [1, rows, channels] for `x` of that shape; `tail` [1, taps - 1, channels] holds the
    /// rows before `x`, and is updated.
    pub fn forward(&self, x: &Array, tail: &mut Option<Array>) -> Result<Array> {
        self.ops.conv1d(&self.op, x, tail)
    }
}
