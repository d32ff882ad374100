//! Gemma.

use serde_json::{Value, json};

use super::llama::{layer_types, nested};
use super::moves::{AS, FLAT, LESS, Name};
use super::names::{ATTENTION, MLP};
use super::{Architecture, USUAL};
use crate::model::Model;
use crate::rope;

/// Norms that MLX adds one to.
const ENDS: &[Name] = &[
    Name("token_embd", "model.embed_tokens", AS),
    Name("output_norm", "model.norm", LESS),
    Name("output", "lm_head", AS),
];

const FOUR_NORMS: &[Name] = &[
    Name("attn_norm", "input_layernorm", LESS),
    Name("post_attention_norm", "post_attention_layernorm", LESS),
    Name("ffn_norm", "pre_feedforward_layernorm", LESS),
    Name("post_ffw_norm", "post_feedforward_layernorm", LESS),
];

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "gemma",
        ends: &[ENDS],
        names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm", "input_layernorm", LESS),
                Name("ffn_norm", "post_attention_layernorm", LESS),
            ],
        ],
        config: |m| {
            m.config("gemma", "GemmaForCausalLM", json!({ "hidden_act": "gelu_pytorch_tanh" }))
        },
        ..USUAL
    },
    Architecture {
        gguf: "gemma2",
        ends: &[ENDS],
        names: &[ATTENTION, MLP, FOUR_NORMS],
        config: gemma2,
        ..USUAL
    },
    Architecture {
        gguf: "gemma3",
        ends: &[ENDS],
        names: &[
            FOUR_NORMS,
            &[
                Name("attn_q_norm", "self_attn.q_norm", LESS),
                Name("attn_k_norm", "self_attn.k_norm", LESS),
            ],
            ATTENTION,
            MLP,
        ],
        config: gemma3,
        ..USUAL
    },
    Architecture {
        gguf: "gemma3n",
        root: "model.language_model.",
        layers: "model.language_model.layers",
        ends: &[&[
            Name("token_embd", "embed_tokens", AS),
            Name("output_norm", "norm", AS),
            Name("per_layer_token_embd", "embed_tokens_per_layer", AS),
            Name("per_layer_model_proj", "per_layer_model_projection", AS),
            Name("per_layer_proj_norm", "per_layer_projection_norm", AS),
            Name(
                "altup_proj",
                "altup_projections.0|altup_projections.1|altup_projections.2",
                AS.split(squares),
            ),
            Name(
                "altup_unembd_proj",
                "altup_unembed_projections.0|altup_unembed_projections.1|altup_unembed_projections.2",
                AS.split(squares),
            ),
        ]],
        names: &[ATTENTION, MLP, PER_LAYER, THREE_N],
        config: gemma3n,
        ..USUAL
    },
    Architecture {
        gguf: "gemma4",
        ends: &[&[
            Name("token_embd", "model.embed_tokens", AS),
            Name("output_norm", "model.norm", AS),
            Name("output", "lm_head", AS),
            Name("per_layer_token_embd", "model.embed_tokens_per_layer", AS),
            Name("per_layer_model_proj", "model.per_layer_model_projection", AS),
            Name("per_layer_proj_norm", "model.per_layer_projection_norm", AS),
        ]],
        names: &[ATTENTION, MLP, PER_LAYER, FOUR],
        factors: false,
        config: gemma4,
        ..USUAL
    },
];

/// Norms, and what each layer gets of the text anew.
const PER_LAYER: &[Name] = &[
    Name("attn_norm", "input_layernorm", AS),
    Name("post_attention_norm", "post_attention_layernorm", AS),
    Name("ffn_norm", "pre_feedforward_layernorm", AS),
    Name("post_ffw_norm", "post_feedforward_layernorm", AS),
    Name("inp_gate", "per_layer_input_gate", AS),
    Name("proj", "per_layer_projection", AS),
    Name("post_norm", "post_per_layer_input_norm", AS),
];

const THREE_N: &[Name] = &[
    Name("altup_correct_scale.weight", "altup.correct_output_scale", AS),
    Name("altup_correct_coef", "altup.correction_coefs", AS),
    Name("altup_predict_coef", "altup.prediction_coefs", AS),
    Name("altup_router", "altup.modality_router", AS),
    Name("altup_router_norm", "altup.router_norm", AS),
    Name("laurel_l", "laurel.linear_left", AS),
    Name("laurel_r", "laurel.linear_right", AS),
    Name("laurel_post_norm", "laurel.post_laurel_norm", AS),
];

const FOUR: &[Name] = &[
    Name("layer_output_scale.weight", "layer_scalar", FLAT),
    Name("ffn_gate_inp", "router.proj", AS),
    Name("ffn_gate_inp.scale", "router.scale", FLAT),
    Name("ffn_down_exps.scale", "router.per_expert_scale", FLAT),
    Name("ffn_gate_up_exps", "experts.switch_glu.gate_proj|experts.switch_glu.up_proj", AS),
    Name("ffn_gate_exps", "experts.switch_glu.gate_proj", AS),
    Name("ffn_up_exps", "experts.switch_glu.up_proj", AS),
    Name("ffn_down_exps", "experts.switch_glu.down_proj", AS),
    Name("post_ffw_norm_1", "post_feedforward_layernorm_1", AS),
    Name("post_ffw_norm_2", "post_feedforward_layernorm_2", AS),
    Name("pre_ffw_norm_2", "pre_feedforward_layernorm_2", AS),
];

