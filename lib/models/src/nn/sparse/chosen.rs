//! Rows that queries attend to, each query to its own.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{arange, maximum};
use mlxk_tensor::mlx;

/// Queries that are looked at together: each has keys of its own, which take memory.
pub const STRETCH: i32 = 128;

/// Rows that queries look at, each at its own.
pub struct Chosen {
    /// [queries, rows of each].
    pub ids: Array,
    /// Whether they are seen, the same shape.
    pub visible: Array,
}

impl Chosen {
    /// Those of some queries.
    pub fn part(&self, queries: std::ops::Range<i32>) -> Result<Chosen> {
        let ids = mlx::entries(&self.ids, queries.clone())?;
        Ok(Chosen { ids, visible: mlx::entries(&self.visible, queries)? })
    }

    /// The rows of `all` [.., size], as [queries, rows of each, size], and whether they are seen.
    pub fn rows(&self, all: &Array) -> Result<(Array, Array)> {
        Ok((all.take_axis(&self.ids, 0)?, self.visible.clone()))
    }
}

/// The last `window` of `seen` tokens up to itself, for each of the queries `range` of the last
/// `length` of them.
pub fn last(window: i32, seen: i32, length: i32, range: std::ops::Range<i32>) -> Result<Chosen> {
    let width = window.min(seen);
    let first = seen - length - width + 1;
    let query = arange::<i32, i32>(first + range.start, first + range.end, None)?.expand_dims(1)?;
    let ids = query.add(arange::<i32, i32>(None, width, None)?)?;
    let zero = Array::from_int(0);
    Ok(Chosen { visible: ids.ge(&zero)?, ids: maximum(ids, zero)? })
}
