//! Multi-head latent attention (MLA, arXiv 2405.04434): keys and values are projections of one
//! low-rank latent vector for each token, and only the latents and the rotated part of keys are
//! cached.

use mlx_rs::error::Result;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask as Mask};
use mlx_rs::ops::indexing::put_along_axis;
use mlx_rs::ops::{arange, concatenate, select, sigmoid, split_at_indices, zeros_dtype};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Kv, Sequences, Slot};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::rope::Rope;

use super::attention::{TemperatureTuning, tune_temperature};
use super::grouped_linear::GroupedLinear;
use super::linear::Linear;
use super::matrix::Matrix;
use super::mixer::TokenMixer;
use super::norm::{Norm, NormArch};
use super::sparse::TopK;
use crate::checkpoint::cursor::Cursor;

/// Parameters of the layer that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct MlaSizes {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Elements of the low-rank queries (`q_lora_rank`); `None` if queries are projected directly.
    pub query_rank: Option<usize>,
    /// Elements of the latent vectors (`kv_lora_rank`).
    pub rank: usize,
    /// Elements of a head's queries and keys that are not rotated (`qk_nope_head_dim`).
    pub plain: usize,
    /// Rotated elements of a head's queries and keys (`qk_rope_head_dim`); all heads share those of
    /// a key.
    pub rotated: usize,
    /// Elements of a head's values (`v_head_dim`).
    pub value: usize,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Norm of low-rank queries and of latents.
    pub norm: NormArch,
    /// Temperature tuning of queries.
    pub temperature_tuning: Option<TemperatureTuning>,
    /// True if the output of each head is gated by a sigmoid.
    pub gated: bool,
}

/// MLA layer.
pub struct Mla {
    queries: Queries,
    kv_a_proj_with_mqa: Linear,
    kv_a_layernorm: Norm,
    /// Up-projection of keys [heads, rank, plain], applied to queries instead: products of
    /// projected queries with latents equal those of queries with keys.
    embed_q: GroupedLinear,
    /// Up-projection of values, [heads, value, rank].
    unembed_out: GroupedLinear,
    g_proj: Option<Linear>,
    o_proj: Linear,
    /// Rotary position embedding; `None` if the layer uses no positions.
    rope: Option<Rope>,
    /// Choice of the tokens that are attended to; `None` if all are.
    topk: Option<TopK>,
    sizes: MlaSizes,
    ops: &'static dyn Ops,
}

/// Projection of queries, direct or low-rank.
enum Queries {
    Direct(Linear),
    Mla { q_a_proj: Linear, q_a_layernorm: Norm, q_b_proj: Linear },
}

impl Mla {
    /// Loads the layer at `w`.
    pub fn load(w: &mut Cursor, sizes: &MlaSizes, rope: Option<Rope>) -> mlxk_core::Result<Mla> {
        let &MlaSizes { hidden, heads, rank, plain, rotated, value, norm, .. } = sizes;
        let queries = heads * (plain + rotated);
        let [embed_q, unembed_out] = load_up_projections(w, sizes)?;
        let gate = sizes.gated.then(|| Linear::load(w, "g_proj", heads, hidden)).transpose()?;
        Ok(Mla {
            queries: match sizes.query_rank {
                None => Queries::Direct(Linear::load(w, "q_proj", queries, hidden)?),
                Some(rank) => Queries::Mla {
                    q_a_proj: Linear::load(w, "q_a_proj", rank, hidden)?,
                    q_a_layernorm: norm.load(w, "q_a_layernorm", rank)?,
                    q_b_proj: Linear::load(w, "q_b_proj", queries, rank)?,
                },
            },
            kv_a_proj_with_mqa: Linear::load(w, "kv_a_proj_with_mqa", rank + rotated, hidden)?,
            kv_a_layernorm: norm.load(w, "kv_a_layernorm", rank)?,
            embed_q,
            unembed_out,
            g_proj: gate,
            o_proj: Linear::load(w, "o_proj", hidden, heads * value)?,
            rope,
            topk: None,
            sizes: *sizes,
            ops: w.ops(),
        })
    }

