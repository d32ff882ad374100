//! Access to the elements of float32 arrays without queueing operations in MLX, for the CPU
//! backend.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{AsSliceError, Exception, Result};
use rayon::prelude::*;

/// Calls `work` with the index and the elements of each row of `size` elements; on all cores
/// (rayon) if there are many elements.
pub fn for_each_row(rows: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    /// Elements below which waking another thread takes longer than the work.
    const MANY: usize = 1 << 15;
    if rows.len() < MANY {
        rows.chunks_exact_mut(size).enumerate().for_each(|(i, row)| work(i, row));
    } else {
        rows.par_chunks_exact_mut(size).enumerate().for_each(|(i, row)| work(i, row));
    }
}

/// Elements of a float32 array, after MLX has computed it. Errors if it is not float32 or not
/// contiguous.
pub fn elements(array: &Array) -> Result<&[f32]> {
    array.try_as_slice().map_err(unreadable)
}

/// Converts an error of [`Array::try_as_slice`] to an MLX exception.
pub fn unreadable(error: AsSliceError) -> Exception {
    Exception::custom(error.to_string())
}

/// Copy of the slice `x[:, range]` of float32 `x` [1, rows, ..].
pub fn columns(x: &Array, range: Range<i32>) -> Result<Array> {
    let row: i32 = x.shape()[2..].iter().product();
    let part = &elements(x)?[(range.start * row) as usize..(range.end * row) as usize];
    Ok(Array::from_slice(part, &[&[1, range.len() as i32], &x.shape()[2..]].concat()))
}

/// Concatenation of float32 arrays [1, rows, ..] along the second axis.
pub fn joined(parts: &[Array]) -> Result<Array> {
    let all: Vec<&[f32]> = parts.iter().map(elements).collect::<Result<_>>()?;
    let rows = parts.iter().map(|part| part.dim(1)).sum();
    let rest = parts.first().map_or(&[][..], |first| &first.shape()[2..]);
    Ok(Array::from_slice(&all.concat(), &[&[1, rows], rest].concat()))
}
