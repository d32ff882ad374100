//! The MLX backend: queues operations in MLX, which computes them lazily on its device.

use std::ops::Range;

use mlx_rs::error::Result;
use mlx_rs::fast::ScaledDotProductAttentionMask;
use mlx_rs::ops::{concatenate, select, softmax_axis, split_at_indices};
use mlx_rs::{Array, fast};

use super::activation::Activation;
use super::backend::Ops;
use super::conv1d::{self, Conv1d};
use super::gated_delta::{self, GatedDelta};
use super::gated_norm::{self, GatedNorm};
use super::lstm;
use super::moe_experts::{self, Experts};
use super::moe_route::{self, ExpertChoice, Routing};
use super::params::{AttentionParams, DistanceBias, HeadsParams, Mask, NormParams};
use super::selective_scan::{self, SelectiveScan};
use super::sinkhorn;
use super::ssd::{self, Ssd};
use crate::cache::{Kv, KvMask};
use crate::weight::Weight;
use crate::{mlx, quantized};

/// The MLX backend.
pub struct Mlx;

/// The one instance of the MLX backend.
pub static MLX: Mlx = Mlx;

impl Ops for Mlx {
    fn linear(&self, w: &Weight, x: &Array) -> Result<Array> {
        match w {
            Weight::Dense(weight) => x.matmul(weight.transpose()?),
            Weight::Quantized(packed) => quantized::linear(packed, x),
        }
    }

    fn embedding(&self, w: &Weight, ids: &Array) -> Result<Array> {
        match w {
            Weight::Dense(weight) => weight.take_axis(ids, 0),
            Weight::Quantized(packed) => quantized::embedding(packed, ids),
        }
    }

    fn norm(&self, x: &Array, params: &NormParams) -> Result<Array> {
        norm(x, params)
    }

    fn split_heads(&self, x: &Array, params: &HeadsParams) -> Result<Array> {
        let normed = |x: Array| params.norm.map_or(Ok(x.clone()), |scale| norm(&x, scale));
        let rotated = |x: Array| match params.rope {
            Some((rope, positions)) => rope.apply(&x, positions),
            None => Ok(x),
        };
        let x = x.reshape(&[1, x.dim(1), -1, params.size])?;
        if params.rotated_first {
            let x = rotated(x.transpose_axes(&[0, 2, 1, 3])?)?;
            return normed(x.transpose_axes(&[0, 2, 1, 3])?)?.transpose_axes(&[0, 2, 1, 3]);
        }
        rotated(normed(x)?.transpose_axes(&[0, 2, 1, 3])?)
    }

    fn append_kv(&self, kv: &mut Kv, keys: &Array, values: &Array) -> Result<()> {
        kv.append(keys, values)
    }

    fn attend_cached(&self, queries: &Array, kv: &Kv, params: &AttentionParams) -> Result<Array> {
        let length = queries.dim(2);
        let [keys, values] = kv.seen(length)?;
        attend(queries, [&keys, &values], &kv.visible(length)?, params)
    }

    fn attend(
        &self,
        queries: &Array,
        [keys, values]: [&Array; 2],
        mask: &Mask,
        params: &AttentionParams,
    ) -> Result<Array> {
        let visible = match mask {
            Mask::All => KvMask::All,
            Mask::Causal => KvMask::Past,
            Mask::Ranges(ranges) => KvMask::Only(rows_of(ranges, keys.dim(2))),
            Mask::Blocks(lengths) => {
                return attend_blocks(queries, [keys, values], lengths, None, params);
            }
            Mask::Windows { lengths, near } => {
                return attend_blocks(queries, [keys, values], lengths, Some(*near), params);
            }
        };
        attend(queries, [keys, values], &visible, params)
    }

    fn glu(&self, gate: &Array, up: &Array, activation: Activation) -> Result<Array> {
        activation.glu(gate, up)
    }

    fn activate(&self, x: &Array, activation: Activation) -> Result<Array> {
        activation.apply(x)
    }

    fn add(&self, a: &Array, b: &Array) -> Result<Array> {
        a.add(b)
    }

    fn multiply(&self, a: &Array, b: &Array) -> Result<Array> {
        a.multiply(b)
    }

    fn split(&self, x: &Array, sizes: &[i32]) -> Result<Vec<Array>> {
        let ends = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        });
        let ends: Vec<i32> = ends.take(sizes.len() - 1).collect();
        split_at_indices(x, &ends, -1)
    }

    fn conv1d(&self, conv: &Conv1d, x: &Array, tail: &mut Option<Array>) -> Result<Array> {
        conv1d::mlx(conv, x, tail)
    }

    fn ssd(&self, ssd: &Ssd, inputs: [&Array; 4], state: &mut Option<Array>) -> Result<Array> {
        ssd::mlx(ssd, inputs, state)
    }

    fn selective_scan(
        &self,
        scan: &SelectiveScan,
        inputs: [&Array; 4],
        state: &mut Option<Array>,
    ) -> Result<Array> {
        selective_scan::mlx(scan, inputs, state)
    }

    fn gated_delta(
        &self,
        rule: &GatedDelta,
        inputs: [&Array; 3],
        state: &mut Option<Array>,
    ) -> Result<Array> {
        gated_delta::mlx(rule, inputs, state)
    }

    fn gated_norm(&self, norm: &GatedNorm, x: &Array, gate: &Array) -> Result<Array> {
        gated_norm::mlx(norm, x, gate)
    }

    fn moe_route(
        &self,
        routing: &Routing,
        logits: &Array,
        correction: Option<&Array>,
    ) -> Result<ExpertChoice> {
        moe_route::mlx(routing, logits, correction)
    }

    fn moe_experts(&self, experts: &Experts, x: &Array, choice: &ExpertChoice) -> Result<Array> {
        moe_experts::mlx(experts, x, choice)
    }

    fn lstm(&self, gates: &Array, cell: Option<&Array>) -> Result<[Array; 2]> {
        lstm::mlx(gates, cell)
    }

    fn sinkhorn(&self, matrices: &Array, rounds: usize, eps: f32) -> Result<Array> {
        sinkhorn::mlx(matrices, rounds, eps)
    }
}

