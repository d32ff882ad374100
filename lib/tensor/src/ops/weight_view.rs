//! Views of weights in memory for the CPU kernels.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Dtype};
use mlxk_core::quantization::Mode;

use crate::array::{elements, unreadable};
use crate::cpu::{FloatSlice, QuantizedView, Scales, WeightView};
use crate::weight::Weight;

/// View of `w`, with leading axes joined to rows. Errors if an array is not contiguous or of an
/// unexpected type.
pub fn matrix(w: &Weight) -> Result<WeightView<'_>> {
    let w = match w {
        Weight::Dense(weight) => return floats(weight).map(WeightView::Dense),
        Weight::Quantized(packed) => packed,
    };
    let codes = || w.scales.try_as_slice().map_err(unreadable);
    let scales = match (w.mode, &w.biases) {
        (Mode::Mxfp4, _) => Scales::Mxfp4(codes()?),
        (Mode::Nvfp4, _) => Scales::Nvfp4(codes()?),
        (Mode::Mxfp8, _) => Scales::Mxfp8(codes()?),
        (Mode::Affine, Some(biases)) => Scales::Affine(floats(&w.scales)?, floats(biases)?),
        (Mode::Affine, None) => return Err(Exception::custom("affine weights without biases")),
    };
    let weight = w.weight.try_as_slice().map_err(unreadable)?;
    let (group_size, bits) = (w.group_size as usize, w.bits as usize);
    Ok(WeightView::Quantized(QuantizedView { weight, scales, group_size, bits }))
}

/// View of a float array of any type.
fn floats(array: &Array) -> Result<FloatSlice<'_>> {
    Ok(match array.dtype() {
        Dtype::Float16 => {
            FloatSlice::F16(array.try_as_slice::<f16>().map_err(unreadable)?.reinterpret_cast())
        }
        Dtype::Bfloat16 => {
            FloatSlice::Bf16(array.try_as_slice::<bf16>().map_err(unreadable)?.reinterpret_cast())
        }
        _ => FloatSlice::F32(elements(array)?),
    })
}
