//! Mixtures of experts with ways of their own.

use serde_json::{Value, json};

use super::decoders::long_rope;
use super::moves::{AS, FLAT, Name, dealt};
use super::names::{ATTENTION, EXPERTS, MLP, NORMS, SHARED, SPARSE};
use super::{Architecture, USUAL};
use crate::model::Model;
use crate::read::Gguf;

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "deepseek2",
        is: |gguf| !sigmoid(gguf),
        names: &[
            LATENT,
            NORMS,
            MLP,
            EXPERTS,
            SHARED,
            &[
                Name("attn_k_b", "self_attn.kv_b_proj", AS.turned().joined(keys_and_values)),
                Name("attn_v_b", "self_attn.kv_b_proj", AS.part(1)),
            ],
        ],
        partial: true,
        config: deepseek,
        ..USUAL
    },
    Architecture {
        gguf: "deepseek2",
        is: sigmoid,
        names: &[
            LATENT,
            NORMS,
            MLP,
            EXPERTS,
            SHARED,
            &[
                Name("attn_k_b", "self_attn.embed_q", AS),
                Name("attn_v_b", "self_attn.unembed_out", AS),
            ],
        ],
        partial: true,
        config: deepseek,
        ..USUAL
    },
    Architecture {
        gguf: "glm4moe",
        names: &[
            ATTENTION,
            MLP,
            EXPERTS,
            SHARED,
            &[
                Name("attn_norm", "input_layernorm", AS),
                Name("post_attention_norm", "post_attention_layernorm", AS),
            ],
        ],
        partial: true,
        config: glm4,
        ..USUAL
    },
    Architecture {
        gguf: "ernie4_5-moe",
        // What kept experts busy in training has no use.
        names: &[&[Name("exp_probs_b.bias", "", FLAT)], NORMS, ATTENTION, MLP, EXPERTS, SHARED],
        config: ernie,
        ..USUAL
    },
    Architecture {
        gguf: "minimax-m2",
        names: &[NORMS, ATTENTION, SPARSE],
        partial: true,
        config: minimax,
        ..USUAL
    },
    Architecture { gguf: "phimoe", names: &[NORMS, ATTENTION, SPARSE], config: phi, ..USUAL },
];

/// Attention over latent vectors.
const LATENT: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", AS),
    Name("attn_q_a", "self_attn.q_a_proj", AS),
    Name("attn_q_a_norm", "self_attn.q_a_layernorm", AS),
    Name("attn_q_b", "self_attn.q_b_proj", AS),
    Name("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", AS),
    Name("attn_kv_a_norm", "self_attn.kv_a_layernorm", AS),
    Name("attn_kv_b", "self_attn.kv_b_proj", AS),
    Name("attn_output", "self_attn.o_proj", AS),
];

/// Whether experts are judged one by one, as DeepSeek V3 does, and not against each other.
fn sigmoid(gguf: &Gguf) -> bool {
    gguf.tensors.iter().any(|tensor| tensor.name.contains(".exp_probs_b"))
}

/// Keys and values of each head together.
fn keys_and_values(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let values = model.need_size("attention.value_length_mla")?;
    let keys = (rows / model.heads.max(1)).saturating_sub(values);
    dealt(model.heads, &[keys, values], rows)
}

fn deepseek(model: &Model) -> Result<Value, String> {
    let rotated = model.rope.rotated;
    let key = match model.size("attention.key_length_mla")? {
        Some(key) => key,
        None => model.head,
    };
    let value = match model.size("attention.value_length_mla")? {
        Some(value) => value,
        None => model.need_size("attention.value_length")?,
    };
    let judged_alone = (model.architecture.is)(model.gguf());
    let third = judged_alone && model.any("exp_probs_b.bias");
    let mut own = json!({
        "num_key_value_heads": model.heads,
        "head_dim": null,
        "partial_rotary_factor": null,
        "kv_lora_rank": model.need_size("attention.kv_lora_rank")?,
        "q_lora_rank": model.size("attention.q_lora_rank")?,
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": key.saturating_sub(rotated),
        "v_head_dim": value,
        "attention_bias": false,
    });
    if model.is_mixture()? {
        let (count, used) = model.experts()?;
        let groups = model.size("expert_group_count")?.unwrap_or(1);
        own["n_routed_experts"] = count.into();
        own["num_experts_per_tok"] = used.into();
        own["n_shared_experts"] = model.size("expert_shared_count")?.into();
        own["moe_intermediate_size"] = model.need_size("expert_feed_forward_length")?.into();
        own["routed_scaling_factor"] =
            model.find::<f64>("expert_weights_scale")?.unwrap_or(1.0).into();
        own["first_k_dense_replace"] =
            model.whole("leading_dense_block_count")?.unwrap_or(0).into();
        own["moe_layer_freq"] = 1.into();
        own["n_group"] = groups.into();
        own["topk_group"] = model.size("expert_group_used_count")?.unwrap_or(1).into();
        own["norm_topk_prob"] = model.find::<bool>("expert_weights_norm")?.unwrap_or(third).into();
        own["scoring_func"] = if third { "sigmoid" } else { "softmax" }.into();
        own["topk_method"] = match (third, groups) {
            (true, _) => "noaux_tc",
            (false, 1) => "greedy",
            (false, _) => "group_limited_greedy",
        }
        .into();
    }
    if let Some(mut scaling) = model.rope.scaling.clone() {
        // The file keeps a tenth of both factors, which are alike.
        if let Some(scale) = model.find::<f64>("rope.scaling.yarn_log_multiplier")? {
            scaling["mscale"] = (scale * 10.0).into();
            scaling["mscale_all_dim"] = (scale * 10.0).into();
        }
        scaling["type"] = "yarn".into();
        own["rope_scaling"] = scaling;
    }
    match third {
        true => model.config("deepseek_v3", "DeepseekV3ForCausalLM", own),
        false => model.config("deepseek_v2", "DeepseekV2ForCausalLM", own),
    }
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
        "first_k_dense_replace": model.whole("leading_dense_block_count")?.unwrap_or(0),
        "use_qk_norm": model.has(0, "attn_q_norm"),
        "partial_rotary_factor": model.rope.rotated as f64 / model.head as f64,
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
    let shared = model.whole("expert_shared_count")?.unwrap_or(0);
    let first = model.whole("leading_dense_block_count")?.unwrap_or(0);
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
