//! The keys and values of the tokens so far.

use std::ops::Range;
use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::fast::ScaledDotProductAttentionMask as Mask;
use mlx_rs::ops::{arange, concatenate};

use super::buffer::{Buffer, Packing};

/// Room is made for this many more tokens at a time.
const STEP: i32 = 256;

/// A window remembers so many tokens more than it needs, for the last ones to be forgotten again.
const BACK: i32 = 32;

/// What a layer remembers: all tokens, or the last few if it attends to a window.
#[derive(Clone)]
pub struct Kv {
    window: Option<i32>,
    /// Whether sequences are cut into windows, instead of each token having one that ends with it.
    chunked: bool,
    /// Tokens at the beginning that are attended to besides the window.
    kept: i32,
    packing: Option<Packing>,
    /// Keys and values.
    buffers: Option<[Buffer; 2]>,
    /// Tokens in the buffers.
    held: i32,
    /// Tokens after those that are kept and before the others, which no later one attends to.
    dropped: i32,
    /// Held by all that may hold the same buffers.
    owners: Arc<()>,
}

impl Kv {
    /// Of a layer whose tokens attend to themselves and the `window - 1` before, or to all.
    pub fn new(window: Option<i32>) -> Kv {
        Kv {
            window,
            chunked: false,
            kept: 0,
            packing: None,
            buffers: None,
            held: 0,
            dropped: 0,
            owners: Arc::new(()),
        }
    }

    /// Of a layer whose tokens attend to those before in the same one of the chunks of `size` that
    /// sequences are cut into.
    pub fn chunked(size: i32) -> Kv {
        Kv { chunked: true, ..Kv::new(Some(size)) }
    }

    /// The same, but of a layer that would attend to all tokens only to the first `kept` and to so
    /// many of the last that there are `most`.
    pub fn bounded(self, most: i32, kept: i32) -> Kv {
        match self.window {
            None => Kv { window: Some((most - kept).max(1)), kept, ..self },
            Some(_) => self,
        }
    }

    /// The same, quantised.
    pub fn packed(self, packing: Packing) -> Kv {
        Kv { packing: Some(packing), ..self }
    }

