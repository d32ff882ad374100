//! Attention of Gemma 3n and Gemma 4: values are normed, and the last layers share the keys and
//! values of earlier ones.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::Sequences;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams};
use mlxk_tensor::ops::rope::Rope;

use super::linear::Linear;
use super::norm::{Norm, NormArch, NormKind};
use crate::checkpoint::cursor::Cursor;

/// Attention layer with keys and values of its own, or with those of an earlier layer.
pub struct SharedKv {
    q_proj: Linear,
    q_norm: Norm,
    /// Projections of keys and values; `None` if the layer attends to those of another layer.
    own: Option<KvProjections>,
    o_proj: Linear,
    rope: Rope,
    head_dim: i32,
    slot: usize,
    scores: AttentionParams,
    ops: &'static dyn Ops,
}

/// Projections and norms of keys and values.
struct KvProjections {
    k_proj: Linear,
    k_norm: Norm,
    /// Projection of values; `None` if values are the keys before norm and rotation.
    v_proj: Option<Linear>,
    v_norm: Norm,
}

/// Parameters of the layer that its weights do not show.
#[derive(Clone)]
pub struct SharedKvArch {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Norm of the queries and keys of a head; that of values has no weight.
    pub norm: NormArch,
    /// Rotary position embedding of queries and keys.
    pub rope: Rope,
    /// Cache slot of the keys and values that the layer attends to.
    pub slot: usize,
    /// True if the layer computes the keys and values in that slot.
    pub own: bool,
    /// True if values are the keys before norm and rotation (`attention_k_eq_v`).
    pub k_eq_v: bool,
}

impl SharedKv {
    /// Loads the layer at `w`.
    pub fn load(w: &mut Cursor, arch: SharedKvArch) -> mlxk_core::Result<SharedKv> {
        let SharedKvArch { hidden, heads, head_dim, norm, .. } = arch;
        if !arch.own && w.has("k_proj.weight") {
            // Some checkpoints carry keys and values that no layer uses.
            KvProjections::load(w, &arch)?;
        }
        Ok(SharedKv {
            q_proj: Linear::load(w, "q_proj", heads * head_dim, hidden)?,
            q_norm: norm.load(w, "q_norm", head_dim)?,
            own: arch.own.then(|| KvProjections::load(w, &arch)).transpose()?,
            o_proj: Linear::load(w, "o_proj", hidden, heads * head_dim)?,
            rope: arch.rope,
            head_dim: head_dim as i32,
            slot: arch.slot,
            scores: AttentionParams { scale: 1.0, softcap: None, sinks: None, bias: None },
            ops: w.ops(),
        })
    }

    /// Output [1, rows, hidden] for `x` of that shape: causal attention of each row to the cached
    /// tokens of its sequence.
    pub fn forward(&self, x: &Array, sequences: &mut Sequences) -> Result<Array> {
        let q = self.q_proj.forward(x)?;
        let mixed = match &self.own {
            Some(own) => {
                let k = own.k_proj.forward(x)?;
                let v = own.v_proj.as_ref().map_or(Ok(k.clone()), |v_proj| v_proj.forward(x))?;
                sequences.each_kv(self.slot, [&q, &k, &v], |[q, k, v], kv| {
                    let offset = kv.offset();
                    let keys = self.heads(k, &own.k_norm, Some(offset))?;
                    kv.append(&keys, &self.heads(v, &own.v_norm, None)?)?;
                    let queries = self.heads(q, &self.q_norm, Some(offset))?;
                    self.ops.attend_cached(&queries, kv, &self.scores)
                })?
            }
            None => sequences.each_kv(self.slot, [&q], |[q], kv| {
                let offset = kv.offset() - q.dim(1);
                let queries = self.heads(q, &self.q_norm, Some(offset))?;
                self.ops.attend_cached(&queries, kv, &self.scores)
            })?,
        };
        self.o_proj.forward(&mixed)
    }

    /// Splits [1, rows, heads * size] into heads [1, heads, rows, size], normed, and rotated if
    /// there is a position.
    fn heads(&self, x: &Array, norm: &Norm, offset: Option<i32>) -> Result<Array> {
        let heads = HeadsParams {
            size: self.head_dim,
            norm: Some(norm.params()),
            rotated_first: false,
            rope: offset.map(|offset| (&self.rope, offset.into())),
        };
        self.ops.split_heads(x, &heads)
    }
}

impl KvProjections {
    fn load(w: &mut Cursor, arch: &SharedKvArch) -> mlxk_core::Result<KvProjections> {
        let &SharedKvArch { hidden, kv_heads, head_dim, norm, .. } = arch;
        let outs = kv_heads * head_dim;
        let v_proj = (!arch.k_eq_v).then(|| Linear::load(w, "v_proj", outs, hidden)).transpose()?;
        let bare = NormArch { kind: NormKind::Bare, ..norm };
        Ok(KvProjections {
            k_proj: Linear::load(w, "k_proj", outs, hidden)?,
            k_norm: norm.load(w, "k_norm", head_dim)?,
            v_proj,
            v_norm: bare.load(w, "v_norm", head_dim)?,
        })
    }
}

/// Cache slot of each layer's keys and values, by layer types: the last `shared` layers use the
/// slot of the last layer of their type before them; `None` if there is no such layer or `shared`
/// exceeds the layers.
pub fn slots(kinds: &[String], shared: usize) -> Option<Vec<usize>> {
    let own = kinds.len().checked_sub(shared)?;
    let slot = |(i, kind): (usize, &String)| match i < own {
        true => Some(i),
        false => kinds[..own].iter().rposition(|other| other == kind),
    };
    kinds.iter().enumerate().map(slot).collect()
}

/// True if the tensor `name` belongs to keys or values of a layer from `own` on, which checkpoints
/// carry and no layer uses.
pub fn is_unused(name: &str, own: usize) -> bool {
    let Some((layer, part)) =
        name.split_once(".layers.").and_then(|(_, rest)| rest.split_once(".self_attn."))
    else {
        return false;
    };
    let makes = ["k_proj.", "v_proj.", "k_norm."].iter().any(|made| part.starts_with(made));
    makes && layer.parse().is_ok_and(|layer: usize| layer >= own)
}
