//! Multi-head attention of rows to vectors that are all there: those of an encoder, or the rows
//! themselves.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::matmul;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams, Mask};

use super::linear::Linear;
use crate::checkpoint::cursor::Cursor;

/// Attention layer without a cache and without positions.
pub struct CrossAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    head_dim: i32,
    params: AttentionParams,
    ops: &'static dyn Ops,
}

impl CrossAttention {
    /// Loads the layer at `w`, with `heads` heads that divide `hidden` elements.
    pub fn load(w: &mut Cursor, hidden: usize, heads: usize) -> mlxk_core::Result<CrossAttention> {
        let mut linear = |name| Linear::load(w, name, hidden, hidden);
        let head_dim = hidden / heads;
        let scale = (head_dim as f32).sqrt().recip();
        Ok(CrossAttention {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            o_proj: linear("o_proj")?,
            head_dim: head_dim as i32,
            params: AttentionParams { scale, softcap: None, sinks: None, bias: None },
            ops: w.ops(),
        })
    }

    /// Keys and values, [1, heads, n, head size], of the vectors `x` [1, n, hidden].
    pub fn keys_values(&self, x: &Array) -> Result<[Array; 2]> {
        let keys = self.heads(&self.k_proj.forward(x)?)?;
        Ok([keys, self.heads(&self.v_proj.forward(x)?)?])
    }

    /// Queries [1, rows, hidden] of `x` of that shape.
    pub fn queries(&self, x: &Array) -> Result<Array> {
        self.q_proj.forward(x)
    }

    /// Mean of the values, weighted by attention, for `queries` [1, rows, hidden]; of that shape.
    pub fn mix(&self, queries: &Array, [keys, values]: &[Array; 2], mask: &Mask) -> Result<Array> {
        self.ops.attend(&self.heads(queries)?, [keys, values], mask, &self.params)
    }

    /// Output [1, rows, hidden] of the layer for what [`mix`](Self::mix) returned.
    pub fn output(&self, mixed: &Array) -> Result<Array> {
        self.o_proj.forward(mixed)
    }

    /// Scores [1, rows, n] of `queries` [1, rows, hidden] and the keys [1, heads, n, head size] in
    /// head number `head`, before the softmax.
    pub fn scores(&self, queries: &Array, keys: &Array, head: usize) -> Result<Array> {
        let one =
            |heads: &Array| -> Result<Array> { heads.take_axis(Array::from_int(head as i32), 1) };
        let (queries, keys) = (one(&self.heads(queries)?)?, one(keys)?);
        let products = matmul(&queries, &keys.transpose_axes(&[0, 2, 1])?)?;
        products.multiply(mlx::number(self.params.scale, &products)?)
    }

    /// Splits [1, rows, hidden] into heads [1, heads, rows, head size].
    fn heads(&self, x: &Array) -> Result<Array> {
        let heads =
            HeadsParams { size: self.head_dim, norm: None, rotated_first: false, rope: None };
        self.ops.split_heads(x, &heads)
    }
}
