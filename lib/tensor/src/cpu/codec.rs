//! What the codes and scales of weights stand for.
//!
//! Affine weights are `q * scale + bias` with `q` an unsigned integer. The others are small floats
//! times a scale: e2m1 (a sign, two bits of exponent, one of mantissa) and e4m3 as the OCP
//! Microscaling Formats define them, with scales that are powers of two (e8m0) or e4m3 again. Plain
//! weights are floats of 16 or 32 bits.

use super::simd::{LANES, Unit};

/// A way to write a weight in some bits.
pub trait Coding: Sync {
    /// Bytes of [`LANES`] weights.
    const BYTES: usize;
    /// Whether groups of weights are multiplied with a scale.
    const SCALED: bool;
    /// How many codes a byte holds, if they are whole bytes or nibbles that count as integers.
    const IN_BYTE: usize = 0;

    /// What the first [`LANES`] codes of `stream` stand for, before they are scaled. There are
    /// so many, and 16 bytes.
    fn values<U: Unit>(unit: U, stream: &[u8]) -> U::Floats;
}

/// The first `N` bytes. They are always there; to say what would be if not costs less than a panic.
#[inline(always)]
fn first<const N: usize>(stream: &[u8]) -> &[u8; N] {
    stream.first_chunk().unwrap_or(&[0; N])
}

/// Unsigned integers.
pub struct Integer<const BITS: usize>;

impl<const BITS: usize> Coding for Integer<BITS> {
    const BYTES: usize = 2 * BITS;
    const SCALED: bool = true;
    const IN_BYTE: usize = if BITS == 4 || BITS == 8 { 8 / BITS } else { 0 };

    #[inline(always)]
    fn values<U: Unit>(unit: U, stream: &[u8]) -> U::Floats {
        unit.numbers(unit.codes::<BITS>(first(stream)))
    }
}

/// Floats of 4 bits.
pub struct E2m1;

impl Coding for E2m1 {
    const BYTES: usize = 8;
    const SCALED: bool = true;

    #[inline(always)]
    fn values<U: Unit>(unit: U, stream: &[u8]) -> U::Floats {
        const ALL: [f32; 16] = [
            0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
        ];
        unit.look_up(&ALL, unit.codes::<4>(first(stream)))
    }
}

/// Floats of 8 bits. The one code that is no number counts as the number after the largest.
pub struct E4m3;

impl Coding for E4m3 {
    const BYTES: usize = 16;
    const SCALED: bool = true;

    #[inline(always)]
    fn values<U: Unit>(unit: U, stream: &[u8]) -> U::Floats {
        let codes = unit.codes::<8>(first(stream));
        // As a number of half precision, whose exponent counts from 2^-15 and not from 2^-7.
        let halves = unit.or(unit.part(codes, 0x80, 8), unit.part(codes, 0x7f, 7));
        unit.add_product(unit.halves(halves), unit.splat(256.0), unit.splat(0.0))
    }
}

/// Floats of half precision.
pub struct F16;

impl Coding for F16 {
    const BYTES: usize = 2 * LANES;
    const SCALED: bool = false;

    #[inline(always)]
    fn values<U: Unit>(unit: U, stream: &[u8]) -> U::Floats {
        unit.halves(unit.words(first(stream)))
    }
}

/// The upper halves of floats of single precision.
pub struct Bf16;

impl Coding for Bf16 {
    const BYTES: usize = 2 * LANES;
    const SCALED: bool = false;

    #[inline(always)]
    fn values<U: Unit>(unit: U, stream: &[u8]) -> U::Floats {
        unit.singles(unit.part(unit.words(first(stream)), 0xffff, 16))
    }
}

/// Floats of single precision.
pub struct F32;

impl Coding for F32 {
    const BYTES: usize = 4 * LANES;
    const SCALED: bool = false;

    #[inline(always)]
    fn values<U: Unit>(unit: U, stream: &[u8]) -> U::Floats {
        let (floats, _) = first::<{ 4 * LANES }>(stream).as_chunks::<4>();
        unit.load(&std::array::from_fn(|lane| f32::from_le_bytes(floats[lane])))
    }
}

/// e4m3 by its code.
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

/// Powers of two from 2^-127, which is too small for an f32's own exponent.
pub static E8M0: [f32; 256] = {
    let mut table = [f32::from_bits(1 << 22); 256];
    let mut code = 1;
    while code < 256 {
        table[code] = f32::from_bits((code as u32) << 23);
        code += 1;
    }
    table
};
