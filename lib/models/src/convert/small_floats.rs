//! Quantisation in MX and NV formats (floats of 4 or 8 bits), by MLX.

use std::fmt::Display;

use mlx_rs::Array;
use mlx_rs::error::Exception;
use mlxk_core::Result;
use mlxk_core::quantization::QuantSpec;
use mlxk_tensor::{mlx, quantized};

/// Codes of groups, and a scale for each group.
pub struct MxTensors {
    pub codes: Vec<u8>,
    pub scales: Vec<u8>,
}

/// Quantises whole groups of weights.
pub fn quantize(weights: &[f32], form: QuantSpec) -> Result<MxTensors> {
    let (rows, ins) = (weights.len() / form.group_size, form.group_size);
    let array = Array::from_slice(weights, &[rows as i32, ins as i32]);
    let packed = || {
        let [codes, scales] = quantized::quantize(&array, form)?;
        let codes: Vec<u32> = codes.to_vec_exact().map_err(unreadable)?;
        let scales = scales.to_vec_exact().map_err(unreadable)?;
        Ok(MxTensors { codes: codes.iter().flat_map(|code| code.to_le_bytes()).collect(), scales })
    };
    packed().map_err(mlx::failed)
}

/// Dequantises codes.
pub fn dequantize(codes: &[u8], scales: &[u8], form: QuantSpec) -> Result<Vec<f32>> {
    let rows = scales.len() as i32;
    let words: Vec<u32> = codes
        .chunks_exact(4)
        .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect();
    let unpacked = || {
        let codes = Array::from_slice(&words, &[rows, (form.group_size * form.bits / 32) as i32]);
        let scales = Array::from_slice(scales, &[rows, 1]);
        let weights = quantized::dequantize(&codes, &scales, None, form)?.as_type::<f32>()?;
        weights.to_vec_exact().map_err(unreadable)
    };
    unpacked().map_err(mlx::failed)
}

/// Converts an error of a slice access to an MLX exception.
fn unreadable(error: impl Display) -> Exception {
    Exception::custom(error.to_string())
}
