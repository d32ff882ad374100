//! Which rows each token looks at.

use std::ops::Range;

use mlx_rs::error::Result;
use mlx_rs::ops::indexing::{put_along_axis, take_along_axis};
use mlx_rs::ops::{
    arange, argsort_axis, broadcast_to, concatenate, full, maximum, select, zeros_dtype,
};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;

use super::chosen::{Chosen, STRETCH};
use super::fake_quant::Grid;
use super::partial_rope::PartialRope;
use super::sizes::{Candidates, IndexSizes, SparseSizes};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// What a text's new tokens look at beyond the window, by the last layer that chose.
#[derive(Default)]
pub struct Sight {
    /// None if there is nothing yet.
    pub chosen: Option<Chosen>,
    /// The blocks that may be chosen from, [queries, blocks], and the rows of each; None if all.
    blocks: Option<(Array, i32)>,
}

/// The rows whose keys have the largest products with a token's queries, each head of which has a
/// weight.
pub struct Indexer {
    q_b_proj: Linear,
    weights_proj: Linear,
    turn: PartialRope,
    /// The slot that tells positions.
    near: usize,
    sizes: IndexSizes,
}

impl Indexer {
    /// The layer under `w`, of an attention of these sizes.
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
            turn: PartialRope { rope: sizes.rope.clone(), rotated: sizes.rotated as i32 },
            near: sizes.near,
            sizes: *own,
        })
    }

    /// Finds what each text looks at, by `x` [1, rows, hidden] and what its queries are made of.
    pub fn forward(
        &self,
        x: &Array,
        q_rank: &Array,
        sequences: &mut Sequences,
        sights: &mut [Sight],
    ) -> Result<()> {
        let q = self.q_b_proj.forward(q_rank)?;
        let weights = self.weights_proj.forward(x)?;
        let mut sights = sights.iter_mut();
        sequences.each_sequence([&q, &weights], |[q, weights], cache| match sights.next() {
            Some(sight) => self.look(q, weights, cache, sight),
            None => Ok(()),
        })?;
        Ok(())
    }

    /// By queries [1, length, heads * size] and the weights of heads [1, length, heads].
    fn look(&self, q: &Array, weights: &Array, cache: &mut Cache, sight: &mut Sight) -> Result<()> {
        let (length, start) = (q.dim(1), cache.kv(self.near)?.offset());
        sight.chosen = None;
        let Some(rows) = self.sizes.keys.map(|slot| cache.compressed(slot)).transpose()? else {
            return Ok(());
        };
        let held = rows.held();
        if held == 0 {
            return Ok(());
        }
        let ends = ends(start, length, self.sizes.ratio as i32)?;
        if held <= self.sizes.chosen as i32 {
            sight.blocks = sight.blocks.take().filter(|_| self.sizes.candidates.is_none());
            sight.chosen = Some(all(&ends, held)?);
            return Ok(());
        }
        let [_, keys] = rows.all()?;
        let q = q.reshape(&[1, length, -1, self.sizes.size as i32])?;
        let q = self.turn.apply(&q.transpose_axes(&[0, 2, 1, 3])?, start)?;
        let q = Grid::FOUR.round(&q)?.as_dtype(Dtype::Float32)?;
        let keys = keys.as_dtype(Dtype::Float32)?.swap_axes(-1, -2)?;
        let (mut chosen, mut blocks) = (Vec::new(), Vec::new());
        for first in (0..length).step_by(STRETCH as usize) {
            let range = first..(first + STRETCH).min(length);
            let ends = mlx::entries(&ends, range.clone())?;
            let scores = fits([&q, &keys, weights], range.clone())?;
            let there = arange::<i32, i32>(None, held, None)?.lt(&ends)?;
            let scores = select(there, scores, Array::from_f32(f32::NEG_INFINITY))?;
            let scores = match (self.sizes.candidates, &sight.blocks) {
                (Some(candidates), _) => {
                    blocks.push(best_blocks(&scores, &ends, candidates)?);
                    scores
                }
                (None, Some((blocks, size))) => within(&scores, blocks, *size, range)?,
                (None, None) => scores,
            };
            chosen.push(best(&scores, self.sizes.chosen as i32)?);
        }
        if let Some(candidates) = self.sizes.candidates {
            sight.blocks = Some((concatenate(&blocks, 0)?, candidates.size as i32));
        }
        sight.chosen = Some(Chosen {
            ids: concatenate(&chosen.iter().map(|own| &own.ids).collect::<Vec<_>>(), 0)?,
            visible: concatenate(&chosen.iter().map(|own| &own.visible).collect::<Vec<_>>(), 0)?,
        });
        Ok(())
    }
}

