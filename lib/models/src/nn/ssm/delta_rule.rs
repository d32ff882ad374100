//! The gated delta rule (arXiv 2412.06464) with its weights.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::gated_delta::{self, Decay, DeltaSizes, rate};
use mlxk_tensor::ops::scan::wide;

use crate::checkpoint::config_error::{invalid, positive};
use crate::checkpoint::cursor::Cursor;

/// Gated delta rule, which corrects the state by what it already predicts.
pub struct GatedDelta {
    op: gated_delta::GatedDelta,
    ops: &'static dyn Ops,
}

/// Errors if no layer can have these sizes.
pub fn check(sizes: &DeltaSizes) -> mlxk_core::Result<()> {
    positive(&[
        ("linear_num_key_heads", sizes.key_heads),
        ("linear_num_value_heads", sizes.value_heads),
        ("linear_key_head_dim", sizes.key_dim),
        ("linear_value_head_dim", sizes.value_dim),
    ])?;
    match sizes.value_heads.is_multiple_of(sizes.key_heads) {
        true => Ok(()),
        false => Err(invalid(format!(
            "{} value heads cannot share {} key heads",
            sizes.value_heads, sizes.key_heads
        ))),
    }
}

impl GatedDelta {
    /// Loads the tensors `A_log` and `dt_bias` of `w`.
    ///
    /// # Errors
    /// If a tensor is missing or of another shape.
    pub fn load(w: &mut Cursor, sizes: DeltaSizes) -> mlxk_core::Result<GatedDelta> {
        let DeltaSizes { value_heads: heads, key_dim, decay, .. } = sizes;
        let (log, rates) = match decay {
            Decay::Head => (vec![heads], 1),
            Decay::Element => (vec![1, 1, heads, 1], key_dim),
            Decay::Bounded(_) => (vec![heads], key_dim),
        };
        let rate = rate(&w.floats("A_log", &log)?, rates as i32).map_err(mlx::failed)?;
        let dt_bias = wide(&w.floats("dt_bias", &[heads * rates])?).map_err(mlx::failed)?;
        Ok(GatedDelta { op: gated_delta::GatedDelta { rate, dt_bias, sizes }, ops: w.ops() })
    }

    /// Output [1, rows, value heads * value_dim] for concatenated queries, keys and values `qkv`,
    /// decay inputs `a` (as many as rates) and beta logits `b` [1, rows, value heads]. `state` is
    /// that after the tokens before, and is updated.
    pub fn forward(&self, [qkv, a, b]: [&Array; 3], state: &mut Option<Array>) -> Result<Array> {
        self.ops.gated_delta(&self.op, [qkv, a, b], state)
    }
}
