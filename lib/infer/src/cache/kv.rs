//! The keys and values of the tokens so far.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::fast::ScaledDotProductAttentionMask as Mask;
use mlx_rs::ops::{arange, concatenate, zeros_dtype};

use crate::mlx;

/// Room is made for this many more tokens at a time.
const STEP: i32 = 256;

/// What a layer remembers: all tokens, or the last few if it attends to a window.
pub struct Kv {
    window: Option<i32>,
    /// Keys and values, [1, heads, room, head size].
    buffers: Option<[Array; 2]>,
    /// Tokens in the buffers.
    held: i32,
    /// Tokens before them, which no later one attends to.
    dropped: i32,
}

impl Kv {
    /// Of a layer whose tokens attend to themselves and the `window - 1` before, or to all.
    pub fn new(window: Option<i32>) -> Kv {
        Kv { window, buffers: None, held: 0, dropped: 0 }
    }

    /// Its arrays, for those who evaluate them.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.buffers.iter().flatten()
    }

    /// The position of the next token.
    pub fn offset(&self) -> i32 {
        self.dropped + self.held
    }

    /// Adds the keys and values [1, heads, n, head size] of the next `n` tokens.
    pub fn append(&mut self, keys: &Array, values: &Array) -> Result<()> {
        let n = keys.dim(-2);
        self.make_room(n, keys, values)?;
        let range = self.held..self.held + n;
        self.held = range.end;
        if let Some([all_keys, all_values]) = &mut self.buffers {
            mlx::set_rows(all_keys, range.clone(), keys)?;
            mlx::set_rows(all_values, range, values)?;
        }
        Ok(())
    }

    /// The keys and values [1, heads, seen, head size] that any of the last `n` tokens attends to.
    pub fn seen(&self, n: i32) -> Result<[Array; 2]> {
        let [keys, values] = self.buffers()?;
        let seen = self.held - self.reach(n)..self.held;
        Ok([mlx::rows(keys, seen.clone())?, mlx::rows(values, seen)?])
    }

    /// Which of the tokens that [`seen`](Self::seen) returns each of the last `n` attends to.
    pub fn visible(&self, n: i32) -> Result<Visible> {
        let seen = self.reach(n);
        match self.window {
            _ if n == 1 => Ok(Visible::All),
            Some(window) if seen > window => {
                let query = arange::<i32, i32>(seen - n, seen, None)?.reshape(&[n, 1])?;
                let key = arange::<i32, i32>(None, seen, None)?;
                let near = query.lt(key.add(Array::from_int(window))?)?;
                Ok(Visible::Only(query.ge(&key)?.logical_and(near)?))
            }
            _ => Ok(Visible::Past),
        }
    }

    /// Keys and values with the room behind them, [1, heads, room, head size].
    pub fn buffers(&self) -> Result<&[Array; 2]> {
        self.buffers.as_ref().ok_or_else(|| "nothing is remembered yet".into())
    }

    /// How many tokens the buffers hold.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// Where in the buffers lies what number `i` of the last `n` tokens attends to.
    pub fn seen_by(&self, i: usize, n: usize) -> Range<usize> {
        let end = self.held() - n + i + 1;
        let start = self.window.map_or(0, |window| end.saturating_sub(window as usize));
        start..end
    }

    /// How many of the tokens held the last `n` attend to.
    fn reach(&self, n: i32) -> i32 {
        self.window.map_or(self.held, |window| self.held.min(window - 1 + n))
    }

    fn make_room(&mut self, n: i32, keys: &Array, values: &Array) -> Result<()> {
        let room = self.buffers.as_ref().map_or(0, |[keys, _]| keys.dim(-2));
        if self.held + n <= room {
            return Ok(());
        }
        let kept = self.window.map_or(self.held, |window| self.held.min(window - 1));
        let room = (kept + n + STEP - 1) / STEP * STEP;
        let old = self.held - kept..self.held;
        self.dropped += old.start;
        self.held = kept;
        self.buffers = Some(match self.buffers.take() {
            None => [empty(keys, room)?, empty(values, room)?],
            Some([k, v]) => {
                let k = concatenate(&[mlx::rows(&k, old.clone())?, empty(keys, room - kept)?], 2)?;
                [k, concatenate(&[mlx::rows(&v, old)?, empty(values, room - kept)?], 2)?]
            }
        });
        Ok(())
    }
}

/// What a query may attend to.
pub enum Visible {
    /// All keys.
    All,
    /// The keys up to its own.
    Past,
    /// Those that are true in its row.
    Only(Array),
}

impl Visible {
    /// In the form that attention takes.
    pub fn mask(&self) -> Option<Mask<'_>> {
        match self {
            Visible::All => None,
            Visible::Past => Some(Mask::Causal),
            Visible::Only(mask) => Some(Mask::Array(mask)),
        }
    }

    /// What the last `n` tokens may attend to of the `seen` ones, [n, seen], if not to all.
    pub fn array(&self, n: i32, seen: i32) -> Result<Option<Array>> {
        match self {
            Visible::All => Ok(None),
            Visible::Past => {
                let query = arange::<i32, i32>(seen - n, seen, None)?.reshape(&[n, 1])?;
                query.ge(arange::<i32, i32>(None, seen, None)?).map(Some)
            }
            Visible::Only(mask) => Ok(Some(mask.clone())),
        }
    }
}

/// Zeros in the form of `like` with `room` tokens.
fn empty(like: &Array, room: i32) -> Result<Array> {
    let mut shape = like.shape().to_vec();
    shape[2] = room;
    zeros_dtype(&shape, like.dtype())
}
