//! Exponential function for many numbers at a time.

/// e to the power of `x`, for `x` up to 0, with a relative error of at most 3e-7. The range is
/// reduced by multiples of ln 2, split in two constants (Cody and Waite), and a polynomial follows,
/// which compilers vectorise, unlike the library's function.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Constant that rounds to an integer in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    if x < -87.0 {
        return 0.0;
    }
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let series = [8.368_747e-3, 4.166_839e-2, 0.166_665_21, 0.499_999_94, 1.0, 1.0];
    let power = series.into_iter().fold(1.381_454e-3, |sum, factor| sum * rest + factor);
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_those_of_the_library() {
        for n in 0..=87_000 {
            let x = -(n as f32) / 1000.0;
            let (ours, theirs) = (exp(x), x.exp());
            assert!((ours - theirs).abs() <= 3e-7 * theirs, "{x}: {ours} {theirs}");
        }
        assert_eq!((exp(0.0), exp(-100.0), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
    }
}
