//! What the codes and scales of quantised weights stand for.
//!
//! Affine weights are `q * scale + bias` with `q` an unsigned integer. The others are small floats
//! times a scale: e2m1 (a sign, two bits of exponent, one of mantissa) and e4m3 as the OCP
//! Microscaling Formats define them, with scales that are powers of two (e8m0) or e4m3 again.

use std::array;

use super::unit::{LANES, Unit};

/// A way to write a weight in a few bits.
pub trait Coding: Sync {
    /// Bits of a weight.
    const BITS: usize;
    /// A scale as it lies in memory.
    type Scale: Copy + Sync;
    /// The scale as a number.
    fn scale(scale: Self::Scale) -> f32;
    /// What a code stands for, before it is scaled.
    fn value(code: u32) -> f32;

    /// The `n`th value of each packed integer, for codes that do not cross integers.
    #[inline(always)]
    fn values<U: Unit>(_: U, packed: &[u32; LANES], n: usize) -> [f32; LANES] {
        array::from_fn(|lane| Self::value(packed[lane] >> (n * Self::BITS) & mask::<Self>()))
    }
}

/// The `n`th of 32 codes; it may begin in one integer and end in the next.
#[inline(always)]
pub fn code<C: Coding>(packed: &[u32], n: usize) -> u32 {
    let (word, shift) = (n * C::BITS / 32, n * C::BITS % 32);
    let low = packed[word] >> shift;
    let high = if shift + C::BITS > 32 { packed[word + 1] << (32 - shift) } else { 0 };
    (low | high) & mask::<C>()
}

fn mask<C: Coding + ?Sized>() -> u32 {
    (1 << C::BITS) - 1
}

/// Unsigned integers; each group has a bias too.
pub struct Integer<const BITS: usize>;

impl<const BITS: usize> Coding for Integer<BITS> {
    const BITS: usize = BITS;
    type Scale = f32;

    #[inline(always)]
    fn scale(scale: f32) -> f32 {
        scale
    }

    #[inline(always)]
    fn value(code: u32) -> f32 {
        // Small enough for the signed conversion, which every vector unit has.
        code as i32 as f32
    }
}

/// e2m1 by powers of two, in groups of 32.
pub struct Mxfp4;

impl Coding for Mxfp4 {
    const BITS: usize = 4;
    type Scale = u8;

    #[inline(always)]
    fn scale(scale: u8) -> f32 {
        E8M0[usize::from(scale)]
    }

    #[inline(always)]
    fn value(code: u32) -> f32 {
        E2M1[code as usize]
    }

    #[inline(always)]
    fn values<U: Unit>(unit: U, packed: &[u32; LANES], n: usize) -> [f32; LANES] {
        unit.look_up(&E2M1, packed, n)
    }
}

/// e2m1 by e4m3, in groups of 16.
pub struct Nvfp4;

impl Coding for Nvfp4 {
    const BITS: usize = 4;
    type Scale = u8;

    #[inline(always)]
    fn scale(scale: u8) -> f32 {
        E4M3[usize::from(scale)]
    }

    #[inline(always)]
    fn value(code: u32) -> f32 {
        E2M1[code as usize]
    }

    #[inline(always)]
    fn values<U: Unit>(unit: U, packed: &[u32; LANES], n: usize) -> [f32; LANES] {
        unit.look_up(&E2M1, packed, n)
    }
}

/// e4m3 by powers of two, in groups of 32.
pub struct Mxfp8;

impl Coding for Mxfp8 {
    const BITS: usize = 8;
    type Scale = u8;

    #[inline(always)]
    fn scale(scale: u8) -> f32 {
        E8M0[usize::from(scale)]
    }

    #[inline(always)]
    fn value(code: u32) -> f32 {
        e4m3(code)
    }
}

/// Exponent and mantissa moved to their places in an f32, whose exponent counts from 2^-127
/// instead of 2^-7. The one code that is no number counts as the number after the largest.
#[inline(always)]
const fn e4m3(code: u32) -> f32 {
    const REBASE: f32 = f32::from_bits((120 + 127) << 23);
    f32::from_bits((code & 0x80) << 24 | (code & 0x7f) << 20) * REBASE
}

const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

static E4M3: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = e4m3(code as u32);
        code += 1;
    }
    table
};

/// Powers of two from 2^-127, which is too small for an f32's own exponent.
static E8M0: [f32; 256] = {
    let mut table = [f32::from_bits(1 << 22); 256];
    let mut code = 1;
    while code < 256 {
        table[code] = f32::from_bits((code as u32) << 23);
        code += 1;
    }
    table
};
