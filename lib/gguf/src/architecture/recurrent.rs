//! State space models and short convolutions: Mamba, Nemotron-H, Jamba, Falcon-H1, LFM2.

use serde_json::{Value, json};

use super::config::extended;
use super::row::{Architecture, DEFAULT};
use super::transform::{CONV, FLAT, LOG, Name, SAME};
use crate::model::Model;

/// Tensors outside the layers of Mamba and Nemotron-H.
const BACKBONE: &[Name] = &[
    Name("token_embd", "backbone.embeddings", SAME),
    Name("output_norm", "backbone.norm_f", SAME),
    Name("output", "lm_head", SAME),
];

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "mamba",
        layer_prefix: "backbone.layers",
        outer_names: &[BACKBONE],
        layer_names: &[MAMBA, SELECTIVE],
        config: mamba,
        ..DEFAULT
    },
    Architecture {
        gguf: "mamba2",
        layer_prefix: "backbone.layers",
        outer_names: &[BACKBONE],
        layer_names: &[MAMBA, STEP],
        config: mamba2,
        ..DEFAULT
    },
    Architecture { gguf: "nemotron_h", ..NEMOTRON },
    Architecture { gguf: "nemotron_h_moe", ..NEMOTRON },
    Architecture {
        gguf: "jamba",
        outer_names: FINAL_NORM,
        layer_names: &[
            JAMBA,
            ATTENTION_MLP,
            &[
                Name("attn_norm", "input_layernorm", SAME),
                Name("ffn_norm", "pre_ff_layernorm", SAME),
            ],
        ],
        config: jamba,
        ..DEFAULT
    },
    Architecture {
        gguf: "falcon-h1",
        outer_names: FINAL_NORM,
        layer_names: &[
            MAMBA2_BLOCK,
            ATTENTION_MLP,
            &[
                Name("attn_norm", "input_layernorm", SAME),
                // llama.cpp's converter omits `.weight`.
                Name("ffn_norm", "pre_ff_layernorm.weight", SAME),
                Name("ffn_norm.weight", "pre_ff_layernorm.weight", SAME),
            ],
        ],
        config: falcon,
        ..DEFAULT
    },
    Architecture {
        gguf: "lfm2",
        outer_names: EMBEDDING_NORM,
        layer_names: &[
            SHORT_CONV,
            &[
                Name("ffn_gate", "feed_forward.w1", SAME),
                Name("ffn_up", "feed_forward.w3", SAME),
                Name("ffn_down", "feed_forward.w2", SAME),
            ],
        ],
        config: lfm2,
        ..DEFAULT
    },
    Architecture {
        gguf: "lfm2moe",
        outer_names: EMBEDDING_NORM,
        layer_names: &[
            SHORT_CONV,
            &[
                Name("ffn_gate", "feed_forward.gate_proj", SAME),
                Name("ffn_up", "feed_forward.up_proj", SAME),
                Name("ffn_down", "feed_forward.down_proj", SAME),
                Name("ffn_gate_inp", "feed_forward.gate", SAME),
                Name("ffn_gate_exps", "feed_forward.switch_mlp.gate_proj", SAME),
                Name("ffn_up_exps", "feed_forward.switch_mlp.up_proj", SAME),
                Name("ffn_down_exps", "feed_forward.switch_mlp.down_proj", SAME),
                Name("exp_probs_b.bias", "feed_forward.expert_bias", FLAT),
            ],
        ],
        config: lfm2_moe,
        ..DEFAULT
    },
];

const NEMOTRON: Architecture = Architecture {
    layer_prefix: "backbone.layers",
    outer_names: &[BACKBONE],
    layer_names: &[
        MAMBA,
        STEP,
        &[
            Name("attn_q", "mixer.q_proj", SAME),
            Name("attn_k", "mixer.k_proj", SAME),
            Name("attn_v", "mixer.v_proj", SAME),
            Name("attn_output", "mixer.o_proj", SAME),
            Name("ffn_up", "mixer.up_proj", SAME),
            Name("ffn_down", "mixer.down_proj", SAME),
            Name("ffn_gate_inp", "mixer.gate", SAME),
            Name("exp_probs_b.bias", "mixer.gate.e_score_correction_bias", FLAT),
            Name("ffn_up_exps", "mixer.switch_mlp.fc1", SAME),
            Name("ffn_down_exps", "mixer.switch_mlp.fc2", SAME),
            Name("ffn_up_shexp", "mixer.shared_experts.up_proj", SAME),
            Name("ffn_down_shexp", "mixer.shared_experts.down_proj", SAME),
        ],
    ],
    partial_rotary: true,
    config: nemotron,
    ..DEFAULT
};

