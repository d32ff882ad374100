//! Keys and values of the tokens so far.

use std::ops::Range;
use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::fast::ScaledDotProductAttentionMask as Mask;
use mlx_rs::ops::{arange, concatenate};

use super::buffer::{Buffer, Vectors};
use super::layout::KvLayout;

/// Keys and values of a layer: those of all tokens, or of the last few if it attends to a window.
#[derive(Clone)]
pub struct Kv {
    layout: KvLayout,
    /// Keys and values.
    buffers: Option<[Buffer; 2]>,
    /// Tokens in the buffers.
    held: i32,
    /// Tokens after those that are kept and before the others, which no later one attends to.
    dropped: i32,
    /// Shared by all caches that may hold the same buffers.
    owners: Arc<()>,
    /// Blocks of tokens that attend to each other, by positions in the sequence; they ascend.
    blocks: Arc<[Range<i32>]>,
}

impl Kv {
    /// Cache of a layer whose tokens attend to themselves and the `window - 1` before, or to all.
    pub fn new(window: Option<i32>) -> Kv {
        let layout = KvLayout::new(window);
        Kv {
            layout,
            buffers: None,
            held: 0,
            dropped: 0,
            owners: Arc::new(()),
            blocks: Arc::new([]),
        }
    }

    /// Cache of a layer whose tokens attend to those before in the same one of the chunks of `size`
    /// tokens that sequences are cut into.
    pub fn chunked(size: i32) -> Kv {
        Kv { layout: KvLayout::chunked(size), ..Kv::new(None) }
    }

    /// Cache with its layout changed, before the first token.
    pub fn with_layout(self, change: impl Fn(KvLayout) -> KvLayout) -> Kv {
        Kv { layout: change(self.layout), ..self }
    }

    /// Sets the blocks of the sequence, by positions, which attend to each other if the layout has
    /// blocks.
    pub fn set_blocks(&mut self, blocks: &Arc<[Range<i32>]>) {
        if self.layout.blocks {
            self.blocks = Arc::clone(blocks);
        }
    }

    /// Layout of the cache.
    pub fn layout(&self) -> KvLayout {
        self.layout
    }

    /// Shapes of the keys and the values of a token; empty before the first one.
    pub fn vectors(&self) -> [Vectors; 2] {
        self.buffers
            .as_ref()
            .map_or_else(Default::default, |[keys, values]| [keys.vectors(), values.vectors()])
    }

