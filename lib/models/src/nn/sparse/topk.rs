//! DeepSeek Sparse Attention (DeepSeek V3.2, arXiv 2512.02556): each token attends to the earlier
//! tokens with the highest index scores.

use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, select};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::rope::Rope;

use super::chosen::CHUNK;
use super::indexer::{index_scores, top_k};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Parameters of the indexer that its weights do not show.
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

/// Indexer that chooses the tokens a query attends to.
pub struct TopK {
    wq_b: Linear,
    weights_proj: Linear,
    wk: Linear,
    k_norm: Norm,
    rope: Rope,
    sizes: TopKSizes,
}

impl TopK {
    /// Loads the indexer at `w`.
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

    /// Index queries [1, rows, heads * size], head weights [1, rows, heads] and index keys [1,
    /// rows, size] of `x` [1, rows, hidden] and the low-rank queries `q_rank`.
    pub fn project(&self, x: &Array, q_rank: &Array) -> Result<[Array; 3]> {
        let keys = self.k_norm.forward(&self.wk.forward(x)?)?;
        Ok([self.wq_b.forward(q_rank)?, self.weights_proj.forward(x)?, keys])
    }

    /// Rotates index queries or keys [1, length, heads * size], the first at position `offset`, and
    /// splits heads: [1, heads, length, size].
    pub fn rotate(&self, x: &Array, offset: i32) -> Result<Array> {
        let heads = x.reshape(&[1, x.dim(1), -1, self.sizes.size as i32])?;
        self.rope.apply(&heads.transpose_axes(&[0, 2, 1, 3])?, offset)
    }

    /// Tokens [length, chosen] for rotated queries, by weights and keys [1, 1, seen, size]; `None`
    /// if there are no more tokens than are chosen. `visible` [length, seen] masks tokens.
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
        for first in (0..length).step_by(CHUNK as usize) {
            let range = first..(first + CHUNK).min(length);
            let mut scores = index_scores([&queries, &keys, weights], range.clone())?;
            if let Some(visible) = visible {
                let none = Array::from_f32(f32::NEG_INFINITY);
                scores = select(mlx::entries(visible, range)?, scores, none)?;
            }
            chosen.push(top_k(&scores, self.sizes.chosen as i32)?.ids);
        }
        concatenate(&chosen, 0).map(Some)
    }
}
