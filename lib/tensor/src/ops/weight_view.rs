//! Weight where they lie in memory, as the CPU's matrix products take them.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Dtype};
use mlxk_core::quantization::Mode;

use crate::array::{elements, unreadable};
use crate::cpu::{self, Floats, Scales};
use crate::weight::Weight;

/// The weights where they lie.
pub fn matrix(w: &Weight) -> Result<cpu::Matrix<'_>> {
    let w = match w {
        Weight::Dense(weight) => return floats(weight).map(cpu::Matrix::Plain),
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
    Ok(cpu::Matrix::Packed(cpu::Packed { weight, scales, group_size, bits }))
}

/// Floats of any type where they lie.
fn floats(array: &Array) -> Result<Floats<'_>> {
    Ok(match array.dtype() {
        Dtype::Float16 => {
            Floats::F16(array.try_as_slice::<f16>().map_err(unreadable)?.reinterpret_cast())
        }
        Dtype::Bfloat16 => {
            Floats::Bf16(array.try_as_slice::<bf16>().map_err(unreadable)?.reinterpret_cast())
        }
        _ => Floats::F32(elements(array)?),
    })
}
