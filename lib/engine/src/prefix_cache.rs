//! How much a model remembers of its texts, and of those that are over.

use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::cache::{Cache, Packing};

/// The tokens at the beginning of a text that a bounded memory keeps.
const KEPT: u32 = 4;
/// Sequences that are over and remembered.
const TEXTS: usize = 16;

/// What is remembered.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Layers that would attend to all tokens attend to the first 4 and the last, so many together.
    pub max_kv_size: Option<u32>,
    /// Bits of quantised keys and values: 2, 3, 4, 5, 6 or 8.
    pub kv_bits: Option<u32>,
    /// Their elements that share a scale: 32, 64 or 128.
    pub kv_group_size: u32,
    /// How long a text is when they begin to be quantised.
    pub kv_start: u32,
    /// Bytes for texts that are over, whose beginnings others may share.
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
    /// Refuses what no model can do.
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

    /// A memory without any token, in the form that is wanted.
    pub fn apply(&self, mut cache: Cache) -> Cache {
        if let Some(most) = self.max_kv_size {
            cache = cache.with_kv(|kv| kv.bounded(most as i32, KEPT as i32));
        }
        if let Some(bits) = self.kv_bits {
            let packing = Packing {
                bits: bits as i32,
                group_size: self.kv_group_size as i32,
                start: self.kv_start as i32,
            };
            cache = cache.with_kv(|kv| kv.packed(packing));
        }
        cache
    }
}

/// Sequences that are over, the last used last.
#[derive(Default)]
pub struct Prefixes {
    texts: Vec<(Vec<u32>, Cache)>,
    /// Bytes of all.
    bytes: u64,
}

impl Prefixes {
    /// Remembers the `cache` of a text as long as there are `bytes` for it. A text of which it is
    /// the continuation is forgotten, if it can stand for that.
    pub fn put(&mut self, tokens: Vec<u32>, cache: Cache, bytes: u64) {
        let continued = |(text, _): &(Vec<u32>, Cache)| tokens.starts_with(text);
        if cache.forgets() {
            self.texts.retain(|text| !continued(text));
        }
        self.texts.push((tokens, cache));
        self.shrink(bytes);
    }

    /// Forgets the oldest texts until `bytes` hold them all.
    pub fn shrink(&mut self, bytes: u64) {
        self.weigh();
        while self.texts.len() > TEXTS || (!self.texts.is_empty() && self.bytes > bytes) {
            self.texts.remove(0);
            self.weigh();
        }
    }

    /// The bytes of all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn weigh(&mut self) {
        self.bytes = self.texts.iter().map(|(_, cache)| cache.bytes()).sum();
    }

    /// The text that was over last.
    pub fn last(&self) -> Option<&(Vec<u32>, Cache)> {
        self.texts.last()
    }

    /// How many tokens `prompt` shares with the text that [`take`](Self::take) would give.
    pub fn shared(&self, prompt: &[u32]) -> usize {
        self.best(prompt).map_or(0, |(_, count)| count)
    }

    /// The longest memory of a beginning of `prompt`, and how many tokens it is. Of all but the
    /// last token, which is still to be looked at.
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

/// How many tokens are the same at the beginning of both.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
