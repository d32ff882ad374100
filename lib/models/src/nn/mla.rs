//! Attention whose keys and values are made of one short vector for each token, which is all that is
//! remembered (multi-head latent attention, arXiv 2405.04434).

use mlx_rs::error::Result;
use mlx_rs::fast::{self, ScaledDotProductAttentionMask as Mask};
use mlx_rs::ops::indexing::put_along_axis;
use mlx_rs::ops::{arange, concatenate, select, sigmoid, split_at_indices, zeros_dtype};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Kv, Sequences, Slot};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::rope::Rope;

use super::attention::{TemperatureTuning, warmed};
use super::grouped_linear::GroupedLinear;
use super::linear::Linear;
use super::matrix::Matrix;
use super::mixer::TokenMixer;
use super::norm::{Norm, NormArch};
use super::sparse::TopK;
use crate::checkpoint::cursor::Cursor;

/// What the weights of such a layer do not show.
#[derive(Clone, Copy, Debug)]
pub struct MlaSizes {
    /// Elements of the model's vectors.
    pub hidden: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Elements of the vectors that queries are made of, if they are not made of the model's.
    pub query_rank: Option<usize>,
    /// Elements of those that keys and values are made of.
    pub rank: usize,
    /// Elements of a head's queries and keys that do not rotate.
    pub plain: usize,
    /// Elements that do; all heads share those of a key.
    pub rotated: usize,
    /// Elements of a head's values.
    pub value: usize,
    /// What the products of queries and keys are multiplied by.
    pub scale: f32,
    /// Of what all else is made of.
    pub norm: NormArch,
    /// How queries grow with their position.
    pub warmth: Option<TemperatureTuning>,
    /// Whether gates decide how much of each head passes.
    pub gated: bool,
}

/// Such a layer.
pub struct Mla {
    queries: Queries,
    kv_a_proj_with_mqa: Linear,
    kv_a_layernorm: Norm,
    /// [heads, rank, plain]: from a query to what its products with latent vectors are those with keys.
    embed_q: GroupedLinear,
    /// [heads, value, rank]: from a latent vector to values.
    unembed_out: GroupedLinear,
    g_proj: Option<Linear>,
    o_proj: Linear,
    /// `None` if it does not know positions.
    rope: Option<Rope>,
    /// `None` if a token attends to all before it.
    pick: Option<TopK>,
    sizes: MlaSizes,
    ops: &'static dyn Ops,
}

enum Queries {
    Direct(Linear),
    Mla { q_a_proj: Linear, q_a_layernorm: Norm, q_b_proj: Linear },
}

