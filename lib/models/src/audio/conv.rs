//! Convolution along time as one matrix product with overlapping rows.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{as_strided, concatenate, zeros_dtype};

use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Convolution with a bias, whose input is padded with zeros so that there is an output for every
/// `stride` rows of it.
pub struct Conv {
    /// Weights [outs, taps * ins].
    linear: Linear,
    taps: i32,
    stride: i32,
}

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvArch {
    /// Channels of the output.
    pub outs: usize,
    /// Channels of the input.
    pub ins: usize,
    /// Rows of the input that an output sees, an odd number.
    pub taps: usize,
    /// Rows of the input from one output to the next.
    pub stride: usize,
}

impl Conv {
    /// Loads the convolution `name` of `w`, whose weights are [outs, taps, ins].
    pub fn load(w: &mut Cursor, name: &str, arch: &ConvArch) -> mlxk_core::Result<Conv> {
        let &ConvArch { outs, ins, taps, stride } = arch;
        let mut at = w.at(name);
        let weight = at.take("weight")?;
        at.expect("weight", &weight, &[weight.dtype], &[outs, taps, ins])?;
        at.put("weight", weight.shaped(vec![outs, taps * ins]));
        let linear = Linear::load(w, name, outs, taps * ins)?;
        Ok(Conv { linear, taps: taps as i32, stride: stride as i32 })
    }

    /// Output [1, rows / stride, outs] for `x` [1, rows, ins]; rows are rounded up.
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let (rows, ins) = (x.dim(1), x.dim(2));
        let padding = zeros_dtype(&[1, self.taps / 2, ins], x.dtype())?;
        let padded = concatenate(&[&padding, x, &padding], 1)?;
        let outputs = (rows + self.stride - 1) / self.stride;
        let steps = [0, i64::from(self.stride * ins), 1];
        let seen = as_strided(&padded, &[1, outputs, self.taps * ins][..], &steps[..], 0)?;
        self.linear.forward(&seen.contiguous()?)
    }
}
