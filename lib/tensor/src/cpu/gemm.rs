//! Linear layer of many rows of activations: each core decodes tiles of weights and multiplies them
//! with a matrix product.

use gemm::Parallelism;
use rayon::prelude::*;

use super::SharedPtr;
use super::codec::Codec;
use super::simd::Simd;
use super::weight_rows::WeightRows;

/// Rows of activations from which decoding weights to memory pays.
pub const ROWS: usize = 32;
/// Rows of weights that are decoded at a time.
const TILE: usize = 128;

/// Linear layer `out = x W.T`, with `x` [rows, ins] and `out` [rows, outs].
pub fn linear<C: Codec, S: Simd>(
    simd: S,
    x: &[f32],
    w: &WeightRows<C>,
    rows: usize,
    out: &mut [f32],
) {
    let (ins, outs) = (x.len() / rows, w.count());
    let out = SharedPtr(out.as_mut_ptr());
    let tile = |first: usize| {
        let count = TILE.min(outs - first);
        let mut floats = vec![0.0; count * ins];
        w.decode(simd, first, &mut floats);
        // SAFETY: `x` is [rows, ins] and `floats` [count, ins]; the columns from `first` to
        // `first + count` of `out` [rows, outs] belong to this tile alone.
        unsafe { multiply(x, &floats, [rows, ins], out.at(first), outs) };
    };
    (0..outs.div_ceil(TILE)).into_par_iter().for_each(|n| tile(n * TILE));
}

/// Product of `x` [rows, ins] with `weights` [n, ins], written to `n` columns of an array whose
/// rows are `outs` elements apart.
///
/// # Safety
/// `out` must point to the first of `n` columns in `rows` rows that no other thread uses.
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
