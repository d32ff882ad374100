//! The gated delta rule (arXiv 2412.06464), which corrects the state by what it already predicts.
//!
//! With a decay `a_t` and a rate `beta_t` from 0 to 1, normed `q_t` and `k_t` and a value `v_t`, a
//! head's state S [value_dim, key_dim] and output y `[value_dim]` are `S_t = a_t S_(t-1) + u_t k_t'`
//! with `u_t = beta_t (v_t - a_t S_(t-1) k_t)`, and `y_t = S_t q_t`. In Kimi Delta Attention (arXiv
//! 2510.26692) each column of S has a decay of its own.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::fast::rms_norm;
use mlx_rs::ops::{
    concatenate, cumsum, identity, pad, sigmoid, split_at_indices, tril, unflatten, zeros,
};
use rayon::prelude::*;

use super::scan::{decays, dot, softplus, softplus_of, state_or_zeros, transpose, wide};
use crate::array::elements;
use crate::mlx;

/// Tokens of a chunk in the MLX backend, a power of two; the work grows with its square.
const CHUNK: i32 = 64;
/// Epsilon of the norm of queries and keys, added to the sum of squares.
const EPS: f32 = 1e-6;

/// Parameters of a layer's delta rule.
pub struct GatedDelta {
    /// Decay rate, `-exp(A_log)` [value heads], or repeated for each element of a key [value heads
    /// * key_dim].
    pub rate: Array,
    /// Bias of the decay inputs, of the shape of `rate`.
    pub dt_bias: Array,
    /// Sizes of the rule.
    pub sizes: DeltaSizes,
}

/// Sizes of the delta rule that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct DeltaSizes {
    /// Heads of queries and of keys; `value_heads / key_heads` value heads share each.
    pub key_heads: usize,
    /// Heads of values, which are the heads of the output.
    pub value_heads: usize,
    /// Elements of a query and of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Granularity and form of the decay.
    pub decay: Decay,
}

/// Granularity and form of the decay, from its input `a` with bias.
#[derive(Clone, Copy, Debug)]
pub enum Decay {
    /// One decay for a head: `exp(rate * softplus(a))`.
    Head,
    /// One decay for each element of a key: `exp(rate * softplus(a))`.
    Element,
    /// One decay for each element of a key, bounded from below: `exp(bound * sigmoid(-rate * a))`,
    /// with a negative bound.
    Bounded(f32),
}

impl Decay {
    /// Logarithm of the decay of one element.
    fn step(self, a: f32, rate: f32) -> f32 {
        match self {
            Decay::Bounded(least) => least / (1.0 + (a * rate).exp()),
            _ => softplus_of(a) * rate,
        }
    }
}

impl DeltaSizes {
    /// Elements of all queries, of all keys, and of all values of a token.
    pub fn widths(&self) -> [usize; 3] {
        let keys = self.key_heads * self.key_dim;
        [keys, keys, self.value_heads * self.value_dim]
    }
}

impl GatedDelta {
    /// Logarithms of the decays, in MLX.
    fn steps(&self, a: &Array) -> Result<Array> {
        let a = wide(a)?.add(&self.dt_bias)?;
        match self.sizes.decay {
            Decay::Bounded(least) => {
                sigmoid(a.multiply(self.rate.negative()?)?)?.multiply(Array::from_f32(least))
            }
            _ => softplus(&a)?.multiply(&self.rate),
        }
    }
}

/// Decay rates `-exp(log)`, each repeated `repeats` times.
pub fn rate(log: &Array, repeats: i32) -> Result<Array> {
    let rate = wide(log)?.flatten(None, None)?.exp()?.negative()?;
    Array::repeat_axis::<f32>(rate, repeats, 0)
}

