//! Self-attention.

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

/// What the weights of an attention layer do not show.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Elements of the model's vectors.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each shared by `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of a head's queries and keys.
    pub head_dim: usize,
    /// Elements of a head's values.
    pub value_dim: usize,
    /// Factor of values.
    pub value_scale: f32,
    /// What the products of queries and keys are multiplied by.
    pub scale: f32,
    /// What these products never exceed: they become `cap * tanh(product / cap)`.
    pub softcap: Option<f32>,
    /// Of the norms of queries and keys, if the checkpoint has them.
    pub norm: NormArch,
    /// Whether these come after the rotation.
    pub rotated_first: bool,
    /// If queries, keys and values are one matrix on disk: in how many parts its rows are queries,
    /// keys, values in turn.
    pub fused: Option<usize>,
    /// Largest magnitude of the elements of queries, keys and values; what exceeds it is clipped.
    pub clip: Option<f32>,
    /// True if each head has a score that takes a share of attention and gives nothing (attention
    /// sinks, arXiv 2309.17453); `None` if the checkpoint says so, for all layers alike.
    pub sinks: Option<bool>,
    /// Whose keys and values the layer attends to.
    pub sharing: Sharing,
    /// Gates on what attention puts out; those of elements may be one matrix with the queries.
    pub gate: Option<Gate>,
    /// How queries grow with their position.
    pub warmth: Option<TemperatureTuning>,
}

impl Sizes {
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

/// Layers that attend to the keys and values of another (cross-layer attention, arXiv 2405.12981). Norms
/// of keys, which may differ from layer to layer, then come after the rotation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sharing {
    /// Keys and values of its own, for itself.
    Nothing,
    /// Keys and values of its own, for itself and layers after it.
    Lends,
    /// Those of the last layer before it that lends.
    Borrows,
}

/// Gates, numbers that what attention puts out is multiplied by; a linear layer makes them of what goes
/// in (gated attention, arXiv 2505.06708).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// True if all elements of a head share a gate.
    pub by_head: bool,
    /// True if the layer's outputs `x` become `log(1 + exp(x))`, false if `1 / (1 + exp(-x))`.
    pub softplus: bool,
}

impl Gate {
    /// A sigmoid for each element.
    pub const SIGMOID: Gate = Gate { by_head: false, softplus: false };

    /// `mixed` [1, rows, heads * size] times the gates of `x` [1, rows, heads or heads * size].
    fn pass(self, mixed: &Array, x: &Array) -> Result<Array> {
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

/// A factor `1 + beta * ln(1 + floor((position + shift) / trained))` for queries: attention over
/// sequences longer than those of the training becomes sharper.
#[derive(Clone, Copy, Debug)]
pub struct TemperatureTuning {
    /// How much sharper.
    pub beta: f32,
    /// Where the first position counts from.
    pub shift: i32,
    /// Positions in a text of the training.
    pub trained: f32,
}

/// Self-attention.
pub struct Attention {
    q_proj: Linear,
    q_norm: Option<Norm>,
    /// `None` if it borrows them.
    own: Option<Own>,
    o_proj: Linear,
    /// Before `o_proj`, if the checkpoint has it.
    attn_sub_norm: Option<Norm>,
    gate_proj: Option<Linear>,
    rope: Option<Rope>,
    scores: AttentionParams,
    sizes: Sizes,
    ops: &'static dyn Ops,
}

/// What makes keys and values.
struct Own {
    k_proj: Linear,
    k_norm: Option<Norm>,
    v_proj: Linear,
}

impl Attention {
    /// The layer at `w`; without `rope` it does not know positions.
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
            _ => Some(Own {
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
            scores: AttentionParams { scale: sizes.scale, softcap: sizes.softcap, sinks },
            sizes: *sizes,
            ops: w.ops(),
        })
    }

    /// True if the keys and values are those of a layer before it.
    pub fn borrows(&self) -> bool {
        self.own.is_none()
    }

    /// Lets each token look at those of its text that slot number `slot` remembers, at itself and
    /// those before.
    pub fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let Sizes { head_dim, value_dim, value_scale, warmth, .. } = self.sizes;
        let (q, q_norm) = self.normed_as_one(self.made(&self.q_proj, x)?, self.q_norm.as_ref())?;
        let attend = |q: &Array, kv: &Kv, positions: RowPositions| {
            let first = kv.offset() - q.dim(1);
            let queries = self.heads(q, head_dim, q_norm, self.rotation(positions.from(first)))?;
            let queries = warmed(warmth, queries, first)?;
            self.ops.attend_cached(&queries, kv, &self.scores)
        };
        let mut mixed = match &self.own {
            Some(Own { k_proj, k_norm, v_proj }) => {
                let (k, k_norm) = self.normed_as_one(self.made(k_proj, x)?, k_norm.as_ref())?;
                let v = self.made(v_proj, x)?;
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
            mixed = gate.pass(&mixed, &proj.forward(x)?)?;
        }
        self.o_proj.forward(&mixed)
    }

    /// Queries, keys or values of `x` [1, rows, hidden]: [1, rows, heads * size].
    fn made(&self, proj: &Linear, x: &Array) -> Result<Array> {
        let y = proj.forward(x)?;
        match self.sizes.clip {
            None => Ok(y),
            Some(most) => clip(&y, (mlx::number(-most, &y)?, mlx::number(most, &y)?)),
        }
    }

    /// All heads normed as one, if `norm` is such; else the norm that is still to be done.
    fn normed_as_one<'n>(
        &self,
        x: Array,
        norm: Option<&'n Norm>,
    ) -> Result<(Array, Option<&'n Norm>)> {
        match norm {
            Some(norm) if norm.spans(x.dim(-1)) => Ok((norm.forward(&x)?, None)),
            norm => Ok((x, norm)),
        }
    }

    /// Rotation of rows at `positions`, if the layer has position embeddings.
    fn rotation<'p>(&self, positions: Positions<'p>) -> Option<(&Rope, Positions<'p>)> {
        self.rope.as_ref().map(|rope| (rope, positions))
    }

    /// [1, length, heads * size] to [1, heads, length, size], normed and rotated if need be.
    fn heads(
        &self,
        x: &Array,
        size: usize,
        norm: Option<&Norm>,
        rope: Option<(&Rope, Positions)>,
    ) -> Result<Array> {
        let heads = HeadsParams {
            size: size as i32,
            norm: norm.map(Norm::scale),
            rotated_first: self.sizes.rotated_first,
            rope,
        };
        self.ops.split_heads(x, &heads)
    }
}

/// Queries [1, heads, length, size] from position `offset` on, times what `warmth` makes of those.
pub fn warmed(warmth: Option<TemperatureTuning>, queries: Array, offset: i32) -> Result<Array> {
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
