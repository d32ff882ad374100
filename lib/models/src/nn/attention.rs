//! Multi-head self-attention with grouped queries.

use mlx_rs::error::Result;
use mlx_rs::ops::{arange, sigmoid};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::Sequences;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams};
use mlxk_tensor::ops::rope::Rope;

use super::linear::Linear;
use super::norm::{Norm, NormArch};
use super::shard;
use crate::checkpoint::cursor::Cursor;

/// Parameters of an attention layer that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, each shared by `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Bound of the scores: `cap * tanh(product / cap)`.
    pub softcap: Option<f32>,
    /// Norm of queries and keys, if the checkpoint has such norms.
    pub norm: NormArch,
    /// True if rotation comes before these norms.
    pub rotated_first: bool,
    /// Parts of the fused matrix `qkv_proj`, in each of which rows of queries, keys and values
    /// follow each other; `None` if the checkpoint has three matrices.
    pub fused: Option<usize>,
    /// True if the output is gated by a sigmoid, element by element. The gate's matrix may be fused
    /// with that of queries.
    pub gated: bool,
    /// Temperature tuning of queries.
    pub warmth: Option<TemperatureTuning>,
}

/// Temperature tuning of attention for long sequences (Llama 4): queries are scaled by `1 + beta *
/// ln(1 + floor((position + shift) / trained))`, which sharpens attention beyond the trained
/// length.
#[derive(Clone, Copy, Debug)]
pub struct TemperatureTuning {
    /// Factor of the logarithm (`attn_scale`).
    pub beta: f32,
    /// Addition to positions, 1 if they are counted from 1.
    pub shift: i32,
    /// Positions of a sequence in training (`floor_scale`).
    pub trained: f32,
}

/// Attention layer.
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    /// Norm before `o_proj`, if the checkpoint has it.
    attn_sub_norm: Option<Norm>,
    gate_proj: Option<Linear>,
    rope: Option<Rope>,
    scores: AttentionParams,
    sizes: Sizes,
    ops: &'static dyn Ops,
}

impl Attention {
    /// Loads the layer at `w`; without `rope` it uses no positions.
    pub fn load(w: &mut Cursor, sizes: &Sizes, rope: Option<Rope>) -> mlxk_core::Result<Attention> {
        let &Sizes { hidden, heads, kv_heads, head_dim, norm, .. } = sizes;
        let [outs, kv_outs] = [heads * head_dim, kv_heads * head_dim];
        if let Some(parts) = sizes.fused {
            let rows = [("q_proj", outs), ("k_proj", kv_outs), ("v_proj", kv_outs)];
            w.split("qkv_proj", parts, &rows)?;
        }
        if sizes.gated && !w.has("gate_proj.weight") {
            w.split("q_proj", heads, &[("q_proj", outs), ("gate_proj", outs)])?;
        }
        let (heads, kv_heads) = shard::heads(w, heads, kv_heads, head_dim)?;
        let [outs, kv_outs] = [heads * head_dim, kv_heads * head_dim];
        let gate = sizes.gated.then(|| Linear::load(w, "gate_proj", outs, hidden)).transpose()?;
        let normed = w.at("attn_sub_norm").offers("weight");
        let sinks = w.optional("sinks", &[heads])?;
        Ok(Attention {
            q_proj: Linear::load(w, "q_proj", outs, hidden)?,
            k_proj: Linear::load(w, "k_proj", kv_outs, hidden)?,
            v_proj: Linear::load(w, "v_proj", kv_outs, hidden)?,
            o_proj: Linear::load(w, "o_proj", hidden, outs)?,
            q_norm: norm.of_heads(w, "q_norm", heads, head_dim)?,
            k_norm: norm.of_heads(w, "k_norm", kv_heads, head_dim)?,
            attn_sub_norm: normed.then(|| norm.load(w, "attn_sub_norm", outs)).transpose()?,
            gate_proj: gate,
            rope,
            scores: AttentionParams { scale: sizes.scale, softcap: sizes.softcap, sinks },
            sizes: *sizes,
            ops: w.ops(),
        })
    }

    /// Causal attention of each row to the tokens of its sequence, whose keys and values are cached
    /// in slot number `slot`.
    pub fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(|proj| proj.forward(x));
        let (q, q_norm) = self.norm_all_heads(q?, self.q_norm.as_ref())?;
        let (k, k_norm) = self.norm_all_heads(k?, self.k_norm.as_ref())?;
        let mut mixed = sequences.each_kv(slot, [&q, &k, &v?], |[q, k, v], kv| {
            let rope = self.rope.as_ref().map(|rope| (rope, kv.offset()));
            let queries = self.heads(q, q_norm, rope)?;
            let queries = tune_temperature(self.sizes.warmth, queries, kv.offset())?;
            let (k, v) = (self.heads(k, k_norm, rope)?, self.heads(v, None, None)?);
            self.ops.append_kv(kv, &k, &v)?;
            self.ops.attend_cached(&queries, kv, &self.scores)
        })?;
        if let Some(norm) = &self.attn_sub_norm {
            mixed = norm.forward(&mixed)?;
        }
        if let Some(gate) = &self.gate_proj {
            mixed = mixed.multiply(sigmoid(gate.forward(x)?)?)?;
        }
        self.o_proj.forward(&mixed)
    }

    /// Applies `norm` if it spans all heads; else returns it, to be applied to each head.
    fn norm_all_heads<'n>(
        &self,
        x: Array,
        norm: Option<&'n Norm>,
    ) -> Result<(Array, Option<&'n Norm>)> {
        match norm {
            Some(norm) if norm.spans(x.dim(-1)) => Ok((norm.forward(&x)?, None)),
            norm => Ok((x, norm)),
        }
    }

    /// Splits [1, length, heads * size] into heads [1, heads, length, size], normed and rotated.
    fn heads(&self, x: &Array, norm: Option<&Norm>, rope: Option<(&Rope, i32)>) -> Result<Array> {
        let heads = HeadsParams {
            size: self.sizes.head_dim as i32,
            norm: norm.map(Norm::params),
            rotated_first: self.sizes.rotated_first,
            rope,
        };
        self.ops.split_heads(x, &heads)
    }
}

/// Queries [1, heads, length, size] scaled by temperature tuning, the first of them at position
/// `offset`.
pub fn tune_temperature(
    warmth: Option<TemperatureTuning>,
    queries: Array,
    offset: i32,
) -> Result<Array> {
    let Some(TemperatureTuning { beta, shift, trained }) = warmth else {
        return Ok(queries);
    };
    let first = offset + shift;
    let positions = arange::<i32, i32>(first, first + queries.dim(-2), None)?;
    let positions = positions.as_dtype(Dtype::Float32)?;
    let sequences = positions.divide(mlx::number(trained, &positions)?)?.floor()?;
    let growth = sequences.log1p()?.multiply(mlx::number(beta, &sequences)?)?;
    let factor = growth.add(mlx::number(1.0, &growth)?)?.reshape(&[-1, 1])?;
    queries.multiply(factor.as_dtype(queries.dtype())?)
}
