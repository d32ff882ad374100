//! Prefix cache: caches of sequences that are over, for prompts that begin like them.

use std::ops::Range;

use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::cache::{Cache, KvLayout, Packing};

/// Tokens at the beginning of a sequence that a bounded cache keeps.
const KEPT_TOKENS: u32 = 4;
/// Most sequences of a prefix cache.
const MAX_SEQUENCES: usize = 16;

/// Options of the caches of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheOptions {
    /// Number of tokens that layers with full attention keep: the first 4 and the last ones; all tokens
    /// if none.
    pub max_kv_size: Option<u32>,
    /// Bits of quantised keys and values, 2, 3, 4, 5, 6 or 8; no quantisation if none.
    pub kv_bits: Option<u32>,
    /// Elements of quantised keys and values that share a scale: 32, 64 or 128.
    pub kv_group_size: u32,
    /// Length of a sequence, in tokens, from which on keys and values are quantised.
    pub kv_start: u32,
    /// Most bytes of the prefix cache.
    pub prefix_bytes: u64,
    /// Most bytes of the features of pictures that are kept for later prompts.
    pub feature_bytes: u64,
}

impl Default for CacheOptions {
    fn default() -> CacheOptions {
        CacheOptions {
            max_kv_size: None,
            kv_bits: None,
            kv_group_size: 64,
            kv_start: 0,
            prefix_bytes: 1 << 30,
            feature_bytes: 256 << 20,
        }
    }
}

impl CacheOptions {
    /// Checks the options by themselves; whether a model takes them is another question.
    ///
    /// # Errors
    /// [`Kind::Validation`] if one is out of range.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, what: &str| {
            Err(Error::new(Kind::Validation, "", format!("`{name}` is not {what}")))
        };
        if self.max_kv_size.is_some_and(|most| most <= KEPT_TOKENS || most > i32::MAX as u32) {
            return wrong("max_kv_size", "a whole number from 5");
        }
        if self.kv_bits.is_some_and(|bits| ![2, 3, 4, 5, 6, 8].contains(&bits)) {
            return wrong("kv_bits", "2, 3, 4, 5, 6 or 8");
        }
        if ![32, 64, 128].contains(&self.kv_group_size) {
            return wrong("kv_group_size", "32, 64 or 128");
        }
        Ok(())
    }

    /// Layout of a kv cache, bounded and quantised as these options say.
    pub fn layout(&self, layout: KvLayout) -> KvLayout {
        let layout = match self.max_kv_size {
            Some(most) => layout.bounded(most as i32, KEPT_TOKENS as i32),
            None => layout,
        };
        let Some(bits) = self.kv_bits else { return layout };
        layout.packed(Packing {
            bits: bits as i32,
            group_size: self.kv_group_size as i32,
            start: self.kv_start as i32,
        })
    }
}

/// Key of a cached sequence: its tokens, and the pictures that some of them stand for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Key {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Pictures: the tokens that stand for each, and a hash of its pixels.
    pub media: Vec<(Range<usize>, [u8; 32])>,
}

impl Key {
    /// Number of tokens that both sequences begin with. A picture counts as a whole.
    pub fn common(&self, other: &Key) -> usize {
        self.up_to(other, self.tokens.len().min(other.tokens.len()))
    }

    /// Number of tokens, at most `most`, that both sequences begin with.
    pub fn up_to(&self, other: &Key, most: usize) -> usize {
        let pairs = self.tokens.iter().zip(&other.tokens).take(most);
        let same = pairs.take_while(|(a, b)| a == b).count();
        let cut = |count: usize, (own, others): (&Key, &Key)| {
            let differs = |(tokens, _): &&(Range<usize>, [u8; 32])| {
                tokens.start < count
                    && (tokens.end > count
                        || !others.media.iter().any(|o| Some(o) == own.at(tokens)))
            };
            own.media.iter().find(differs).map_or(count, |(tokens, _)| tokens.start)
        };
        [(self, other), (other, self)].into_iter().fold(same, cut)
    }

