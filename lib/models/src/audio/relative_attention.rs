//! Attention with relative positions (Transformer-XL, arXiv 1901.02860).

use mlx_rs::error::Result;
use mlx_rs::fast::scaled_dot_product_attention;
use mlx_rs::ops::{arange, pad, split_at_indices, stack};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::mlx;

use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Self-attention whose scores also depend on the distance from query to key.
pub struct RelativeAttention {
    linear_q: Linear,
    linear_k: Linear,
    linear_v: Linear,
    linear_out: Linear,
    /// Projection of the vectors of distances.
    linear_pos: Linear,
    /// What is added to queries before they meet keys, [heads, head size].
    pos_bias_u: Array,
    /// What is added to queries before they meet distances, [heads, head size].
    pos_bias_v: Array,
    head_dim: i32,
}

impl RelativeAttention {
    /// Loads the layer at `w`, for `heads` heads that share `hidden` elements.
    pub fn load(
        w: &mut Cursor,
        hidden: usize,
        heads: usize,
    ) -> mlxk_core::Result<RelativeAttention> {
        let head_dim = hidden / heads;
        Ok(RelativeAttention {
            linear_q: Linear::load(w, "linear_q", hidden, hidden)?,
            linear_k: Linear::load(w, "linear_k", hidden, hidden)?,
            linear_v: Linear::load(w, "linear_v", hidden, hidden)?,
            linear_out: Linear::load(w, "linear_out", hidden, hidden)?,
            linear_pos: Linear::load(w, "linear_pos", hidden, hidden)?,
            pos_bias_u: w.floats("pos_bias_u", &[heads, head_dim])?,
            pos_bias_v: w.floats("pos_bias_v", &[heads, head_dim])?,
            head_dim: head_dim as i32,
        })
    }

    /// `softmax(((q + u) k.T + shift((q + v) p.T)) / sqrt(head size)) v`: [1, rows, hidden] to the
    /// same shape. `distances` are those of [`distances`] for as many rows.
    pub fn forward(&self, x: &Array, distances: &Array) -> Result<Array> {
        let split = |x: Array| x.reshape(&[1, x.dim(1), -1, self.head_dim]);
        let heads = |x: Array| x.transpose_axes(&[0, 2, 1, 3]);
        let q = split(self.linear_q.forward(x)?)?;
        let [u, v] = [&self.pos_bias_u, &self.pos_bias_v].map(|bias| heads(q.add(bias)?));
        let k = heads(split(self.linear_k.forward(x)?)?)?;
        let values = heads(split(self.linear_v.forward(x)?)?)?;
        // [1, heads, distances, head size].
        let p = heads(split(self.linear_pos.forward(distances)?)?)?;
        let scale = (self.head_dim as f32).sqrt().recip();
        let by_distance = v?.matmul(p.transpose_axes(&[0, 1, 3, 2])?)?;
        let by_distance = shifted(by_distance)?.multiply(mlx::number(scale, x)?)?;
        let y = scaled_dot_product_attention(u?, k, values, scale, &by_distance, None)?;
        let y = y.transpose_axes(&[0, 2, 1, 3])?.contiguous()?;
        self.linear_out.forward(&y.reshape(x.shape())?)
    }
}

/// Vectors [1, 2 * rows - 1, hidden] of the distances from `rows - 1` down to `1 - rows`: sines and
/// cosines of falling frequency by turns, as those of positions in arXiv 1706.03762.
pub fn distances(rows: i32, hidden: i32, dtype: Dtype) -> Result<Array> {
    let distances = arange::<_, f32>(rows - 1, -rows, -1)?.reshape(&[-1, 1])?;
    let step = -(10_000_f32).ln() / hidden as f32;
    let frequencies = arange::<_, f32>(0, hidden, 2)?.multiply(Array::from_f32(step))?.exp()?;
    let angles = distances.multiply(frequencies)?;
    let pairs = stack(&[angles.sin()?, angles.cos()?], -1)?;
    pairs.reshape(&[1, -1, hidden])?.as_dtype(dtype)?.contiguous()
}

/// Scores [1, heads, rows, rows] of queries with keys, from those of queries with the `2 * rows - 1`
/// distances. Each row moves to the left by one place more than the row below it.
fn shifted(scores: Array) -> Result<Array> {
    let [heads, rows, distances] = [1, 2, 3].map(|axis| scores.dim(axis));
    let scores = pad(&scores, &[(0, 0), (0, 0), (0, 0), (1, 0)][..], None, None)?;
    let scores = mlx::rows(&scores.reshape(&[1, heads, distances + 1, rows])?, 1..distances + 1)?;
    let scores = scores.reshape(&[1, heads, rows, distances])?;
    let mut parts = split_at_indices(&scores, &[rows], -1)?;
    Ok(parts.swap_remove(0))
}
