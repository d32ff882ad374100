//! Indexer of sparse attention: chooses the compressed rows that each query attends to.

use std::ops::Range;

use mlx_rs::error::Result;
use mlx_rs::ops::indexing::{put_along_axis, take_along_axis};
use mlx_rs::ops::{
    arange, argsort_axis, broadcast_to, concatenate, full, maximum, select, zeros_dtype,
};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;

use super::chosen::{CHUNK, Chosen};
use super::fake_quant::FakeQuant;
use super::partial_rope::PartialRope;
use super::sizes::{Candidates, IndexSizes, SparseSizes};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Choice of rows for the new tokens of a sequence, made by the last indexer and used by the layers
/// after it.
#[derive(Default)]
pub struct Selection {
    /// Rows of each query; `None` if there are no rows yet.
    pub chosen: Option<Chosen>,
    /// Mask of the blocks that later layers choose from [queries, blocks], and the rows of a block;
    /// `None` if they choose from all rows.
    blocks: Option<(Array, i32)>,
}

/// Choice of the rows with the highest index score.
pub struct Indexer {
    q_b_proj: Linear,
    weights_proj: Linear,
    rope: PartialRope,
    /// Cache slot of the sliding window, whose offset is the position.
    near: usize,
    sizes: IndexSizes,
}

impl Indexer {
    /// Loads the indexer of the attention layer at `w`.
    pub fn load(
        w: &mut Cursor,
        sizes: &SparseSizes,
        own: &IndexSizes,
    ) -> mlxk_core::Result<Indexer> {
        let mut w = w.at("indexer");
        let IndexSizes { heads, size, .. } = *own;
        Ok(Indexer {
            q_b_proj: Linear::load(&mut w, "q_b_proj", heads * size, sizes.query_rank)?,
            weights_proj: Linear::load(&mut w, "weights_proj", heads, sizes.hidden)?,
            rope: PartialRope { rope: sizes.rope.clone(), rotated: sizes.rotated as i32 },
            near: sizes.near,
            sizes: *own,
        })
    }

    /// Chooses rows for each sequence, by `x` [1, rows, hidden] and the low-rank queries `q_rank`.
    pub fn forward(
        &self,
        x: &Array,
        q_rank: &Array,
        sequences: &mut Sequences,
        selections: &mut [Selection],
    ) -> Result<()> {
        let q = self.q_b_proj.forward(q_rank)?;
        let weights = self.weights_proj.forward(x)?;
        let mut selections = selections.iter_mut();
        sequences.each_sequence([&q, &weights], |[q, weights], cache| match selections.next() {
            Some(selection) => self.choose(q, weights, cache, selection),
            None => Ok(()),
        })?;
        Ok(())
    }

