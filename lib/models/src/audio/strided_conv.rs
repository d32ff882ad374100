//! Strided convolution over time, or over time and frequency, with channels last.

use mlx_rs::error::Result;
use mlx_rs::ops::{conv1d, conv2d};
use mlx_rs::{Array, Dtype};

use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::reshape::transposed;

/// Sizes of a convolution.
pub struct StridedConvArch<'a> {
    /// Number of output channels.
    pub outs: usize,
    /// Number of input channels of a group.
    pub ins: usize,
    /// Size of the kernel along time, and along frequency if there is that axis.
    pub kernel: &'a [usize],
    /// Step of the kernel, the same along all axes.
    pub stride: i32,
    /// Zeros before and behind each axis.
    pub padding: [i32; 2],
    /// Number of groups of channels that are convolved apart.
    pub groups: i32,
}

/// Convolution with its weights.
pub struct StridedConv {
    /// Weight [outs, kernel.., ins].
    weight: Array,
    /// Bias `[outs]`.
    bias: Option<Array>,
    stride: i32,
    padding: [i32; 2],
    groups: i32,
}

impl StridedConv {
    /// Loads the convolution `name` of `w`, whose input channels come last (MLX) or before the
    /// kernel (PyTorch).
    pub fn load(
        w: &mut Cursor,
        name: &str,
        arch: &StridedConvArch,
    ) -> mlxk_core::Result<StridedConv> {
        let &StridedConvArch { outs, ins, kernel, stride, padding, groups } = arch;
        let mut w = w.at(name);
        channels_last(&mut w, outs, ins, kernel)?;
        let weight = w.floats("weight", &[&[outs], kernel, &[ins]].concat())?;
        let bias = w.optional("bias", &[outs])?;
        Ok(StridedConv { weight, bias, stride, padding, groups })
    }

    /// Type in which the layer computes.
    pub fn dtype(&self) -> Dtype {
        self.weight.dtype()
    }

    /// Output [1, time, outs] of `x` [1, time, channels], or [1, time, frequency, outs] of [1, time,
    /// frequency, channels].
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let &StridedConv { ref weight, stride, padding: [time, frequency], groups, .. } = self;
        let y = match weight.ndim() {
            3 => conv1d(x, weight, stride, time, None, groups)?,
            _ => conv2d(x, weight, (stride, stride), (time, frequency), None, groups)?,
        };
        match &self.bias {
            Some(bias) => y.add(bias),
            None => Ok(y),
        }
    }
}

/// Puts the input channels of the weight at `w` behind its kernel, if they come before it.
///
/// # Errors
/// If the weight is missing, or of another shape.
pub fn channels_last(
    w: &mut Cursor,
    outs: usize,
    ins: usize,
    kernel: &[usize],
) -> mlxk_core::Result<()> {
    let volume = kernel.iter().product();
    let (shape, _) = w.form("weight")?;
    if shape == [&[outs, ins], kernel].concat() && shape != [&[outs], kernel, &[ins]].concat() {
        let weight = transposed(w.take("weight")?.shaped(vec![outs, ins, volume]));
        w.put("weight", weight.shaped([&[outs], kernel, &[ins]].concat()));
    }
    Ok(())
}

/// Makes the convolution `name` of `w` with a kernel of one place a matrix [outs, ins].
///
/// # Errors
/// If the weight is missing, or of another shape.
pub fn as_matrix(w: &mut Cursor, name: &str, outs: usize, ins: usize) -> mlxk_core::Result<()> {
    let mut w = w.at(name);
    let weight = w.take("weight")?;
    let ones = |shape: &[usize]| shape.iter().product::<usize>() == outs * ins;
    if weight.shape.first() != Some(&outs) || !ones(&weight.shape) {
        let message = format!("expected {outs} rows of {ins}, found shape {:?}", weight.shape);
        return Err(w.invalid("weight", message));
    }
    w.put("weight", weight.shaped(vec![outs, ins]));
    Ok(())
}
