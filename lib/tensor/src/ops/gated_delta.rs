//! The gated delta rule (arXiv 2412.06464): a state that is corrected, not only added to.
//!
//! With a decay `a_t` and a share `beta_t` from 0 to 1, normed `q_t` and `k_t` and a value `v_t`, a
//! head's state S [value_dim, key_dim] and output y [value_dim] are
//! `S_t = a_t S_(t-1) + u_t k_t'` with `u_t = beta_t (v_t - a_t S_(t-1) k_t)`, and `y_t = S_t q_t`.
//! Each column of S may have a decay of its own (arXiv 2510.26692).

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::fast::rms_norm;
use mlx_rs::ops::{
    concatenate, cumsum, identity, pad, sigmoid, split_at_indices, tril, unflatten, zeros,
};
use rayon::prelude::*;

use super::scan::{decays, dot, remembered, side_by_side, softplus, softplus_of, wide};
use crate::array::elements;
use crate::mlx;

/// Tokens that are seen at once, a power of two: the work grows with the square of it.
const CHUNK: i32 = 64;
/// Of the norm of queries and keys, beside the sum of their squares.
const EPS: f32 = 1e-6;

/// The rule as a layer uses it.
pub struct GatedDelta {
    /// How fast each value head forgets, below 0 [value heads, or value heads * key_dim].
    pub rate: Array,
    /// Bias of what decays come from, as many as rates.
    pub dt_bias: Array,
    /// Sizes of the rule.
    pub sizes: DeltaSizes,
}

/// The numbers of the rule that its weights do not show.
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
    /// Granularity of the decay: one for a head, or one for each element of a key.
    pub decay: Decay,
}

/// What decays there are.
#[derive(Clone, Copy, Debug)]
pub enum Decay {
    /// One for a head.
    Head,
    /// One for each element of a key.
    Element,
    /// Likewise, by `exp` of a part of this number, which is below 0.
    Bounded(f32),
}

impl Decay {
    /// The logarithm of the decay that `a`, with its bias, comes to at a rate.
    fn step(self, a: f32, rate: f32) -> f32 {
        match self {
            Decay::Bounded(least) => least / (1.0 + (a * rate).exp()),
            _ => softplus_of(a) * rate,
        }
    }
}

impl DeltaSizes {
    /// Elements of all queries, of all keys, and of all values.
    pub fn widths(&self) -> [usize; 3] {
        let keys = self.key_heads * self.key_dim;
        [keys, keys, self.value_heads * self.value_dim]
    }
}

impl GatedDelta {
    /// The logarithms of the decays that `a` and the biases come to.
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

/// Minus the exponential, each repeated.
pub fn rate(log: &Array, repeats: i32) -> Result<Array> {
    let rate = wide(log)?.flatten(None, None)?.exp()?.negative()?;
    Array::repeat_axis::<f32>(rate, repeats, 0)
}

/// By MLX, a stretch of tokens at once.
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
    let (y, s) = if rows == 1 { single(inputs, &s)? } else { stretches(inputs, &s)? };
    *state = Some(s.reshape(&[1, h, dv, dk])?);
    y.transpose_axes(&[1, 0, 2])?.reshape(&[1, rows, h * dv])?.as_dtype(qkv.dtype())
}

/// Queries, keys and values, the first two of `keys` elements.
fn parts(qkv: &Array, keys: i32) -> Result<[Array; 3]> {
    let parts = split_at_indices(qkv, &[keys, 2 * keys], -1)?;
    parts.try_into().map_err(|_| "queries, keys and values are not three".into())
}

/// One token: the rule as it is written.
fn single([q, k, v, step, beta]: [&Array; 5], state: &Array) -> Result<(Array, Array)> {
    let state = state.multiply(step.exp()?)?;
    let known = state.matmul(k.swap_axes(-1, -2)?)?; // [heads, value_dim, 1]
    let u = v.swap_axes(-1, -2)?.subtract(known)?.multiply(beta)?;
    let state = state.add(u.multiply(k)?)?;
    Ok((state.matmul(q.swap_axes(-1, -2)?)?.swap_axes(-1, -2)?, state))
}

