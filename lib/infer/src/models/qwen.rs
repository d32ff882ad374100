//! Qwen2 (biased queries, keys and values) and Qwen3 (normed queries and keys): the weights say so.

use mlxk_core::Result;
use serde_json::Value;

use super::Language;
use super::config::Config;
use super::decoder::Decoder;
use super::llama;
use crate::weights::Cursor;

/// A qwen2; its position embeddings have a larger base than a llama's.
pub fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    load(&Config::read(config)?, Some(1_000_000.0), w)
}

/// A qwen3; its file must state the base.
pub fn load_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    load(&Config::read(config)?, None, w)
}

/// The window that most files state is in force only if `use_sliding_window` is set, and then from
/// layer `max_window_layers` on.
fn load(c: &Config, theta: Option<f64>, w: Cursor) -> Result<Box<dyn Language>> {
    let mut arch = llama::arch(c, theta, true)?;
    let full = match c.use_sliding_window {
        Some(true) if c.layer_types.is_some() => 0,
        Some(true) => c.max_window_layers.unwrap_or(0),
        _ => arch.layers.len(),
    };
    arch.layers.iter_mut().take(full).for_each(|layer| layer.window = None);
    Decoder::load(arch, w)
}