    /// Restricts attention to the tokens that `topk` chooses.
    pub fn with_topk(self, topk: TopK) -> Mla {
        Mla { topk: Some(topk), ..self }
    }

    /// Attention of new tokens: queries `q` [1, length, heads * (plain + rotated)], latents [1,
    /// length, rank] and keys [1, length, rotated], to [1, length, heads * value]. `choice` has
    /// index queries, weights and index keys.
    fn attend(
        &self,
        [q, latents, keys]: [&Array; 3],
        choice: Option<(&TopK, [&Array; 3])>,
        kv: &mut Kv,
    ) -> Result<Array> {
        let MlaSizes { heads, plain, rotated, scale, .. } = self.sizes;
        let [plain, rotated] = [plain, rotated].map(|n| n as i32);
        let length = q.dim(1);
        let q = q.reshape(&[1, length, heads as i32, plain + rotated])?;
        let q = q.transpose_axes(&[0, 2, 1, 3])?;
        let offset = kv.offset();
        let parts = split_at_indices(
            tune_temperature(self.sizes.temperature_tuning, q, offset)?,
            &[plain],
            -1,
        )?;
        let rotate = |x: &Array| match &self.rope {
            Some(rope) => rope.apply(x, offset),
            None => Ok(x.clone()),
        };
        let (rotated, mut keys) = (rotate(&parts[1])?, rotate(&keys.expand_dims(1)?)?);
        if let Some((topk, [.., own])) = choice {
            keys = concatenate(&[keys, topk.rotate(own, offset)?], -1)?;
        }
        kv.append(&latents.expand_dims(1)?, &keys)?;
        let [mut latents, mut keys] = kv.seen(length)?;
        let mut mask = kv.visible(length)?.array(length, keys.dim(2))?;
        if let Some((topk, [queries, weights, _])) = choice {
            let queries = topk.rotate(queries, offset)?;
            ([latents, keys], mask) =
                self.select(topk, [&queries, weights], [latents, keys], mask)?;
        }
        let scores = rotated.multiply(mlx::number(scale, &rotated)?)?;
        let mut scores = scores.matmul(keys.swap_axes(-1, -2)?)?;
        if let Some(mask) = mask {
            scores = select(mask, &scores, mlx::number(f32::NEG_INFINITY, &scores)?)?;
        }
        let mixed = self.mix(&parts[0], &latents, &scores)?;
        mixed.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, length, -1])?.contiguous()
    }

    /// Restricts attention to the tokens that `topk` chooses: one query gathers their latents and
    /// keys, several queries get a mask. `keys` have index keys behind their rotated elements.
    fn select(
        &self,
        topk: &TopK,
        [queries, weights]: [&Array; 2],
        [latents, keys]: [Array; 2],
        mask: Option<Array>,
    ) -> Result<([Array; 2], Option<Array>)> {
        let parts = split_at_indices(&keys, &[self.sizes.rotated as i32], -1)?;
        let keys = parts[0].clone();
        Ok(match topk.choose(queries, weights, &parts[1], mask.as_ref())? {
            Some(ids) if queries.dim(2) == 1 => {
                let ids = ids.flatten(None, None)?;
                ([latents.take_axis(&ids, 2)?, keys.take_axis(&ids, 2)?], mask)
            }
            Some(ids) => {
                let mask = sparse_mask(&ids, mask, keys.dim(2))?;
                ([latents, keys], Some(mask))
            }
            None => ([latents, keys], mask),
        })
    }

    /// Output [1, heads, length, value] of queries without rotation, where `scores` are those of
    /// the rotated part. A single query is projected to the latent space, which is cheaper than to
    /// project all latents to keys and values.
    fn mix(&self, queries: &Array, latents: &Array, scores: &Array) -> Result<Array> {
        let (scale, mask) = (self.sizes.scale, Some(Mask::Array(scores)));
        let attend = |q: &Array, k: &Array, v: &Array, mask| {
            fast::scaled_dot_product_attention(q, k, v, scale, mask, None)
        };
        if queries.dim(2) == 1 {
            let queries = self.embed_q.times(queries, true)?;
            return self.unembed_out.times(&attend(&queries, latents, latents, mask)?, true);
        }
        let keys = self.embed_q.times(latents, false)?;
        attend(queries, &keys, &self.unembed_out.times(latents, true)?, mask)
    }
}

