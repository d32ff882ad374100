//! Keys that are chosen for each query by their indices.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{arange, maximum};
use mlxk_tensor::mlx;

/// Queries of a chunk, which bounds the memory of gathered keys.
pub const CHUNK: i32 = 128;

/// Indices of the keys of each query.
pub struct Chosen {
    /// Indices of keys, [queries, keys of each].
    pub ids: Array,
    /// Mask of the indices, true where the key is visible, of the same shape.
    pub visible: Array,
}

impl Chosen {
    /// Indices of a range of queries.
    pub fn part(&self, queries: std::ops::Range<i32>) -> Result<Chosen> {
        let ids = mlx::entries(&self.ids, queries.clone())?;
        Ok(Chosen { ids, visible: mlx::entries(&self.visible, queries)? })
    }

    /// Chosen rows of `all` [.., size], as [queries, keys of each, size], and their mask.
    pub fn rows(&self, all: &Array) -> Result<(Array, Array)> {
        Ok((all.take_axis(&self.ids, 0)?, self.visible.clone()))
    }
}

/// Sliding window of the queries `range` of the last `length` of `seen` tokens: the last `window`
/// tokens up to the query's own.
pub fn last(window: i32, seen: i32, length: i32, range: std::ops::Range<i32>) -> Result<Chosen> {
    let width = window.min(seen);
    let first = seen - length - width + 1;
    let query = arange::<i32, i32>(first + range.start, first + range.end, None)?.expand_dims(1)?;
    let ids = query.add(arange::<i32, i32>(None, width, None)?)?;
    let zero = Array::from_int(0);
    Ok(Chosen { visible: ids.ge(&zero)?, ids: maximum(ids, zero)? })
}
