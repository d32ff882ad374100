//! GELU for many numbers at a time (arXiv 1606.08415).

use std::f32::consts::FRAC_1_SQRT_2;

use super::Isa;
use super::simd::{Kernel, Simd};

/// Replaces each `x` by its GELU, `x` times the normal distribution function.
pub fn gelu(all: &mut [f32]) {
    Isa::best().run(Gelu(all));
}

/// Kernel of [`gelu`].
struct Gelu<'a>(&'a mut [f32]);

impl Kernel for Gelu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for x in self.0 {
            *x = 0.5 * *x * (1.0 + erf(*x * FRAC_1_SQRT_2));
        }
    }
}

/// Error function with an absolute error of at most 6e-7: a quotient of polynomials, as in Eigen and
/// XLA, which compilers vectorise, unlike the library's function.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const ABOVE: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const BELOW: [f32; 5] =
        [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let (mut above, mut below) = (0.0, 0.0);
    for factor in ABOVE {
        above = above * square + factor;
    }
    for factor in BELOW {
        below = below * square + factor;
    }
    x * above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_is_that_of_the_library() {
        for n in -60_000..=60_000 {
            let x = n as f32 / 10_000.0;
            assert!((erf(x) - libm::erff(x)).abs() <= 6e-7, "{x}: {} {}", erf(x), libm::erff(x));
        }
        assert!(erf(f32::NAN).is_nan());
        let mut all = [-9.0, 0.0, 1.0, f32::NAN];
        gelu(&mut all);
        assert!(all[0].abs() < 1e-5 && all[1] == 0.0 && all[3].is_nan());
        assert!((all[2] - 0.841_344_7).abs() < 1e-6);
    }
}