impl TokenMixer for Mla {
    fn slot(&self) -> Slot {
        Slot::Kv(Kv::new(None))
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let (q, choice) = match &self.queries {
            Queries::Direct(q_proj) => (q_proj.forward(x)?, None),
            Queries::Mla { q_a_proj, q_a_layernorm, q_b_proj } => {
                let q = q_a_layernorm.forward(&q_a_proj.forward(x)?)?;
                let made = self.topk.as_ref().map(|topk| topk.project(x, &q)).transpose()?;
                (q_b_proj.forward(&q)?, self.topk.as_ref().zip(made))
            }
        };
        let sizes = [self.sizes.rank, self.sizes.rotated].map(|n| n as i32);
        let [latents, keys] = self.ops.parts(&self.kv_a_proj_with_mqa.forward(x)?, sizes)?;
        let latents = self.kv_a_layernorm.forward(&latents)?;
        let own = [&q, &latents, &keys];
        let mut mixed = match &choice {
            None => sequences.each_kv(slot, own, |own, kv| self.attend(own, None, kv))?,
            Some((topk, [queries, weights, index_keys])) => {
                let all = [&q, &latents, &keys, queries, weights, index_keys];
                sequences.each_kv(
                    slot,
                    all,
                    |[q, latents, keys, queries, weights, index_keys], kv| {
                        let choice = Some((*topk, [queries, weights, index_keys]));
                        self.attend([q, latents, keys], choice, kv)
                    },
                )?
            }
        };
        if let Some(gate) = &self.g_proj {
            let by_head = mixed.reshape(&[1, x.dim(1), self.sizes.heads as i32, -1])?;
            let open = sigmoid(gate.forward(x)?)?.expand_dims(-1)?;
            mixed = by_head.multiply(open)?.reshape(mixed.shape())?;
        }
        self.o_proj.forward(&mixed)
    }
}

/// Mask [length, seen] of the tokens `ids` [length, chosen] that are visible.
fn sparse_mask(ids: &Array, visible: Option<Array>, seen: i32) -> Result<Array> {
    let none = zeros_dtype(&[ids.dim(0), seen], Dtype::Bool)?;
    let chosen = put_along_axis(none, ids, Array::from_bool(true), -1)?;
    match visible {
        Some(visible) => chosen.logical_and(visible),
        None => Ok(chosen),
    }
}

/// Loads `embed_q` and `unembed_out` of `w`, or splits `kv_b_proj`, which holds both head by head.
fn load_up_projections(w: &mut Cursor, sizes: &MlaSizes) -> mlxk_core::Result<[GroupedLinear; 2]> {
    let &MlaSizes { heads, rank, plain, value, .. } = sizes;
    if !w.has("kv_b_proj.weight") {
        let embed_q = GroupedLinear::load(w, "embed_q", [heads, rank, plain])?;
        return Ok([embed_q, GroupedLinear::load(w, "unembed_out", [heads, value, rank])?]);
    }
    let rows = heads * (plain + value);
    let both = Matrix::load(&mut w.at("kv_b_proj"), rows, rank)?;
    split_kv_b(&both, sizes).map_err(mlx::failed)
}

/// Up-projections of keys (transposed) and of values, of the rows of `kv_b_proj`.
fn split_kv_b(both: &Matrix, sizes: &MlaSizes) -> Result<[GroupedLinear; 2]> {
    let [heads, rank, plain, value] =
        [sizes.heads, sizes.rank, sizes.plain, sizes.value].map(|n| n as i32);
    let all = both.rows(&arange::<i32, i32>(None, heads * (plain + value), None)?)?;
    let parts = split_at_indices(all.reshape(&[heads, plain + value, rank])?, &[plain], 1)?;
    let embed_q = parts[0].swap_axes(-1, -2)?.contiguous()?;
    let unembed_out = parts[1].contiguous()?;
    Ok([GroupedLinear::Dense(embed_q), GroupedLinear::Dense(unembed_out)])
}
