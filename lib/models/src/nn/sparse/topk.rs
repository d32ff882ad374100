//! Which of the tokens before it each token attends to (DeepSeek V3.2, arXiv 2512.02556): those whose
//! keys have the largest products with queries that are made for this alone.

use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, select};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::rope::Rope;

use super::chosen::STRETCH;
use super::indexer::{best, fits};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// What the weights of the choice do not show.
#[derive(Clone, Copy, Debug)]
pub struct TopKSizes {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Elements of the low-rank queries (`q_lora_rank`).
    pub query_rank: usize,
    /// Heads of index queries (`index_n_heads`); index keys have one head.
    pub heads: usize,
    /// Elements of an index query's head and of an index key (`index_head_dim`).
    pub size: usize,
    /// Tokens chosen for a query (`index_topk`).
    pub chosen: usize,
}

/// The choice.
pub struct TopK {
    wq_b: Linear,
    weights_proj: Linear,
    wk: Linear,
    k_norm: Norm,
    rope: Rope,
    sizes: TopKSizes,
}

impl TopK {
    /// That at `w`.
    pub fn load(w: &mut Cursor, sizes: TopKSizes, rope: Rope) -> mlxk_core::Result<TopK> {
        let TopKSizes { hidden, query_rank, heads, size, .. } = sizes;
        let norm = NormArch { kind: NormKind::Layer, eps: 1e-5 };
        Ok(TopK {
            wq_b: Linear::load(w, "wq_b", heads * size, query_rank)?,
            weights_proj: Linear::load(w, "weights_proj", heads, hidden)?,
            wk: Linear::load(w, "wk", size, hidden)?,
            k_norm: norm.load(w, "k_norm", size)?,
            rope,
            sizes,
        })
    }

    /// Queries [1, rows, heads * size], weights of heads [1, rows, heads] and keys [1, rows, size], of
    /// `x` [1, rows, hidden] and what attention makes its queries of.
    pub fn made(&self, x: &Array, q_rank: &Array) -> Result<[Array; 3]> {
        let keys = self.k_norm.forward(&self.wk.forward(x)?)?;
        Ok([self.wq_b.forward(q_rank)?, self.weights_proj.forward(x)?, keys])
    }

    /// Queries or keys [1, length, heads * size], of which the first is at position `offset`, as
    /// [1, heads, length, size].
    pub fn turned(&self, x: &Array, offset: i32) -> Result<Array> {
        let heads = x.reshape(&[1, x.dim(1), -1, self.sizes.size as i32])?;
        self.rope.apply(&heads.transpose_axes(&[0, 2, 1, 3])?, offset)
    }

    /// The tokens [length, chosen] that turned queries and weights choose by keys [1, 1, seen, size],
    /// of those that are `visible` [length, seen] first; None if there are no more than are chosen.
    pub fn choose(
        &self,
        queries: &Array,
        weights: &Array,
        keys: &Array,
        visible: Option<&Array>,
    ) -> Result<Option<Array>> {
        let (length, seen) = (queries.dim(2), keys.dim(2));
        if seen <= self.sizes.chosen as i32 {
            return Ok(None);
        }
        let queries = queries.as_dtype(Dtype::Float32)?;
        let keys = keys.as_dtype(Dtype::Float32)?.swap_axes(-1, -2)?;
        let mut chosen = Vec::new();
        for first in (0..length).step_by(STRETCH as usize) {
            let range = first..(first + STRETCH).min(length);
            let mut scores = fits([&queries, &keys, weights], range.clone())?;
            if let Some(visible) = visible {
                let none = Array::from_f32(f32::NEG_INFINITY);
                scores = select(mlx::entries(visible, range)?, scores, none)?;
            }
            chosen.push(best(&scores, self.sizes.chosen as i32)?.ids);
        }
        concatenate(&chosen, 0).map(Some)
    }
}