    /// Its arrays, for those who evaluate or store them.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.buffers.iter().flatten().flat_map(Buffer::arrays)
    }

    /// The position of the next token.
    pub fn offset(&self) -> i32 {
        self.dropped + self.held
    }

    /// Adds the keys and values [1, heads, n, head size] of the next `n` tokens.
    pub fn append(&mut self, keys: &Array, values: &Array) -> Result<()> {
        let n = keys.dim(-2);
        if n == 0 && self.buffers.is_some() {
            return Ok(());
        }
        if let (Some(packing), Some(buffers)) = (self.packing, &mut self.buffers)
            && self.dropped + self.held >= packing.start
        {
            for buffer in buffers {
                buffer.pack(packing)?;
            }
        }
        let packing = self.packing.filter(|packing| self.offset() >= packing.start);
        let new = [Buffer::of(keys, packing)?, Buffer::of(values, packing)?];
        self.make_room(n, &new)?;
        let range = self.held..self.held + n;
        self.held = range.end;
        if let Some(buffers) = self.buffers.as_mut().filter(|_| n > 0) {
            for (buffer, new) in buffers.iter_mut().zip(&new) {
                buffer.set_rows(range.clone(), new)?;
            }
        }
        Ok(())
    }

    /// The same, done when it is called: what no other memory holds is written to in place.
    pub fn append_at_once(&mut self, keys: &Array, values: &Array) -> Result<()> {
        if self.packing.is_some() {
            return self.append(keys, values);
        }
        let n = keys.dim(-2);
        let alone = Arc::strong_count(&self.owners) == 1;
        let new = [Buffer::of(keys, None)?, Buffer::of(values, None)?];
        self.make_room(n, &new)?;
        let first = self.held;
        self.held += n;
        for (buffer, new) in self.buffers.iter_mut().flatten().zip(&new) {
            if alone {
                // SAFETY: whoever copies this memory holds its owners too.
                unsafe { buffer.write_rows(first as usize, new)? };
            } else {
                buffer.set_rows(first..first + n, new)?;
            }
        }
        self.owners = Arc::new(());
        Ok(())
    }

    /// Takes the arrays `stored`, asked for by their numbers, for the first `tokens` of a text, of
    /// which they hold `held`. False if they are not of the form that it has itself.
    pub fn restore(
        &mut self,
        tokens: i32,
        held: i32,
        mut stored: impl FnMut(usize) -> Option<Array>,
    ) -> bool {
        let needed = self.window.map_or(tokens, |window| (window - 1 + self.kept).min(tokens));
        let buffers = self.buffers.iter_mut().flatten();
        for (part, own) in buffers.flat_map(Buffer::arrays_mut).enumerate() {
            let Some(new) = stored(part) else { return false };
            let outer = |array: &Array| [array.dim(0), array.dim(1), array.dim(-1)];
            let like = new.ndim() == 4 && outer(&new) == outer(own) && new.dtype() == own.dtype();
            if !like || new.dim(2) < held || held < needed || held > tokens {
                return false;
            }
            *own = new;
        }
        (self.held, self.dropped) = (held, tokens - held);
        self.buffers.as_ref().is_none_or(|[keys, values]| keys.room() == values.room())
    }

    /// Forgets the last `count` tokens; false if what came before them is gone already.
    pub fn forget(&mut self, count: i32) -> bool {
        if count == 0 {
            return true;
        }
        let left = self.offset() - count;
        let needed = self.window.map_or(0, |window| left - (window - 1));
        if left < 0 || (self.dropped > 0 && needed < self.kept + self.dropped) {
            return false;
        }
        self.held -= count;
        true
    }

    /// The keys and values [1, heads, seen, head size] that any of the last `n` tokens attends to.
    pub fn seen(&self, n: i32) -> Result<[Array; 2]> {
        let near = self.held - self.reach(n)..self.held;
        let first = 0..self.sunk();
        let [keys, values] = self.stored()?;
        let seen = |buffer: &Buffer| match first.end == near.start || first.is_empty() {
            true => buffer.rows((near.start - first.end)..near.end),
            false => concatenate(&[buffer.rows(first.clone())?, buffer.rows(near.clone())?], 2),
        };
        Ok([seen(keys)?, seen(values)?])
    }

    /// Which of the tokens that [`seen`](Self::seen) returns each of the last `n` attends to.
    pub fn visible(&self, n: i32) -> Result<KvMask> {
        let (reach, sunk) = (self.reach(n), self.sunk());
        let seen = reach + sunk;
        match self.window {
            _ if n == 1 => Ok(KvMask::All),
            Some(size) if self.chunked && self.offset() - reach + size < self.offset() => {
                let first = self.offset() - reach;
                let size = Array::from_int(size);
                let query = arange::<i32, i32>(self.offset() - n, self.offset(), None)?;
                let query = query.reshape(&[n, 1])?;
                let key = arange::<i32, i32>(first, self.offset(), None)?;
                let same = query.floor_divide(&size)?.eq(key.floor_divide(&size)?)?;
                Ok(KvMask::Only(query.ge(&key)?.logical_and(same)?))
            }
            Some(window) if !self.chunked && reach > window => {
                let query = arange::<i32, i32>(seen - n, seen, None)?.reshape(&[n, 1])?;
                let key = arange::<i32, i32>(None, seen, None)?;
                let near = query.lt(key.add(Array::from_int(window))?)?;
                let near = near.logical_or(key.lt(Array::from_int(sunk))?)?;
                Ok(KvMask::Only(query.ge(&key)?.logical_and(near)?))
            }
            _ => Ok(KvMask::Past),
        }
    }

    /// Keys and values with the room behind them, [1, heads, room, head size].
    pub fn buffers(&self) -> Result<[Array; 2]> {
        let [keys, values] = self.stored()?;
        Ok([keys.all()?, values.all()?])
    }

    /// How many tokens the buffers hold.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// How many of them, from the first on, all tokens attend to.
    pub fn always(&self) -> usize {
        self.sunk() as usize
    }

    /// Where in the buffers lies what number `i` of the last `n` tokens attends to besides.
    pub fn seen_by(&self, i: usize, n: usize) -> Range<usize> {
        let end = self.held() - n + i + 1;
        let start = match self.window {
            None => 0,
            Some(size) if self.chunked => {
                let dropped = self.dropped as usize;
                let last = dropped + end - 1;
                (last - last % size as usize).saturating_sub(dropped)
            }
            Some(window) => end.saturating_sub(window as usize),
        };
        start..end
    }

    fn stored(&self) -> Result<&[Buffer; 2]> {
        self.buffers.as_ref().ok_or_else(|| "nothing is remembered yet".into())
    }

    /// How many of the tokens held are kept for being the first.
    fn sunk(&self) -> i32 {
        self.kept.min(self.held)
    }

    /// How many of the other tokens held the last `n` attend to.
    fn reach(&self, n: i32) -> i32 {
        let others = self.held - self.sunk();
        match self.window {
            Some(size) if self.chunked => {
                let first = self.offset() - n;
                others.min(first % size + n)
            }
            Some(window) => others.min(window - 1 + n),
            None => others,
        }
    }

    fn make_room(&mut self, n: i32, new: &[Buffer; 2]) -> Result<()> {
        let room = self.buffers.as_ref().map(|[keys, _]| keys.room());
        if room.is_some_and(|room| self.held + n <= room) {
            return Ok(());
        }
        let sunk = self.sunk();
        let others = self.held - sunk;
        let near = self.window.map_or(others, |window| others.min(window - 1 + BACK));
        let room = (sunk + near + n.max(1) + STEP - 1) / STEP * STEP;
        let old = self.held - near..self.held;
        self.dropped += others - near;
        self.held = sunk + near;
        let added = room - self.held;
        self.buffers = Some(match self.buffers.take() {
            None => [new[0].grown(&[], added)?, new[1].grown(&[], added)?],
            Some(buffers) => {
                let parts = [0..sunk, old];
                [buffers[0].grown(&parts, added)?, buffers[1].grown(&parts, added)?]
            }
        });
        Ok(())
    }
}

/// What a query may attend to.
pub enum KvMask {
    /// All keys.
    All,
    /// The keys up to its own.
    Past,
    /// Those that are true in its row.
    Only(Array),
}

impl KvMask {
    /// In the form that attention takes.
    pub fn mask(&self) -> Option<Mask<'_>> {
        match self {
            KvMask::All => None,
            KvMask::Past => Some(Mask::Causal),
            KvMask::Only(mask) => Some(Mask::Array(mask)),
        }
    }

    /// What the last `n` tokens may attend to of the `seen` ones, [n, seen], if not to all.
    pub fn array(&self, n: i32, seen: i32) -> Result<Option<Array>> {
        match self {
            KvMask::All => Ok(None),
            KvMask::Past => {
                let query = arange::<i32, i32>(seen - n, seen, None)?.reshape(&[n, 1])?;
                query.ge(arange::<i32, i32>(None, seen, None)?).map(Some)
            }
            KvMask::Only(mask) => Ok(Some(mask.clone())),
        }
    }
}
