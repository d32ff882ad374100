//! Layout of a kv cache: which tokens it keeps, and how it stores them.

use super::buffer::Packing;

/// Tokens by which the room of a kv cache grows.
const STEP: i32 = 256;

/// Tokens that a window keeps beyond those it attends to, so that the last ones can be removed
/// again.
const BACK: i32 = 32;

/// Layout of a kv cache: which tokens it keeps, and how it stores them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KvLayout {
    /// Tokens that a token attends to, itself included; all if `None`.
    pub window: Option<i32>,
    /// True if sequences are cut into windows, instead of each token having one that ends with it.
    pub chunked: bool,
    /// True if tokens also attend to those after them: to all, or to the `window - 1` after. All
    /// tokens of a sequence are appended at once then.
    pub both_ways: bool,
    /// True if the tokens of a block, such as a picture, also attend to those after them in it. All
    /// tokens of a block are appended at once then.
    pub blocks: bool,
    /// Tokens at the beginning of a sequence that are attended to besides the window.
    pub kept: i32,
    /// Quantisation of keys and values.
    pub packing: Option<Packing>,
}

impl KvLayout {
    /// Layout of a layer whose tokens attend to themselves and the `window - 1` before, or to all.
    pub fn new(window: Option<i32>) -> KvLayout {
        KvLayout { window, chunked: false, both_ways: false, blocks: false, kept: 0, packing: None }
    }

    /// Layout of a layer whose tokens attend to those before in the same one of the chunks of
    /// `size` tokens that sequences are cut into.
    pub fn chunked(size: i32) -> KvLayout {
        KvLayout { chunked: true, ..KvLayout::new(Some(size)) }
    }

    /// Layout that keeps the first `kept` tokens and so many of the last that there are `most`, if
    /// it would keep all tokens.
    pub fn bounded(self, most: i32, kept: i32) -> KvLayout {
        match self.window {
            None => KvLayout { window: Some((most - kept).max(1)), kept, ..self },
            Some(_) => self,
        }
    }

    /// Layout of an encoder, whose tokens also attend to those after them.
    pub fn both_ways(self) -> KvLayout {
        KvLayout { both_ways: true, ..self }
    }

    /// Layout of a layer in which the tokens of a block attend to each other.
    pub fn with_blocks(self) -> KvLayout {
        KvLayout { blocks: true, ..self }
    }

    /// Layout that quantises keys and values.
    pub fn packed(self, packing: Packing) -> KvLayout {
        KvLayout { packing: Some(packing), ..self }
    }

    /// Quantisation of the tokens that are appended to `tokens` tokens, and of those.
    pub fn packing_at(&self, tokens: i32) -> Option<Packing> {
        self.packing.filter(|packing| tokens >= packing.start)
    }

    /// Number of the `held` tokens that are kept for being the first.
    pub fn sunk(&self, held: i32) -> i32 {
        self.kept.min(held)
    }

    /// Growth of buffers that hold `held` tokens, for `n` more: the number of tokens that the new
    /// buffers keep, and their room.
    pub fn grown(&self, held: i32, n: i32) -> (i32, i32) {
        let sunk = self.sunk(held);
        let near = self.window.map_or(held, |window| window.saturating_add(BACK - 1));
        let left = sunk + near.min(held - sunk);
        (left, (left + n.max(1) + STEP - 1) / STEP * STEP)
    }

    /// Tokens after which the room of a window grows no more, if `chunk` are appended at a time.
    pub fn settled(&self, chunk: i32) -> Option<i32> {
        let start = self.packing.map_or(0, |packing| packing.start);
        let growing = chunk.saturating_mul(4).saturating_add(2 * STEP + BACK);
        let before = start.saturating_add(self.kept).saturating_add(growing);
        self.window.map(|window| window.saturating_add(before))
    }
}
