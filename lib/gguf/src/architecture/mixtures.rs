//! Mixtures of experts other than Mixtral's and Qwen's: DeepSeek, GLM, ERNIE, MiniMax, Phi.

use serde_json::{Value, json};

use super::config::extended;
use super::decoders::long_rope;
use super::names::{ATTENTION, EXPERTS, MIXTRAL_EXPERTS, MLP, NORMS, SHARED_EXPERTS};
use super::row::{Architecture, DEFAULT};
use super::transform::{FLAT, Name, SAME, grouped};
use crate::model::Model;
use crate::read::Gguf;

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "deepseek2",
        matches: |gguf| !has_router_bias(gguf),
        layer_names: &[
            MLA,
            NORMS,
            MLP,
            EXPERTS,
            SHARED_EXPERTS,
            &[
                Name("attn_k_b", "self_attn.kv_b_proj", SAME.transposed().merged(keys_and_values)),
                Name("attn_v_b", "self_attn.kv_b_proj", SAME.part(1)),
            ],
        ],
        partial_rotary: true,
        config: deepseek,
        ..DEFAULT
    },
    Architecture {
        gguf: "deepseek2",
        matches: has_router_bias,
        layer_names: &[
            MLA,
            NORMS,
            MLP,
            EXPERTS,
            SHARED_EXPERTS,
            &[
                Name("attn_k_b", "self_attn.embed_q", SAME),
                Name("attn_v_b", "self_attn.unembed_out", SAME),
            ],
        ],
        partial_rotary: true,
        config: deepseek,
        ..DEFAULT
    },
    Architecture {
        gguf: "glm4moe",
        layer_names: &[
            ATTENTION,
            MLP,
            EXPERTS,
            SHARED_EXPERTS,
            &[
                Name("attn_norm", "input_layernorm", SAME),
                Name("post_attention_norm", "post_attention_layernorm", SAME),
            ],
        ],
        partial_rotary: true,
        config: glm4,
        ..DEFAULT
    },
    Architecture {
        gguf: "ernie4_5-moe",
        // The bias that balanced the experts in training is not used.
        layer_names: &[
            &[Name("exp_probs_b.bias", "", FLAT)],
            NORMS,
            ATTENTION,
            MLP,
            EXPERTS,
            SHARED_EXPERTS,
        ],
        config: ernie,
        ..DEFAULT
    },
    Architecture {
        gguf: "minimax-m2",
        layer_names: &[NORMS, ATTENTION, MIXTRAL_EXPERTS],
        partial_rotary: true,
        config: minimax,
        ..DEFAULT
    },
    Architecture {
        gguf: "phimoe",
        layer_names: &[NORMS, ATTENTION, MIXTRAL_EXPERTS],
        config: phi,
        ..DEFAULT
    },
];

/// Multi-head latent attention (MLA).
const MLA: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", SAME),
    Name("attn_q_a", "self_attn.q_a_proj", SAME),
    Name("attn_q_a_norm", "self_attn.q_a_layernorm", SAME),
    Name("attn_q_b", "self_attn.q_b_proj", SAME),
    Name("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", SAME),
    Name("attn_kv_a_norm", "self_attn.kv_a_layernorm", SAME),
    Name("attn_kv_b", "self_attn.kv_b_proj", SAME),
    Name("attn_output", "self_attn.o_proj", SAME),
];

/// True if the router scores experts by sigmoid (DeepSeek V3) and not by softmax: it has a bias
/// then.
fn has_router_bias(gguf: &Gguf) -> bool {
    gguf.tensors.iter().any(|tensor| tensor.name.contains(".exp_probs_b"))
}

/// Order of rows with keys and values of each head together.
fn keys_and_values(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let values = model.need_size("attention.value_length_mla")?;
    let keys = (rows / model.heads.max(1)).saturating_sub(values);
    grouped(model.heads, &[keys, values], rows)
}

fn deepseek(model: &Model) -> Result<Value, String> {
    let is_v3 = model.any_has("exp_probs_b.bias");
    let mut own = deepseek_attention(model)?;
    if model.is_mixture()? {
        own = extended(own, deepseek_experts(model, is_v3)?);
    }
    if let Some(scaling) = deepseek_rope_scaling(model)? {
        own["rope_scaling"] = scaling;
    }
    match is_v3 {
        true => model.config("deepseek_v3", "DeepseekV3ForCausalLM", own),
        false => model.config("deepseek_v2", "DeepseekV2ForCausalLM", own),
    }
}

/// Fields of multi-head latent attention.
fn deepseek_attention(model: &Model) -> Result<Value, String> {
    let rotated = model.rope.rotated;
    let key = model.size("attention.key_length_mla")?.unwrap_or(model.head);
    let value = match model.size("attention.value_length_mla")? {
        Some(value) => value,
        None => model.need_size("attention.value_length")?,
    };
    Ok(json!({
        "num_key_value_heads": model.heads,
        "head_dim": null,
        "partial_rotary_factor": null,
        "kv_lora_rank": model.need_size("attention.kv_lora_rank")?,
        "q_lora_rank": model.size("attention.q_lora_rank")?,
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": key.saturating_sub(rotated),
        "v_head_dim": value,
        "attention_bias": false,
    }))
}

