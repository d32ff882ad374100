//! The state space of Mamba 2 (structured state space duality, arXiv 2405.21060), whose state
//! decays by one factor a head and token.
//!
//! With a decay `a_t` from 0 to 1, a step `dt_t` and vectors `b_t` and `c_t` of the state's size, a
//! head's state S [head_dim, state] and output y `[head_dim]` are `S_t = a_t S_(t-1) + dt_t x_t b_t'`
//! and `y_t = S_t c_t + D x_t`.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{clip, concatenate, cumsum, tril, zeros};
use rayon::prelude::*;

use super::scan::{decays, dot, softplus, softplus_of, state_or_zeros, transpose, wide};
use crate::array::elements;
use crate::mlx;

/// Tokens of a chunk in the MLX backend; the work grows with its square.
const CHUNK: usize = 256;

/// Parameters of a layer's state space.
pub struct Ssd {
    /// Decay rate of each head, `-exp(A_log)` `[heads]`; a token's decay is `exp(dt * rate)`.
    pub rate: Array,
    /// Factor of the skip connection, `D` `[heads]`.
    pub d: Array,
    /// Bias of the steps `dt` before softplus, `[heads]`.
    pub dt_bias: Array,
    /// Sizes of the state space.
    pub sizes: SsdSizes,
}

/// Sizes of a state space that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct SsdSizes {
    /// Heads of the input and of the state.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Groups of heads that share `b` and `c`.
    pub groups: usize,
    /// Elements of `b` and of `c`.
    pub state: usize,
    /// Least and largest step `dt`, after softplus.
    pub dt: (f32, f32),
}

/// State space in MLX, a chunk of tokens at a time.
pub fn mlx(ssd: &Ssd, [x, b, c, dt]: [&Array; 4], state: &mut Option<Array>) -> Result<Array> {
    let SsdSizes { heads, head_dim, groups, state: size, dt: (least, most) } = ssd.sizes;
    let [h, p, g, n] = [heads, head_dim, groups, size].map(|n| n as i32);
    let rows = x.dim(1);
    let dt = softplus(&wide(dt)?.add(&ssd.dt_bias)?)?;
    // [heads, rows, 1]
    let dt = clip(&dt, (least, most))?.reshape(&[rows, h, 1])?.transpose_axes(&[1, 0, 2])?;
    let by_head =
        |x: &Array, heads, size| wide(x)?.reshape(&[rows, heads, size])?.transpose_axes(&[1, 0, 2]);
    let inputs = by_head(x, h, p)?; // [heads, rows, head_dim]
    let shared = |x| Array::repeat_axis::<f32>(by_head(x, g, n)?, h / g, 0);
    let (b, c) = (shared(b)?, shared(c)?); // [heads, rows, state]
    let dtx = inputs.multiply(&dt)?;
    let steps = dt.squeeze_axes(&[-1])?.multiply(ssd.rate.reshape(&[h, 1])?)?; // [heads, rows]
    let mut s = match state.take() {
        Some(state) => state.reshape(&[h, p, n])?,
        None => zeros::<f32>(&[h, p, n])?,
    };
    let mut parts = Vec::new();
    for first in (0..rows).step_by(CHUNK) {
        let range = first..rows.min(first + CHUNK as i32);
        let [dtx, steps, b, c] = [&dtx, &steps, &b, &c].map(|x| mlx::columns(x, range.clone()));
        let (part, next) = chunk([&dtx?, &steps?, &b?, &c?], &s)?;
        parts.push(part);
        s = next;
    }
    *state = Some(s.reshape(&[1, h, p, n])?);
    let y = concatenate(&parts, 1)?.add(inputs.multiply(ssd.d.reshape(&[h, 1, 1])?)?)?;
    y.transpose_axes(&[1, 0, 2])?.reshape(&[1, rows, h * p])?.as_dtype(x.dtype())
}

