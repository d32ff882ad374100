//! The steps of a layer in the form that suits the device, chosen once when a model is loaded.

use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::{select, softmax_axis, split_at_indices};
use mlx_rs::{Array, fast};

pub use crate::activation::Activation;
use crate::attention;
use crate::cache::{Kv, Visible};
use crate::eager;
use crate::matrix::Weights;
use crate::mixture::{Choice, Experts, Routing, experts, router};
use crate::mlx;
use crate::nn::balance;
use crate::quantized;
use crate::recurrent::{Conv, Delta, GatedNorm, Selective, Ssd, conv, delta, gate, selective, ssd};
use crate::rope::Rope;

/// One way to do each step; x is [1, length, size] unless said otherwise.
pub struct Kernels {
    /// `x W.T`.
    pub product: fn(&Weights, &Array) -> Result<Array>,
    /// The rows `ids` [..] of weights, as [.., ins].
    pub rows: fn(&Weights, &Array) -> Result<Array>,
    /// The last axis normalised.
    pub norm: fn(&Array, &Scale) -> Result<Array>,
    /// [1, length, heads * size] to [1, heads, length, size].
    pub heads: fn(&Array, &Heads) -> Result<Array>,
    /// Adds keys and values [1, heads, n, head size] to those that are remembered.
    pub append: fn(&mut Kv, &Array, &Array) -> Result<()>,
    /// What queries [1, heads, length, size], the last of those remembered, attend to:
    /// [1, length, heads * size of a value].
    pub attend: fn(&Array, &Kv, &Scores) -> Result<Array>,
    /// `activation(gate) * up`.
    pub gate: fn(&Array, &Array, Activation) -> Result<Array>,
    /// `activation(x)`.
    pub activate: fn(&Array, Activation) -> Result<Array>,
    /// The sum of two arrays of one shape.
    pub add: fn(&Array, &Array) -> Result<Array>,
    /// Their product, element by element.
    pub multiply: fn(&Array, &Array) -> Result<Array>,
    /// The last axis in parts of these sizes, which sum up to its own: see [`parts`](Self::parts).
    pub split: fn(&Array, &[i32]) -> Result<Vec<Array>>,
    /// The convolution of [1, rows, channels], and the last rows that it has seen.
    pub conv: fn(&Conv, &Array, &mut Option<Array>) -> Result<Array>,
    /// The state space of Mamba 2, and its state: see [`Ssd::forward`].
    pub ssd: fn(&Ssd, [&Array; 4], &mut Option<Array>) -> Result<Array>,
    /// That of Mamba: see [`Selective::forward`].
    pub selective: fn(&Selective, [&Array; 4], &mut Option<Array>) -> Result<Array>,
    /// The gated delta rule, and its state: see [`Delta::forward`].
    pub delta: fn(&Delta, [&Array; 3], &mut Option<Array>) -> Result<Array>,
    /// The norm of what such layers put out, and its gate.
    pub gated_norm: fn(&GatedNorm, &Array, &Array) -> Result<Array>,
    /// The experts that tokens run through, by their logits [rows, experts] and a correction.
    pub route: fn(&Routing, &Array, Option<&Array>) -> Result<Choice>,
    /// Matrices [.., n, n] balanced in so many rounds: see [`Hyper`](crate::nn::Hyper).
    pub balance: fn(&Array, usize, f32) -> Result<Array>,
    /// What the experts chosen make of each row.
    pub experts: fn(&Experts, &Array, &Choice) -> Result<Array>,
}

impl Kernels {
    /// The last axis in parts of these sizes, which sum up to its own.
    pub fn parts<const N: usize>(&self, x: &Array, sizes: [i32; N]) -> Result<[Array; N]> {
        let parts = (self.split)(x, &sizes)?;
        parts.try_into().map_err(|_| Exception::custom("a part was lost"))
    }
}

/// How the last axis is normalised: divided by the root of its mean square, then scaled.
pub struct Scale {
    /// A factor for each element, [size], or for each of each head, [heads, size].
    pub weight: Option<Array>,
    /// A summand for each element.
    pub bias: Option<Array>,
    /// What is added to the mean square.
    pub eps: f32,
    /// Whether the mean is taken away first.
    pub centred: bool,
}

/// What happens to heads when they are taken apart.
pub struct Heads<'a> {
    /// Elements of a head.
    pub size: i32,
    /// What each is normed by.
    pub norm: Option<&'a Scale>,
    /// Whether it is rotated before it is normed.
    pub rotated_first: bool,
    /// What each is rotated by, and the position of the first row.
    pub rope: Option<(&'a Rope, i32)>,
}

/// How products of queries and keys become shares of attention.
pub struct Scores {
    /// What they are multiplied by.
    pub scale: f32,
    /// What they never exceed: they become `cap * tanh(product / cap)`.
    pub softcap: Option<f32>,
    /// For each head a score that takes a share and gives nothing, [heads].
    pub sinks: Option<Array>,
}

