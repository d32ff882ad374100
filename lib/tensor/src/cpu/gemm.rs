//! The product of many rows of activations: each core writes out tiles of weights and multiplies
//! with them.

use gemm::Parallelism;
use rayon::prelude::*;

use super::Shared;
use super::codec::Coding;
use super::simd::Unit;
use super::weight_rows::Rows;

/// Rows of activations from which writing the weights out pays.
pub const ROWS: usize = 32;
/// Rows of weights written out at a time.
const TILE: usize = 128;

/// `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
pub fn product<C: Coding, U: Unit>(unit: U, x: &[f32], w: &Rows<C>, rows: usize, out: &mut [f32]) {
    let (ins, outs) = (x.len() / rows, w.count());
    let out = Shared(out.as_mut_ptr());
    let tile = |first: usize| {
        let count = TILE.min(outs - first);
        let mut floats = vec![0.0; count * ins];
        w.write(unit, first, &mut floats);
        // SAFETY: `x` is [rows, ins] and `floats` [count, ins]; the columns from `first` to
        // `first + count` of `out` [rows, outs] belong to this tile alone.
        unsafe { multiply(x, &floats, [rows, ins], out.from(first), outs) };
    };
    (0..outs.div_ceil(TILE)).into_par_iter().for_each(|n| tile(n * TILE));
}

/// The product of `x` [rows, ins] with some rows of weights, written to so many columns of an array
/// whose rows are `outs` apart.
///
/// # Safety
/// `out` must be the first of as many columns, in `rows` rows, that nobody else uses.
unsafe fn multiply(
    x: &[f32],
    weights: &[f32],
    [rows, ins]: [usize; 2],
    out: *mut f32,
    outs: usize,
) {
    // SAFETY: both slices are row by row, and the caller promises the rest.
    unsafe {
        gemm::gemm(
            rows,
            weights.len() / ins,
            ins,
            out,
            1,
            outs as isize,
            false,
            x.as_ptr(),
            1,
            ins as isize,
            weights.as_ptr(),
            ins as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
