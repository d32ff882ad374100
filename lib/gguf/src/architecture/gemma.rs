//! Gemma 1 to 4.

use serde_json::{Value, json};

use super::config::{extended, layer_types, nested};
use super::names::{ATTENTION, MLP};
use super::row::{Architecture, DEFAULT};
use super::transform::{FLAT, MINUS_ONE, Name, SAME};
use crate::model::Model;
use crate::rope;

/// Tensors outside the layers; MLX adds one to the weight of the norm.
const OUTER: &[Name] = &[
    Name("token_embd", "model.embed_tokens", SAME),
    Name("output_norm", "model.norm", MINUS_ONE),
    Name("output", "lm_head", SAME),
];

/// Norms before and after attention, and before and after the feed-forward layer.
const FOUR_NORMS: &[Name] = &[
    Name("attn_norm", "input_layernorm", MINUS_ONE),
    Name("post_attention_norm", "post_attention_layernorm", MINUS_ONE),
    Name("ffn_norm", "pre_feedforward_layernorm", MINUS_ONE),
    Name("post_ffw_norm", "post_feedforward_layernorm", MINUS_ONE),
];

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "gemma",
        outer_names: &[OUTER],
        layer_names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm", "input_layernorm", MINUS_ONE),
                Name("ffn_norm", "post_attention_layernorm", MINUS_ONE),
            ],
        ],
        config: |m| {
            m.config("gemma", "GemmaForCausalLM", json!({ "hidden_act": "gelu_pytorch_tanh" }))
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "gemma2",
        outer_names: &[OUTER],
        layer_names: &[ATTENTION, MLP, FOUR_NORMS],
        config: gemma2,
        ..DEFAULT
    },
    Architecture {
        gguf: "gemma3",
        outer_names: &[OUTER],
        layer_names: &[
            FOUR_NORMS,
            &[
                Name("attn_q_norm", "self_attn.q_norm", MINUS_ONE),
                Name("attn_k_norm", "self_attn.k_norm", MINUS_ONE),
            ],
            ATTENTION,
            MLP,
        ],
        config: gemma3,
        ..DEFAULT
    },
    Architecture {
        gguf: "gemma3n",
        outer_prefix: "model.language_model.",
        layer_prefix: "model.language_model.layers",
        outer_names: &[&[
            Name("token_embd", "embed_tokens", SAME),
            Name("output_norm", "norm", SAME),
            Name("per_layer_token_embd", "embed_tokens_per_layer", SAME),
            Name("per_layer_model_proj", "per_layer_model_projection", SAME),
            Name("per_layer_proj_norm", "per_layer_projection_norm", SAME),
            Name(
                "altup_proj",
                "altup_projections.0|altup_projections.1|altup_projections.2",
                SAME.split(altup_rows),
            ),
            Name(
                "altup_unembd_proj",
                "altup_unembed_projections.0|altup_unembed_projections.1|altup_unembed_projections.2",
                SAME.split(altup_rows),
            ),
        ]],
        layer_names: &[ATTENTION, MLP, PER_LAYER, GEMMA3N],
        config: gemma3n,
        ..DEFAULT
    },
    Architecture {
        gguf: "gemma4",
        outer_names: &[&[
            Name("token_embd", "model.embed_tokens", SAME),
            Name("output_norm", "model.norm", SAME),
            Name("output", "lm_head", SAME),
            Name("per_layer_token_embd", "model.embed_tokens_per_layer", SAME),
            Name("per_layer_model_proj", "model.per_layer_model_projection", SAME),
            Name("per_layer_proj_norm", "model.per_layer_projection_norm", SAME),
        ]],
        layer_names: &[ATTENTION, MLP, PER_LAYER, GEMMA4],
        llama3_factors: false,
        config: gemma4,
        ..DEFAULT
    },
];

/// Norms, and the per-layer input embeddings.
const PER_LAYER: &[Name] = &[
    Name("attn_norm", "input_layernorm", SAME),
    Name("post_attention_norm", "post_attention_layernorm", SAME),
    Name("ffn_norm", "pre_feedforward_layernorm", SAME),
    Name("post_ffw_norm", "post_feedforward_layernorm", SAME),
    Name("inp_gate", "per_layer_input_gate", SAME),
    Name("proj", "per_layer_projection", SAME),
    Name("post_norm", "post_per_layer_input_norm", SAME),
];

