//! Rows that stand for several tokens each: those that attention finds compressed.

use mlx_rs::Array;
use mlx_rs::error::Result;

use super::Kv;

/// A row for every so many tokens: what is attended to, and a key by which it is found.
#[derive(Clone)]
pub struct CompressedKv {
    rows: Kv,
    /// Tokens of a row.
    pace: i32,
    /// Tokens so far, of which the last few may not make a row yet.
    tokens: i32,
}

impl CompressedKv {
    /// Of a layer that makes a row of every `pace` tokens.
    pub fn new(pace: i32) -> CompressedKv {
        CompressedKv { rows: Kv::new(None), pace, tokens: 0 }
    }

    /// Adds the rows and keys [1, 1, n, size] that the next `tokens` tokens complete, n of which may
    /// be none.
    pub fn append(&mut self, tokens: i32, rows: &Array, keys: &Array) -> Result<()> {
        self.tokens += tokens;
        self.rows.append(rows, keys)
    }

    /// All rows and keys [1, 1, held, size]. Errors if there are none.
    pub fn all(&self) -> Result<[Array; 2]> {
        self.rows.seen(self.held())
    }

    /// How many rows there are.
    pub fn held(&self) -> i32 {
        self.rows.offset()
    }

    /// Its arrays, for those who evaluate or store them.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.rows.arrays()
    }

    /// Forgets the last `count` tokens; false if there are not so many.
    pub fn forget(&mut self, count: i32) -> bool {
        self.tokens -= count;
        self.tokens >= 0 && self.rows.forget(self.held() - self.tokens / self.pace)
    }

    /// Takes the arrays `stored`, asked for by their numbers, for the first `tokens` of a text, of
    /// which they hold `held` rows. False if they are not of the form that it has itself.
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