/// Tensors outside the layers of Jamba and Falcon-H1.
const FINAL_NORM: &[&[Name]] = &[&[
    Name("token_embd", "model.embed_tokens", SAME),
    Name("output_norm", "model.final_layernorm", SAME),
    Name("output", "lm_head", SAME),
]];

/// Tensors outside the layers of LFM2.
const EMBEDDING_NORM: &[&[Name]] = &[&[
    Name("token_embd", "model.embed_tokens", SAME),
    Name("token_embd_norm", "model.embedding_norm", SAME),
    Name("output_norm", "model.embedding_norm", SAME),
]];

const MAMBA: &[Name] = &[
    Name("attn_norm", "norm", SAME),
    Name("ssm_in", "mixer.in_proj", SAME),
    Name("ssm_conv1d.weight", "mixer.conv1d.weight", CONV),
    Name("ssm_conv1d.bias", "mixer.conv1d.bias", FLAT),
    Name("ssm_a", "mixer.A_log", LOG.squeezed()),
    Name("ssm_d", "mixer.D", FLAT),
    Name("ssm_norm", "mixer.norm", FLAT),
    Name("ssm_out", "mixer.out_proj", SAME),
];

/// Selective scan parameters of Mamba 1.
const SELECTIVE: &[Name] =
    &[Name("ssm_x", "mixer.x_proj", SAME), Name("ssm_dt", "mixer.dt_proj", SAME)];

/// Time step bias of Mamba 2.
const STEP: &[Name] = &[Name("ssm_dt.bias", "mixer.dt_bias", FLAT)];

/// Attention and a gated feed-forward layer.
const ATTENTION_MLP: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", SAME),
    Name("attn_k", "self_attn.k_proj", SAME),
    Name("attn_v", "self_attn.v_proj", SAME),
    Name("attn_output", "self_attn.o_proj", SAME),
    Name("ffn_gate", "feed_forward.gate_proj", SAME),
    Name("ffn_up", "feed_forward.up_proj", SAME),
    Name("ffn_down", "feed_forward.down_proj", SAME),
];

const JAMBA: &[Name] = &[
    Name("ssm_in", "mamba.in_proj", SAME),
    Name("ssm_conv1d.weight", "mamba.conv1d.weight", CONV),
    Name("ssm_conv1d.bias", "mamba.conv1d.bias", FLAT),
    Name("ssm_a", "mamba.A_log", LOG),
    Name("ssm_d", "mamba.D", FLAT),
    Name("ssm_x", "mamba.x_proj", SAME),
    Name("ssm_dt", "mamba.dt_proj", SAME),
    Name("ssm_dt_norm", "mamba.dt_layernorm", SAME),
    Name("ssm_b_norm", "mamba.b_layernorm", SAME),
    Name("ssm_c_norm", "mamba.c_layernorm", SAME),
    Name("ssm_out", "mamba.out_proj", SAME),
    Name("ffn_gate_inp", "feed_forward.router", SAME),
    Name("ffn_gate_exps", "feed_forward.switch_mlp.gate_proj", SAME),
    Name("ffn_up_exps", "feed_forward.switch_mlp.up_proj", SAME),
    Name("ffn_down_exps", "feed_forward.switch_mlp.down_proj", SAME),
];

/// Mamba 2 block of Falcon-H1 and Granite.
pub const MAMBA2_BLOCK: &[Name] = &[
    Name("ssm_in", "mamba.in_proj", SAME),
    Name("ssm_conv1d.weight", "mamba.conv1d.weight", CONV),
    Name("ssm_conv1d.bias", "mamba.conv1d.bias", FLAT),
    Name("ssm_a", "mamba.A_log", LOG.flat()),
    Name("ssm_d", "mamba.D", FLAT),
    Name("ssm_norm", "mamba.norm", FLAT),
    Name("ssm_dt.bias", "mamba.dt_bias", FLAT),
    Name("ssm_out", "mamba.out_proj", SAME),
];

/// Short convolutions and attention of LFM2.
const SHORT_CONV: &[Name] = &[
    Name("attn_norm", "operator_norm", SAME),
    Name("ffn_norm", "ffn_norm", SAME),
    Name("attn_q", "self_attn.q_proj", SAME),
    Name("attn_k", "self_attn.k_proj", SAME),
    Name("attn_v", "self_attn.v_proj", SAME),
    Name("attn_output", "self_attn.out_proj", SAME),
    Name("attn_q_norm", "self_attn.q_layernorm", SAME),
    Name("attn_k_norm", "self_attn.k_layernorm", SAME),
    Name("shortconv.conv", "conv.conv", CONV),
    Name("shortconv.in_proj", "conv.in_proj", SAME),
    Name("shortconv.out_proj", "conv.out_proj", SAME),
];