/// The rows of square matrices, three of which are kept in one.
fn squares(model: &Model) -> Vec<usize> {
    vec![model.hidden; 3]
}

/// What attention is scaled by: not in the file, and another in the largest model of each kind.
fn scalar(model: &Model, largest: usize) -> usize {
    if model.layers == largest { model.hidden / model.heads.max(1) } else { model.head }
}

fn gemma2(model: &Model) -> Result<Value, String> {
    let own = json!({
        "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar(model, 46),
        "attn_logit_softcapping": model.find::<f64>("attn_logit_softcapping")?.unwrap_or(50.0),
        "final_logit_softcapping": model.find::<f64>("final_logit_softcapping")?.unwrap_or(30.0),
        "sliding_window": model.size("attention.sliding_window")?.unwrap_or(4096),
    });
    model.config("gemma2", "Gemma2ForCausalLM", own)
}

fn gemma3(model: &Model) -> Result<Value, String> {
    let own = json!({
        "hidden_act": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar(model, 62),
        "sliding_window": model.size("attention.sliding_window")?.unwrap_or(1024),
        // Not in the file: every sixth layer sees everything.
        "sliding_window_pattern": 6,
        "rope_theta": model.find::<f64>("rope.freq_base")?.unwrap_or(1e6),
        "rope_local_base_freq": model.find::<f64>("rope.freq_base_swa")?.unwrap_or(1e4),
    });
    model.config("gemma3_text", "Gemma3ForCausalLM", own)
}

fn gemma3n(model: &Model) -> Result<Value, String> {
    let inner = model.each("feed_forward_length")?.unwrap_or_default();
    let inner = match inner[..] {
        [one] => vec![one; model.layers],
        _ => inner,
    };
    let own = json!({
        "intermediate_size": inner,
        "num_kv_shared_layers": model.whole("attention.shared_kv_layers")?.unwrap_or(0),
        "vocab_size_per_layer_input": model.rows("per_layer_token_embd.weight")?,
        "sliding_window": model.need_size("attention.sliding_window")?,
        "rope_theta": model.find::<f64>("rope.freq_base")?.unwrap_or(1e6),
        "rope_local_base_freq": model.find::<f64>("rope.freq_base_swa")?.unwrap_or(1e4),
        "final_logit_softcapping": model.find::<f64>("final_logit_softcapping")?.unwrap_or(30.0),
        "layer_types": layer_types(model, 5)?,
        "activation_sparsity_pattern": sparsity(model)?,
        "hidden_size_per_layer_input": model.need_size("embedding_length_per_layer_input")?,
        "altup_num_inputs": model.need_size("altup.num_inputs")?,
        "altup_active_idx": model.whole("altup.active_idx")?.unwrap_or(0),
        "altup_coef_clip": 120.0,
        "altup_correct_scale": true,
        "laurel_rank": model.rows("blk.0.laurel_l.weight")?,
    });
    let text = model.config("gemma3n_text", "Gemma3nForConditionalGeneration", own)?;
    Ok(nested("gemma3n", text))
}

/// The part of a feed-forward layer that rests: the file has the quantile of it instead.
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
    let local = model.size("attention.key_length_swa")?.unwrap_or(model.head);
    let kinds = layer_types(model, 6)?;
    let heads = model.each("attention.head_count_kv")?.unwrap_or_else(|| vec![model.kv_heads]);
    let of = |kind: &str| {
        let layer = kinds.iter().position(|other| *other == kind);
        layer.and_then(|layer| heads.get(layer).or(heads.last()).copied())
    };
    let inner = model.each("feed_forward_length")?.unwrap_or_default();
    let (first, last) = (inner.first().copied().unwrap_or(0), inner.last().copied().unwrap_or(0));
    let full = kinds.iter().position(|kind| *kind == "full_attention");
    let mut own = json!({
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": first,
        "use_double_wide_mlp": last == 2 * first,
        "head_dim": local,
        "global_head_dim": model.head,
        "num_key_value_heads": of("sliding_attention").unwrap_or(model.kv_heads),
        "num_global_key_value_heads": of("full_attention"),
        "num_kv_shared_layers": model.whole("attention.shared_kv_layers")?.unwrap_or(0),
        "hidden_size_per_layer_input": model.whole("embedding_length_per_layer_input")?.unwrap_or(0),
        "vocab_size_per_layer_input": model.vocabulary,
        "attention_k_eq_v": full.is_some_and(|layer| !model.has(layer, "attn_v")),
        "sliding_window": model.need_size("attention.sliding_window")?,
        "layer_types": kinds,
        "final_logit_softcapping": model.find::<f64>("final_logit_softcapping")?,
        "rope_theta": null,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional",
                "rope_theta": model.rope.theta,
                "partial_rotary_factor": rope::proportion(model)?.unwrap_or(1.0),
            },
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": model.find::<f64>("rope.freq_base_swa")?.unwrap_or(1e4),
            },
        },
        "enable_moe_block": model.is_mixture()?,
    });
    if model.is_mixture()? {
        let (count, used) = model.experts()?;
        own["num_experts"] = count.into();
        own["top_k_experts"] = used.into();
        own["moe_intermediate_size"] = model.need_size("expert_feed_forward_length")?.into();
    }
    model.config("gemma4_text", "Gemma4ForCausalLM", own)
}