/// Norm of [.., size], or of [.., heads, size] if each head has weights of its own.
fn norm(x: &Array, scale: &NormParams) -> Result<Array> {
    let NormParams { weight, bias, eps, centred } = scale;
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

/// Attention of queries [1, heads, length, size] to keys and values [1, kv heads, keys, size]:
/// [1, length, heads * size of a value].
fn attend(
    queries: &Array,
    keys_values: [&Array; 2],
    visible: &KvMask,
    params: &AttentionParams,
) -> Result<Array> {
    let mixed = mixed(queries, keys_values, visible, params)?;
    mixed.transpose_axes(&[0, 2, 1, 3])?.reshape(&[1, queries.dim(2), -1])
}

/// Attention of queries [n, heads, length, size] to keys and values [n, kv heads, keys, size]: [n,
/// heads, length, value size].
fn mixed(
    queries: &Array,
    [keys, values]: [&Array; 2],
    visible: &KvMask,
    params: &AttentionParams,
) -> Result<Array> {
    let AttentionParams { scale, softcap, sinks, bias } = params;
    if let Some(bias) = bias {
        let added = distance_bias(bias, queries, keys, visible)?;
        let mask = Some(ScaledDotProductAttentionMask::Array(&added));
        return fast::scaled_dot_product_attention(
            queries,
            keys,
            values,
            *scale,
            mask,
            sinks.as_ref(),
        );
    }
    match softcap {
        Some(cap) => capped(queries, [keys, values], *scale, *cap, visible),
        None => {
            let (mask, sinks) = (visible.mask(), sinks.as_ref());
            fast::scaled_dot_product_attention(queries, keys, values, *scale, mask, sinks)
        }
    }
}

/// Attention of queries [1, heads, length, size] to keys and values [1, kv heads, length, size]
/// within blocks of `lengths`: [1, length, heads * value size]. Only keys fewer than `near` places
/// away are visible, if that is given. Adjacent blocks of one length are computed together.
fn attend_blocks(
    queries: &Array,
    [keys, values]: [&Array; 2],
    lengths: &[usize],
    near: Option<usize>,
    params: &AttentionParams,
) -> Result<Array> {
    let mut first = 0;
    let part = |run: &[usize]| {
        let (count, length) = (run.len() as i32, run[0] as i32);
        let range = first..first + count * length;
        first = range.end;
        // [1, heads, count * length, size] to [count, heads, length, size].
        let blocks = |x: &Array| {
            let shape = [x.dim(1), count, length, x.dim(3)];
            mlx::rows(x, range.clone())?.reshape(&shape)?.swap_axes(0, 1)
        };
        let [queries, keys, values] = [blocks(queries)?, blocks(keys)?, blocks(values)?];
        let visible = match near.filter(|&near| near < run[0]) {
            Some(near) => KvMask::Only(rows_of(
                &Mask::windows(&run[..1], near).ranges(run[0], run[0]),
                length,
            )),
            None => KvMask::All,
        };
        mixed(&queries, [&keys, &values], &visible, params)?
            .transpose_axes(&[0, 2, 1, 3])?
            .reshape(&[1, count * length, -1])
    };
    let parts: Vec<Array> = lengths.chunk_by(|a, b| a == b).map(part).collect::<Result<_>>()?;
    concatenate(&parts, 1)
}

/// Additions to scores [1, heads, queries, keys]: those of `bias`, and minus infinity for keys that
/// are not visible.
fn distance_bias(
    bias: &DistanceBias,
    queries: &Array,
    keys: &Array,
    visible: &KvMask,
) -> Result<Array> {
    let [length, seen] = [queries.dim(2), keys.dim(2)];
    let column = |query| {
        let column = move |key| DistanceBias::column(bias.farthest, query as usize, key as usize);
        (0..seen).map(move |key| column(key) as i32)
    };
    let columns: Vec<i32> = (0..length).flat_map(column).collect();
    let columns = Array::from_slice(&columns, &[length, seen]);
    let added =
        bias.by_distance.take_axis(columns, 1)?.expand_dims(0)?.as_dtype(queries.dtype())?;
    match visible.array(length, seen)? {
        Some(mask) => select(mask, &added, mlx::number(f32::NEG_INFINITY, &added)?),
        None => Ok(added),
    }
}

/// Mask [queries, keys] that is true within the range of each query.
fn rows_of(ranges: &[Range<usize>], keys: i32) -> Array {
    let row = |range: &Range<usize>| (0..keys as usize).map(|key| range.contains(&key)).collect();
    let rows: Vec<Vec<bool>> = ranges.iter().map(row).collect();
    Array::from_slice(&rows.concat(), &[ranges.len() as i32, keys])
}

/// Attention with capped scores, `cap * tanh(score / cap)`: [n, heads, length, value size].
fn capped(
    queries: &Array,
    [keys, values]: [&Array; 2],
    scale: f32,
    cap: f32,
    visible: &KvMask,
) -> Result<Array> {
    let (heads, kv_heads, length) = (queries.dim(1), keys.dim(1), queries.dim(2));
    let shape = [queries.dim(0), heads, length, values.dim(3)];
    let queries = queries.reshape(&[shape[0], kv_heads, -1, length, queries.dim(3)])?;
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
