//! The steps of a layer in the form that suits the device, chosen once when a model is loaded.

use mlx_rs::error::Result;
use mlx_rs::ops::sigmoid;
use mlx_rs::{Array, fast};

use crate::attention;
use crate::cache::Kv;
use crate::eager;
use crate::matrix::Packed;
use crate::quantized;
use crate::rope::Rope;

/// One way to do each step; x is [1, length, size] unless said otherwise.
pub struct Kernels {
    /// `x W.T`.
    pub product: fn(&Packed, &Array) -> Result<Array>,
    /// The rows `ids` [..] of weights, as [.., ins].
    pub rows: fn(&Packed, &Array) -> Result<Array>,
    /// The last axis divided by the root of its mean square (and an epsilon), times the weight.
    pub norm: fn(&Array, &Array, f32) -> Result<Array>,
    /// [1, length, heads * size] to [1, heads, length, size].
    pub heads: fn(&Array, &Heads) -> Result<Array>,
    /// What queries [1, heads, length, size], the last of those remembered, attend to, by a scale:
    /// [1, length, heads * size].
    pub attend: fn(&Array, &Kv, f32) -> Result<Array>,
    /// `silu(gate) * up`.
    pub swiglu: fn(&Array, &Array) -> Result<Array>,
    /// The sum of two arrays of one shape.
    pub add: fn(&Array, &Array) -> Result<Array>,
}

/// What happens to heads when they are taken apart.
pub struct Heads<'a> {
    /// Elements of a head.
    pub size: i32,
    /// The weight and the epsilon that each is normed by.
    pub norm: Option<(&'a Array, f32)>,
    /// What each is rotated by, and the position of the first row.
    pub rope: Option<(&'a Rope, i32)>,
}

/// Everything by MLX, lazily.
pub static MLX: Kernels = Kernels {
    product: quantized::product,
    rows: quantized::rows,
    norm: |x, weight, eps| fast::rms_norm(x, Some(weight), eps),
    heads: |x, heads| {
        let mut x = x.reshape(&[1, x.dim(1), -1, heads.size])?;
        if let Some((weight, eps)) = heads.norm {
            x = fast::rms_norm(&x, Some(weight), eps)?;
        }
        let x = x.transpose_axes(&[0, 2, 1, 3])?;
        match heads.rope {
            Some((rope, offset)) => rope.apply(&x, offset),
            None => Ok(x),
        }
    },
    attend: |queries, kv, scale| {
        let length = queries.dim(2);
        let [keys, values] = kv.seen(length)?;
        let visible = kv.visible(length)?;
        let mask = visible.mask();
        fast::scaled_dot_product_attention(queries, keys, values, scale, mask, None)?
            .transpose_axes(&[0, 2, 1, 3])?
            .reshape(&[1, length, -1])
    },
    swiglu: |gate, up| gate.multiply(sigmoid(gate)?)?.multiply(up),
    add: |a, b| a.add(b),
};

/// What MLX does slowly or in many small operations on a CPU done at once, in float32.
pub static CPU: Kernels = Kernels {
    product: eager::product,
    rows: eager::rows,
    norm: eager::norm,
    heads: eager::heads,
    attend: attention::attend,
    swiglu: eager::swiglu,
    add: eager::add,
};