/// How well keys fit the queries `range`, [queries, keys]: the sum over heads, each with its weight, of
/// products that are positive. Of queries [1, heads, length, size], keys [1, 1, size, held] and weights
/// [1, length, heads].
pub fn fits([q, keys, weights]: [&Array; 3], range: Range<i32>) -> Result<Array> {
    let products = mlx::rows(q, range.clone())?.matmul(keys)?;
    let positive = maximum(products, Array::from_f32(0.0))?;
    let factor = Array::from_f32(((q.dim(1) * q.dim(3)) as f32).powf(-0.5));
    let weights = mlx::columns(weights, range)?.as_dtype(Dtype::Float32)?.multiply(factor)?;
    let weights = weights.swap_axes(-1, -2)?.expand_dims(-1)?;
    positive.multiply(weights)?.sum_axes(&[0, 1], false)
}

/// How many rows are complete at each of `length` tokens from position `start` on, [length, 1].
fn ends(start: i32, length: i32, ratio: i32) -> Result<Array> {
    let tokens = arange::<i32, i32>(start + 1, start + length + 1, None)?;
    tokens.floor_divide(Array::from_int(ratio))?.expand_dims(1)
}

/// All rows that are complete.
fn all(ends: &Array, held: i32) -> Result<Chosen> {
    let ids = arange::<i32, i32>(None, held, None)?;
    let visible = ids.lt(ends)?;
    Ok(Chosen { ids: broadcast_to(ids, visible.shape())?, visible })
}

/// The `count` rows of the best scores [queries, held]; of equal ones the first, however many rows there
/// are that nobody sees.
pub fn best(scores: &Array, count: i32) -> Result<Chosen> {
    let order = argsort_axis(scores.negative()?, -1)?;
    let ids = mlx::columns(&order, 0..count)?;
    let visible = take_along_axis(scores, &ids, -1)?.gt(Array::from_f32(f32::NEG_INFINITY))?;
    Ok(Chosen { ids, visible })
}

/// The blocks of rows with the best scores, and always the newest, which may not be whole yet:
/// [queries, blocks].
fn best_blocks(scores: &Array, ends: &Array, candidates: Candidates) -> Result<Array> {
    let size = candidates.size as i32;
    let (queries, held) = (scores.dim(0), scores.dim(1));
    let none = Array::from_f32(f32::NEG_INFINITY);
    let count = (held + size - 1) / size;
    let rest = full::<f32>(&[queries, count * size - held], &none)?;
    let scores = concatenate(&[scores, &rest], 1)?.reshape(&[queries, count, size])?;
    let newest = ends.add(Array::from_int(size - 1))?.floor_divide(Array::from_int(size))?;
    let newest = arange::<i32, i32>(1, count + 1, None)?.eq(newest)?;
    let scores = select(newest, Array::from_f32(f32::INFINITY), scores.max_axis(-1, false)?)?;
    let Chosen { ids, visible } = best(&scores, count.min(candidates.blocks as i32))?;
    put_along_axis(zeros_dtype(&[queries, count], Dtype::Bool)?, ids, visible, -1)
}

/// The scores [queries, held] of rows in blocks that may be chosen from, of those of all queries.
fn within(scores: &Array, blocks: &Array, size: i32, range: Range<i32>) -> Result<Array> {
    let block =
        arange::<i32, i32>(None, scores.dim(1), None)?.floor_divide(Array::from_int(size))?;
    let there = mlx::entries(blocks, range)?.take_axis(block, 1)?;
    select(there, scores, Array::from_f32(f32::NEG_INFINITY))
}
