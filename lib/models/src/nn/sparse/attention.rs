//! Sparse attention of DeepSeek V4: attention to a sliding window, and to a few compressed rows,
//! each made of several earlier tokens and chosen by an index key. Layers may use the rows and the
//! choice of an earlier layer.

use mlx_rs::error::Result;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask as Mask};
use mlx_rs::ops::concatenate;
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;

use super::chosen::{CHUNK, last};
use super::compress::Compressor;
use super::fake_quant::FakeQuant;
use super::indexer::{Indexer, Selection};
use super::partial_rope::PartialRope;
use super::sizes::SparseSizes;
use crate::checkpoint::cursor::Cursor;
use crate::nn::grouped_linear::GroupedLinear;
use crate::nn::linear::Linear;
use crate::nn::norm::Norm;

/// Sparse attention layer.
pub struct Sparse {
    q_a_proj: Linear,
    q_a_norm: Norm,
    q_b_proj: Linear,
    /// Projection to keys, which are also the values, of all heads.
    kv_proj: Linear,
    kv_norm: Norm,
    /// Low-rank output projection of each group of heads, [groups, out_rank, heads * head_dim /
    /// groups].
    o_a_proj: GroupedLinear,
    o_b_proj: Linear,
    /// Scores of the attention sinks, `[heads]`.
    sinks: Array,
    compressor: Option<Compressor>,
    indexer: Option<Indexer>,
    /// Rotary position embedding of queries and keys.
    rope: PartialRope,
    /// Inverse rotation, applied to the output.
    inverse_rope: PartialRope,
    sizes: SparseSizes,
}

impl Sparse {
    /// Loads the layer at `w`.
    pub fn load(w: &mut Cursor, sizes: SparseSizes) -> mlxk_core::Result<Sparse> {
        let &SparseSizes { hidden, heads, head_dim, query_rank, groups, out_rank, .. } = &sizes;
        let (norm, rotated) = (sizes.norm, sizes.rotated as i32);
        let partial = |rope| PartialRope { rope, rotated };
        let sinks = w.floats("sinks", &[heads])?;
        Ok(Sparse {
            q_a_proj: Linear::load(w, "q_a_proj", query_rank, hidden)?,
            q_a_norm: norm.load(w, "q_a_norm", query_rank)?,
            q_b_proj: Linear::load(w, "q_b_proj", heads * head_dim, query_rank)?,
            kv_proj: Linear::load(w, "kv_proj", head_dim, hidden)?,
            kv_norm: norm.load(w, "kv_norm", head_dim)?,
            o_a_proj: GroupedLinear::load(
                w,
                "o_a_proj",
                [groups, out_rank, heads * head_dim / groups],
            )?,
            o_b_proj: Linear::load(w, "o_b_proj", hidden, groups * out_rank)?,
            sinks: sinks.as_dtype(Dtype::Float32).map_err(mlx::failed)?,
            compressor: { &sizes.compress }
                .as_ref()
                .map(|own| Compressor::load(w, &sizes, own))
                .transpose()?,
            indexer: { &sizes.index }
                .as_ref()
                .map(|own| Indexer::load(w, &sizes, own))
                .transpose()?,
            rope: partial(sizes.rope.clone()),
            inverse_rope: partial(sizes.rope.stretched(-1.0)?),
            sizes,
        })
    }