const GEMMA3N: &[Name] = &[
    Name("altup_correct_scale.weight", "altup.correct_output_scale", SAME),
    Name("altup_correct_coef", "altup.correction_coefs", SAME),
    Name("altup_predict_coef", "altup.prediction_coefs", SAME),
    Name("altup_router", "altup.modality_router", SAME),
    Name("altup_router_norm", "altup.router_norm", SAME),
    Name("laurel_l", "laurel.linear_left", SAME),
    Name("laurel_r", "laurel.linear_right", SAME),
    Name("laurel_post_norm", "laurel.post_laurel_norm", SAME),
];

const GEMMA4: &[Name] = &[
    Name("layer_output_scale.weight", "layer_scalar", FLAT),
    Name("ffn_gate_inp", "router.proj", SAME),
    Name("ffn_gate_inp.scale", "router.scale", FLAT),
    Name("ffn_down_exps.scale", "router.per_expert_scale", FLAT),
    Name("ffn_gate_up_exps", "experts.switch_glu.gate_proj|experts.switch_glu.up_proj", SAME),
    Name("ffn_gate_exps", "experts.switch_glu.gate_proj", SAME),
    Name("ffn_up_exps", "experts.switch_glu.up_proj", SAME),
    Name("ffn_down_exps", "experts.switch_glu.down_proj", SAME),
    Name("post_ffw_norm_1", "post_feedforward_layernorm_1", SAME),
    Name("post_ffw_norm_2", "post_feedforward_layernorm_2", SAME),
    Name("pre_ffw_norm_2", "pre_feedforward_layernorm_2", SAME),
];

/// Rows of the three square AltUp projections that GGUF keeps in one tensor.
fn altup_rows(model: &Model) -> Vec<usize> {
    vec![model.hidden; 3]
}

/// Value of `query_pre_attn_scalar`, which is not in the file: the head size, except in the largest
/// model of a generation, which has `largest` layers.
fn attention_scalar(model: &Model, largest: usize) -> usize {
    if model.layers == largest { model.hidden / model.heads.max(1) } else { model.head }
}

fn gemma2(model: &Model) -> Result<Value, String> {
    let own = json!({
        "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": attention_scalar(model, 46),
        "attn_logit_softcapping": model.find::<f64>("attn_logit_softcapping")?.unwrap_or(50.0),
        "final_logit_softcapping": model.find::<f64>("final_logit_softcapping")?.unwrap_or(30.0),
        "sliding_window": model.size("attention.sliding_window")?.unwrap_or(4096),
    });
    model.config("gemma2", "Gemma2ForCausalLM", own)
}

fn gemma3(model: &Model) -> Result<Value, String> {
    let own = json!({
        "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": attention_scalar(model, 62),
        "sliding_window": model.size("attention.sliding_window")?.unwrap_or(1024),
        // Not in the file: every sixth layer has full attention.
        "sliding_window_pattern": 6,
        "rope_theta": model.find::<f64>("rope.freq_base")?.unwrap_or(1e6),
        "rope_local_base_freq": model.find::<f64>("rope.freq_base_swa")?.unwrap_or(1e4),
    });
    model.config("gemma3_text", "Gemma3ForCausalLM", own)
}

fn gemma3n(model: &Model) -> Result<Value, String> {
    let inner = model.per_layer("feed_forward_length")?.unwrap_or_default();
    let inner = match inner[..] {
        [one] => vec![one; model.layers],
        _ => inner,
    };
    let own = json!({
        "intermediate_size": inner,
        "num_kv_shared_layers": model.integer("attention.shared_kv_layers")?.unwrap_or(0),
        "vocab_size_per_layer_input": model.rows("per_layer_token_embd.weight")?,
        "sliding_window": model.need_size("attention.sliding_window")?,
        "rope_theta": model.find::<f64>("rope.freq_base")?.unwrap_or(1e6),
        "rope_local_base_freq": model.find::<f64>("rope.freq_base_swa")?.unwrap_or(1e4),
        "final_logit_softcapping": model.find::<f64>("final_logit_softcapping")?.unwrap_or(30.0),
        "layer_types": layer_types(model, 5)?,
        "activation_sparsity_pattern": sparsity(model)?,
        "hidden_size_per_layer_input": model.need_size("embedding_length_per_layer_input")?,
        "altup_num_inputs": model.need_size("altup.num_inputs")?,
        "altup_active_idx": model.integer("altup.active_idx")?.unwrap_or(0),
        "altup_coef_clip": 120.0,
        "altup_correct_scale": true,
        "laurel_rank": model.rows("blk.0.laurel_l.weight")?,
    });
    let text = model.config("gemma3n_text", "Gemma3nForConditionalGeneration", own)?;
    Ok(nested("gemma3n", text))
}

