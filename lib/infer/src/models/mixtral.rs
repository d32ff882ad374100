//! Mixtral (arXiv 2401.04088) and those that name a mixture as it does: Phi 3.5 MoE, MiniMax.

use mlxk_core::Result;
use serde_json::{Value, json};

use super::Language;
use super::config::Config;
use super::decoder::Decoder;
use super::llama;
use crate::kernels::Activation;
use crate::mixture::{MoeArch, Routing, Score};
use crate::rope::Rope;
use crate::weights::Cursor;

/// A mixtral.
pub fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read_or(config, json!({"num_local_experts": 8, "num_experts_per_tok": 2}))?;
    w.rename(&[("mlp", "block_sparse_moe")]);
    let arch = llama::arch(&c, Some(1_000_000.0), false)?;
    let moe = moe(&c, Score::Softmax)?;
    Decoder::load(arch.with_moe(&moe, |_| true), w)
}

/// A phimoe; how far behind the best an expert may be is twice the noise of its training.
pub fn load_phi(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"num_local_experts": 16, "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 131_072,
        "original_max_position_embeddings": 4096});
    let c = Config::read_or(config, defaults)?;
    w.rename(&[("mlp", "block_sparse_moe")]);
    let noise = c.get::<f32>("router_jitter_noise")?.unwrap_or(0.01);
    let rope = c.rope(Some(10_000.0))?;
    let arch = llama::base(&c, rope, false, c.layer_norm("rms_norm_eps")?)?;
    let moe = moe(&c, Score::Mixer(2.0 * noise))?;
    Decoder::load(arch.with_moe(&moe, |_| true), w)
}

/// A minimax; a part of its heads rotates.
pub fn load_minimax(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.rename(&[
        ("mlp", "block_sparse_moe"),
        ("gate.e_score_correction_bias", "e_score_correction_bias"),
    ]);
    let rope = Rope::new(c.rotary(c.need("rotary_dim")?)?, false, c.theta(None)?, None, None)?;
    let arch = llama::base(&c, rope, false, c.rms_norm()?)?;
    let moe = moe(&c, Score::Sigmoid)?;
    Decoder::load(arch.with_moe(&moe, |_| true), w)
}

/// Experts as wide as a llama's feed-forward layer, weighted to a sum of one.
fn moe(c: &Config, score: Score) -> Result<MoeArch> {
    let normalised = !matches!(score, Score::Mixer(_));
    Ok(MoeArch {
        count: c.need("num_local_experts")?,
        inner: c.intermediate_size,
        activation: Activation::Silu,
        routing: Routing { normalised, ..Routing::new(c.need("num_experts_per_tok")?, score) },
        gated: true,
        shared: None,
    })
}
