//! Arrays whose elements are at hand: float32 rows read and built without queueing work in MLX.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{AsSliceError, Exception, Result};
use rayon::prelude::*;

/// Calls `work` with each row of `size` and its number; many rows on all cores.
pub fn each_row(rows: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    /// Fewer elements take less time than it takes to wake another core.
    const MANY: usize = 1 << 15;
    if rows.len() < MANY {
        rows.chunks_exact_mut(size).enumerate().for_each(|(i, row)| work(i, row));
    } else {
        rows.par_chunks_exact_mut(size).enumerate().for_each(|(i, row)| work(i, row));
    }
}

/// The elements of `array`, once they are computed.
pub fn elements(array: &Array) -> Result<&[f32]> {
    array.try_as_slice().map_err(unreadable)
}

/// An MLX exception with the text of `error`: an array that is not float32 or not contiguous.
pub fn unreadable(error: AsSliceError) -> Exception {
    Exception::custom(error.to_string())
}

/// `x[:, range]` of x [1, rows, ..].
pub fn columns(x: &Array, range: Range<i32>) -> Result<Array> {
    let row: i32 = x.shape()[2..].iter().product();
    let part = &elements(x)?[(range.start * row) as usize..(range.end * row) as usize];
    Ok(Array::from_slice(part, &[&[1, range.len() as i32], &x.shape()[2..]].concat()))
}

/// Arrays [1, rows, ..] one after another.
pub fn joined(parts: &[Array]) -> Result<Array> {
    let all: Vec<&[f32]> = parts.iter().map(elements).collect::<Result<_>>()?;
    let rows = parts.iter().map(|part| part.dim(1)).sum();
    let rest = parts.first().map_or(&[][..], |first| &first.shape()[2..]);
    Ok(Array::from_slice(&all.concat(), &[&[1, rows], rest].concat()))
}