impl Mla {
    /// The layer at `w`.
    pub fn load(w: &mut Cursor, sizes: &MlaSizes, rope: Option<Rope>) -> mlxk_core::Result<Mla> {
        let &MlaSizes { hidden, heads, rank, plain, rotated, value, norm, .. } = sizes;
        let queries = heads * (plain + rotated);
        let [embed_q, unembed_out] = load_both(w, sizes)?;
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
            pick: None,
            sizes: *sizes,
            ops: w.ops(),
        })
    }

    /// The same, but a token attends to those alone that `pick` chooses.
    pub fn picking(self, pick: TopK) -> Mla {
        Mla { pick: Some(pick), ..self }
    }

    /// [1, length, heads * (plain + rotated)] and the latent vectors and keys that are new, to
    /// [1, length, heads * value]; with queries, weights and keys to choose by, if anything is chosen.
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
        let parts = split_at_indices(warmed(self.sizes.warmth, q, offset)?, &[plain], -1)?;
        let turn = |x: &Array| match &self.rope {
            Some(rope) => rope.apply(x, offset),
            None => Ok(x.clone()),
        };
        let (turned, mut keys) = (turn(&parts[1])?, turn(&keys.expand_dims(1)?)?);
        if let Some((pick, [.., own])) = choice {
            keys = concatenate(&[keys, pick.turned(own, offset)?], -1)?;
        }
        kv.append(&latents.expand_dims(1)?, &keys)?;
        let [mut latents, mut keys] = kv.seen(length)?;
        let mut visible = kv.visible(length)?.array(length, keys.dim(2))?;
        if let Some((pick, [queries, weights, _])) = choice {
            let both = split_at_indices(&keys, &[rotated], -1)?;
            keys = both[0].clone();
            let queries = pick.turned(queries, offset)?;
            match pick.choose(&queries, weights, &both[1], visible.as_ref())? {
                Some(ids) if length == 1 => {
                    let ids = ids.flatten(None, None)?;
                    [latents, keys] = [latents.take_axis(&ids, 2)?, keys.take_axis(&ids, 2)?];
                }
                Some(ids) => visible = Some(among(&ids, visible, keys.dim(2))?),
                None => {}
            }
        }
        let scores = turned.multiply(mlx::number(scale, &turned)?)?;
        let mut scores = scores.matmul(keys.swap_axes(-1, -2)?)?;
        if let Some(mask) = visible {
            scores = select(mask, &scores, mlx::number(f32::NEG_INFINITY, &scores)?)?;
        }
        let mixed = self.mix(&parts[0], &latents, &scores)?;
        mixed.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, length, -1])?.contiguous()
    }

    /// [1, heads, length, value]; for one query it is cheaper to go to the latent vectors than to
    /// make keys and values of all of them.
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
                let made = self.pick.as_ref().map(|pick| pick.made(x, &q)).transpose()?;
                (q_b_proj.forward(&q)?, self.pick.as_ref().zip(made))
            }
        };
        let sizes = [self.sizes.rank, self.sizes.rotated].map(|n| n as i32);
        let [latents, keys] = self.ops.parts(&self.kv_a_proj_with_mqa.forward(x)?, sizes)?;
        let latents = self.kv_a_layernorm.forward(&latents)?;
        let own = [&q, &latents, &keys];
        let mut mixed = match &choice {
            None => sequences.each_kv(slot, own, |own, kv| self.attend(own, None, kv))?,
            Some((pick, [queries, weights, picked])) => {
                let all = [&q, &latents, &keys, queries, weights, picked];
                sequences.each_kv(
                    slot,
                    all,
                    |[q, latents, keys, queries, weights, picked], kv| {
                        let choice = Some((*pick, [queries, weights, picked]));
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

/// Whether a token is one of `ids` [length, chosen] of the `seen` ones, and visible.
fn among(ids: &Array, visible: Option<Array>, seen: i32) -> Result<Array> {
    let none = zeros_dtype(&[ids.dim(0), seen], Dtype::Bool)?;
    let chosen = put_along_axis(none, ids, Array::from_bool(true), -1)?;
    match visible {
        Some(visible) => chosen.logical_and(visible),
        None => Ok(chosen),
    }
}

/// `embed_q` and `unembed_out` of `w`, or what they are of `kv_b_proj`, which makes a key's
/// elements and a value's of a latent vector, head by head.
fn load_both(w: &mut Cursor, sizes: &MlaSizes) -> mlxk_core::Result<[GroupedLinear; 2]> {
    let &MlaSizes { heads, rank, plain, value, .. } = sizes;
    if !w.has("kv_b_proj.weight") {
        let embed_q = GroupedLinear::load(w, "embed_q", [heads, rank, plain])?;
        return Ok([embed_q, GroupedLinear::load(w, "unembed_out", [heads, value, rank])?]);
    }
    let rows = heads * (plain + value);
    let both = Matrix::load(&mut w.at("kv_b_proj"), rows, rank)?;
    apart(&both, sizes).map_err(mlx::failed)
}

/// What makes keys of latent vectors, the other way round, and what makes values of them.
fn apart(both: &Matrix, sizes: &MlaSizes) -> Result<[GroupedLinear; 2]> {
    let [heads, rank, plain, value] =
        [sizes.heads, sizes.rank, sizes.plain, sizes.value].map(|n| n as i32);
    let all = both.rows(&arange::<i32, i32>(None, heads * (plain + value), None)?)?;
    let parts = split_at_indices(all.reshape(&[heads, plain + value, rank])?, &[plain], 1)?;
    let embed_q = parts[0].swap_axes(-1, -2)?.contiguous()?;
    let unembed_out = parts[1].contiguous()?;
    Ok([GroupedLinear::Dense(embed_q), GroupedLinear::Dense(unembed_out)])
}
