//! Cost of a model in memory, known before its weights are read.

use mlxk_core::{Facts, Plan, Result};
use mlxk_models::checkpoint::part::Part;
use mlxk_models::sketch::Sketch;
use mlxk_tensor::cache::CacheCost;

use crate::forward::prefill_chunk;
use crate::prefix_cache::CacheOptions;

/// Cost of a model in memory: its weights, and the cache of each sequence.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Bytes of the tensors that the model takes, as they are on disk.
    pub weights: u64,
    /// Bytes of the tensors of the vision tower, which is loaded at the first picture.
    pub tower: u64,
    cache: CacheCost,
    prefill_chunk: usize,
}

impl Cost {
    /// Cost of the model of `facts`, or of the part of it that a rank takes, on a CPU or on a GPU.
    ///
    /// # Errors
    /// As [`load`](crate::load).
    pub fn of(facts: &Facts, plan: &Plan, on_cpu: bool, part: Option<Part>) -> Result<Cost> {
        let sketch = Sketch::of(facts, plan, part)?;
        let cache = CacheCost::of(&sketch.cache(on_cpu)?);
        let (weights, tower) = (sketch.inventory.bytes, sketch.tower);
        Ok(Cost { weights, tower, cache, prefill_chunk: prefill_chunk(on_cpu) })
    }

    /// Cost with caches that are bounded and quantised as `options` say.
    pub fn with(self, options: &CacheOptions) -> Cost {
        Cost { cache: self.cache.with_layout(|layout| options.layout(layout)), ..self }
    }

    /// Bytes of all tensors, those of the vision tower included.
    pub fn tensors(&self) -> u64 {
        self.weights + self.tower
    }

    /// Most bytes that the cache of a sequence takes until it holds `tokens` tokens.
    pub fn sequence(&self, tokens: u64) -> u64 {
        self.cache.bytes_at(tokens, self.prefill_chunk)
    }
}
