//! Ling (arXiv 2503.05139), which calls itself Bailing: a llama whose experts are chosen in one of
//! several ways, as the file says.

use mlxk_core::Result;
use serde_json::{Value, json};

use super::config::{Config, renamed};
use super::decoder::Decoder;
use super::{Language, deepseek, llama};
use crate::mixture::Score;
use crate::weights::Cursor;

/// A bailing_moe.
pub fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [
        ("num_experts", "n_routed_experts"),
        ("num_shared_experts", "n_shared_experts"),
        ("score_function", "scoring_func"),
    ];
    let mut c = Config::read_or(&renamed(config, &names), json!({"topk_group": 4}))?;
    if let Some(dims) = c.get::<f64>("rotary_dim")? {
        c.partial_rotary_factor = Some(dims / c.head_dim() as f64);
    }
    deepseek::leave_further_layers(&mut w, c.num_hidden_layers);
    w.rename(&[
        ("embed_tokens", "word_embeddings"),
        ("self_attn", "attention"),
        ("qkv_proj", "query_key_value"),
        ("q_norm", "query_layernorm"),
        ("k_norm", "key_layernorm"),
        ("o_proj", "dense"),
        ("gate", "gate.gate_proj"),
        ("gate.gate_proj.e_score_correction_bias", "gate.expert_bias"),
        ("shared_expert", "shared_experts"),
    ]);
    let mut moe = deepseek::moe(&c, deepseek::score(&c, Score::Softmax)?, 2)?;
    let inner: Option<usize> = c.get("moe_shared_expert_intermediate_size")?;
    if let (Some(inner), Some(shared)) = (inner, &mut moe.shared) {
        shared.mlp.inner = inner.saturating_mul(c.need("n_shared_experts")?);
    }
    let mut arch = llama::arch(&c, None, false)?;
    arch.heads.fused = Some(1);
    let dense: usize = c.need("first_k_dense_replace")?;
    Decoder::load(arch.with_moe(&moe, |i| i >= dense), w)
}
