//! SmolLM3: Llama with some layers without position embeddings.

use mlxk_core::{Architecture, Result};
use serde_json::Value;

use super::decoder::Decoder;
use super::llama;
use crate::checkpoint::config_error::invalid;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::new(Architecture::SmolLm3, load)];

/// Loads a `smollm3`. `no_rope_layers` has a 0 for each layer without a rotary embedding; if it is
/// absent, that is every `no_rope_layer_interval`th layer, by default every fourth.
pub fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let mut arch = llama::arch(&c, Some(10_000.0), false)?;
    let interval = c.no_rope_layer_interval.unwrap_or(4);
    if interval == 0 {
        return Err(invalid("`no_rope_layer_interval` is 0".into()));
    }
    let every = (1..=arch.layers.len()).map(|n| u8::from(n % interval != 0)).collect();
    let positions = c.no_rope_layers.unwrap_or(every);
    if positions.len() != arch.layers.len() {
        return Err(invalid("`no_rope_layers` does not name all layers".into()));
    }
    for (layer, positions) in arch.layers.iter_mut().zip(positions) {
        layer.rope = layer.rope.take().filter(|_| positions != 0);
    }
    Decoder::load(arch, w)
}