/// Delta rule in MLX: one token by the recurrence, more tokens in chunks.
pub fn mlx(
    delta: &GatedDelta,
    [qkv, a, b]: [&Array; 3],
    state: &mut Option<Array>,
) -> Result<Array> {
    let DeltaSizes { key_heads, value_heads, key_dim, value_dim, .. } = delta.sizes;
    let [kh, h, dk, dv] = [key_heads, value_heads, key_dim, value_dim].map(|n| n as i32);
    let rows = qkv.dim(1);
    let [q, k, v] = parts(qkv, kh * dk)?;
    let keyed = |x: Array, scale: f32| {
        let x = rms_norm(x.reshape(&[rows, kh, dk])?, None, EPS / dk as f32)?;
        let x = wide(&x)?.multiply(Array::from_f32(scale))?.transpose_axes(&[1, 0, 2])?;
        Array::repeat_axis::<f32>(x, h / kh, 0)
    };
    let scale = (dk as f32).powf(-0.5);
    let (q, k) = (keyed(q, scale * scale)?, keyed(k, scale)?); // [value heads, rows, key_dim]
    let v = wide(&v)?.reshape(&[rows, h, dv])?.transpose_axes(&[1, 0, 2])?;
    let by_head = |x: Array| x.reshape(&[rows, h, -1])?.transpose_axes(&[1, 0, 2]);
    // [value heads, rows, 1 or key_dim]
    let (steps, beta) = (by_head(delta.steps(a)?)?, by_head(sigmoid(wide(b)?)?)?);
    let s = match state.take() {
        Some(state) => state.reshape(&[h, dv, dk])?,
        None => zeros::<f32>(&[h, dv, dk])?,
    };
    let inputs = [&q, &k, &v, &steps, &beta];
    let (y, s) = if rows == 1 { step(inputs, &s)? } else { chunked(inputs, &s)? };
    *state = Some(s.reshape(&[1, h, dv, dk])?);
    y.transpose_axes(&[1, 0, 2])?.reshape(&[1, rows, h * dv])?.as_dtype(qkv.dtype())
}

/// Queries, keys and values of `qkv`; queries and keys have `keys` elements each.
fn parts(qkv: &Array, keys: i32) -> Result<[Array; 3]> {
    let parts = split_at_indices(qkv, &[keys, 2 * keys], -1)?;
    parts.try_into().map_err(|_| "queries, keys and values are not three".into())
}

/// Output and state of one token, by the recurrence.
fn step([q, k, v, step, beta]: [&Array; 5], state: &Array) -> Result<(Array, Array)> {
    let state = state.multiply(step.exp()?)?;
    let known = state.matmul(k.swap_axes(-1, -2)?)?; // [heads, value_dim, 1]
    let u = v.swap_axes(-1, -2)?.subtract(known)?.multiply(beta)?;
    let state = state.add(u.multiply(k)?)?;
    Ok((state.matmul(q.swap_axes(-1, -2)?)?.swap_axes(-1, -2)?, state))
}

/// Outputs and state of many tokens. Within a chunk all `u` follow from the state S' before it by
/// one triangular system, `(I + A) U = beta (V - decay K S')`, with A the strictly lower triangle
/// of `beta decays (K K')`.
fn chunked(inputs: [&Array; 5], state: &Array) -> Result<(Array, Array)> {
    let rows = inputs[0].dim(1);
    let length = CHUNK.min((rows as u32).next_power_of_two() as i32);
    let count = (rows + length - 1) / length;
    // Zero tokens at the end change nothing: their beta is 0, their decay 1.
    let chunks = |x: &Array| {
        let padded = pad(x, &[(0, 0), (0, count * length - rows), (0, 0)], None, None)?;
        padded.reshape(&[x.dim(0), count, length, x.dim(2)])
    };
    let [q, k, v, steps, beta] = inputs.map(chunks);
    let (q, k, v, steps, beta) = (q?, k?, v?, steps?, beta?); // [heads, count, length, ..]
    let total = cumsum(&steps, 2, None, None)?.exp()?;
    let products = Products::new(&k, &steps)?;
    let below = tril(products.with(&k)?.multiply(&beta)?, -1)?;
    let solve = inverse(&below)?;
    let own = solve.matmul(v.multiply(&beta)?)?;
    let known = solve.matmul(k.multiply(&beta)?.multiply(&total)?)?;
    let scores = tril(products.with(&q)?, None)?;
    let q = q.multiply(&total)?;
    let to_end = cumsum(&steps, 2, true, false)?.exp()?;
    let (k, end) = (k.multiply(to_end)?, mlx::rows(&total, length - 1..length)?);
    let mut s = state.clone();
    let mut parts = Vec::new();
    for i in 0..count {
        let chunk = |x: &Array| mlx::columns(x, i..i + 1)?.squeeze_axes(&[1]);
        let st = s.swap_axes(-1, -2)?;
        let u = chunk(&own)?.subtract(chunk(&known)?.matmul(&st)?)?;
        parts.push(chunk(&q)?.matmul(&st)?.add(chunk(&scores)?.matmul(&u)?)?);
        let given = u.swap_axes(-1, -2)?.matmul(chunk(&k)?)?;
        s = s.multiply(chunk(&end)?)?.add(given)?;
    }
    Ok((mlx::columns(&concatenate(&parts, 1)?, 0..rows)?, s))
}

