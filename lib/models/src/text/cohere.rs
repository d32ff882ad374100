//! Command R (Cohere): parallel attention and feed-forward after one layer norm. In the second
//! generation most layers have a sliding window, and the others no rotary embedding.

use mlxk_core::{Architecture, Result};
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::{Config, given};
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] =
    &[Spec::new(Architecture::Cohere, load), Spec::new(Architecture::Cohere2, load_2)];

/// Loads a `cohere`, the first generation.
fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"hidden_size": 8192, "num_hidden_layers": 40, "intermediate_size": 22_528,
        "num_attention_heads": 64, "num_key_value_heads": 64});
    let (_, arch) = arch(config, defaults, 8_000_000.0)?;
    Decoder::load(arch, w)
}

/// Loads a `cohere2`, the second generation.
fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14_336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "sliding_window": 4096, "sliding_window_pattern": 4});
    let (c, mut arch) = arch(config, defaults, 50_000.0)?;
    let pattern: usize = c.need("sliding_window_pattern")?;
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        layer.window = c.window(i, !(i + 1).is_multiple_of(pattern))?;
        layer.rope = layer.rope.take().filter(|_| layer.window.is_some());
    }
    Decoder::load(arch, w)
}

fn arch(config: &Value, defaults: Value, theta: f64) -> Result<(Config, Arch)> {
    let both = json!({"vocab_size": 256_000, "layer_norm_eps": 1e-5, "logit_scale": 0.0625});
    let mut c = Config::read_or(&given(config, defaults), both)?;
    c.rope_traditional = true;
    let arch = llama::base(&c, c.rope(Some(theta))?, false, c.layer_norm("layer_norm_eps")?)?;
    let norms = Norms { mlp_in: None, ..Norms::LLAMA };
    let arch = Arch { parallel: true, norms, logit_scale: c.need("logit_scale")?, ..arch };
    Ok((c, arch))
}