    /// Chooses rows for one sequence, by index queries `q` [1, length, heads * size] and head
    /// weights [1, length, heads].
    fn choose(
        &self,
        q: &Array,
        weights: &Array,
        cache: &mut Cache,
        selection: &mut Selection,
    ) -> Result<()> {
        let (length, start) = (q.dim(1), cache.kv(self.near)?.offset());
        selection.chosen = None;
        let Some(rows) = self.sizes.keys.map(|slot| cache.compressed(slot)).transpose()? else {
            return Ok(());
        };
        let held = rows.held();
        if held == 0 {
            return Ok(());
        }
        let complete = complete_rows(start, length, self.sizes.ratio as i32)?;
        if held <= self.sizes.chosen as i32 {
            selection.blocks = selection.blocks.take().filter(|_| self.sizes.candidates.is_none());
            selection.chosen = Some(all_rows(&complete, held)?);
            return Ok(());
        }
        let [_, keys] = rows.all()?;
        let q = q.reshape(&[1, length, -1, self.sizes.size as i32])?;
        let q = self.rope.apply(&q.transpose_axes(&[0, 2, 1, 3])?, start)?;
        let q = FakeQuant::MXFP4.round(&q)?.as_dtype(Dtype::Float32)?;
        let keys = keys.as_dtype(Dtype::Float32)?.swap_axes(-1, -2)?;
        let (mut ids, mut visible, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        for first in (0..length).step_by(CHUNK as usize) {
            let range = first..(first + CHUNK).min(length);
            let complete = mlx::entries(&complete, range.clone())?;
            let scores = index_scores([&q, &keys, weights], range.clone())?;
            let there = arange::<i32, i32>(None, held, None)?.lt(&complete)?;
            let mut scores = select(there, scores, Array::from_f32(f32::NEG_INFINITY))?;
            match (self.sizes.candidates, &selection.blocks) {
                (Some(own), _) => blocks.push(top_blocks(&scores, &complete, own)?),
                (None, Some((all, size))) => scores = in_blocks(&scores, all, *size, range)?,
                (None, None) => {}
            }
            let chosen = top_k(&scores, self.sizes.chosen as i32)?;
            ids.push(chosen.ids);
            visible.push(chosen.visible);
        }
        if let Some(candidates) = self.sizes.candidates {
            selection.blocks = Some((concatenate(&blocks, 0)?, candidates.size as i32));
        }
        let (ids, visible) = (concatenate(&ids, 0)?, concatenate(&visible, 0)?);
        selection.chosen = Some(Chosen { ids, visible });
        Ok(())
    }
}

/// Index scores [queries, keys] of the queries `range`: the weighted sum over heads of `relu(q k)`.
/// Queries are [1, heads, length, size], keys [1, 1, size, keys], weights [1, length, heads].
pub fn index_scores([q, keys, weights]: [&Array; 3], range: Range<i32>) -> Result<Array> {
    let products = mlx::rows(q, range.clone())?.matmul(keys)?;
    let positive = maximum(products, Array::from_f32(0.0))?;
    let factor = Array::from_f32(((q.dim(1) * q.dim(3)) as f32).powf(-0.5));
    let weights = mlx::columns(weights, range)?.as_dtype(Dtype::Float32)?.multiply(factor)?;
    let weights = weights.swap_axes(-1, -2)?.expand_dims(-1)?;
    positive.multiply(weights)?.sum_axes(&[0, 1], false)
}

/// Rows that are complete at each of `length` tokens from position `start` on, [length, 1].
fn complete_rows(start: i32, length: i32, ratio: i32) -> Result<Array> {
    let tokens = arange::<i32, i32>(start + 1, start + length + 1, None)?;
    tokens.floor_divide(Array::from_int(ratio))?.expand_dims(1)
}

/// Choice of all complete rows.
fn all_rows(complete: &Array, held: i32) -> Result<Chosen> {
    let ids = arange::<i32, i32>(None, held, None)?;
    let visible = ids.lt(complete)?;
    Ok(Chosen { ids: broadcast_to(ids, visible.shape())?, visible })
}

/// Choice of the `count` rows with the best scores [queries, rows], the first of equal ones; rows
/// with a score of -∞ are invisible.
pub fn top_k(scores: &Array, count: i32) -> Result<Chosen> {
    let order = argsort_axis(scores.negative()?, -1)?;
    let ids = mlx::columns(&order, 0..count)?;
    let visible = take_along_axis(scores, &ids, -1)?.gt(Array::from_f32(f32::NEG_INFINITY))?;
    Ok(Chosen { ids, visible })
}

/// Mask [queries, blocks] of the blocks with the best scores, and of the newest block, which may be
/// incomplete.
fn top_blocks(scores: &Array, complete: &Array, candidates: Candidates) -> Result<Array> {
    let size = candidates.size as i32;
    let (queries, held) = (scores.dim(0), scores.dim(1));
    let none = Array::from_f32(f32::NEG_INFINITY);
    let count = (held + size - 1) / size;
    let rest = full::<f32>(&[queries, count * size - held], &none)?;
    let scores = concatenate(&[scores, &rest], 1)?.reshape(&[queries, count, size])?;
    let newest = complete.add(Array::from_int(size - 1))?.floor_divide(Array::from_int(size))?;
    let newest = arange::<i32, i32>(1, count + 1, None)?.eq(newest)?;
    let scores = select(newest, Array::from_f32(f32::INFINITY), scores.max_axis(-1, false)?)?;
    let Chosen { ids, visible } = top_k(&scores, count.min(candidates.blocks as i32))?;
    put_along_axis(zeros_dtype(&[queries, count], Dtype::Bool)?, ids, visible, -1)
}

/// Scores [queries, rows] with -∞ outside the blocks that may be chosen from; `blocks` are those of
/// all queries.
fn in_blocks(scores: &Array, blocks: &Array, size: i32, range: Range<i32>) -> Result<Array> {
    let block =
        arange::<i32, i32>(None, scores.dim(1), None)?.floor_divide(Array::from_int(size))?;
    let there = mlx::entries(blocks, range)?.take_axis(block, 1)?;
    select(there, scores, Array::from_f32(f32::NEG_INFINITY))
}
