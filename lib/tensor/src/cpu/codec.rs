//! Formats of weights and how they are decoded to floats.
//!
//! Affine weights are `code * scale + bias` with unsigned integer codes. The MX and NV formats are
//! small floats times a scale: e2m1 (a sign, two bits of exponent, one of mantissa) and e4m3 as the
//! OCP Microscaling Formats define them, with scales that are powers of two (e8m0) or e4m3. Dense
//! weights are floats of 16 or 32 bits.

use super::simd::{LANES, Simd};

/// Format of weights.
pub trait Codec: Sync {
    /// Bytes of [`LANES`] codes.
    const BYTES: usize;
    /// True if groups of weights have a scale.
    const SCALED: bool;
    /// Codes of a byte, if they are unsigned integers of 4 or 8 bits; else 0.
    const PER_BYTE: usize = 0;

    /// Decodes the first [`LANES`] codes of `stream` without their scale. `stream` holds that many
    /// codes, and at least 16 bytes.
    fn decode<S: Simd>(simd: S, stream: &[u8]) -> S::Floats;
}

/// First `N` bytes, which always exist; a default for the other case costs less than a panic.
#[inline(always)]
fn first<const N: usize>(stream: &[u8]) -> &[u8; N] {
    stream.first_chunk().unwrap_or(&[0; N])
}

/// Unsigned integers of `BITS` bits.
pub struct Integer<const BITS: usize>;

impl<const BITS: usize> Codec for Integer<BITS> {
    const BYTES: usize = 2 * BITS;
    const SCALED: bool = true;
    const PER_BYTE: usize = if BITS == 4 || BITS == 8 { 8 / BITS } else { 0 };

    #[inline(always)]
    fn decode<S: Simd>(simd: S, stream: &[u8]) -> S::Floats {
        simd.to_floats(simd.unpack::<BITS>(first(stream)))
    }
}

/// Floats of 4 bits, e2m1.
pub struct E2m1;

impl Codec for E2m1 {
    const BYTES: usize = 8;
    const SCALED: bool = true;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, stream: &[u8]) -> S::Floats {
        const ALL: [f32; 16] = [
            0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
        ];
        simd.lookup(&ALL, simd.unpack::<4>(first(stream)))
    }
}

/// Floats of 8 bits, e4m3. NaN decodes to the number after the largest.
pub struct E4m3;

impl Codec for E4m3 {
    const BYTES: usize = 16;
    const SCALED: bool = true;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, stream: &[u8]) -> S::Floats {
        let codes = simd.unpack::<8>(first(stream));
        // The bits as half precision, whose exponent bias is 15 instead of 7.
        let halves = simd.or(simd.mask_shl(codes, 0x80, 8), simd.mask_shl(codes, 0x7f, 7));
        simd.mul_add(simd.f32_from_f16_bits(halves), simd.splat(256.0), simd.splat(0.0))
    }
}

/// IEEE 754 half precision.
pub struct F16;

impl Codec for F16 {
    const BYTES: usize = 2 * LANES;
    const SCALED: bool = false;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, stream: &[u8]) -> S::Floats {
        simd.f32_from_f16_bits(simd.widen_u16(first(stream)))
    }
}

/// bfloat16, the upper halves of single precision.
pub struct Bf16;

impl Codec for Bf16 {
    const BYTES: usize = 2 * LANES;
    const SCALED: bool = false;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, stream: &[u8]) -> S::Floats {
        simd.f32_from_bits(simd.mask_shl(simd.widen_u16(first(stream)), 0xffff, 16))
    }
}

/// IEEE 754 single precision.
pub struct F32;

impl Codec for F32 {
    const BYTES: usize = 4 * LANES;
    const SCALED: bool = false;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, stream: &[u8]) -> S::Floats {
        let (floats, _) = first::<{ 4 * LANES }>(stream).as_chunks::<4>();
        simd.load(&std::array::from_fn(|lane| f32::from_le_bytes(floats[lane])))
    }
}

/// Values of the e4m3 codes.
pub static E4M3: [f32; 256] = {
    const REBASE: f32 = f32::from_bits((120 + 127) << 23);
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (sign, size) = ((code as u32 & 0x80) << 24, (code as u32 & 0x7f) << 20);
        table[code] = f32::from_bits(sign | size) * REBASE;
        code += 1;
    }
    table
};

/// Values of the e8m0 codes, powers of two from 2^-127, which is a subnormal f32.
pub static E8M0: [f32; 256] = {
    let mut table = [f32::from_bits(1 << 22); 256];
    let mut code = 1;
    while code < 256 {
        table[code] = f32::from_bits((code as u32) << 23);
        code += 1;
    }
    table
};