    /// Drops the tokens behind the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.tokens.truncate(count);
        self.media.retain(|(tokens, _)| tokens.end <= count);
    }

    /// Picture that the same `tokens` stand for.
    fn at(&self, tokens: &Range<usize>) -> Option<&(Range<usize>, [u8; 32])> {
        self.media.iter().find(|(own, _)| own == tokens)
    }
}

/// Caches of sequences that are over, the last used last.
#[derive(Default)]
pub struct PrefixCache {
    sequences: Vec<(Key, Cache)>,
    /// Bytes of all caches.
    bytes: u64,
}

impl PrefixCache {
    /// Adds the `cache` of a sequence, and drops the oldest ones until all take `bytes` at most. A
    /// sequence that the new one continues is dropped, if the new one can go back to it.
    pub fn put(&mut self, key: Key, cache: Cache, bytes: u64) {
        let continued =
            |(sequence, _): &(Key, Cache)| key.common(sequence) == sequence.tokens.len();
        if cache.forgets() {
            self.sequences.retain(|sequence| !continued(sequence));
        }
        self.sequences.push((key, cache));
        self.shrink(bytes);
    }

    /// Drops the oldest sequences until all take `bytes` at most.
    pub fn shrink(&mut self, bytes: u64) {
        self.measure();
        while self.sequences.len() > MAX_SEQUENCES
            || (!self.sequences.is_empty() && self.bytes > bytes)
        {
            self.sequences.remove(0);
            self.measure();
        }
    }

    /// Bytes of all caches.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Updates the number of bytes.
    fn measure(&mut self) {
        self.bytes = self.sequences.iter().map(|(_, cache)| cache.bytes()).sum();
    }

    /// Key and cache of the sequence that was over last.
    pub fn last(&self) -> Option<&(Key, Cache)> {
        self.sequences.last()
    }

    /// Number of tokens that `prompt` shares with the cache that [`take`](Self::take) would give.
    pub fn shared(&self, prompt: &Key) -> usize {
        self.best(prompt).map_or(0, |(_, count)| count)
    }

    /// Cache of the longest beginning of `prompt` that is held, and its number of tokens. The last token
    /// of the prompt is never among them: its logits are still to be computed.
    pub fn take(&mut self, prompt: &Key) -> Option<(Cache, usize)> {
        let (place, count) = self.best(prompt)?;
        let (key, cache) = self.sequences.remove(place);
        self.measure();
        if count == key.tokens.len() {
            return Some((cache, count));
        }
        let mut own = cache.clone();
        let known = own.forget(key.tokens.len() - count);
        self.sequences.push((key, cache));
        self.measure();
        known.then_some((own, count))
    }

    /// Index of the sequence that shares most tokens with `prompt`, and their number.
    fn best(&self, prompt: &Key) -> Option<(usize, usize)> {
        let shared = |(place, (key, cache)): (usize, &(Key, Cache))| {
            let count = key.up_to(prompt, prompt.tokens.len() - 1);
            let back = key.tokens.len() - count;
            (count > 0 && cache.clone().forget(back)).then_some((place, count))
        };
        self.sequences.iter().enumerate().filter_map(shared).max_by_key(|&(_, count)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tokens: &[u32], media: &[(Range<usize>, u8)]) -> Key {
        let media = media.iter().map(|(tokens, hash)| (tokens.clone(), [*hash; 32]));
        Key { tokens: tokens.to_vec(), media: media.collect() }
    }

    #[test]
    fn a_picture_is_shared_as_a_whole_or_not_at_all() {
        let one = key(&[1, 9, 9, 9, 2, 3], &[(1..4, 7)]);
        assert_eq!(one.common(&one), 6);
        assert_eq!(one.common(&key(&[1, 9, 9, 9, 2, 4], &[(1..4, 7)])), 5);
        assert_eq!(one.common(&key(&[1, 9, 9, 9, 2, 3], &[(1..4, 8)])), 1);
        assert_eq!(one.common(&key(&[1, 9, 9, 9, 2, 3], &[])), 1);
        assert_eq!(key(&[1, 9, 9, 9], &[]).common(&one), 1);
        assert_eq!(one.up_to(&one, 3), 1);
        assert_eq!(key(&[1, 2], &[]).common(&key(&[1, 3], &[])), 1);
    }
}
