//! Rotary position embedding of the last elements of heads.

use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, split_at_indices};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::ops::rope::Rope;

/// Rotary position embedding of the last `rotated` elements of heads.
pub struct PartialRope {
    /// Rotary position embedding.
    pub rope: Rope,
    /// Elements that are rotated.
    pub rotated: i32,
}

impl PartialRope {
    /// Rotates `x` [1, heads, length, size], whose first row is at position `offset`.
    pub fn apply(&self, x: &Array, offset: i32) -> Result<Array> {
        let parts = split_at_indices(x, &[x.dim(-1) - self.rotated], -1)?;
        let turned = self.rope.apply(&parts[1].as_dtype(Dtype::Float32)?, offset)?;
        concatenate(&[&parts[0], &turned.as_dtype(x.dtype())?], -1)
    }
}