/// Sizes of a state space: convolution kernel, inner width, state size, heads (or time step rank).
pub fn ssm_sizes(model: &Model) -> Result<[usize; 4], String> {
    let keys = ["conv_kernel", "inner_size", "state_size", "time_step_rank"];
    let mut sizes = [0; 4];
    for (size, key) in sizes.iter_mut().zip(keys) {
        *size = model.need_size(&format!("ssm.{key}"))?;
    }
    Ok(sizes)
}

fn mamba(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, rank] = ssm_sizes(model)?;
    let normed = model.find::<bool>("ssm.dt_b_c_rms")?.unwrap_or(false);
    let own = json!({
        "intermediate_size": inner,
        "state_size": state,
        "conv_kernel": kernel,
        "time_step_rank": rank,
        "use_bias": model.has(0, "ssm_in.bias"),
        "use_conv_bias": model.has(0, "ssm_conv1d.bias"),
        "use_bcdt_rms": normed,
        "layer_norm_epsilon": model.epsilon()?,
    });
    match normed {
        true => model.config("falcon_mamba", "FalconMambaForCausalLM", own),
        false => model.config("mamba", "MambaForCausalLM", own),
    }
}

fn mamba2(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, heads] = ssm_sizes(model)?;
    let own = json!({
        "intermediate_size": inner,
        "num_heads": heads,
        "head_dim": inner / heads,
        "state_size": state,
        "conv_kernel": kernel,
        "n_groups": model.need_size("ssm.group_count")?,
        "use_bias": model.has(0, "ssm_in.bias"),
        "use_conv_bias": model.has(0, "ssm_conv1d.bias"),
        "layer_norm_epsilon": model.epsilon()?,
        "time_step_limit": [0.0, 3.0e38],
        "time_step_rank": "auto",
    });
    model.config("mamba2", "Mamba2ForCausalLM", own)
}

fn nemotron(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, heads] = ssm_sizes(model)?;
    let kind = |layer| match () {
        () if model.has(layer, "ssm_a") => "M",
        () if model.has(layer, "attn_q") => "*",
        () if model.has(layer, "ffn_up_exps") => "E",
        () => "-",
    };
    let dense = (0..model.layers).find(|layer| model.has(*layer, "ffn_up"));
    let dense = dense.map(|layer| model.rows(&format!("blk.{layer}.ffn_up.weight"))).transpose()?;
    let mut own = json!({
        "intermediate_size": dense.unwrap_or(model.hidden),
        "mamba_num_heads": heads,
        "mamba_head_dim": inner / heads,
        "ssm_state_size": state,
        "conv_kernel": kernel,
        "n_groups": model.need_size("ssm.group_count")?,
        "layer_norm_epsilon": model.epsilon()?,
        "rms_norm_eps": null,
        "partial_rotary_factor": null,
        "hybrid_override_pattern": (0..model.layers).map(kind).collect::<String>(),
        "mamba_proj_bias": model.any_has("ssm_in.bias"),
        "use_conv_bias": model.any_has("ssm_conv1d.bias"),
        "use_bias": model.any_has("ssm_in.bias"),
        "attention_bias": model.any_has("attn_q.bias"),
        "mlp_bias": model.any_has("ffn_up.bias"),
        "tie_word_embeddings": false,
    });
    if model.any_has("ffn_up_exps") {
        own = extended(own, nemotron_experts(model)?);
    }
    model.config("nemotron_h", "NemotronHForCausalLM", own)
}

/// Fields of a mixture of experts.
fn nemotron_experts(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    Ok(json!({
        "n_routed_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": model.need_size("expert_feed_forward_length")?,
        "moe_shared_expert_intermediate_size": model.need_size("expert_shared_feed_forward_length")?,
        "n_shared_experts": model.size("expert_shared_count")?,
        "n_group": model.size("expert_group_count")?.unwrap_or(1),
        "topk_group": model.size("expert_group_used_count")?.unwrap_or(1),
        "norm_topk_prob": model.find::<bool>("expert_weights_norm")?.unwrap_or(true),
        "routed_scaling_factor": model.find::<f64>("expert_weights_scale")?.unwrap_or(1.0),
    }))
}