/// Many tokens: within a chunk all `u` follow from the state before it by one triangular system,
/// `(I + A) U = beta (V - decay K S')` with A the part below the diagonal of `beta decays (K K')`.
fn stretches(inputs: [&Array; 5], state: &Array) -> Result<(Array, Array)> {
    let rows = inputs[0].dim(1);
    let length = CHUNK.min((rows as u32).next_power_of_two() as i32);
    let count = (rows + length - 1) / length;
    // Tokens of zeros at the end change nothing: their share is 0, their decay 1.
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

/// What the products of rows with the same and earlier rows `k` of a chunk come from, when what the
/// earlier ones gave has decayed since.
enum Products<'a> {
    /// All elements decay alike: by so much [.., length, length].
    Alike { k: &'a Array, decays: Array },
    /// Each has steps of its own [.., length, key_dim].
    Apart { k: &'a Array, steps: &'a Array },
}

impl Products<'_> {
    fn new<'a>(k: &'a Array, steps: &'a Array) -> Result<Products<'a>> {
        Ok(match steps.dim(-1) {
            1 => Products::Alike { k, decays: decays(&steps.squeeze_axes(&[-1])?)? },
            _ => Products::Apart { k, steps },
        })
    }

    /// Those of the rows `x`: [.., length, length], without meaning above the diagonal.
    fn with(&self, x: &Array) -> Result<Array> {
        match self {
            Products::Alike { k, decays } => x.matmul(k.swap_axes(-1, -2)?)?.multiply(decays),
            Products::Apart { k, steps } => apart(x, k, steps),
        }
    }
}

/// Two rows are in different halves of one block of some size, and there the steps from one to the
/// other are those from the middle of the block and those up to it: in this way nothing ever grows.
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

/// The inverse of `I + below`, with `below` [.., length, length] zero from the diagonal on and
/// `length` a power of two: of ever larger blocks on the diagonal, each from the two halves.
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

/// Ones where a row in the second half of a block meets a column in the first, else zeros: [length,
/// length], in blocks of twice `half`.
fn joints(length: i32, half: i32) -> Array {
    let joins = |(row, column): (i32, i32)| {
        let same = row / (2 * half) == column / (2 * half);
        f32::from(u8::from(same && row % (2 * half) >= half && column % (2 * half) < half))
    };
    let cells = (0..length).flat_map(|row| (0..length).map(move |column| (row, column)));
    let mask: Vec<f32> = cells.map(joins).collect();
    Array::from_slice(&mask, &[length, length])
}

/// At once, token by token, heads side by side.
pub fn cpu(
    delta: &GatedDelta,
    [qkv, a, b]: [&Array; 3],
    state: &mut Option<Array>,
) -> Result<Array> {
    let DeltaSizes { value_heads: heads, value_dim, key_dim, decay, .. } = delta.sizes;
    let rows = qkv.dim(1) as usize;
    let mut states = remembered(state, heads * value_dim * key_dim)?;
    let heads_of = Rows { qkv: elements(qkv)?, sizes: delta.sizes };
    let [a, b] = [elements(a)?, elements(b)?];
    let [rate, bias] = [elements(&delta.rate)?, elements(&delta.dt_bias)?];
    let rates = rate.len() / heads;
    let mut ys = vec![0.0; rows * heads * value_dim];
    let head = |(head, (state, y)): (usize, (&mut [f32], &mut [f32]))| {
        for (t, y) in y.chunks_exact_mut(value_dim).enumerate() {
            let (q, k, v) = heads_of.at(t, head);
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
    Ok(Array::from_slice(&side_by_side(&ys, rows, value_dim), &shape))
}

/// What is still to be multiplied with `state`: one decay is, several are multiplied here.
fn decayed(state: &mut [f32], key_dim: usize, kept: &[f32]) -> f32 {
    if let &[kept] = kept {
        return kept;
    }
    for s in state.chunks_exact_mut(key_dim) {
        s.iter_mut().zip(kept).for_each(|(s, kept)| *s *= kept);
    }
    1.0
}

/// Rows of queries, keys and values.
struct Rows<'a> {
    qkv: &'a [f32],
    sizes: DeltaSizes,
}

impl<'a> Rows<'a> {
    /// Query and key, normed and scaled, and value of a value head in row `t`.
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

    /// Keys that are all alike make the system as stiff as it can be.
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
