//! Fake quantisation: values are rounded as in the quantisation-aware training of the model, to
//! small floats that share a scale.

use mlx_rs::error::Result;
use mlx_rs::ops::{ceil, floor, log2, maximum, minimum, power, unflatten};
use mlx_rs::{Array, Dtype};

/// Format of fake quantisation: a small float, with a scale for each group.
pub struct FakeQuant {
    float: SmallFloat,
    /// Elements that share a scale.
    group: i32,
    /// Lower bound of the group's largest magnitude.
    least: f32,
    /// True if scales are e4m3 floats, false if they are powers of two.
    fine: bool,
}

impl FakeQuant {
    /// e4m3 floats, with a power of two for 32 elements.
    pub const MXFP8: FakeQuant = FakeQuant { float: E4M3, group: 32, least: 1e-4, fine: false };
    /// e2m1 floats, with a power of two for 32 elements.
    pub const MXFP4: FakeQuant =
        FakeQuant { float: E2M1, group: 32, least: 6.0 * f32::MIN_POSITIVE, fine: false };
    /// e2m1 floats, with an e4m3 scale for 16 elements.
    pub const NVFP4: FakeQuant =
        FakeQuant { float: E2M1, group: 16, least: 6.0 / 512.0, fine: true };

    /// Rounds the last axis of `x`; returns `x` if its length is not a multiple of the group.
    pub fn round(&self, x: &Array) -> Result<Array> {
        if x.dim(-1) % self.group != 0 {
            return Ok(x.clone());
        }
        let groups = unflatten(x.as_dtype(Dtype::Float32)?, -1, &[-1, self.group])?;
        let largest = maximum(groups.abs()?.max_axis(-1, true)?, Array::from_f32(self.least))?;
        let scale = largest.divide(Array::from_f32(self.float.most))?;
        let scale = match self.fine {
            true => E4M3.round(&scale)?,
            false => power(Array::from_f32(2.0), ceil(log2(&scale)?)?)?,
        };
        let small = self.float.round(&groups.divide(&scale)?)?;
        small.multiply(scale)?.reshape(x.shape())?.as_dtype(x.dtype())
    }
}

/// Small float format (OCP Microscaling).
struct SmallFloat {
    /// Bits of the fraction.
    fraction: f32,
    /// Exponent of the smallest normal number.
    least: f32,
    /// Largest number.
    most: f32,
}

const E4M3: SmallFloat = SmallFloat { fraction: 3.0, least: -6.0, most: 448.0 };
const E2M1: SmallFloat = SmallFloat { fraction: 1.0, least: 0.0, most: 6.0 };

impl SmallFloat {
    /// Rounds each element to nearest, ties to even.
    fn round(&self, x: &Array) -> Result<Array> {
        let n = Array::from_f32;
        let x = minimum(maximum(x, n(-self.most))?, n(self.most))?;
        let exponent = maximum(floor(log2(x.abs()?)?)?, n(self.least))?;
        let step = power(n(2.0), exponent.subtract(n(self.fraction))?)?;
        x.divide(&step)?.round(None)?.multiply(step)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;
    use mlxk_tensor::array::elements;

    #[track_caller]
    fn rounds(small: &SmallFloat, pairs: &[[f32; 2]]) {
        for [x, rounded] in pairs {
            let got = small.round(&Array::from_f32(*x)).unwrap();
            assert_eq!(got.item_exact::<f32>(), *rounded, "{x}");
            let got = small.round(&Array::from_f32(-x)).unwrap();
            assert_eq!(got.item_exact::<f32>(), -rounded, "-{x}");
        }
    }

    #[test]
    fn small_floats_are_the_nearest_and_of_two_the_even_one() {
        let ties = [[0.25, 0.0], [0.75, 1.0], [1.25, 1.0], [1.75, 2.0], [2.5, 2.0], [3.5, 4.0]];
        rounds(&E2M1, &ties);
        rounds(&E2M1, &[[5.0, 4.0], [5.1, 6.0], [9.0, 6.0], [0.0, 0.0], [0.26, 0.5]]);
        rounds(&E4M3, &[[447.0, 448.0], [1.0625, 1.0], [1.07, 1.125], [0.0009, 0.0], [17.0, 16.0]]);
        rounds(&E4M3, &[[0.002, 0.001_953_125], [0.015, 0.015_625]]);
    }

    #[test]
    fn groups_share_a_scale_and_others_are_left_as_they_are() {
        let x: Vec<f32> = (0..32).map(|i| if i == 5 { 13.0 } else { 0.4 }).collect();
        let y = FakeQuant::MXFP4.round(&Array::from_slice(&x, &[1, 32])).unwrap();
        let y = elements(&y).unwrap();
        // The scale is 4: 13 / 4 rounds to 3, and 0.1 to 0.
        assert_eq!((y[5], y[6]), (12.0, 0.0));
        let odd = Array::from_slice(&x[..24], &[1, 24]);
        assert_eq!(elements(&FakeQuant::MXFP4.round(&odd).unwrap()).unwrap(), &x[..24]);
    }
}