/// Activation sparsity of each feed-forward layer, computed from the file's normal quantile of it.
fn sparsity(model: &Model) -> Result<Vec<f64>, String> {
    const KEY: &str = "activation_sparsity_scale";
    let scales: &[f64] = model.need(KEY)?;
    let part = |scale: &f64| match *scale {
        x if x == f64::NEG_INFINITY => Ok(0.0),
        x if (x - 1.644_853_6).abs() < 1e-5 => Ok(0.95),
        x => Err(format!("`{}` has {x}, which is not that of 0 or 0.95", model.key(KEY))),
    };
    scales.iter().take(model.layers).map(part).collect()
}

fn gemma4(model: &Model) -> Result<Value, String> {
    let kinds = layer_types(model, 6)?;
    let full = kinds.iter().position(|kind| *kind == "full_attention");
    let inner = model.per_layer("feed_forward_length")?.unwrap_or_default();
    let (first, last) = (inner.first().copied().unwrap_or(0), inner.last().copied().unwrap_or(0));
    let own = json!({
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": first,
        "use_double_wide_mlp": last == 2 * first,
        "head_dim": model.size("attention.key_length_swa")?.unwrap_or(model.head),
        "global_head_dim": model.head,
        "num_key_value_heads": gemma4_kv_heads(model, &kinds, "sliding_attention")?.unwrap_or(model.kv_heads),
        "num_global_key_value_heads": gemma4_kv_heads(model, &kinds, "full_attention")?,
        "num_kv_shared_layers": model.integer("attention.shared_kv_layers")?.unwrap_or(0),
        "hidden_size_per_layer_input": model.integer("embedding_length_per_layer_input")?.unwrap_or(0),
        "vocab_size_per_layer_input": model.vocabulary,
        "attention_k_eq_v": full.is_some_and(|layer| !model.has(layer, "attn_v")),
        "sliding_window": model.need_size("attention.sliding_window")?,
        "layer_types": kinds,
        "final_logit_softcapping": model.find::<f64>("final_logit_softcapping")?,
        "rope_theta": null,
        "rope_parameters": gemma4_rope(model)?,
        "enable_moe_block": model.is_mixture()?,
    });
    let own = match model.is_mixture()? {
        true => extended(own, gemma4_experts(model)?),
        false => own,
    };
    model.config("gemma4_text", "Gemma4ForCausalLM", own)
}

/// Number of key/value heads in the layers of `kind`; `None` if there is no such layer.
fn gemma4_kv_heads(model: &Model, kinds: &[&str], kind: &str) -> Result<Option<usize>, String> {
    let heads = model.per_layer("attention.head_count_kv")?;
    let heads = heads.unwrap_or_else(|| vec![model.kv_heads]);
    let layer = kinds.iter().position(|other| *other == kind);
    Ok(layer.and_then(|layer| heads.get(layer).or(heads.last()).copied()))
}

/// Rotary positions of full and of sliding attention.
fn gemma4_rope(model: &Model) -> Result<Value, String> {
    Ok(json!({
        "full_attention": {
            "rope_type": "proportional",
            "rope_theta": model.rope.theta,
            "partial_rotary_factor": rope::finite_share(model)?.unwrap_or(1.0),
        },
        "sliding_attention": {
            "rope_type": "default",
            "rope_theta": model.find::<f64>("rope.freq_base_swa")?.unwrap_or(1e4),
        },
    }))
}

/// Fields of a mixture of experts.
fn gemma4_experts(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    Ok(json!({
        "num_experts": count,
        "top_k_experts": used,
        "moe_intermediate_size": model.need_size("expert_feed_forward_length")?,
    }))
}
