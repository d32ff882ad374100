//! Merging of adjacent patches to one token.

use mlx_rs::Array;
use mlx_rs::error::Result;

/// Order of the elements of a merged square of patches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MergeOrder {
    /// Patch after patch, row by row.
    Patches,
    /// For each element of a patch, that of all patches, row by row.
    Elements,
}

/// Squares of `side` patches a side of `x` [tiles, rows * columns, hidden], side by side in rows of
/// `x.reshape([tiles, rows, columns, hidden])`: [tiles * squares, side * side * hidden].
///
/// # Errors
/// If rows and columns are not whole squares.
pub fn merged(
    x: &Array,
    [tiles, rows, columns]: [i32; 3],
    side: i32,
    order: MergeOrder,
) -> Result<Array> {
    let x = squares(x, [tiles, rows, columns], side)?;
    let axes = match order {
        MergeOrder::Patches => [0, 1, 3, 2, 4, 5],
        MergeOrder::Elements => [0, 1, 3, 5, 2, 4],
    };
    let count = tiles * (rows / side) * (columns / side);
    x.transpose_axes(&axes)?.reshape(&[count, -1])?.contiguous()
}

/// Means of the squares of `side` patches a side of `x` [tiles, rows * columns, hidden]: [tiles *
/// squares, hidden].
///
/// # Errors
/// If rows and columns are not whole squares.
pub fn pooled(x: &Array, [tiles, rows, columns]: [i32; 3], side: i32) -> Result<Array> {
    let x = squares(x, [tiles, rows, columns], side)?;
    x.mean_axes(&[2, 4], false)?.reshape(&[tiles * (rows / side) * (columns / side), -1])
}

/// `x` as [tiles, squares down, side, squares across, side, hidden].
fn squares(x: &Array, [tiles, rows, columns]: [i32; 3], side: i32) -> Result<Array> {
    if rows % side != 0 || columns % side != 0 {
        let message = format!("{rows} x {columns} patches are not whole squares of {side}");
        return Err(message.as_str().into());
    }
    x.reshape(&[tiles, rows / side, side, columns / side, side, -1])
}