fn jamba(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, rank] = ssm_sizes(model)?;
    let attends = model.layers_with("attn_q");
    let kind = |attends: &bool| if *attends { "attention" } else { "mamba" };
    let (period, offset) = periodicity(&model.layers_with("ffn_gate_inp"))
        .ok_or("the layers with experts do not come at even distances")?;
    let (attention_period, attention_offset) = periodicity(&attends).unwrap_or((1, 0));
    let count = model.size("expert_count")?.unwrap_or(1);
    let own = json!({
        "layers_block_type": attends.iter().map(kind).collect::<Vec<_>>(),
        "attn_layer_period": attention_period,
        "attn_layer_offset": attention_offset,
        "expert_layer_period": period,
        // MLX tests (layer + offset) % period == 0.
        "expert_layer_offset": (period - offset) % period,
        "num_experts": count,
        "num_experts_per_tok": model.size("expert_used_count")?.unwrap_or(1),
        "mamba_d_conv": kernel,
        "mamba_d_state": state,
        "mamba_expand": inner / model.hidden,
        "mamba_dt_rank": rank,
        "mamba_proj_bias": model.any_has("ssm_in.bias"),
        "mamba_conv_bias": model.any_has("ssm_conv1d.bias"),
    });
    model.config("jamba", "JambaForCausalLM", own)
}

/// Period and offset of the true elements; `None` if they are not periodic.
fn periodicity(flags: &[bool]) -> Option<(usize, usize)> {
    let pairs =
        (1..=flags.len()).flat_map(|period| (0..period).map(move |offset| (period, offset)));
    { pairs }.find(|(period, offset)| {
        let at = |layer: usize| layer % period == *offset;
        flags.iter().enumerate().all(|(layer, flag)| at(layer) == *flag)
    })
}

fn falcon(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, heads] = ssm_sizes(model)?;
    // The multipliers are folded into the weights.
    let own = json!({
        "mamba_d_ssm": inner,
        "mamba_n_heads": heads,
        "mamba_d_head": inner / heads,
        "mamba_n_groups": model.need_size("ssm.group_count")?,
        "mamba_d_state": state,
        "mamba_d_conv": kernel,
        "mamba_conv_bias": model.any_has("ssm_conv1d.bias"),
        "mamba_proj_bias": model.any_has("ssm_in.bias"),
        "mamba_rms_norm": model.any_has("ssm_norm"),
        "mamba_norm_before_gate": false,
        "embedding_multiplier": 1.0,
        "lm_head_multiplier": 1.0,
        "attention_in_multiplier": 1.0,
        "attention_out_multiplier": 1.0,
        "key_multiplier": 1.0,
        "ssm_in_multiplier": 1.0,
        "ssm_out_multiplier": 1.0,
        "mlp_multipliers": [1.0, 1.0],
        "ssm_multipliers": [1.0, 1.0, 1.0, 1.0, 1.0],
    });
    model.config("falcon_h1", "FalconH1ForCausalLM", own)
}

/// Fields that LFM2 and its mixture of experts share.
fn lfm2_base(model: &Model) -> Result<Value, String> {
    let kind = |attends| if attends { "full_attention" } else { "conv" };
    Ok(json!({
        "norm_eps": model.epsilon()?,
        "rms_norm_eps": null,
        "conv_bias": false,
        "conv_L_cache": model.need_size("shortconv.l_cache")?,
        "layer_types": model.layers_with("attn_q").into_iter().map(kind).collect::<Vec<_>>(),
        "tie_word_embeddings": true,
    }))
}

fn lfm2(model: &Model) -> Result<Value, String> {
    let mut own = lfm2_base(model)?;
    own["intermediate_size"] = Value::Null;
    own["block_dim"] = model.hidden.into();
    own["block_ff_dim"] = model.max("feed_forward_length")?.into();
    own["block_multiple_of"] = 256.into();
    own["block_ffn_dim_multiplier"] = 1.0.into();
    own["block_auto_adjust_ff_dim"] = false.into();
    model.config("lfm2", "Lfm2ForCausalLM", own)
}

fn lfm2_moe(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let mut own = lfm2_base(model)?;
    own["num_experts"] = count.into();
    own["num_experts_per_tok"] = used.into();
    own["moe_intermediate_size"] = model.need_size("expert_feed_forward_length")?.into();
    own["num_dense_layers"] = model.integer("leading_dense_block_count")?.unwrap_or(0).into();
    own["norm_topk_prob"] = true.into();
    own["use_expert_bias"] = model.any_has("exp_probs_b.bias").into();
    own["routed_scaling_factor"] = model.find::<f64>("expert_weights_scale")?.unwrap_or(1.0).into();
    model.config("lfm2_moe", "Lfm2MoeForCausalLM", own)
}
