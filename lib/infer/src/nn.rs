//! The layers that models are made of, named as the tensors of MLX checkpoints are.
//!
//! A layer is loaded from its place in the checkpoint, and what is there decides its form; running
//! it decides nothing. Shapes are [1, rows, size] unless said otherwise; rows are those of one text
//! or of several, one after another.

use mlx_rs::Array;
use mlx_rs::error::Result;

use crate::cache::Texts;
use crate::kernels::{Heads, Kernels};
use crate::matrix::Matrix;
use crate::rope::Rope;
use crate::weights::Cursor;

/// `x W.T + b`; the bias is there if the checkpoint has one.
pub struct Linear {
    weight: Matrix,
    bias: Option<Array>,
}

impl Linear {
    /// The layer `name` of `w`, from `ins` to `outs` elements.
    pub fn load(w: &mut Cursor, name: &str, outs: usize, ins: usize) -> mlxk_core::Result<Linear> {
        let mut w = w.at(name);
        let bias = w.optional("bias", &[outs])?;
        Ok(Linear { weight: Matrix::load(&mut w, outs, ins)?, bias })
    }

    /// [.., ins] to [.., outs].
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let y = self.weight.times(x)?;
        match &self.bias {
            Some(bias) => y.add(bias),
            None => Ok(y),
        }
    }
}

/// A vector for each token.
pub struct Embedding {
    weight: Matrix,
}

impl Embedding {
    /// The layer `name` of `w`: `count` vectors of `size` elements.
    pub fn load(
        w: &mut Cursor,
        name: &str,
        count: usize,
        size: usize,
    ) -> mlxk_core::Result<Embedding> {
        Ok(Embedding { weight: Matrix::load(&mut w.at(name), count, size)? })
    }

    /// The vectors of `ids` [1, length].
    pub fn forward(&self, ids: &Array) -> Result<Array> {
        self.weight.rows(ids)
    }

    /// The products of `x` with all vectors: the head of a model whose embeddings are tied.
    pub fn as_linear(&self, x: &Array) -> Result<Array> {
        self.weight.times(x)
    }
}

/// Division by the root of the mean square, then a factor for each element.
pub struct RmsNorm {
    weight: Array,
    eps: f32,
    kernels: &'static Kernels,
}

impl RmsNorm {
    /// The layer `name` of `w`, over `size` elements.
    pub fn load(w: &mut Cursor, name: &str, size: usize, eps: f32) -> mlxk_core::Result<RmsNorm> {
        Ok(RmsNorm { weight: w.at(name).floats("weight", &[size])?, eps, kernels: w.kernels() })
    }

    /// The layer `name` if the checkpoint has it.
    pub fn optional(
        w: &mut Cursor,
        name: &str,
        size: usize,
        eps: f32,
    ) -> mlxk_core::Result<Option<RmsNorm>> {
        let there = w.at(name).has("weight");
        there.then(|| RmsNorm::load(w, name, size, eps)).transpose()
    }

    /// Normalises the last axis, whatever the others.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        (self.kernels.norm)(x, &self.weight, self.eps)
    }
}

/// The numbers of an attention layer that its weights do not show.
pub struct Sizes {
    /// Elements of the model's vectors.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each shared by `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Of the norms of queries and keys, if the checkpoint has them.
    pub norm_eps: f32,
}

/// Self-attention.
pub struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    rope: Option<Rope>,
    head_dim: i32,
    kernels: &'static Kernels,
}

impl Attention {
    /// The layer at `w`; without `rope` it does not know positions.
    pub fn load(w: &mut Cursor, sizes: &Sizes, rope: Option<Rope>) -> mlxk_core::Result<Attention> {
        let &Sizes { hidden, heads, kv_heads, head_dim, norm_eps } = sizes;
        Ok(Attention {
            q_proj: Linear::load(w, "q_proj", heads * head_dim, hidden)?,
            k_proj: Linear::load(w, "k_proj", kv_heads * head_dim, hidden)?,
            v_proj: Linear::load(w, "v_proj", kv_heads * head_dim, hidden)?,
            o_proj: Linear::load(w, "o_proj", hidden, heads * head_dim)?,
            q_norm: RmsNorm::optional(w, "q_norm", head_dim, norm_eps)?,
            k_norm: RmsNorm::optional(w, "k_norm", head_dim, norm_eps)?,
            rope,
            head_dim: head_dim as i32,
            kernels: w.kernels(),
        })
    }

    /// Lets each token look at those of its text that slot number `slot` remembers, at itself and
    /// those before.
    pub fn forward(&self, x: &Array, texts: &mut Texts, slot: usize) -> Result<Array> {
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(|proj| proj.forward(x));
        let mixed = texts.each_kv(slot, [&q?, &k?, &v?], |[q, k, v], kv| {
            let rope = self.rope.as_ref().map(|rope| (rope, kv.offset()));
            let queries = self.heads(q, self.q_norm.as_ref(), rope)?;
            kv.append(&self.heads(k, self.k_norm.as_ref(), rope)?, &self.heads(v, None, None)?)?;
            (self.kernels.attend)(&queries, kv, (self.head_dim as f32).powf(-0.5))
        })?;
        self.o_proj.forward(&mixed)
    }

    /// [1, length, heads * size] to [1, heads, length, size], normed and rotated if need be.
    fn heads(
        &self,
        x: &Array,
        norm: Option<&RmsNorm>,
        rope: Option<(&Rope, i32)>,
    ) -> Result<Array> {
        let norm = norm.map(|norm| (&norm.weight, norm.eps));
        (self.kernels.heads)(x, &Heads { size: self.head_dim, norm, rope })
    }
}

/// The gated feed-forward layer with SiLU.
pub struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    kernels: &'static Kernels,
}

impl Mlp {
    /// The layer at `w`, from `hidden` elements to `inner` and back.
    pub fn load(w: &mut Cursor, hidden: usize, inner: usize) -> mlxk_core::Result<Mlp> {
        Ok(Mlp {
            gate_proj: Linear::load(w, "gate_proj", inner, hidden)?,
            up_proj: Linear::load(w, "up_proj", inner, hidden)?,
            down_proj: Linear::load(w, "down_proj", hidden, inner)?,
            kernels: w.kernels(),
        })
    }

    /// `down(silu(gate(x)) * up(x))`.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let (gate, up) = (self.gate_proj.forward(x)?, self.up_proj.forward(x)?);
        self.down_proj.forward(&(self.kernels.swiglu)(&gate, &up)?)
    }
}
