//! Gemma: norm weights stored minus one, and embeddings scaled by the root of the hidden size.
//! Gemma 2 (arXiv 2408.00118) adds post-norms and caps attention scores and logits; Gemma 3 (arXiv
//! 2503.19786) norms queries and keys instead, and its sliding layers have a smaller rotary base.

use mlx_rs::Dtype;
use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::rope::{Rope, Scaling};
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::text_part;
use crate::config::{Config, given};
use crate::language::Language;
use crate::nn::norm::{NormArch, NormKind};

/// Norms before and after each sublayer.
const AROUND: Norms = Norms {
    attn_in: Some("input_layernorm"),
    attn_out: Some("post_attention_layernorm"),
    mlp_in: Some("pre_feedforward_layernorm"),
    mlp_out: Some("post_feedforward_layernorm"),
};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Gemma, load),
    Spec::new(Architecture::Gemma2, load_2),
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::Gemma3, load_3)
    },
    Spec::new(Architecture::Gemma3Text, load_3_text),
];

/// Loads a `gemma`.
pub fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let scale = (c.hidden_size as f32).sqrt();
    Decoder::load(arch(&c, Activation::Gelu, scale)?, w)
}

/// Loads a `gemma2`, in which every other layer has a sliding window.
pub fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"query_pre_attn_scalar": 144.0, "sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0});
    let c = Config::read_or(config, defaults)?;
    let scale = (c.hidden_size as f32).sqrt();
    let mut arch = arch(&c, Activation::GeluTanh, scale)?;
    arch.norms = AROUND;
    arch.heads.scale = c.need::<f32>("query_pre_attn_scalar")?.powf(-0.5);
    arch.heads.softcap = c.get("attn_logit_softcapping")?;
    arch.logit_softcap = c.get("final_logit_softcapping")?;
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        layer.window = c.window(i, i % 2 == 0)?;
    }
    Decoder::load(arch, w)
}

/// Loads a `gemma3_text`, the text-only Gemma 3.
fn load_3_text(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch_3(config, &w)?, w)
}

/// Architecture of a `gemma3_text` with the tensors at `w`.
fn arch_3(config: &Value, w: &Cursor) -> Result<Arch> {
    let defaults = json!({"hidden_size": 1152, "num_hidden_layers": 26, "intermediate_size": 6912,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "rms_norm_eps": 1e-6,
        "vocab_size": 262_144, "max_position_embeddings": 32_768, "query_pre_attn_scalar": 256.0,
        "sliding_window": 512, "sliding_window_pattern": 6, "rope_local_base_freq": 10_000.0});
    let c = Config::read_or(config, defaults)?;
    let both_ways = c.get("use_bidirectional_attention")? == Some(true);
    let scale = (c.hidden_size as f32).sqrt();
    // An encoder computes in the type of its weights.
    let exact = both_ways && embeddings_are_f32(w);
    let mut arch = arch(&c, Activation::GeluTanh, if exact { scale } else { bfloat(scale) })?;
    arch.norms = AROUND;
    arch.heads.scale = c.need::<f32>("query_pre_attn_scalar")?.powf(-0.5);
    let pattern: usize = c.need("sliding_window_pattern")?;
    let [far, near] = ropes(&c)?;
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        layer.window = c.window(i, !(i + 1).is_multiple_of(pattern))?;
        if both_ways {
            // The window is that of both sides.
            layer.window = layer.window.map(|window| window / 2 + 1);
        }
        layer.rope = Some(if layer.window.is_some() { near.clone() } else { far.clone() });
    }
    Ok(arch)
}

/// Loads the language model of a `gemma3`, in which the tokens of a picture attend to each other;
/// skips the vision tower.
fn load_3(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    let defaults = json!({"num_attention_heads": 8, "num_key_value_heads": 4});
    let vocabulary = config.get("vocab_size").cloned().unwrap_or(json!(262_208));
    let mut text = given(&text_part::text(config)?, defaults);
    text["vocab_size"] = vocabulary;
    let mut arch = arch_3(&text, &w)?;
    arch.layers.iter_mut().for_each(|layer| layer.blocks = true);
    Decoder::load(arch, w)
}

fn arch(c: &Config, activation: Activation, embed_scale: f32) -> Result<Arch> {
    let norm = NormArch { kind: NormKind::RmsLessOne, ..c.rms_norm()? };
    let arch = llama::base(c, c.rope(Some(10_000.0))?, false, norm)?;
    Ok(Arch { embed_scale, ..arch }.with_mlp(|mlp| mlp.activation = activation))
}

/// True if the embeddings at `w`, or the scales of quantised ones, are 32-bit floats.
fn embeddings_are_f32(w: &Cursor) -> bool {
    let f32_at = |name: &str| w.form(name).is_ok_and(|(_, dtype)| dtype == Dtype::Float32);
    let ends = ["weight", "scales"];
    ends.iter().any(|end| f32_at(&format!("model.embed_tokens.{end}")))
        || ends.iter().any(|end| f32_at(&format!("embed_tokens.{end}")))
}

/// Rotary embeddings of layers with full attention, and of those with a sliding window.
fn ropes(c: &Config) -> Result<[Rope; 2]> {
    let (far, near) = (c.scaling_of("full_attention")?, c.scaling_of("sliding_attention")?);
    let base = |scaling: &Option<Scaling>| scaling.as_ref().and_then(|scaling| scaling.rope_theta);
    let local = base(&near).unwrap_or(c.need("rope_local_base_freq")?);
    let far_rope = match &far {
        Some(scaling) => c.rope_of(base(&far).unwrap_or(1_000_000.0), scaling)?,
        None => c.rope(Some(1_000_000.0))?,
    };
    Ok([far_rope, c.rope_of(local, &near.unwrap_or_default())?])
}

/// Rounds `x` to bfloat16, the type the model was trained in.
fn bfloat(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}