    /// Output [1, rows, hidden] for `x` of that shape; `selections` are those of the sequences,
    /// read or updated.
    pub fn forward(
        &self,
        x: &Array,
        sequences: &mut Sequences,
        selections: &mut [Selection],
    ) -> Result<Array> {
        let q = self.q_a_norm.forward(&self.q_a_proj.forward(x)?)?;
        if let Some(compressor) = &self.compressor {
            compressor.forward(x, sequences)?;
        }
        if let Some(indexer) = &self.indexer {
            indexer.forward(x, &q, sequences, selections)?;
        }
        let q = self.q_b_proj.forward(&q)?;
        let kv = self.kv_norm.forward(&self.kv_proj.forward(x)?)?;
        let mut selections = selections.iter();
        let mixed = sequences.each_sequence([&q, &kv], |[q, kv], cache| {
            self.attend(q, kv, cache, selections.next().filter(|_| self.sizes.far.is_some()))
        })?;
        let mixed = sequences.joined(mixed)?;
        // A matrix for each group of heads: [1, groups, rows, ..].
        let groups = mixed.reshape(&[1, x.dim(1), self.sizes.groups as i32, -1])?;
        let fewer = self.o_a_proj.times(&groups.transpose_axes(&[0, 2, 1, 3])?, true)?;
        let fewer = fewer.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, x.dim(1), -1])?;
        self.o_b_proj.forward(&fewer.contiguous()?)
    }

    /// Attention of the queries `q` [1, length, heads * head_dim] of one sequence to cached keys
    /// and the new keys `kv` [1, length, head_dim]; the output has the shape of `q`.
    fn attend(
        &self,
        q: &Array,
        kv: &Array,
        cache: &mut Cache,
        selection: Option<&Selection>,
    ) -> Result<Array> {
        let (length, size) = (q.dim(1), kv.dim(-1));
        let window = cache.kv(self.sizes.near)?;
        let start = window.offset();
        let kv = FakeQuant::MXFP8.round(&self.rope.apply(&kv.expand_dims(1)?, start)?)?;
        window.append(&kv, &kv)?;
        let [near, _] = window.seen(length)?;
        let near = near.reshape(&[-1, size])?;
        let far = match (self.sizes.far, selection.and_then(|selection| selection.chosen.as_ref()))
        {
            (Some(slot), Some(chosen)) => {
                let [rows, _] = cache.compressed(slot)?.all()?;
                Some((rows.reshape(&[-1, size])?, chosen))
            }
            _ => None,
        };
        let q = q.reshape(&[1, length, -1, size])?.transpose_axes(&[0, 2, 1, 3])?;
        // Each query has keys of its own: [length, heads, 1, size].
        let q = self.rope.apply(&q, start)?.transpose_axes(&[2, 1, 0, 3])?;
        let mut mixed = Vec::new();
        for first in (0..length).step_by(CHUNK as usize) {
            let range = first..(first + CHUNK).min(length);
            let own = last(self.sizes.window, near.dim(0), length, range.clone())?;
            let mut seen = vec![own.rows(&near)?];
            if let Some((rows, chosen)) = &far {
                seen.push(chosen.part(range.clone())?.rows(rows)?);
            }
            mixed.push(self.attend_chunk(&mlx::entries(&q, range)?, seen)?);
        }
        let mixed = concatenate(&mixed, 0)?.transpose_axes(&[2, 1, 0, 3])?;
        let mixed = self.inverse_rope.apply(&mixed.as_dtype(kv.dtype())?, start)?;
        mixed.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, length, -1])?.contiguous()
    }

    /// Attention of queries [n, heads, 1, size] to keys [n, seen, size] under masks [n, seen]: [n,
    /// heads, 1, size], float32.
    fn attend_chunk(&self, q: &Array, seen: Vec<(Array, Array)>) -> Result<Array> {
        let (keys, visible): (Vec<Array>, Vec<Array>) = seen.into_iter().unzip();
        let keys = concatenate(&keys, 1)?.expand_dims(1)?.as_dtype(Dtype::Float32)?;
        let mask = concatenate(&visible, 1)?.expand_dims_axes(&[1, 2])?;
        let (q, scale) = (q.as_dtype(Dtype::Float32)?, (keys.dim(-1) as f32).powf(-0.5));
        let (mask, sinks) = (Some(Mask::Array(&mask)), Some(&self.sinks));
        fast::scaled_dot_product_attention(q, &keys, &keys, scale, mask, sinks)
    }
}