/// Decayed products of rows with the keys `k` of a chunk, by the granularity of the decay.
enum Products<'a> {
    /// One decay for all elements of a key, [.., length, length].
    Alike { k: &'a Array, decays: Array },
    /// Decays of each element, by their logarithms [.., length, key_dim].
    Apart { k: &'a Array, steps: &'a Array },
}

impl Products<'_> {
    fn new<'a>(k: &'a Array, steps: &'a Array) -> Result<Products<'a>> {
        Ok(match steps.dim(-1) {
            1 => Products::Alike { k, decays: decays(&steps.squeeze_axes(&[-1])?)? },
            _ => Products::Apart { k, steps },
        })
    }

    /// Decayed products of the rows `x` with the keys: [.., length, length], meaningless above the
    /// diagonal.
    fn with(&self, x: &Array) -> Result<Array> {
        match self {
            Products::Alike { k, decays } => x.matmul(k.swap_axes(-1, -2)?)?.multiply(decays),
            Products::Apart { k, steps } => apart(x, k, steps),
        }
    }
}

/// Decayed products with a decay for each element. Two rows lie in different halves of one block of
/// some size, and the decay between them is that since the middle of the block times that up to it,
/// so that no factor exceeds 1.
fn apart(x: &Array, k: &Array, steps: &Array) -> Result<Array> {
    let length = steps.dim(-2);
    let kt = k.swap_axes(-1, -2)?;
    let mut all = x.matmul(kt)?.multiply(identity::<f32>(length)?)?;
    let mut half = 1;
    while half < length {
        let halves = unflatten(steps, -2, &[-1, half])?;
        let shape = steps.shape();
        let since = cumsum(&halves, -2, None, None)?.reshape(shape)?.exp()?;
        let until = cumsum(&halves, -2, true, false)?.reshape(shape)?.exp()?;
        let products = x.multiply(since)?.matmul(k.multiply(until)?.swap_axes(-1, -2)?)?;
        all = all.add(products.multiply(joints(length, half))?)?;
        half *= 2;
    }
    Ok(all)
}

/// Inverse of `I + below`, with `below` [.., length, length] strictly lower triangular and `length`
/// a power of two: by doubling the blocks on the diagonal.
fn inverse(below: &Array) -> Result<Array> {
    let length = below.dim(-1);
    let mut inverse = identity::<f32>(length)?;
    let mut half = 1;
    while half < length {
        let joined = below.multiply(joints(length, half))?;
        inverse = inverse.subtract(inverse.matmul(joined)?.matmul(&inverse)?)?;
        half *= 2;
    }
    Ok(inverse)
}

/// Mask [length, length] that is 1 where a row in the second half of a block of `2 * half` meets a
/// column in its first half.
fn joints(length: i32, half: i32) -> Array {
    let joins = |(row, column): (i32, i32)| {
        let same = row / (2 * half) == column / (2 * half);
        f32::from(u8::from(same && row % (2 * half) >= half && column % (2 * half) < half))
    };
    let cells = (0..length).flat_map(|row| (0..length).map(move |column| (row, column)));
    let mask: Vec<f32> = cells.map(joins).collect();
    Array::from_slice(&mask, &[length, length])
}

/// Delta rule on the CPU, token by token, heads in parallel.
pub fn cpu(
    delta: &GatedDelta,
    [qkv, a, b]: [&Array; 3],
    state: &mut Option<Array>,
) -> Result<Array> {
    let DeltaSizes { value_heads: heads, value_dim, key_dim, decay, .. } = delta.sizes;
    let rows = qkv.dim(1) as usize;
    let mut states = state_or_zeros(state, heads * value_dim * key_dim)?;
    let qkv_rows = QkvRows { qkv: elements(qkv)?, sizes: delta.sizes };
    let [a, b] = [elements(a)?, elements(b)?];
    let [rate, bias] = [elements(&delta.rate)?, elements(&delta.dt_bias)?];
    let rates = rate.len() / heads;
    let mut ys = vec![0.0; rows * heads * value_dim];
    let head = |(head, (state, y)): (usize, (&mut [f32], &mut [f32]))| {
        for (t, y) in y.chunks_exact_mut(value_dim).enumerate() {
            let (q, k, v) = qkv_rows.at(t, head);
            let own = head * rates..(head + 1) * rates;
            let a = &a[t * rate.len()..][..rate.len()];
            let kept = own.map(|i| decay.step(a[i] + bias[i], rate[i]).exp());
            let kept = decayed(state, key_dim, &kept.collect::<Vec<f32>>());
            let beta = 1.0 / (1.0 + (-b[t * heads + head]).exp());
            for ((s, v), y) in state.chunks_exact_mut(key_dim).zip(v).zip(y) {
                let u = beta * (v - kept * dot(s, &k));
                s.iter_mut().zip(&k).for_each(|(s, k)| *s = *s * kept + u * k);
                *y = dot(s, &q);
            }
        }
    };
    let parts = states
        .par_chunks_exact_mut(value_dim * key_dim)
        .zip(ys.par_chunks_exact_mut(rows * value_dim));
    parts.enumerate().for_each(head);
    *state = Some(Array::from_slice(&states, &[1, heads as i32, value_dim as i32, key_dim as i32]));
    let shape = [1, rows as i32, (heads * value_dim) as i32];
    Ok(Array::from_slice(&transpose(&ys, rows, value_dim), &shape))
}