/// Everything by MLX, lazily.
pub static MLX: Kernels = Kernels {
    product: |w, x| match w {
        Weights::Dense(weight) => x.matmul(weight.transpose()?),
        Weights::Packed(packed) => quantized::product(packed, x),
    },
    rows: |w, ids| match w {
        Weights::Dense(weight) => weight.take_axis(ids, 0),
        Weights::Packed(packed) => quantized::rows(packed, ids),
    },
    norm,
    heads: |x, heads| {
        let normed = |x: Array| heads.norm.map_or(Ok(x.clone()), |scale| norm(&x, scale));
        let rotated = |x: Array| match heads.rope {
            Some((rope, offset)) => rope.apply(&x, offset),
            None => Ok(x),
        };
        let x = x.reshape(&[1, x.dim(1), -1, heads.size])?;
        if heads.rotated_first {
            let x = rotated(x.transpose_axes(&[0, 2, 1, 3])?)?;
            return normed(x.transpose_axes(&[0, 2, 1, 3])?)?.transpose_axes(&[0, 2, 1, 3]);
        }
        rotated(normed(x)?.transpose_axes(&[0, 2, 1, 3])?)
    },
    append: Kv::append,
    attend: |queries, kv, scores| {
        let length = queries.dim(2);
        let [keys, values] = kv.seen(length)?;
        let visible = kv.visible(length)?;
        let Scores { scale, softcap, sinks } = scores;
        let mixed = match softcap {
            Some(cap) => capped(queries, [&keys, &values], *scale, *cap, &visible)?,
            None => {
                let (mask, sinks) = (visible.mask(), sinks.as_ref());
                fast::scaled_dot_product_attention(queries, keys, values, *scale, mask, sinks)?
            }
        };
        mixed.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, length, -1])
    },
    gate: |gate, up, activation| activation.gated(gate, up),
    activate: |x, activation| activation.apply(x),
    add: |a, b| a.add(b),
    multiply: |a, b| a.multiply(b),
    split: |x, sizes| {
        let ends = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        });
        let ends: Vec<i32> = ends.take(sizes.len() - 1).collect();
        split_at_indices(x, &ends, -1)
    },
    conv: conv::lazy,
    ssd: ssd::lazy,
    selective: selective::lazy,
    delta: delta::lazy,
    gated_norm: gate::lazy,
    route: router::lazy,
    balance: balance::lazy,
    experts: experts::lazy,
};

/// What MLX does slowly or in many small operations on a CPU done at once, in float32 whatever the
/// weights are.
pub static CPU: Kernels = Kernels {
    product: eager::product,
    rows: eager::rows,
    norm: eager::norm,
    heads: eager::heads,
    append: Kv::append_at_once,
    attend: attention::attend,
    gate: eager::gate,
    activate: eager::activate,
    add: eager::add,
    multiply: eager::multiply,
    split: eager::split,
    conv: conv::eager,
    ssd: ssd::eager,
    selective: selective::eager,
    delta: delta::eager,
    gated_norm: gate::eager,
    route: router::eager,
    balance: balance::eager,
    experts: experts::eager,
};

/// [.., size], or [.., heads, size] if each head has factors of its own.
fn norm(x: &Array, scale: &Scale) -> Result<Array> {
    let Scale { weight, bias, eps, centred } = scale;
    let (shared, own) = match weight {
        Some(weight) if weight.ndim() > 1 => (None, Some(weight)),
        weight => (weight.as_ref(), None),
    };
    let y = match centred {
        true => fast::layer_norm(x, shared, bias.as_ref(), *eps)?,
        false => fast::rms_norm(x, shared, *eps)?,
    };
    own.map_or(Ok(y.clone()), |weight| y.multiply(weight))
}

/// Attention with scores that never exceed `cap`: [1, heads, length, size of a value].
fn capped(
    queries: &Array,
    [keys, values]: [&Array; 2],
    scale: f32,
    cap: f32,
    visible: &Visible,
) -> Result<Array> {
    let (heads, kv_heads, length) = (queries.dim(1), keys.dim(1), queries.dim(2));
    let shape = [1, heads, length, values.dim(3)];
    let queries = queries.reshape(&[1, kv_heads, -1, length, queries.dim(3)])?;
    let [keys, values] = [keys, values].map(|x| x.expand_dims(2));
    let scaled = queries.multiply(mlx::number(scale, &queries)?)?;
    let scores = scaled.matmul(keys?.swap_axes(-1, -2)?)?;
    let cap = mlx::number(cap, &scores)?;
    let mut scores = mlx_rs::ops::tanh(scores.divide(&cap)?)?.multiply(&cap)?;
    if let Some(mask) = visible.array(length, scores.dim(-1))? {
        scores = select(mask, &scores, mlx::number(f32::NEG_INFINITY, &scores)?)?;
    }
    softmax_axis(&scores, -1, true)?.matmul(values?)?.reshape(&shape)
}
