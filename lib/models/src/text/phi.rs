//! Phi (arXiv 2309.05463): parallel attention and feed-forward without gates. Phi 3 (arXiv
//! 2404.14219) is a Llama with fused matrices and LongRoPE for long contexts.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] =
    &[Spec::new(Architecture::Phi, load), Spec::new(Architecture::Phi3, load_3)];

/// Loads a `phi`: Phi 1, 1.5 or 2.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"vocab_size": 51_200, "hidden_size": 2560, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "intermediate_size": 10_240,
        "layer_norm_eps": 1e-5});
    let mut c = Config::read_or(config, defaults)?;
    let within = c.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
    c.partial_rotary_factor = c.partial_rotary_factor.or(within).or(Some(0.4));
    w.rename(&[
        ("o_proj", "dense"),
        ("up_proj", "fc1"),
        ("down_proj", "fc2"),
        ("model.norm", "model.final_layernorm"),
    ]);
    let rope = c.rope(Some(10_000.0))?;
    let arch = llama::base(&c, rope, false, c.layer_norm("layer_norm_eps")?)?;
    let norms = Norms { mlp_in: None, ..Norms::LLAMA };
    let arch = Arch { parallel: true, norms, ..arch }
        .with_mlp(|mlp| (mlp.gated, mlp.activation) = (false, Activation::GeluTanh));
    Decoder::load(arch, w)
}

/// Loads a `phi3`, Phi 3 or 4; all layers have the sliding window of config.json.
pub fn load_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4096});
    let c = Config::read_or(config, defaults)?;
    let mut arch = llama::arch(&c, Some(10_000.0), true)?.with_mlp(|mlp| mlp.fused = true);
    arch.heads.fused = Some(1);
    Decoder::load(arch, w)
}
