//! The selective state space of Mamba (arXiv 2312.00752), in which each element of the state decays
//! by itself.
//!
//! With a step `dt_t` for each channel and `b_t` and `c_t` of the state's size, a channel's state S
//! `[size]` and output y are `S_t = exp(dt_t A) S_(t-1) + dt_t x_t b_t` and `y_t = S_t c_t + D x_t`.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, zeros};
use rayon::prelude::*;

use super::scan::{dot, softplus, softplus_of, state_or_zeros, transpose, wide};
use crate::array::elements;
use crate::mlx;

/// Tokens of a chunk in the MLX backend, each of which needs memory for a whole state.
const CHUNK: usize = 64;
/// Channels of a task of the thread pool.
const BLOCK: usize = 64;

/// Parameters of a layer's state space.
pub struct SelectiveScan {
    /// Decay rate of each element, `-exp(A_log)` [channels, size].
    pub rate: Array,
    /// Factor of the skip connection, `D` `[channels]`.
    pub d: Array,
}

/// State space in MLX, a chunk of tokens at a time.
pub fn mlx(
    space: &SelectiveScan,
    [x, dt, b, c]: [&Array; 4],
    state: &mut Option<Array>,
) -> Result<Array> {
    let (channels, size) = (space.rate.dim(0), space.rate.dim(1));
    let rows = x.dim(1);
    let inputs = wide(x)?.reshape(&[rows, channels, 1])?;
    let dt = softplus(&wide(dt)?)?.reshape(&[rows, channels, 1])?;
    let (b, c) = (wide(b)?.reshape(&[rows, 1, size])?, wide(c)?.reshape(&[rows, size, 1])?);
    let mut s = match state.take() {
        Some(state) => state,
        None => zeros::<f32>(&[1, channels, size])?,
    };
    let mut parts = Vec::new();
    for first in (0..rows).step_by(CHUNK) {
        let range = first..rows.min(first + CHUNK as i32);
        let part = |x: &Array| mlx::entries(x, range.clone());
        let kept = part(&dt)?.multiply(&space.rate)?.exp()?; // [length, channels, size]
        let new = part(&dt)?.multiply(part(&inputs)?)?.multiply(part(&b)?)?;
        let states = states(kept, new, &s)?;
        parts.push(states.matmul(part(&c)?)?);
        s = mlx::entries(&states, range.len() as i32 - 1..range.len() as i32)?;
    }
    *state = Some(s);
    let y = concatenate(&parts, 0)?.add(inputs.multiply(space.d.expand_dims(-1)?)?)?;
    y.reshape(x.shape())?.as_dtype(x.dtype())
}

/// States after each token of a chunk, by a parallel scan (Hillis and Steele): `kept` are the
/// decays and `new` the inputs, [length, channels, size].
fn states(mut kept: Array, mut new: Array, before: &Array) -> Result<Array> {
    let length = kept.dim(0);
    let mut reach = 1;
    while reach < length {
        let [kept_head, new_head] = [&kept, &new].map(|x| mlx::entries(x, 0..reach));
        let late = mlx::entries(&kept, reach..length)?;
        let added = mlx::entries(&new, 0..length - reach)?.multiply(&late)?;
        let added = mlx::entries(&new, reach..length)?.add(added)?;
        let longer = mlx::entries(&kept, 0..length - reach)?.multiply(&late)?;
        new = concatenate(&[new_head?, added], 0)?;
        kept = concatenate(&[kept_head?, longer], 0)?;
        reach *= 2;
    }
    kept.multiply(before)?.add(new)
}

/// State space on the CPU, token by token, channels in parallel.
pub fn cpu(
    space: &SelectiveScan,
    [x, dt, b, c]: [&Array; 4],
    state: &mut Option<Array>,
) -> Result<Array> {
    let (channels, size) = (space.rate.dim(0) as usize, space.rate.dim(1) as usize);
    let rows = x.dim(1) as usize;
    let mut states = state_or_zeros(state, channels * size)?;
    let [xs, dts, bs, cs] = [elements(x)?, elements(dt)?, elements(b)?, elements(c)?];
    let (rates, d) = (elements(&space.rate)?, elements(&space.d)?);
    let mut ys = vec![0.0; xs.len()];
    let block = |(n, (states, ys)): (usize, (&mut [f32], &mut [f32]))| {
        let first = n * BLOCK;
        for (i, (s, ys)) in states.chunks_mut(size).zip(ys.chunks_mut(rows)).enumerate() {
            let rates = &rates[(first + i) * size..][..size];
            for (t, y) in ys.iter_mut().enumerate() {
                let x = xs[t * channels + first + i];
                let dt = softplus_of(dts[t * channels + first + i]);
                for ((s, rate), b) in s.iter_mut().zip(rates).zip(&bs[t * size..]) {
                    *s = *s * (dt * rate).exp() + dt * x * b;
                }
                *y = dot(s, &cs[t * size..][..size]) + d[first + i] * x;
            }
        }
    };
    let parts = states.par_chunks_mut(BLOCK * size).zip(ys.par_chunks_mut(BLOCK * rows));
    parts.enumerate().for_each(block);
    *state = Some(Array::from_slice(&states, &[1, channels as i32, size as i32]));
    Ok(Array::from_slice(&transpose(&ys, rows, 1), x.shape()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::super::scan::tests::{agree, some};
    use super::*;

    #[test]
    fn both_forms_agree_in_stretches_of_any_length() {
        let rate = some(&[96, 8], 1).exp().unwrap().negative().unwrap();
        let space = SelectiveScan { rate, d: some(&[96], 2) };
        let inputs =
            [(96, 4), (96, 5), (8, 6), (8, 7)].map(|(size, seed)| some(&[1, 400, size], seed));
        agree(
            &inputs,
            |x, state| mlx(&space, [&x[0], &x[1], &x[2], &x[3]], state).unwrap(),
            |x, state| cpu(&space, [&x[0], &x[1], &x[2], &x[3]], state).unwrap(),
        );
    }
}
