//! Numbers rounded as they were when the model was trained: to floats of a few bits that share a scale.

use mlx_rs::error::Result;
use mlx_rs::ops::{ceil, floor, log2, maximum, minimum, power, unflatten};
use mlx_rs::{Array, Dtype};

/// Small floats, so many of which share a scale.
pub struct Grid {
    float: Small,
    /// Elements that share a scale.
    group: i32,
    /// The least that the largest of them counts as.
    least: f32,
    /// Whether scales are floats of 8 bits, else powers of two.
    fine: bool,
}

impl Grid {
    /// Floats of 8 bits.
    pub const EIGHT: Grid = Grid { float: E4M3, group: 32, least: 1e-4, fine: false };
    /// Floats of 4 bits.
    pub const FOUR: Grid =
        Grid { float: E2M1, group: 32, least: 6.0 * f32::MIN_POSITIVE, fine: false };
    /// Floats of 4 bits, fewer of which share a finer scale.
    pub const FOUR_FINE: Grid = Grid { float: E2M1, group: 16, least: 6.0 / 512.0, fine: true };

    /// The last axis rounded, if it is a whole number of groups.
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

/// A kind of small float (OCP Microscaling).
struct Small {
    /// Bits of the fraction.
    fraction: f32,
    /// The exponent below which numbers are no denser.
    least: f32,
    /// The largest number.
    most: f32,
}

const E4M3: Small = Small { fraction: 3.0, least: -6.0, most: 448.0 };
const E2M1: Small = Small { fraction: 1.0, least: 0.0, most: 6.0 };

impl Small {
    /// Each element as the nearest such float, of two as near the even one.
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
    fn rounds(small: &Small, pairs: &[[f32; 2]]) {
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
        let y = Grid::FOUR.round(&Array::from_slice(&x, &[1, 32])).unwrap();
        let y = elements(&y).unwrap();
        // The scale is 4: of 13 / 4 the nearest is 3, of 0.1 it is none.
        assert_eq!((y[5], y[6]), (12.0, 0.0));
        let odd = Array::from_slice(&x[..24], &[1, 24]);
        assert_eq!(elements(&Grid::FOUR.round(&odd).unwrap()).unwrap(), &x[..24]);
    }
}
