//! Attention to the last few tokens, and to a few of the rows that the tokens before are compressed
//! to (DeepSeek V4): every so many tokens make one row, and each token looks at those rows whose keys
//! fit it best. Layers may look at the rows, and at the choice, of a layer before them.

use mlx_rs::error::Result;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask as Mask};
use mlx_rs::ops::concatenate;
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;

use super::chosen::{STRETCH, last};
use super::compress::Compressor;
use super::fake_quant::Grid;
use super::indexer::{Indexer, Sight};
use super::partial_rope::PartialRope;
use super::sizes::SparseSizes;
use crate::checkpoint::cursor::Cursor;
use crate::nn::grouped_linear::GroupedLinear;
use crate::nn::linear::Linear;
use crate::nn::norm::Norm;

/// Such a layer.
pub struct Sparse {
    q_a_proj: Linear,
    q_a_norm: Norm,
    q_b_proj: Linear,
    /// Keys, which are the values too, of all heads.
    kv_proj: Linear,
    kv_norm: Norm,
    /// [groups, out_rank, heads * head_dim / groups].
    o_a_proj: GroupedLinear,
    o_b_proj: Linear,
    /// A score for each head that takes a share and gives nothing, [heads].
    sinks: Array,
    compressor: Option<Compressor>,
    indexer: Option<Indexer>,
    turn: PartialRope,
    /// The other way round, for what is mixed.
    back: PartialRope,
    sizes: SparseSizes,
}

impl Sparse {
    /// The layer at `w`.
    pub fn load(w: &mut Cursor, sizes: SparseSizes) -> mlxk_core::Result<Sparse> {
        let &SparseSizes { hidden, heads, head_dim, query_rank, groups, out_rank, .. } = &sizes;
        let (norm, rotated) = (sizes.norm, sizes.rotated as i32);
        let turn = |rope| PartialRope { rope, rotated };
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
            turn: turn(sizes.rope.clone()),
            back: turn(sizes.rope.stretched(-1.0)?),
            sizes,
        })
    }

    /// [1, rows, hidden] to the same; `sights` are what the sequences of `sequences` look at.
    pub fn forward(
        &self,
        x: &Array,
        sequences: &mut Sequences,
        sights: &mut [Sight],
    ) -> Result<Array> {
        let q = self.q_a_norm.forward(&self.q_a_proj.forward(x)?)?;
        if let Some(compressor) = &self.compressor {
            compressor.forward(x, sequences)?;
        }
        if let Some(indexer) = &self.indexer {
            indexer.forward(x, &q, sequences, sights)?;
        }
        let q = self.q_b_proj.forward(&q)?;
        let kv = self.kv_norm.forward(&self.kv_proj.forward(x)?)?;
        let mut sights = sights.iter();
        let mixed = sequences.each_sequence([&q, &kv], |[q, kv], cache| {
            self.attend(q, kv, cache, sights.next().filter(|_| self.sizes.far.is_some()))
        })?;
        let mixed = sequences.joined(mixed)?;
        // A matrix for each group of heads: [1, groups, rows, ..].
        let groups = mixed.reshape(&[1, x.dim(1), self.sizes.groups as i32, -1])?;
        let fewer = self.o_a_proj.times(&groups.transpose_axes(&[0, 2, 1, 3])?, true)?;
        let fewer = fewer.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, x.dim(1), -1])?;
        self.o_b_proj.forward(&fewer.contiguous()?)
    }

    /// What the queries `q` [1, length, heads * head_dim] of a text see by the new keys `kv`
    /// [1, length, head_dim] and those that are remembered: the shape of `q`.
    fn attend(
        &self,
        q: &Array,
        kv: &Array,
        cache: &mut Cache,
        sight: Option<&Sight>,
    ) -> Result<Array> {
        let (length, size) = (q.dim(1), kv.dim(-1));
        let window = cache.kv(self.sizes.near)?;
        let start = window.offset();
        let kv = Grid::EIGHT.round(&self.turn.apply(&kv.expand_dims(1)?, start)?)?;
        window.append(&kv, &kv)?;
        let [near, _] = window.seen(length)?;
        let near = near.reshape(&[-1, size])?;
        let far = match (self.sizes.far, sight.and_then(|sight| sight.chosen.as_ref())) {
            (Some(slot), Some(chosen)) => {
                let [rows, _] = cache.compressed(slot)?.all()?;
                Some((rows.reshape(&[-1, size])?, chosen))
            }
            _ => None,
        };
        let q = q.reshape(&[1, length, -1, size])?.transpose_axes(&[0, 2, 1, 3])?;
        // Each query has keys of its own: [length, heads, 1, size].
        let q = self.turn.apply(&q, start)?.transpose_axes(&[2, 1, 0, 3])?;
        let mut mixed = Vec::new();
        for first in (0..length).step_by(STRETCH as usize) {
            let range = first..(first + STRETCH).min(length);
            let own = last(self.sizes.window, near.dim(0), length, range.clone())?;
            let mut seen = vec![own.rows(&near)?];
            if let Some((rows, chosen)) = &far {
                seen.push(chosen.part(range.clone())?.rows(rows)?);
            }
            mixed.push(self.mix(&mlx::entries(&q, range)?, seen)?);
        }
        let mixed = concatenate(&mixed, 0)?.transpose_axes(&[2, 1, 0, 3])?;
        let mixed = self.back.apply(&mixed.as_dtype(kv.dtype())?, start)?;
        mixed.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, length, -1])?.contiguous()
    }

    /// What queries [n, heads, 1, size] make of keys [n, seen, size], as far as [n, seen] says that
    /// they see them: [n, heads, 1, size], of single precision.
    fn mix(&self, q: &Array, seen: Vec<(Array, Array)>) -> Result<Array> {
        let (keys, visible): (Vec<Array>, Vec<Array>) = seen.into_iter().unzip();
        let keys = concatenate(&keys, 1)?.expand_dims(1)?.as_dtype(Dtype::Float32)?;
        let mask = concatenate(&visible, 1)?.expand_dims_axes(&[1, 2])?;
        let (q, scale) = (q.as_dtype(Dtype::Float32)?, (keys.dim(-1) as f32).powf(-0.5));
        let (mask, sinks) = (Some(Mask::Array(&mask)), Some(&self.sinks));
        fast::scaled_dot_product_attention(q, &keys, &keys, scale, mask, sinks)
    }
}
