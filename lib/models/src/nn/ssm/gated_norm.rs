//! Gated RMS norm of a recurrent layer's output.

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
    /// Loads the layer `name` of `w`, which has `weights` weights, for groups of `group` elements.
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

    /// Output of the shape of `x` and `gate`, [1, rows, groups * group].
    pub fn forward(&self, x: &Array, gate: &Array) -> Result<Array> {
        self.ops.gated_norm(&self.op, x, gate)
    }
}