/// Fields of the mixture of experts of DeepSeek V2 or V3.
fn deepseek_experts(model: &Model, is_v3: bool) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let groups = model.size("expert_group_count")?.unwrap_or(1);
    let method = match (is_v3, groups) {
        (true, _) => "noaux_tc",
        (false, 1) => "greedy",
        (false, _) => "group_limited_greedy",
    };
    Ok(json!({
        "n_routed_experts": count,
        "num_experts_per_tok": used,
        "n_shared_experts": model.size("expert_shared_count")?,
        "moe_intermediate_size": model.need_size("expert_feed_forward_length")?,
        "routed_scaling_factor": model.find::<f64>("expert_weights_scale")?.unwrap_or(1.0),
        "first_k_dense_replace": model.integer("leading_dense_block_count")?.unwrap_or(0),
        "moe_layer_freq": 1,
        "n_group": groups,
        "topk_group": model.size("expert_group_used_count")?.unwrap_or(1),
        "norm_topk_prob": model.find::<bool>("expert_weights_norm")?.unwrap_or(is_v3),
        "scoring_func": if is_v3 { "sigmoid" } else { "softmax" },
        "topk_method": method,
    }))
}

/// YaRN scaling with DeepSeek's `mscale`; `None` if the file has no scaling.
fn deepseek_rope_scaling(model: &Model) -> Result<Option<Value>, String> {
    let Some(mut scaling) = model.rope.scaling.clone() else {
        return Ok(None);
    };
    // The file has a tenth of mscale_all_dim, which equals mscale.
    if let Some(scale) = model.find::<f64>("rope.scaling.yarn_log_multiplier")? {
        scaling["mscale"] = (scale * 10.0).into();
        scaling["mscale_all_dim"] = (scale * 10.0).into();
    }
    scaling["type"] = "yarn".into();
    Ok(Some(scaling))
}

fn glm4(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let own = json!({
        "moe_intermediate_size": model.need_size("expert_feed_forward_length")?,
        "norm_topk_prob": model.find::<bool>("expert_weights_norm")?.unwrap_or(true),
        "n_group": model.size("expert_group_count")?.unwrap_or(1),
        "topk_group": model.size("expert_group_used_count")?.unwrap_or(1),
        "n_shared_experts": model.size("expert_shared_count")?.unwrap_or(1),
        "n_routed_experts": count,
        "num_experts_per_tok": used,
        "routed_scaling_factor": model.find::<f64>("expert_weights_scale")?.unwrap_or(1.0),
        "first_k_dense_replace": model.integer("leading_dense_block_count")?.unwrap_or(0),
        "use_qk_norm": model.has(0, "attn_q_norm"),
        "partial_rotary_factor": model.rotary_factor(),
    });
    let mut config = model.config("glm4_moe", "Glm4MoeForCausalLM", own)?;
    if model.rope.scaling.is_none() {
        config["rope_scaling"] = Value::Null;
    }
    Ok(config)
}

fn ernie(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let inner = model.need_size("expert_feed_forward_length")?;
    let shared = model.integer("expert_shared_count")?.unwrap_or(0);
    let first = model.integer("leading_dense_block_count")?.unwrap_or(0);
    let own = json!({
        "use_bias": model.has(0, "ffn_up.bias"),
        "moe_num_experts": count,
        "moe_k": used,
        "moe_intermediate_size": inner,
        "moe_num_shared_experts": shared,
        "moe_layer_start_index": first,
        "moe_layer_end_index": model.layers.saturating_sub(1),
        "moe_layer_interval": model.size("interleave_moe_layer_step")?.unwrap_or(1),
        "moe_gate_act": "softmax",
        "moe_use_aux_free": true,
    });
    model.config("ernie4_5_moe", "Ernie4_5_MoeForCausalLM", own)
}

fn minimax(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let own = json!({
        "intermediate_size": model.need_size("expert_feed_forward_length")?,
        "num_local_experts": count,
        "num_experts_per_tok": used,
        "shared_intermediate_size": 0,
        "rotary_dim": model.rope.rotated,
        "partial_rotary_factor": null,
        "scoring_func": "sigmoid",
        "use_qk_norm": model.has(0, "attn_q_norm"),
    });
    model.config("minimax_m2", "MiniMaxM2ForCausalLM", own)
}

fn phi(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let mut own = long_rope(model)?;
    own["num_local_experts"] = count.into();
    own["num_experts_per_tok"] = used.into();
    own["lm_head_bias"] = true.into();
    if let Some(scale) = model.find::<f64>("rope.scaling.attn_factor")? {
        own["rope_scaling"]["short_mscale"] = scale.into();
        own["rope_scaling"]["long_mscale"] = scale.into();
    }
    model.config("phimoe", "PhimoeForCausalLM", own)
}