/// Decay that is still to be applied to `state`: a single decay is returned, several are applied
/// here.
fn decayed(state: &mut [f32], key_dim: usize, kept: &[f32]) -> f32 {
    if let &[kept] = kept {
        return kept;
    }
    for s in state.chunks_exact_mut(key_dim) {
        s.iter_mut().zip(kept).for_each(|(s, kept)| *s *= kept);
    }
    1.0
}

/// Rows of concatenated queries, keys and values.
struct QkvRows<'a> {
    qkv: &'a [f32],
    sizes: DeltaSizes,
}

impl<'a> QkvRows<'a> {
    /// Query and key, normed and scaled, and value, of a value head in row `t`.
    fn at(&self, t: usize, head: usize) -> (Vec<f32>, Vec<f32>, &'a [f32]) {
        let DeltaSizes { key_heads, value_heads, key_dim, value_dim, .. } = self.sizes;
        let [keys, _, values] = self.sizes.widths();
        let row = &self.qkv[t * (2 * keys + values)..][..2 * keys + values];
        let first = head / (value_heads / key_heads) * key_dim;
        let scale = (key_dim as f32).powf(-0.5);
        let normed = |x: &[f32], scale: f32| {
            let factor = scale / (dot(x, x) + EPS).sqrt();
            x.iter().map(|x| x * factor).collect()
        };
        let q = normed(&row[first..][..key_dim], scale);
        let k = normed(&row[keys + first..][..key_dim], 1.0);
        (q, k, &row[2 * keys + head * value_dim..][..value_dim])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::super::scan::tests::{agree, some};
    use super::*;

    #[test]
    fn both_forms_agree_in_stretches_of_any_length() {
        for (decay, rates) in [(Decay::Head, 1), (Decay::Element, 16), (Decay::Bounded(-5.0), 16)] {
            let sizes =
                DeltaSizes { key_heads: 2, value_heads: 4, key_dim: 16, value_dim: 8, decay };
            let rate = rate(&some(&[4], 1), rates).unwrap();
            let delta = GatedDelta { rate, dt_bias: some(&[4 * rates], 2), sizes };
            let inputs = [(96, 4), (4 * rates, 5), (4, 6)];
            let inputs = inputs.map(|(size, seed)| some(&[1, 400, size], seed));
            agree(
                &inputs,
                |x, state| mlx(&delta, [&x[0], &x[1], &x[2]], state).unwrap(),
                |x, state| cpu(&delta, [&x[0], &x[1], &x[2]], state).unwrap(),
            );
        }
    }

    /// Equal keys make the triangular system as stiff as it can be.
    #[test]
    fn a_text_that_repeats_a_token_is_computed_as_exactly() {
        let sizes = DeltaSizes {
            key_heads: 1,
            value_heads: 1,
            key_dim: 8,
            value_dim: 8,
            decay: Decay::Head,
        };
        let rate = Array::from_slice(&[-0.001f32], &[1]);
        let delta = GatedDelta { rate, dt_bias: some(&[1], 2), sizes };
        let repeat = |x: &Array| Array::repeat_axis::<f32>(x.clone(), 400, 1).unwrap();
        let inputs = [repeat(&some(&[1, 1, 24], 4)), repeat(&some(&[1, 1, 1], 5))];
        let sure = repeat(&Array::from_slice(&[9.0f32], &[1, 1, 1]));
        agree(
            &[inputs[0].clone(), inputs[1].clone(), sure],
            |x, state| mlx(&delta, [&x[0], &x[1], &x[2]], state).unwrap(),
            |x, state| cpu(&delta, [&x[0], &x[1], &x[2]], state).unwrap(),
        );
    }
}
