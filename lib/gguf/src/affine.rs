//! Lossless repacking of GGUF blocks into MLX's quantization.
//!
//! MLX's affine mode: weight = scale * code + bias, groups of 32, codes packed into u32 from the
//! low bits up. Q4_1 is that with 4 bits; Q4_0 has the bias -8 * scale. Q8_0 has signed codes, to
//! which 128 is added, with the bias -128 * scale. A product with a power of two is exact in f16
//! unless it overflows. MXFP4 is MLX's mode of the same name: the same codes, and an exponent for
//! each group.

use half::f16;

use crate::dtype::Type;

/// Weights per quantization group.
pub const GROUP: usize = 32;

/// Tensor of which a quantized matrix consists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// Packed codes, u32.
    Codes,
    /// Scale of each group: f16 (affine), or an exponent in a u8 (MXFP4).
    Scales,
    /// Bias of each group, f16.
    Biases,
}

/// Bits per code of an affine type; `None` for other types.
pub fn bits(dtype: Type) -> Option<usize> {
    match dtype {
        Type::Q4_0 | Type::Q4_1 => Some(4),
        Type::Q8_0 => Some(8),
        _ => None,
    }
}

/// Writes one component of whole `blocks` to `out`, which has its length.
///
/// # Errors
/// A phrase, if a scale or bias is not finite: MLX's f16 cannot hold it, or the file is damaged.
pub fn repack(
    dtype: Type,
    component: Component,
    blocks: &[u8],
    out: &mut [u8],
) -> Result<(), String> {
    let blocks = blocks.chunks_exact(dtype.bytes());
    let size = out.len() / blocks.len().max(1);
    for (block, out) in blocks.zip(out.chunks_exact_mut(size)) {
        match component {
            Component::Codes => codes(dtype, block, out),
            Component::Scales if dtype == Type::MXFP4 => out.copy_from_slice(&block[..1]),
            Component::Scales => out.copy_from_slice(&finite(scale(block))?),
            Component::Biases => out.copy_from_slice(&finite(bias(dtype, block))?),
        }
    }
    Ok(())
}

fn codes(dtype: Type, block: &[u8], out: &mut [u8]) {
    match dtype {
        // Adding 128 to a signed byte flips its highest bit.
        Type::Q8_0 => out.iter_mut().zip(&block[2..]).for_each(|(out, code)| *out = code ^ 0x80),
        Type::Q4_0 => reorder_nibbles(&block[2..], out),
        Type::MXFP4 => reorder_nibbles(&block[1..], out),
        _ => reorder_nibbles(&block[4..], out),
    }
}

/// Reorders 4-bit codes: GGUF has the codes `i` and `i + 16` in a byte, MLX `2i` and `2i + 1`.
fn reorder_nibbles(bytes: &[u8], out: &mut [u8]) {
    let (low, high) = out.split_at_mut(8);
    for (i, pair) in bytes.chunks_exact(2).enumerate() {
        low[i] = pair[0] & 15 | pair[1] << 4;
        high[i] = pair[0] >> 4 | pair[1] & 0xf0;
    }
}

fn scale(block: &[u8]) -> f16 {
    f16::from_le_bytes([block[0], block[1]])
}

fn bias(dtype: Type, block: &[u8]) -> f16 {
    match dtype {
        Type::Q4_1 => f16::from_le_bytes([block[2], block[3]]),
        Type::Q4_0 => f16::from_f32(scale(block).to_f32() * -8.0),
        _ => f16::from_f32(scale(block).to_f32() * -128.0),
    }
}

fn finite(x: f16) -> Result<[u8; 2], String> {
    match x.is_finite() {
        true => Ok(x.to_le_bytes()),
        false => Err(format!("a block's scale or bias is {x} as f16")),
    }
}
