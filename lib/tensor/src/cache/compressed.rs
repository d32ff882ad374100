//! Compressed keys and values: rows that stand for several tokens each.

use mlx_rs::Array;
use mlx_rs::error::Result;

use super::buffer::Vectors;
use super::kv::Kv;

/// Compressed rows of a layer: a vector that is attended to, and an index key by which it is
/// chosen.
#[derive(Clone)]
pub struct CompressedKv {
    rows: Kv,
    /// Tokens of a row.
    pace: i32,
    /// Tokens so far; the last few may not make a row yet.
    tokens: i32,
}

impl CompressedKv {
    /// Cache of a layer that makes a row of every `pace` tokens.
    pub fn new(pace: i32) -> CompressedKv {
        CompressedKv { rows: Kv::new(None), pace, tokens: 0 }
    }

    /// Adds the rows and keys [1, 1, n, size] that the next `tokens` tokens complete; n may be 0.
    pub fn append(&mut self, tokens: i32, rows: &Array, keys: &Array) -> Result<()> {
        self.tokens += tokens;
        self.rows.append(rows, keys)
    }

    /// Rows and keys [1, 1, held, size]. Errors if there are none.
    pub fn all(&self) -> Result<[Array; 2]> {
        self.rows.seen(self.held())
    }

    /// Number of rows.
    pub fn held(&self) -> i32 {
        self.rows.offset()
    }

    /// Tokens of a row.
    pub fn pace(&self) -> i32 {
        self.pace
    }

    /// Shapes of a row and of its key; empty before the first token.
    pub fn vectors(&self) -> [Vectors; 2] {
        self.rows.vectors()
    }

    /// Arrays of the cache, to be evaluated or stored.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.rows.arrays()
    }

    /// Removes the last `count` tokens; false if there are fewer.
    pub fn forget(&mut self, count: i32) -> bool {
        self.tokens -= count;
        self.tokens >= 0 && self.rows.forget(self.held() - self.tokens / self.pace)
    }

    /// Restores the first `tokens` tokens of a sequence from arrays that `stored` returns by
    /// number, and that hold `held` rows. False if their shapes or types are not those of the
    /// cache.
    pub fn restore(
        &mut self,
        tokens: i32,
        held: i32,
        stored: impl FnMut(usize) -> Option<Array>,
    ) -> bool {
        self.tokens = tokens;
        self.rows.restore(tokens / self.pace, held, stored)
    }
}