    /// Arrays of the cache, to be evaluated or stored.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.buffers.iter().flatten().flat_map(Buffer::arrays)
    }

    /// Position of the next token.
    pub fn offset(&self) -> i32 {
        self.dropped + self.held
    }

    /// Adds the keys and values [1, heads, n, head size] of the next `n` tokens.
    pub fn append(&mut self, keys: &Array, values: &Array) -> Result<()> {
        let n = keys.dim(-2);
        if n == 0 && self.buffers.is_some() {
            return Ok(());
        }
        let packing = self.layout.packing_at(self.offset());
        if let (Some(packing), Some(buffers)) = (packing, &mut self.buffers) {
            for buffer in buffers {
                buffer.pack(packing)?;
            }
        }
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

    /// Appends keys and values as [`append`](Self::append) does, but immediately: buffers that no
    /// other cache shares are written in place.
    pub fn append_at_once(&mut self, keys: &Array, values: &Array) -> Result<()> {
        if self.layout.packing.is_some() {
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

    /// Restores the first `tokens` tokens of a sequence from arrays that `stored` returns by
    /// number, and that hold `held` tokens. False if their shapes or types are not those of the
    /// cache.
    pub fn restore(
        &mut self,
        tokens: i32,
        held: i32,
        mut stored: impl FnMut(usize) -> Option<Array>,
    ) -> bool {
        let needed =
            self.layout.window.map_or(tokens, |window| (window - 1 + self.layout.kept).min(tokens));
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

    /// Removes the last `count` tokens; false if the tokens before them are no longer held.
    pub fn forget(&mut self, count: i32) -> bool {
        if count == 0 {
            return true;
        }
        let left = self.offset() - count;
        let needed = self.layout.window.map_or(0, |window| left - (window - 1));
        if left < 0 || (self.dropped > 0 && needed < self.layout.kept + self.dropped) {
            return false;
        }
        self.held -= count;
        true
    }

    /// Keys and values [1, heads, seen, head size] that any of the last `n` tokens attends to.
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

    /// Mask of the last `n` tokens over those that [`seen`](Self::seen) returns.
    pub fn visible(&self, n: i32) -> Result<KvMask> {
        let before = self.visible_before(n)?;
        let first = self.offset() - n;
        if !self.blocks.iter().any(|block| block.end > first + 1 && block.start < self.offset()) {
            return Ok(before);
        }
        let seen = self.reach(n) + self.sunk();
        let Some(before) = before.array(n, seen)? else { return Ok(KvMask::All) };
        // Number of the block of each token from 1, or 0; those that are kept are in none.
        let number = |token: i32| {
            let within = |block: &Range<i32>| block.contains(&token);
            self.blocks.iter().position(within).map_or(0, |place| place as i32 + 1)
        };
        let near = self.offset() - self.reach(n)..self.offset();
        let keys: Vec<i32> =
            vec![0; self.sunk() as usize].into_iter().chain(near.map(number)).collect();
        let queries: Vec<i32> = (first..self.offset()).map(number).collect();
        let queries = Array::from_slice(&queries, &[n, 1]);
        let same = queries.eq(Array::from_slice(&keys, &[1, seen]))?;
        let same = same.logical_and(queries.gt(Array::from_int(0))?)?;
        Ok(KvMask::Only(before.logical_or(same)?))
    }

    /// Mask as [`visible`](Self::visible) returns it if there are no blocks.
    fn visible_before(&self, n: i32) -> Result<KvMask> {
        let (reach, sunk) = (self.reach(n), self.sunk());
        let seen = reach + sunk;
        match self.layout.window {
            _ if n == 1 => Ok(KvMask::All),
            Some(window) if self.layout.both_ways && seen > window => {
                let query = arange::<i32, i32>(seen - n, seen, None)?.reshape(&[n, 1])?;
                let apart = query.subtract(arange::<i32, i32>(None, seen, None)?)?.abs()?;
                Ok(KvMask::Only(apart.lt(Array::from_int(window))?))
            }
            _ if self.layout.both_ways => Ok(KvMask::All),
            Some(size) if self.layout.chunked && self.offset() - reach + size < self.offset() => {
                let first = self.offset() - reach;
                let size = Array::from_int(size);
                let query = arange::<i32, i32>(self.offset() - n, self.offset(), None)?;
                let query = query.reshape(&[n, 1])?;
                let key = arange::<i32, i32>(first, self.offset(), None)?;
                let same = query.floor_divide(&size)?.eq(key.floor_divide(&size)?)?;
                Ok(KvMask::Only(query.ge(&key)?.logical_and(same)?))
            }
            Some(window) if !self.layout.chunked && reach > window => {
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

    /// Number of tokens in the buffers.
    pub fn held(&self) -> usize {
        self.held as usize
    }

    /// Number of tokens in the buffers, from the first on, that all tokens attend to.
    pub fn always(&self) -> usize {
        self.sunk() as usize
    }

    /// Places in the buffers of the other tokens that number `i` of the last `n` attends to.
    pub fn seen_by(&self, i: usize, n: usize) -> Range<usize> {
        let end = self.held() - n + i + 1;
        let start = match self.layout.window {
            None => 0,
            Some(size) if self.layout.chunked => {
                let dropped = self.dropped as usize;
                let last = dropped + end - 1;
                (last - last % size as usize).saturating_sub(dropped)
            }
            Some(window) => end.saturating_sub(window as usize),
        };
        let (start, end) = self.block_around(start, end);
        let end = match (self.layout.both_ways, self.layout.window) {
            (false, _) => end,
            (true, None) => self.held(),
            (true, Some(window)) => self.held().min(end - 1 + window as usize),
        };
        start..end
    }

    /// Places `start..end` that the token in the last of them attends to, with those of its block.
    fn block_around(&self, start: usize, end: usize) -> (usize, usize) {
        let token = self.dropped + end as i32 - 1;
        let Some(block) = self.blocks.iter().find(|block| block.contains(&token)) else {
            return (start, end);
        };
        let place = |token: i32| (token - self.dropped).clamp(self.sunk(), self.held) as usize;
        (start.min(place(block.start)), end.max(place(block.end)))
    }

    fn stored(&self) -> Result<&[Buffer; 2]> {
        self.buffers.as_ref().ok_or_else(|| "nothing is remembered yet".into())
    }

    /// Number of the tokens held that are kept for being the first.
    fn sunk(&self) -> i32 {
        self.layout.sunk(self.held)
    }

    /// Number of the other tokens held that the last `n` attend to.
    fn reach(&self, n: i32) -> i32 {
        let others = self.held - self.sunk();
        match self.layout.window {
            Some(size) if self.layout.chunked => {
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
        let (left, room) = self.layout.grown(self.held, n);
        let old = self.held - (left - sunk)..self.held;
        self.dropped += self.held - left;
        self.held = left;
        let added = room - left;
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

/// Mask of queries over the keys of a cache.
pub enum KvMask {
    /// All keys are visible.
    All,
    /// Causal: the keys up to the query's own are visible.
    Past,
    /// Mask [queries, keys]: the keys that are true in the query's row are visible.
    Only(Array),
}

impl KvMask {
    /// Mask as MLX's attention takes it.
    pub fn mask(&self) -> Option<Mask<'_>> {
        match self {
            KvMask::All => None,
            KvMask::Past => Some(Mask::Causal),
            KvMask::Only(mask) => Some(Mask::Array(mask)),
        }
    }

    /// Mask [n, seen] of the last `n` tokens over `seen` ones; `None` if they attend to all.
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
