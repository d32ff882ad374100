//! Mixtral (arXiv 2401.04088), and models whose mixtures have the same tensor names: Phixtral, Phi
//! 3.5 MoE, MiniMax.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use mlxk_tensor::ops::rope::Rope;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::config::{Config, given, renamed};
use crate::language::Language;
use crate::nn::moe::MoeArch;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec {
        convert: Rules {
            eight: &["block_sparse_moe.gate"],
            keep: &["e_score_correction_bias"],
            ..Rules::NONE
        },
        ..Spec::new(Architecture::MiniMax, load_minimax)
    },
    Spec::new(Architecture::Mixtral, load),
    Spec::new(Architecture::PhiMoe, load_phi),
    Spec {
        experts: ExpertLayout { from: "mlp", up: "fc1", down: "fc2", ..ExpertLayout::DEFAULT },
        ..Spec::new(Architecture::Phixtral, load_phixtral)
    },
];

/// Loads a `mixtral`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read_or(config, json!({"num_local_experts": 8, "num_experts_per_tok": 2}))?;
    w.rename(&[("mlp", "block_sparse_moe")]);
    let arch = llama::arch(&c, Some(1_000_000.0), false)?;
    let moe = moe(&c, Score::Softmax)?;
    Decoder::load(arch.with_moe(&moe, |_| true), w)
}

/// Loads a `phimoe`; its threshold for experts is twice `router_jitter_noise`.
fn load_phi(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
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

/// Loads a `phixtral`: Phi 2 with mixtures of experts parallel to attention.
fn load_phixtral(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [
        ("num_vocab", "vocab_size"),
        ("model_dim", "hidden_size"),
        ("n_embd", "hidden_size"),
        ("num_heads", "num_attention_heads"),
        ("n_head", "num_attention_heads"),
        ("num_layers", "num_hidden_layers"),
        ("n_layer", "num_hidden_layers"),
    ];
    let config = given(
        &renamed(config, &names),
        json!({"vocab_size": 51_200, "hidden_size": 2560, "num_attention_heads": 32,
            "num_hidden_layers": 32, "rotary_dim": 32, "layer_norm_epsilon": 1e-5,
            "num_local_experts": 4, "num_experts_per_tok": 2}),
    );
    let inner = config.get("hidden_size").and_then(Value::as_u64).unwrap_or_default() * 4;
    let c = Config::read_or(&config, json!({"intermediate_size": inner}))?;
    w.rename(&[
        ("lm_head", "lm_head.linear"),
        ("model.norm", "lm_head.ln"),
        ("model", "transformer"),
        ("embed_tokens", "embd.wte"),
        ("layers", "h"),
        ("input_layernorm", "ln"),
        ("self_attn", "mixer"),
        ("qkv_proj", "Wqkv"),
        ("o_proj", "out_proj"),
        ("mlp", "moe"),
        ("up_proj", "fc1"),
        ("down_proj", "fc2"),
    ]);
    let rope = Rope::new(c.rotary(c.need("rotary_dim")?)?, false, 10_000.0, None, None)?;
    let mut arch = llama::base(&c, rope, false, c.layer_norm("layer_norm_epsilon")?)?;
    arch.heads.fused = Some(1);
    let norms = Norms { mlp_in: None, ..Norms::LLAMA };
    let (gated, activation) = (false, Activation::GeluTanh);
    let moe = MoeArch { gated, activation, ..moe(&c, Score::Softmax)? };
    Decoder::load(Arch { parallel: true, norms, ..arch }.with_moe(&moe, |_| true), w)
}

/// Loads a `minimax`, whose heads rotate in part.
fn load_minimax(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
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

/// Mixture of experts as wide as Llama's feed-forward layer, with weights that sum up to one.
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
