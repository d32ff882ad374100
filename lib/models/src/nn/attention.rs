//! Multi-head self-attention with grouped queries.

use mlx_rs::error::Result;
use mlx_rs::ops::{arange, clip, logaddexp, sigmoid};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Kv, Sequences};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams};
use mlxk_tensor::ops::rope::Rope;
use mlxk_tensor::positions::{Positions, RowPositions};

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
    /// Elements of a head's queries and keys.
    pub head_dim: usize,
    /// Elements of a head's values.
    pub value_dim: usize,
    /// Factor of the output.
    pub value_scale: f32,
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
    /// Bound of the magnitude of queries, keys and values, which are clipped to it.
    pub clip: Option<f32>,
    /// True if each head has an attention sink (arXiv 2309.17453), a score that takes part in the
    /// softmax and has no value; `None` if the checkpoint decides, for all layers alike.
    pub sinks: Option<bool>,
    /// Sharing of keys and values with other layers.
    pub sharing: Sharing,
    /// Gate of the output. The matrix of gates for each element may be fused with that of queries.
    pub gate: Option<Gate>,
    /// Temperature tuning of queries.
    pub temperature_tuning: Option<TemperatureTuning>,
}

impl Sizes {
    /// Numbers and sizes of heads.
    fn layout(&self) -> shard::Heads {
        shard::Heads {
            queries: self.heads,
            keys: self.kv_heads,
            size: self.head_dim,
            value_size: self.value_dim,
            gates: if self.gate.is_some_and(|gate| gate.by_head) { 1 } else { self.value_dim },
        }
    }
}

/// Sharing of keys and values between layers (cross-layer attention, arXiv 2405.12981). Norms of
/// keys must come after the rotation in layers that share; their weights, which may differ from
/// layer to layer, are applied to queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sharing {
    /// The layer has keys and values of its own, which no other layer uses.
    Nothing,
    /// The layer has keys and values of its own, which later layers use too.
    Lends,
    /// The layer uses the keys and values of the last layer before it that lends.
    Borrows,
}

/// Gate of the attention output, computed by a linear layer from the input (gated attention, arXiv
/// 2505.06708).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// True if the elements of a head share a gate.
    pub by_head: bool,
    /// True if the gate is softplus, `log(1 + exp(x))`; false if it is a sigmoid.
    pub softplus: bool,
}

impl Gate {
    /// Sigmoid gate of each element.
    pub const SIGMOID: Gate = Gate { by_head: false, softplus: false };

    /// Product of `mixed` [1, rows, heads * size] and the gates of the logits `x` [1, rows, heads
    /// or heads * size].
    fn apply(self, mixed: &Array, x: &Array) -> Result<Array> {
        let gates = match self.softplus {
            true => logaddexp(x.as_dtype(Dtype::Float32)?, Array::from_f32(0.0))?,
            false => sigmoid(x)?,
        };
        let gates = gates.as_dtype(mixed.dtype())?;
        if !self.by_head {
            return mixed.multiply(gates);
        }
        let heads = mixed.reshape(&[1, mixed.dim(1), gates.dim(2), -1])?;
        heads.multiply(gates.expand_dims(-1)?)?.reshape(mixed.shape())
    }
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
    q_norm: Option<Norm>,
    /// Projections of keys and values; `None` if the layer borrows them.
    own: Option<KvProjections>,
    o_proj: Linear,
    /// Norm before `o_proj`, if the checkpoint has it.
    attn_sub_norm: Option<Norm>,
    gate_proj: Option<Linear>,
    rope: Option<Rope>,
    scores: AttentionParams,
    sizes: Sizes,
    ops: &'static dyn Ops,
}

/// Projections of keys and values, and norm of keys.
struct KvProjections {
    k_proj: Linear,
    k_norm: Option<Norm>,
    v_proj: Linear,
}

