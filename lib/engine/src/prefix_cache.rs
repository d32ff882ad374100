//! Options of caches, and the caches of sequences that are over, whose beginnings others may share.

use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::cache::{Cache, KvLayout, Packing};

/// Tokens at the beginning of a sequence that a bounded cache keeps.
const KEPT: u32 = 4;
/// Most sequences that are over whose caches are held.
const TEXTS: usize = 16;

/// Options of the caches of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Tokens that layers which would attend to all tokens attend to: the first 4 and the last ones.
    pub max_kv_size: Option<u32>,
    /// Bits of quantised keys and values: 2, 3, 4, 5, 6 or 8.
    pub kv_bits: Option<u32>,
    /// Elements of quantised keys and values that share a scale: 32, 64 or 128.
    pub kv_group_size: u32,
    /// Length of a sequence, in tokens, from which on keys and values are quantised.
    pub kv_start: u32,
    /// Bytes for sequences that are over, whose beginnings others may share.
    pub prefix_bytes: u64,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            max_kv_size: None,
            kv_bits: None,
            kv_group_size: 64,
            kv_start: 0,
            prefix_bytes: 1 << 30,
        }
    }
}

impl Memory {
    /// Errors if no model can have such caches.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, what: &str| {
            Err(Error::new(Kind::Validation, "", format!("`{name}` is not {what}")))
        };
        if self.max_kv_size.is_some_and(|most| most <= KEPT || most > i32::MAX as u32) {
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
            Some(most) => layout.bounded(most as i32, KEPT as i32),
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

/// Caches of sequences that are over, the last used last.
#[derive(Default)]
pub struct Prefixes {
    texts: Vec<(Vec<u32>, Cache)>,
    /// Bytes of all caches.
    bytes: u64,
}

impl Prefixes {
    /// Adds the `cache` of a sequence, and drops the oldest ones until all take `bytes` at most. A
    /// sequence that the new one continues is dropped, if the new one can go back to it.
    pub fn put(&mut self, tokens: Vec<u32>, cache: Cache, bytes: u64) {
        let continued = |(text, _): &(Vec<u32>, Cache)| tokens.starts_with(text);
        if cache.forgets() {
            self.texts.retain(|text| !continued(text));
        }
        self.texts.push((tokens, cache));
        self.shrink(bytes);
    }

    /// Drops the oldest sequences until all take `bytes` at most.
    pub fn shrink(&mut self, bytes: u64) {
        self.weigh();
        while self.texts.len() > TEXTS || (!self.texts.is_empty() && self.bytes > bytes) {
            self.texts.remove(0);
            self.weigh();
        }
    }

    /// Bytes of all caches.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn weigh(&mut self) {
        self.bytes = self.texts.iter().map(|(_, cache)| cache.bytes()).sum();
    }

    /// Tokens and cache of the sequence that was over last.
    pub fn last(&self) -> Option<&(Vec<u32>, Cache)> {
        self.texts.last()
    }

    /// Number of tokens that `prompt` shares with the cache that [`take`](Self::take) would give.
    pub fn shared(&self, prompt: &[u32]) -> usize {
        self.best(prompt).map_or(0, |(_, count)| count)
    }

    /// Cache of the longest known beginning of `prompt`, and its number of tokens. The last token of
    /// the prompt is never among them: its logits are still to be computed.
    pub fn take(&mut self, prompt: &[u32]) -> Option<(Cache, usize)> {
        let (place, count) = self.best(prompt)?;
        let (tokens, cache) = self.texts.remove(place);
        self.weigh();
        if count == tokens.len() {
            return Some((cache, count));
        }
        let mut own = cache.clone();
        let known = own.forget(tokens.len() - count);
        self.texts.push((tokens, cache));
        self.weigh();
        known.then_some((own, count))
    }

    fn best(&self, prompt: &[u32]) -> Option<(usize, usize)> {
        let shared = |(place, (tokens, cache)): (usize, &(Vec<u32>, Cache))| {
            let count = common(tokens, &prompt[..prompt.len() - 1]);
            let back = tokens.len() - count;
            (count > 0 && cache.clone().forget(back)).then_some((place, count))
        };
        self.texts.iter().enumerate().filter_map(shared).max_by_key(|&(_, count)| count)
    }
}

/// Number of tokens that are the same at the beginning of both.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
