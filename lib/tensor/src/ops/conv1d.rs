//! Depthwise causal convolution over tokens.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, conv1d, sigmoid, zeros_dtype};

use super::scan::state_or_zeros;
use crate::array::{elements, for_each_row};
use crate::mlx;

/// Depthwise causal convolution: each channel has a factor for a token and for each of the `taps -
/// 1` tokens before it.
pub struct Conv1d {
    /// Weight, [channels, taps, 1].
    pub weight: Array,
    /// Bias, `[channels]`.
    pub bias: Option<Array>,
    /// True if SiLU follows.
    pub silu: bool,
}

impl Conv1d {
    /// Kernel size, in tokens.
    fn taps(&self) -> i32 {
        self.weight.dim(1)
    }
}

/// Convolution in MLX.
pub fn mlx(conv: &Conv1d, x: &Array, tail: &mut Option<Array>) -> Result<Array> {
    let (channels, kept) = (x.dim(-1), conv.taps() - 1);
    let before = match tail.take() {
        Some(tail) => tail,
        None => zeros_dtype(&[1, kept, channels], x.dtype())?,
    };
    let all = concatenate(&[&before, x], 1)?;
    let last = all.dim(1) - kept..all.dim(1);
    // A copy, which does not keep the rows before it in memory.
    *tail = Some(mlx::columns(&all, last)?.contiguous()?);
    let mut y = conv1d(&all, &conv.weight, None, None, None, channels)?;
    if let Some(bias) = &conv.bias {
        y = y.add(bias)?;
    }
    if conv.silu { y.multiply(sigmoid(&y)?) } else { Ok(y) }
}

/// Convolution on the CPU.
pub fn cpu(conv: &Conv1d, x: &Array, tail: &mut Option<Array>) -> Result<Array> {
    let (channels, taps) = (x.dim(-1) as usize, conv.taps() as usize);
    let mut all = state_or_zeros(tail, (taps - 1) * channels)?;
    all.extend_from_slice(elements(x)?);
    let shape = [1, taps as i32 - 1, channels as i32];
    *tail = Some(Array::from_slice(&all[all.len() - (taps - 1) * channels..], &shape));
    let by_tap = by_tap(elements(&conv.weight)?, taps);
    let (bias, silu) = (conv.bias.as_ref().map(elements).transpose()?, conv.silu);
    let mut y = vec![0.0; x.size()];
    for_each_row(&mut y, channels, |i, y| {
        if let Some(bias) = bias {
            y.copy_from_slice(bias);
        }
        let before = all[i * channels..].chunks_exact(channels);
        for (factors, x) in by_tap.chunks_exact(channels).zip(before) {
            y.iter_mut().zip(factors).zip(x).for_each(|((y, w), x)| *y += w * x);
        }
        if silu {
            y.iter_mut().for_each(|y| *y /= 1.0 + (-*y).exp());
        }
    });
    Ok(Array::from_slice(&y, x.shape()))
}

/// Transposes [channels, taps] to [taps, channels].
fn by_tap(weight: &[f32], taps: usize) -> Vec<f32> {
    (0..taps).flat_map(|tap| weight[tap..].iter().step_by(taps).copied()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::super::scan::tests::{agree, some};
    use super::*;

    #[test]
    fn both_forms_agree_in_stretches_of_any_length() {
        for (bias, silu) in [(None, true), (Some(some(&[24], 2)), false)] {
            let conv = Conv1d { weight: some(&[24, 4, 1], 1), bias, silu };
            let x = some(&[1, 400, 24], 3);
            agree(
                &[x],
                |x, tail| mlx(&conv, &x[0], tail).unwrap(),
                |x, tail| cpu(&conv, &x[0], tail).unwrap(),
            );
        }
    }
}