impl Attention {
    /// Loads the layer at `w`; without `rope` it uses no positions.
    pub fn load(w: &mut Cursor, sizes: &Sizes, rope: Option<Rope>) -> mlxk_core::Result<Attention> {
        let &Sizes { hidden, heads, kv_heads, head_dim, value_dim, norm, .. } = sizes;
        let outs = heads * head_dim;
        if let Some(parts) = sizes.fused {
            let [keys, values] = [kv_heads * head_dim, kv_heads * value_dim];
            w.split("qkv_proj", parts, &[("q_proj", outs), ("k_proj", keys), ("v_proj", values)])?;
        }
        if sizes.gate.is_some() && !w.has("gate_proj.weight") {
            w.split("q_proj", heads, &[("q_proj", outs), ("gate_proj", heads * value_dim)])?;
        }
        let heads = shard::heads(w, &sizes.layout())?;
        let sizes = &Sizes { heads: heads.queries, kv_heads: heads.keys, ..*sizes };
        let &Sizes { heads, kv_heads, .. } = sizes;
        let mixed = heads * value_dim;
        let gate = sizes.gate.map(|gate| {
            let outs = if gate.by_head { heads } else { mixed };
            Linear::load(w, "gate_proj", outs, hidden)
        });
        let normed = w.at("attn_sub_norm").offers("weight");
        let sinks = match sizes.sinks {
            None => w.optional("sinks", &[heads])?,
            Some(there) => there.then(|| w.floats("sinks", &[heads])).transpose()?,
        };
        let q_norm = norm.of_heads(w, "q_norm", heads, head_dim)?;
        let k_norm = norm.of_heads(w, "k_norm", kv_heads, head_dim)?;
        let (q_norm, k_norm) = match (sizes.sharing, q_norm, k_norm) {
            (Sharing::Lends | Sharing::Borrows, Some(q), Some(k)) => {
                let [q, k] = Norm::on_queries(q, k).map_err(mlx::failed)?;
                (Some(q), Some(k))
            }
            (_, q, k) => (q, k),
        };
        let own = match sizes.sharing {
            Sharing::Borrows => None,
            _ => Some(KvProjections {
                k_proj: Linear::load(w, "k_proj", kv_heads * head_dim, hidden)?,
                k_norm,
                v_proj: Linear::load(w, "v_proj", kv_heads * value_dim, hidden)?,
            }),
        };
        Ok(Attention {
            q_proj: Linear::load(w, "q_proj", heads * head_dim, hidden)?,
            q_norm,
            own,
            o_proj: Linear::load(w, "o_proj", hidden, mixed)?,
            attn_sub_norm: normed.then(|| norm.load(w, "attn_sub_norm", mixed)).transpose()?,
            gate_proj: gate.transpose()?,
            rope,
            scores: AttentionParams {
                scale: sizes.scale,
                softcap: sizes.softcap,
                sinks,
                bias: None,
            },
            sizes: *sizes,
            ops: w.ops(),
        })
    }

    /// True if the layer uses the keys and values of an earlier layer.
    pub fn borrows(&self) -> bool {
        self.own.is_none()
    }

    /// Causal attention of each row to the tokens of its sequence, whose keys and values are cached
    /// in slot number `slot`.
    pub fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let Sizes { head_dim, value_dim, value_scale, temperature_tuning, .. } = self.sizes;
        let (q, q_norm) =
            self.norm_all_heads(self.project(&self.q_proj, x)?, self.q_norm.as_ref())?;
        let attend = |q: &Array, kv: &Kv, positions: RowPositions| {
            let first = kv.offset() - q.dim(1);
            let queries = self.heads(q, head_dim, q_norm, self.rotation(positions.from(first)))?;
            let queries = tune_temperature(temperature_tuning, queries, first)?;
            self.ops.attend_cached(&queries, kv, &self.scores)
        };
        let mut mixed = match &self.own {
            Some(KvProjections { k_proj, k_norm, v_proj }) => {
                let (k, k_norm) = self.norm_all_heads(self.project(k_proj, x)?, k_norm.as_ref())?;
                let v = self.project(v_proj, x)?;
                sequences.each_positioned(slot, [&q, &k, &v], |[q, k, v], kv, positions| {
                    let keys = self.heads(
                        k,
                        head_dim,
                        k_norm,
                        self.rotation(positions.from(kv.offset())),
                    )?;
                    let values = self.heads(v, value_dim, None, None)?;
                    self.ops.append_kv(kv, &keys, &values)?;
                    attend(q, kv, positions)
                })?
            }
            None => sequences
                .each_positioned(slot, [&q], |[q], kv, positions| attend(q, kv, positions))?,
        };
        if value_scale != 1.0 {
            mixed = mixed.multiply(mlx::number(value_scale, &mixed)?)?;
        }
        if let Some(norm) = &self.attn_sub_norm {
            mixed = norm.forward(&mixed)?;
        }
        if let Some((gate, proj)) = self.sizes.gate.zip(self.gate_proj.as_ref()) {
            mixed = gate.apply(&mixed, &proj.forward(x)?)?;
        }
        self.o_proj.forward(&mixed)
    }

    /// Queries, keys or values [1, rows, heads * size] of `x` [1, rows, hidden], clipped.
    fn project(&self, proj: &Linear, x: &Array) -> Result<Array> {
        let y = proj.forward(x)?;
        match self.sizes.clip {
            None => Ok(y),
            Some(most) => clip(&y, (mlx::number(-most, &y)?, mlx::number(most, &y)?)),
        }
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

    /// Rotation of rows at `positions`; `None` if the layer has no position embedding.
    fn rotation<'p>(&self, positions: Positions<'p>) -> Option<(&Rope, Positions<'p>)> {
        self.rope.as_ref().map(|rope| (rope, positions))
    }

    /// Splits [1, length, heads * size] into heads [1, heads, length, size], normed and rotated.
    fn heads(
        &self,
        x: &Array,
        size: usize,
        norm: Option<&Norm>,
        rope: Option<(&Rope, Positions)>,
    ) -> Result<Array> {
        let heads = HeadsParams {
            size: size as i32,
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
    temperature_tuning: Option<TemperatureTuning>,
    queries: Array,
    offset: i32,
) -> Result<Array> {
    let Some(TemperatureTuning { beta, shift, trained }) = temperature_tuning else {
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
