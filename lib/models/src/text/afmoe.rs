//! Arcee's AFMoE: gated attention, norms before and after each sublayer, rotary embedding only in
//! layers with a sliding window.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::moe_route::Score;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::{deepseek, llama};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::config::{Config, renamed};
use crate::language::Language;
use crate::nn::attention::Gate;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    experts: ExpertLayout { to: "experts", ..ExpertLayout::DEFAULT },
    convert: Rules { eight: &["router.gate"], keep: &["expert_bias"], ..Rules::NONE },
    ..Spec::new(Architecture::Afmoe, load)
}];

/// Loads an `afmoe`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [
        ("num_experts", "n_routed_experts"),
        ("num_shared_experts", "n_shared_experts"),
        ("route_norm", "norm_topk_prob"),
        ("route_scale", "routed_scaling_factor"),
        ("score_func", "scoring_func"),
    ];
    let defaults = json!({"vocab_size": 200_192, "hidden_size": 2048, "intermediate_size": 6144,
        "moe_intermediate_size": 1024, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 64, "rms_norm_eps": 1e-5, "n_routed_experts": 128,
        "num_experts_per_tok": 8, "n_shared_experts": 1, "num_dense_layers": 2,
        "norm_topk_prob": true, "routed_scaling_factor": 2.826, "sliding_window": 2048,
        "mup_enabled": true});
    let c = Config::read_or(&renamed(config, &names), defaults)?;
    w.rename(&[
        ("gate.e_score_correction_bias", "expert_bias"),
        ("gate", "router.gate"),
        ("switch_mlp", "experts"),
        ("shared_expert", "shared_experts"),
    ]);
    let norms = Norms {
        attn_out: Some("post_attention_layernorm"),
        mlp_in: Some("pre_mlp_layernorm"),
        mlp_out: Some("post_mlp_layernorm"),
        ..Norms::LLAMA
    };
    let mut arch = Arch { norms, ..llama::arch(&c, Some(10_000.0), false)? };
    arch.heads.gate = Some(Gate::SIGMOID);
    arch.layers.iter_mut().filter(|layer| layer.window.is_none()).for_each(|l| l.rope = None);
    if c.need("mup_enabled")? {
        arch.embed_scale = (c.hidden_size as f32).sqrt();
    }
    let moe = deepseek::moe(&c, deepseek::score(&c, Score::Sigmoid)?, 2)?;
    let dense: usize = c.need("num_dense_layers")?;
    Decoder::load(arch.with_moe(&moe, |i| i >= dense), w)
}
