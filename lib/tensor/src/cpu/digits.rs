//! Fixed-point numbers of three digits of 7 bits, as which integer kernels multiply activations.
//!
//! Products of digits with codes of at most 8 bits, and their sums, are exact in integers. Rounding
//! an activation to three digits loses less than 2^-20 of the largest of a few neighbours, as much
//! as a sum of floats loses.

/// Digits of a number.
pub const DIGITS: usize = 3;

/// Largest number of three digits from -64 to 63.
pub const LARGEST: f32 = 1_040_319.0;

/// Digits of `x` rounded to an integer, the lowest first.
#[inline(always)]
pub fn digits(x: f32) -> [u8; DIGITS] {
    /// Constant that rounds to an integer in the lowest bits of the sum.
    const WHOLE: f32 = 12_582_912.0;
    let all = (x + WHOLE).to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed();
    let lowest = (all << 25) >> 25;
    let upper = (all - lowest) >> 7;
    let middle = (upper << 25) >> 25;
    [lowest as u8, middle as u8, ((upper - middle) >> 7) as u8]
}
