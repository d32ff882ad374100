//! Norm of a recurrent layer's outputs, with a gate before or behind it.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::gated_norm::{self, Order};

use crate::checkpoint::cursor::Cursor;

/// RMS norm of each group of elements, and the product with `silu(gate)`.
pub struct GatedNorm {
    op: gated_norm::GatedNorm,
    ops: &'static dyn Ops,
}

impl GatedNorm {
    /// The layer `name` of `w`, which has `weights` factors, for groups of `group` elements.
    ///
    /// # Errors
    /// If the weights are missing or of another shape.
    pub fn load(
        w: &mut Cursor,
        name: &str,
        weights: usize,
        group: usize,
        eps: f32,
        order: Order,
    ) -> mlxk_core::Result<GatedNorm> {
        let weight = w.at(name).floats("weight", &[weights])?;
        Ok(GatedNorm { op: gated_norm::GatedNorm { weight, eps, group, order }, ops: w.ops() })
    }

    /// `x` and `gate` [1, rows, groups * group] to the same shape.
    pub fn forward(&self, x: &Array, gate: &Array) -> Result<Array> {
        self.ops.gated_norm(&self.op, x, gate)
    }
}
