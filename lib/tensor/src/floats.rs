//! Conversion between float types in slices of little-endian bytes.

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use mlx_rs::Dtype;
use mlxk_core::Float;

/// Numbers that conversions of a checkpoint handle at a time; a multiple of every group size.
pub const BLOCK: usize = 1 << 20;

/// Float type of an MLX type; `None` if it is not a float of 16 or 32 bits.
pub fn kind(dtype: Dtype) -> Option<Float> {
    match dtype {
        Dtype::Float16 => Some(Float::F16),
        Dtype::Bfloat16 => Some(Float::BF16),
        Dtype::Float32 => Some(Float::F32),
        _ => None,
    }
}

/// Converts little-endian `bytes` of type `float` to float32.
pub fn widen(bytes: &[u8], float: Float) -> Vec<f32> {
    let halves = || -> Vec<u16> {
        bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect()
    };
    let mut wide = vec![0.0; bytes.len() / float.bytes()];
    match float {
        Float::F32 => {
            for (wide, four) in wide.iter_mut().zip(bytes.chunks_exact(4)) {
                *wide = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            }
        }
        Float::F16 => halves().reinterpret_cast::<f16>().convert_to_f32_slice(&mut wide),
        Float::BF16 => halves().reinterpret_cast::<bf16>().convert_to_f32_slice(&mut wide),
    }
    wide
}

/// Converts float32 to little-endian bytes of type `float`, rounded to nearest.
pub fn narrow(numbers: &[f32], float: Float) -> Vec<u8> {
    let bytes = |halves: &[u16]| halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    match float {
        Float::F32 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Float::F16 => {
            let mut halves = vec![f16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            bytes(halves.reinterpret_cast())
        }
        Float::BF16 => {
            let mut halves = vec![bf16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            bytes(halves.reinterpret_cast())
        }
    }
}
