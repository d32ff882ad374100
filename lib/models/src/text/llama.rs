//! Llama (arXiv 2307.09288) and Mistral (arXiv 2310.06825), which adds a sliding window.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::rope::Rope;
use serde_json::Value;

use super::decoder::{Arch, Decoder, LayerArch, Norms};
use crate::checkpoint::config_error::{invalid, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::config::Config;
use crate::language::Language;
use crate::nn::attention::{Sharing, Sizes};
use crate::nn::mlp::MlpArch;
use crate::nn::norm::{NormArch, NormKind};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec { sanitize: &[sanitize_apertus], ..Spec::new(Architecture::Apertus, load_apertus) },
    Spec::new(Architecture::Ernie45, load_traditional),
    Spec::new(Architecture::EuroBert, load),
    Spec::new(Architecture::Helium, load_traditional),
    Spec::new(Architecture::InternLm3, load),
    Spec::new(Architecture::Llama, load),
    Spec::new(Architecture::Llama4Text, load_4_text),
    Spec::new(Architecture::Mimo, load_mimo),
    Spec::new(Architecture::Mistral, load_mistral),
    Spec::new(Architecture::Nemotron, load_nemotron),
    Spec::new(Architecture::SeedOss, load),
    Spec::new(Architecture::TeleChat3, load),
];

/// Loads a `llama`: layers have a sliding window only if `layer_types` says so.
pub fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?, Some(10_000.0), false)?, w)
}

/// Loads a `mistral`: all layers have the sliding window of config.json unless `layer_types`
/// differs.
pub fn load_mistral(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?, Some(10_000.0), true)?, w)
}

/// Loads a `helium` or `ernie4_5`: Llama with an interleaved rotary embedding.
fn load_traditional(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let mut c = Config::read(config)?;
    c.rope_traditional = true;
    Decoder::load(arch(&c, None, false)?, w)
}

/// Loads a `mimo`; skips its layers for multi-token prediction.
fn load_mimo(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    w.discard(|name| name.starts_with("model.mtp_layers."));
    load(config, w)
}

/// Loads a `nemotron`: no gates, and layer norms whose weights are stored minus one.
fn load_nemotron(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let mut c = Config::read(config)?;
    let within = c.rope_parameters.as_ref().and_then(|rope| rope.partial_rotary_factor);
    c.partial_rotary_factor = c.partial_rotary_factor.or(within).or(Some(0.5));
    let norm = NormArch { kind: NormKind::LayerLessOne, ..c.layer_norm("norm_eps")? };
    let arch = base(&c, c.rope(Some(10_000.0))?, false, norm)?
        .with_mlp(|mlp| (mlp.gated, mlp.activation) = (false, Activation::ReluSquared));
    Decoder::load(arch, w)
}

/// Loads an `apertus`: no gates, and an activation with learned parameters.
fn load_apertus(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let norms = Norms {
        attn_in: Some("attention_layernorm"),
        mlp_in: Some("feedforward_layernorm"),
        ..Norms::LLAMA
    };
    let arch = base(&c, c.rope(None)?, false, c.rms_norm()?)?
        .with_mlp(|mlp| (mlp.gated, mlp.activation) = (false, Activation::XIELU));
    Decoder::load(Arch { norms, ..arch }, w)
}

/// Loads a text-only `llama4_text`: interleaved rotary embedding except in layers without
/// positions, and queries and keys normed without weights.
fn load_4_text(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let mut c = Config::read(config)?;
    c.intermediate_size = c.need("intermediate_size_mlp")?;
    w.rename(&[("mlp", "feed_forward"), ("lm_head", "output")]);
    let rope = Rope::new(c.head_dim(), true, c.theta(None)?, None, None)?;
    let mut arch = base(&c, rope, false, c.rms_norm()?)?;
    let turns = c.need::<Vec<u8>>("no_rope_layers")?;
    if turns.len() != arch.layers.len() {
        return Err(invalid("`no_rope_layers` does not name all layers".into()));
    }
    for (layer, _) in arch.layers.iter_mut().zip(turns).filter(|(_, turns)| *turns == 0) {
        layer.rope = None;
    }
    if c.need("use_qk_norm")? {
        arch.heads.norm.kind = NormKind::Bare;
    }
    Decoder::load(arch, w)
}

/// Architecture that all members share. `theta` is the rotary base if config.json states none;
/// `slides` is true if layers have a window by default, when `layer_types` is absent.
pub fn arch(c: &Config, theta: Option<f64>, slides: bool) -> Result<Arch> {
    match c.hidden_act.as_deref() {
        None | Some("silu" | "swish") => base(c, c.rope(theta)?, slides, c.rms_norm()?),
        Some(other) => Err(unknown(format!("activation `{other}` cannot run yet"))),
    }
}

/// Architecture like that of [`arch`], with norms of kind `norm` and the activation of config.json.
pub fn base(c: &Config, rope: Rope, slides: bool, norm: NormArch) -> Result<Arch> {
    let mlp = mlp(c);
    let layer = |i| {
        let window = c.window(i, slides)?;
        Ok(LayerArch {
            heads: None,
            rope: Some(rope.clone()),
            window,
            blocks: false,
            mlp,
            moe: None,
        })
    };
    Ok(Arch {
        heads: heads(c, norm),
        norm,
        norms: Norms::LLAMA,
        vocabulary: c.vocab_size,
        tied: c.tie_word_embeddings,
        parallel: false,
        positions: None,
        embed_norm: false,
        embed_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        logit_softcap: None,
        layers: (0..c.num_hidden_layers).map(layer).collect::<Result<_>>()?,
    })
}

/// Sizes of Llama's attention.
pub fn heads(c: &Config, norm: NormArch) -> Sizes {
    Sizes {
        hidden: c.hidden_size,
        heads: c.num_attention_heads,
        kv_heads: c.kv_heads(),
        head_dim: c.head_dim(),
        value_dim: c.head_dim(),
        value_scale: 1.0,
        scale: (c.head_dim() as f32).powf(-0.5),
        softcap: None,
        norm,
        rotated_first: false,
        fused: None,
        clip: None,
        sinks: None,
        sharing: Sharing::Nothing,
        gate: None,
        temperature_tuning: None,
    }
}

/// Gated feed-forward layer of Llama.
pub fn mlp(c: &Config) -> MlpArch {
    let activation = Activation::Silu;
    MlpArch { inner: c.intermediate_size, gated: true, fused: false, activation }
}

/// Reshapes the activation parameters of an `apertus`, which transformers stores as lists of one.
fn sanitize_apertus(all: &mut Checkpoint) -> Result<()> {
    let is_alpha = |name: &str| name.ends_with("alpha_p") || name.ends_with("alpha_n");
    all.change(is_alpha, |tensor| match *tensor.shape {
        [1] => tensor.shaped(Vec::new()),
        _ => tensor,
    });
    Ok(())
}
