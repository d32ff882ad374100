//! Qwen2, with biases of queries, keys and values, and Qwen3, with norms of queries and keys; both
//! are detected from the tensors. Also their mixtures of experts, and the language models of their
//! vision variants.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::Value;

use super::decoder::{Arch, Decoder};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::checkpoint::text_part;
use crate::config::Config;
use crate::language::Language;
use crate::nn::mlp::MlpArch;
use crate::nn::moe::{MoeArch, SharedArch};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Qwen2, load_2),
    Spec::new(Architecture::Qwen2Moe, load_2_moe),
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::Qwen2Vl, load_2_vl)
    },
    Spec::new(Architecture::Qwen3, load_3),
    Spec {
        convert: Rules { eight: &["mlp.gate"], ..Rules::NONE },
        ..Spec::new(Architecture::Qwen3Moe, load_3_moe)
    },
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::Qwen3Vl, load_3_vl)
    },
    Spec {
        sanitize: &[text_part::under_language_model],
        experts: ExpertLayout { transposed: true, ..ExpertLayout::DEFAULT },
        convert: Rules { eight: &["mlp.gate"], ..Rules::NONE },
        ..Spec::new(Architecture::Qwen3VlMoe, load_3_vl_moe)
    },
];

/// Loads a `qwen2`, whose rotary base defaults to 1,000,000.
pub fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?, Some(1_000_000.0))?, w)
}

/// Loads a `qwen3`, whose config.json must state the rotary base.
pub fn load_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?, None)?, w)
}

/// Loads a `qwen2_moe`, which adds a gated shared expert to the routed ones.
fn load_2_moe(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let arch = arch(&c, Some(1_000_000.0))?;
    let activation = Activation::Silu;
    let inner = c.need("shared_expert_intermediate_size")?;
    let mlp = MlpArch { inner, gated: true, fused: false, activation };
    let shared = Some(SharedArch { mlp, weighed: true });
    let moe = MoeArch { shared, ..moe(&c)? };
    Decoder::load(arch.with_moe(&moe, mixed(&c)?), w)
}

/// Loads a `qwen3_moe`.
fn load_3_moe(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    Decoder::load(arch(&c, None)?.with_moe(&moe(&c)?, mixed(&c)?), w)
}

/// Loads the language model of a `qwen2_vl`; skips the vision tower.
fn load_2_vl(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    load_2(text_part::text_or_all(config), w)
}

/// Loads the language model of a `qwen3_vl`; skips the vision tower.
fn load_3_vl(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    load_3(text_part::text_or_all(config), w)
}

/// Loads the language model of a `qwen3_vl_moe`; skips the vision tower.
fn load_3_vl_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    load_3_moe(text_part::text_or_all(config), w)
}

/// Mixture of experts of the family, without the shared expert.
pub fn moe(c: &Config) -> Result<MoeArch> {
    let normalised = c.get("norm_topk_prob")?.unwrap_or(false);
    let chosen = c.need("num_experts_per_tok")?;
    Ok(MoeArch {
        count: c.need("num_experts")?,
        inner: c.need("moe_intermediate_size")?,
        activation: Activation::Silu,
        routing: Routing { normalised, ..Routing::new(chosen, Score::Softmax) },
        gated: true,
        shared: None,
    })
}

/// Predicate of the layers with mixtures: each `decoder_sparse_step`th that is not in
/// `mlp_only_layers`.
pub fn mixed(c: &Config) -> Result<impl Fn(usize) -> bool + use<>> {
    let step = c.get("decoder_sparse_step")?.unwrap_or(1_usize);
    let without: Vec<usize> = c.get("mlp_only_layers")?.unwrap_or_default();
    Ok(move |i: usize| (i + 1).is_multiple_of(step) && !without.contains(&i))
}

/// Architecture of the family. The sliding window applies only if `use_sliding_window` is true,
/// from layer `max_window_layers` on.
fn arch(c: &Config, theta: Option<f64>) -> Result<Arch> {
    let mut arch = llama::arch(c, theta, true)?;
    let full = match c.use_sliding_window {
        Some(true) if c.layer_types.is_some() => 0,
        Some(true) => c.max_window_layers.unwrap_or(0),
        _ => arch.layers.len(),
    };
    arch.layers.iter_mut().take(full).for_each(|layer| layer.window = None);
    Ok(arch)
}
