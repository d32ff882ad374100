//! Llama (arXiv 2307.09288) and Mistral (arXiv 2310.06825), which adds a window.

use mlxk_core::Result;
use serde_json::Value;

use super::Language;
use super::config::Config;
use super::decoder::{Arch, Decoder, LayerArch};
use crate::nn::Sizes;
use crate::weights::Cursor;

/// A llama: layers slide only where the file says so.
pub fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?, Some(10_000.0), false)?, w)
}

/// A mistral: all layers slide if the file states a window and no types of layers.
pub fn load_mistral(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?, Some(10_000.0), true)?, w)
}

/// What all members share; `theta` is the base of the position embeddings if the file has none,
/// `slides` whether layers have a window if the file does not say which.
pub fn arch(c: &Config, theta: Option<f64>, slides: bool) -> Result<Arch> {
    let rope = c.rope(theta)?;
    let layer = |i| Ok(LayerArch { rope: Some(rope.clone()), window: c.window(i, slides)? });
    Ok(Arch {
        heads: Sizes {
            hidden: c.hidden_size,
            heads: c.num_attention_heads,
            kv_heads: c.kv_heads(),
            head_dim: c.head_dim(),
            norm_eps: c.rms_norm_eps,
        },
        inner: c.intermediate_size,
        vocabulary: c.vocab_size,
        tied: c.tie_word_embeddings,
        layers: (0..c.num_hidden_layers).map(layer).collect::<Result<_>>()?,
    })
}
