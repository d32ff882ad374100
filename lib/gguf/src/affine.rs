//! Blocks that are MLX's affine quantisation under another packing, and nothing is lost.
//!
//! MLX: weight = scale * code + bias, groups of 32, codes packed into u32 from the low bits up.
//! Q4_1 is that with 4 bits; Q4_0 has the bias -8 * scale. Q8_0 has signed codes: 128 more, and
//! the bias -128 * scale. A product with a power of two is exact in f16 unless it overflows.
//! MXFP4 is MLX's mode of that name: the same codes, and a power of two for each group.

use half::f16;

use crate::dtype::Type;

/// The weights of a group, in MLX's terms.
pub const GROUP: usize = 32;

/// A part of a quantised matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The packed codes, u32.
    Codes,
    /// A factor per group, f16, or its exponent.
    Scales,
    /// A summand per group, f16.
    Biases,
}

/// The bits of a code, for the types that are affine.
pub fn bits(dtype: Type) -> Option<usize> {
    match dtype {
        Type::Q4_0 | Type::Q4_1 => Some(4),
        Type::Q8_0 => Some(8),
        _ => None,
    }
}

/// Writes one part of whole `blocks` to `out`, which has its length.
///
/// # Errors
/// A phrase, if a scale or bias is not finite: MLX's f16 cannot hold it, or the file is damaged.
pub fn repack(dtype: Type, part: Part, blocks: &[u8], out: &mut [u8]) -> Result<(), String> {
    let blocks = blocks.chunks_exact(dtype.bytes());
    let size = out.len() / blocks.len().max(1);
    for (block, out) in blocks.zip(out.chunks_exact_mut(size)) {
        match part {
            Part::Codes => codes(dtype, block, out),
            Part::Scales if dtype == Type::MXFP4 => out.copy_from_slice(&block[..1]),
            Part::Scales => out.copy_from_slice(&finite(scale(block))?),
            Part::Biases => out.copy_from_slice(&finite(bias(dtype, block))?),
        }
    }
    Ok(())
}

fn codes(dtype: Type, block: &[u8], out: &mut [u8]) {
    match dtype {
        // Little-endian bytes from the low bits up are the codes themselves, 128 more each.
        Type::Q8_0 => out.iter_mut().zip(&block[2..]).for_each(|(out, code)| *out = code ^ 0x80),
        Type::Q4_0 => pair(&block[2..], out),
        Type::MXFP4 => pair(&block[1..], out),
        _ => pair(&block[4..], out),
    }
}

/// From the order of a block, where a byte holds codes 16 apart, to neighbours in a byte.
fn pair(bytes: &[u8], out: &mut [u8]) {
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
