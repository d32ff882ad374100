//! Depthwise striding: convolutions that halve time and frequency of a spectrum, again and again
//! (Fast Conformer, arXiv 2305.05084).

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, zeros_dtype};
use mlx_rs::transforms::eval;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use super::strided_conv::{StridedConv, StridedConvArch, as_matrix};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Sizes of the convolutions.
pub struct SubsamplingArch {
    /// Bands of the spectrum.
    pub bands: usize,
    /// Number of times that time and frequency are halved, 1 or more.
    pub halvings: usize,
    /// Channels of the convolutions.
    pub channels: usize,
    /// Elements of a hidden vector.
    pub hidden: usize,
}

/// Convolutions, and a projection to hidden vectors.
pub struct Subsampling {
    stages: Vec<Stage>,
    out: Linear,
    ops: &'static dyn Ops,
}

/// Convolution that halves time and frequency, and the mix of its channels behind it, which the
/// first stage does not need: it has one channel to convolve.
struct Stage {
    conv: StridedConv,
    mix: Option<Linear>,
}

/// Rows of the output that are computed at once, which bounds the memory of the first convolution.
const STRETCH: i32 = 128;

impl Subsampling {
    /// Loads the layer at `w`.
    pub fn load(w: &mut Cursor, arch: &SubsamplingArch) -> mlxk_core::Result<Subsampling> {
        let &SubsamplingArch { bands, halvings, channels, hidden } = arch;
        let bands = (0..halvings).fold(bands, |bands, _| bands.div_ceil(2));
        let stages = (0..halvings).map(|i| Stage::load(&mut w.at("conv"), i, channels));
        Ok(Subsampling {
            stages: stages.collect::<mlxk_core::Result<_>>()?,
            out: Linear::load(w, "out", hidden, channels * bands)?,
            ops: w.ops(),
        })
    }

    /// Hidden vectors [1, rows, hidden] of a spectrum [1, frames, bands].
    pub fn forward(&self, mel: &Array) -> Result<Array> {
        let rows = self.lengths(mel.dim(1)).pop().unwrap_or_default();
        let mel = &match self.stages.first() {
            Some(stage) => mel.as_dtype(stage.conv.dtype())?,
            None => mel.clone(),
        };
        let starts = (0..rows).step_by(STRETCH as usize);
        let stretch = |start| {
            let part = self.stretch(mel, start..(start + STRETCH).min(rows))?;
            eval([&part])?;
            Ok(part)
        };
        let parts: Vec<Array> = starts.map(stretch).collect::<Result<_>>()?;
        concatenate(&parts, 1)?.contiguous()
    }

    /// Number of rows before and after each stage.
    fn lengths(&self, frames: i32) -> Vec<i32> {
        let halved = |length: i32| (length + 1) / 2;
        std::iter::successors(Some(frames), |&length| Some(halved(length)))
            .take(self.stages.len() + 1)
            .collect()
    }

    /// Rows of the output in a range.
    fn stretch(&self, mel: &Array, rows: Range<i32>) -> Result<Array> {
        let lengths = self.lengths(mel.dim(1));
        // Rows that each stage takes, those beyond the ends included, from the last stage to the first.
        let mut taken = Vec::new();
        let mut wanted = rows;
        for &length in lengths[..self.stages.len()].iter().rev() {
            let around = 2 * wanted.start - 1..2 * wanted.end;
            wanted = around.start.max(0)..around.end.min(length);
            taken.push((around, wanted.clone()));
        }
        // [1, time, frequency, channels].
        let mut x = mlx::columns(mel, wanted)?.expand_dims(-1)?;
        for (stage, (around, inside)) in self.stages.iter().zip(taken.into_iter().rev()) {
            x = padded(x, [inside.start - around.start, around.end - inside.end])?;
            x = stage.forward(&x, self.ops)?;
        }
        let x = x.transpose_axes(&[0, 1, 3, 2])?.contiguous()?;
        self.out.forward(&x.reshape(&[1, x.dim(1), -1])?)
    }
}

impl Stage {
    /// Loads stage `i`; the numbers of layers count those without weights too.
    fn load(w: &mut Cursor, i: usize, channels: usize) -> mlxk_core::Result<Stage> {
        let groups = if i == 0 { 1 } else { channels as i32 };
        let first = if i == 0 { 0 } else { 3 * i - 1 };
        let arch = StridedConvArch {
            outs: channels,
            ins: 1,
            kernel: &[3, 3],
            stride: 2,
            padding: [0, 1],
            groups,
        };
        let conv = StridedConv::load(w, &first.to_string(), &arch)?;
        let mut mix = |name: String| {
            as_matrix(w, &name, channels, channels)?;
            Linear::load(w, &name, channels, channels)
        };
        let mix = (i > 0).then(|| mix((first + 1).to_string())).transpose()?;
        Ok(Stage { conv, mix })
    }

    /// [1, time, frequency, channels] to half the time and half the frequency.
    fn forward(&self, x: &Array, ops: &'static dyn Ops) -> Result<Array> {
        let x = self.conv.forward(x)?;
        let x = match &self.mix {
            Some(mix) => mix.forward(&x)?,
            None => x,
        };
        ops.activate(&x, Activation::Relu)
    }
}

/// `x` [1, time, frequency, channels] with `counts` rows of zeros before and behind it.
fn padded(x: Array, counts: [i32; 2]) -> Result<Array> {
    let zeros = |count: i32| zeros_dtype(&[1, count, x.dim(2), x.dim(3)], x.dtype());
    let [before, behind] = counts.map(zeros);
    concatenate(&[&before?, &x, &behind?], 1)
}