/// Outputs [heads, length, head_dim] of a chunk, and the state after it.
fn chunk([dtx, steps, b, c]: [&Array; 4], state: &Array) -> Result<(Array, Array)> {
    let total = cumsum(steps, 1, None, None)?.exp()?.expand_dims(-1)?; // [heads, length, 1]
    let last = steps.dim(1) - 1;
    let kept = mlx::columns(&total, last..last + 1)?.multiply(state)?;
    // Contributions of the tokens of the chunk to each other, and to the state.
    let decays = decays(steps)?;
    let scores = tril(c.matmul(b.swap_axes(-1, -2)?)?.multiply(&decays)?, None)?;
    let to_end = mlx::columns(&decays, last..last + 1)?.swap_axes(-1, -2)?; // [heads, length, 1]
    let given = dtx.multiply(to_end)?.swap_axes(-1, -2)?.matmul(b)?;
    let before = c.matmul(state.swap_axes(-1, -2)?)?.multiply(&total)?;
    Ok((scores.matmul(dtx)?.add(before)?, kept.add(given)?))
}

/// State space on the CPU, token by token, heads in parallel.
pub fn cpu(ssd: &Ssd, [x, b, c, dt]: [&Array; 4], state: &mut Option<Array>) -> Result<Array> {
    let SsdSizes { heads, head_dim, groups, state: size, dt: (least, most) } = ssd.sizes;
    let rows = x.dim(1) as usize;
    let mut states = state_or_zeros(state, heads * head_dim * size)?;
    let [xs, bs, cs, dts] = [elements(x)?, elements(b)?, elements(c)?, elements(dt)?];
    let [rate, d, bias] = [elements(&ssd.rate)?, elements(&ssd.d)?, elements(&ssd.dt_bias)?];
    let mut ys = vec![0.0; xs.len()];
    let head = |(head, (state, y)): (usize, (&mut [f32], &mut [f32]))| {
        let group = head / (heads / groups);
        for (t, y) in y.chunks_exact_mut(head_dim).enumerate() {
            let x = &xs[(t * heads + head) * head_dim..][..head_dim];
            let [b, c] = [bs, cs].map(|all| &all[(t * groups + group) * size..][..size]);
            let dt = softplus_of(dts[t * heads + head] + bias[head]).clamp(least, most);
            let kept = (dt * rate[head]).exp();
            for ((s, x), y) in state.chunks_exact_mut(size).zip(x).zip(y) {
                s.iter_mut().zip(b).for_each(|(s, b)| *s = *s * kept + dt * x * b);
                *y = dot(s, c) + d[head] * x;
            }
        }
    };
    let parts =
        states.par_chunks_exact_mut(head_dim * size).zip(ys.par_chunks_exact_mut(rows * head_dim));
    parts.enumerate().for_each(head);
    let shape = [1, heads, head_dim, size].map(|n| n as i32);
    *state = Some(Array::from_slice(&states, &shape));
    Ok(Array::from_slice(&transpose(&ys, rows, head_dim), x.shape()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlx_rs::Dtype;

    use super::super::scan::tests::{agree, some};
    use super::*;

    #[test]
    fn both_forms_agree_in_stretches_of_any_length() {
        let sizes = SsdSizes { heads: 4, head_dim: 8, groups: 2, state: 16, dt: (0.001, 3.0) };
        let rate = some(&[4], 1).exp().unwrap().negative().unwrap();
        let (d, dt_bias) = (some(&[4], 2), some(&[4], 3));
        let ssd = Ssd { rate, d, dt_bias, sizes };
        let inputs =
            [(32, 4), (32, 5), (32, 6), (4, 7)].map(|(size, seed)| some(&[1, 400, size], seed));
        let take = |x: &[Array]| [x[0].clone(), x[1].clone(), x[2].clone(), x[3].clone()];
        agree(
            &inputs,
            |x, state| mlx(&ssd, take(x).each_ref(), state).unwrap(),
            |x, state| cpu(&ssd, take(x).each_ref(), state).unwrap(),
        );
    }

    #[test]
    fn sixteen_bits_come_back_as_such() {
        let sizes = SsdSizes { heads: 2, head_dim: 4, groups: 1, state: 8, dt: (0.0, f32::MAX) };
        let [rate, d, dt_bias] = [1, 2, 3].map(|seed| some(&[2], seed).abs().unwrap());
        let ssd = Ssd { rate: rate.negative().unwrap(), d, dt_bias, sizes };
        let inputs = [8, 8, 8, 2].map(|size| some(&[1, 3, size], 4));
        let inputs = inputs.map(|x| x.as_dtype(Dtype::Bfloat16).unwrap());
        let mut state = None;
        let y = mlx(&ssd, inputs.each_ref(), &mut state).unwrap();
        assert_eq!((y.dtype(), state.unwrap().dtype()), (Dtype::Bfloat16, Dtype::Float32));
    }
}
