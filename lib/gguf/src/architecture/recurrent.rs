//! State spaces and short convolutions, alone, beside attention and between it.

use serde_json::{Value, json};

use super::moves::{AS, CONV, FLAT, LOG, Name};
use super::{Architecture, USUAL};
use crate::model::Model;

const BACKBONE: &[Name] = &[
    Name("token_embd", "backbone.embeddings", AS),
    Name("output_norm", "backbone.norm_f", AS),
    Name("output", "lm_head", AS),
];

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "mamba",
        layers: "backbone.layers",
        ends: &[BACKBONE],
        names: &[MAMBA, SELECTIVE],
        config: mamba,
        ..USUAL
    },
    Architecture {
        gguf: "mamba2",
        layers: "backbone.layers",
        ends: &[BACKBONE],
        names: &[MAMBA, STEP],
        config: mamba2,
        ..USUAL
    },
    Architecture { gguf: "nemotron_h", ..NEMOTRON },
    Architecture { gguf: "nemotron_h_moe", ..NEMOTRON },
    Architecture {
        gguf: "jamba",
        ends: FINAL,
        names: &[
            JAMBA,
            PLAIN,
            &[Name("attn_norm", "input_layernorm", AS), Name("ffn_norm", "pre_ff_layernorm", AS)],
        ],
        config: jamba,
        ..USUAL
    },
    Architecture {
        gguf: "falcon-h1",
        ends: FINAL,
        names: &[
            FALCON,
            PLAIN,
            &[
                Name("attn_norm", "input_layernorm", AS),
                // The converter leaves `.weight` out.
                Name("ffn_norm", "pre_ff_layernorm.weight", AS),
                Name("ffn_norm.weight", "pre_ff_layernorm.weight", AS),
            ],
        ],
        config: falcon,
        ..USUAL
    },
    Architecture {
        gguf: "lfm2",
        ends: EMBEDDING_NORM,
        names: &[
            SHORT,
            &[
                Name("ffn_gate", "feed_forward.w1", AS),
                Name("ffn_up", "feed_forward.w3", AS),
                Name("ffn_down", "feed_forward.w2", AS),
            ],
        ],
        config: lfm2,
        ..USUAL
    },
    Architecture {
        gguf: "lfm2moe",
        ends: EMBEDDING_NORM,
        names: &[
            SHORT,
            &[
                Name("ffn_gate", "feed_forward.gate_proj", AS),
                Name("ffn_up", "feed_forward.up_proj", AS),
                Name("ffn_down", "feed_forward.down_proj", AS),
                Name("ffn_gate_inp", "feed_forward.gate", AS),
                Name("ffn_gate_exps", "feed_forward.switch_mlp.gate_proj", AS),
                Name("ffn_up_exps", "feed_forward.switch_mlp.up_proj", AS),
                Name("ffn_down_exps", "feed_forward.switch_mlp.down_proj", AS),
                Name("exp_probs_b.bias", "feed_forward.expert_bias", FLAT),
            ],
        ],
        config: lfm2_moe,
        ..USUAL
    },
];

const NEMOTRON: Architecture = Architecture {
    layers: "backbone.layers",
    ends: &[BACKBONE],
    names: &[
        MAMBA,
        STEP,
        &[
            Name("attn_q", "mixer.q_proj", AS),
            Name("attn_k", "mixer.k_proj", AS),
            Name("attn_v", "mixer.v_proj", AS),
            Name("attn_output", "mixer.o_proj", AS),
            Name("ffn_up", "mixer.up_proj", AS),
            Name("ffn_down", "mixer.down_proj", AS),
            Name("ffn_gate_inp", "mixer.gate", AS),
            Name("exp_probs_b.bias", "mixer.gate.e_score_correction_bias", FLAT),
            Name("ffn_up_exps", "mixer.switch_mlp.fc1", AS),
            Name("ffn_down_exps", "mixer.switch_mlp.fc2", AS),
            Name("ffn_up_shexp", "mixer.shared_experts.up_proj", AS),
            Name("ffn_down_shexp", "mixer.shared_experts.down_proj", AS),
        ],
    ],
    partial: true,
    config: nemotron,
    ..USUAL
};

const FINAL: &[&[Name]] = &[&[
    Name("token_embd", "model.embed_tokens", AS),
    Name("output_norm", "model.final_layernorm", AS),
    Name("output", "lm_head", AS),
]];

const EMBEDDING_NORM: &[&[Name]] = &[&[
    Name("token_embd", "model.embed_tokens", AS),
    Name("token_embd_norm", "model.embedding_norm", AS),
    Name("output_norm", "model.embedding_norm", AS),
]];

const MAMBA: &[Name] = &[
    Name("attn_norm", "norm", AS),
    Name("ssm_in", "mixer.in_proj", AS),
    Name("ssm_conv1d.weight", "mixer.conv1d.weight", CONV),
    Name("ssm_conv1d.bias", "mixer.conv1d.bias", FLAT),
    Name("ssm_a", "mixer.A_log", LOG.narrow()),
    Name("ssm_d", "mixer.D", FLAT),
    Name("ssm_norm", "mixer.norm", FLAT),
    Name("ssm_out", "mixer.out_proj", AS),
];

/// What only the first Mamba has.
const SELECTIVE: &[Name] =
    &[Name("ssm_x", "mixer.x_proj", AS), Name("ssm_dt", "mixer.dt_proj", AS)];

/// What the others have in its place.
const STEP: &[Name] = &[Name("ssm_dt.bias", "mixer.dt_bias", FLAT)];

/// Attention, and a gated feed-forward layer.
const PLAIN: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", AS),
    Name("attn_k", "self_attn.k_proj", AS),
    Name("attn_v", "self_attn.v_proj", AS),
    Name("attn_output", "self_attn.o_proj", AS),
    Name("ffn_gate", "feed_forward.gate_proj", AS),
    Name("ffn_up", "feed_forward.up_proj", AS),
    Name("ffn_down", "feed_forward.down_proj", AS),
];

const JAMBA: &[Name] = &[
    Name("ssm_in", "mamba.in_proj", AS),
    Name("ssm_conv1d.weight", "mamba.conv1d.weight", CONV),
    Name("ssm_conv1d.bias", "mamba.conv1d.bias", FLAT),
    Name("ssm_a", "mamba.A_log", LOG),
    Name("ssm_d", "mamba.D", FLAT),
    Name("ssm_x", "mamba.x_proj", AS),
    Name("ssm_dt", "mamba.dt_proj", AS),
    Name("ssm_dt_norm", "mamba.dt_layernorm", AS),
    Name("ssm_b_norm", "mamba.b_layernorm", AS),
    Name("ssm_c_norm", "mamba.c_layernorm", AS),
    Name("ssm_out", "mamba.out_proj", AS),
    Name("ffn_gate_inp", "feed_forward.router", AS),
    Name("ffn_gate_exps", "feed_forward.switch_mlp.gate_proj", AS),
    Name("ffn_up_exps", "feed_forward.switch_mlp.up_proj", AS),
    Name("ffn_down_exps", "feed_forward.switch_mlp.down_proj", AS),
];

/// A state space as Falcon-H1 and Granite have it.
pub const FALCON: &[Name] = &[
    Name("ssm_in", "mamba.in_proj", AS),
    Name("ssm_conv1d.weight", "mamba.conv1d.weight", CONV),
    Name("ssm_conv1d.bias", "mamba.conv1d.bias", FLAT),
    Name("ssm_a", "mamba.A_log", LOG.flat()),
    Name("ssm_d", "mamba.D", FLAT),
    Name("ssm_norm", "mamba.norm", FLAT),
    Name("ssm_dt.bias", "mamba.dt_bias", FLAT),
    Name("ssm_out", "mamba.out_proj", AS),
];

const SHORT: &[Name] = &[
    Name("attn_norm", "operator_norm", AS),
    Name("ffn_norm", "ffn_norm", AS),
    Name("attn_q", "self_attn.q_proj", AS),
    Name("attn_k", "self_attn.k_proj", AS),
    Name("attn_v", "self_attn.v_proj", AS),
    Name("attn_output", "self_attn.out_proj", AS),
    Name("attn_q_norm", "self_attn.q_layernorm", AS),
    Name("attn_k_norm", "self_attn.k_layernorm", AS),
    Name("shortconv.conv", "conv.conv", CONV),
    Name("shortconv.in_proj", "conv.in_proj", AS),
    Name("shortconv.out_proj", "conv.out_proj", AS),
];

/// The sizes of a state space: kernel, inner width, elements of a state, heads (or rank).
pub fn space(model: &Model) -> Result<[usize; 4], String> {
    let keys = ["conv_kernel", "inner_size", "state_size", "time_step_rank"];
    let mut sizes = [0; 4];
    for (size, key) in sizes.iter_mut().zip(keys) {
        *size = model.need_size(&format!("ssm.{key}"))?;
    }
    Ok(sizes)
}

fn mamba(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, rank] = space(model)?;
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
    let [kernel, inner, state, heads] = space(model)?;
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
    let [kernel, inner, state, heads] = space(model)?;
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
        "mamba_proj_bias": model.any("ssm_in.bias"),
        "use_conv_bias": model.any("ssm_conv1d.bias"),
        "use_bias": model.any("ssm_in.bias"),
        "attention_bias": model.any("attn_q.bias"),
        "mlp_bias": model.any("ffn_up.bias"),
        "tie_word_embeddings": false,
    });
    if model.any("ffn_up_exps") {
        let (count, used) = model.experts()?;
        own["n_routed_experts"] = count.into();
        own["num_experts_per_tok"] = used.into();
        own["moe_intermediate_size"] = model.need_size("expert_feed_forward_length")?.into();
        own["moe_shared_expert_intermediate_size"] =
            model.need_size("expert_shared_feed_forward_length")?.into();
        own["n_shared_experts"] = model.size("expert_shared_count")?.into();
        own["n_group"] = model.size("expert_group_count")?.unwrap_or(1).into();
        own["topk_group"] = model.size("expert_group_used_count")?.unwrap_or(1).into();
        own["norm_topk_prob"] = model.find::<bool>("expert_weights_norm")?.unwrap_or(true).into();
        own["routed_scaling_factor"] =
            model.find::<f64>("expert_weights_scale")?.unwrap_or(1.0).into();
    }
    model.config("nemotron_h", "NemotronHForCausalLM", own)
}

fn jamba(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, rank] = space(model)?;
    let attends = model.with("attn_q");
    let kind = |attends: &bool| if *attends { "attention" } else { "mamba" };
    // MLX counts from the other side here.
    let (period, offset) = every(&model.with("ffn_gate_inp"))
        .ok_or("the layers with experts do not come at even distances")?;
    let (attention_period, attention_offset) = every(&attends).unwrap_or((1, 0));
    let count = model.size("expert_count")?.unwrap_or(1);
    let own = json!({
        "layers_block_type": attends.iter().map(kind).collect::<Vec<_>>(),
        "attn_layer_period": attention_period,
        "attn_layer_offset": attention_offset,
        "expert_layer_period": period,
        "expert_layer_offset": (period - offset) % period,
        "num_experts": count,
        "num_experts_per_tok": model.size("expert_used_count")?.unwrap_or(1),
        "mamba_d_conv": kernel,
        "mamba_d_state": state,
        "mamba_expand": inner / model.hidden,
        "mamba_dt_rank": rank,
        "mamba_proj_bias": model.any("ssm_in.bias"),
        "mamba_conv_bias": model.any("ssm_conv1d.bias"),
    });
    model.config("jamba", "JambaForCausalLM", own)
}

/// The distance and the first of those that are true, if they come at one.
fn every(there: &[bool]) -> Option<(usize, usize)> {
    let pairs =
        (1..=there.len()).flat_map(|period| (0..period).map(move |offset| (period, offset)));
    { pairs }.find(|(period, offset)| {
        let at = |layer: usize| layer % period == *offset;
        there.iter().enumerate().all(|(layer, there)| at(layer) == *there)
    })
}

fn falcon(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, heads] = space(model)?;
    // The factors of its training are in the weights.
    let own = json!({
        "mamba_d_ssm": inner,
        "mamba_n_heads": heads,
        "mamba_d_head": inner / heads,
        "mamba_n_groups": model.need_size("ssm.group_count")?,
        "mamba_d_state": state,
        "mamba_d_conv": kernel,
        "mamba_conv_bias": model.any("ssm_conv1d.bias"),
        "mamba_proj_bias": model.any("ssm_in.bias"),
        "mamba_rms_norm": model.any("ssm_norm"),
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

fn short(model: &Model) -> Result<Value, String> {
    let kind = |attends| if attends { "full_attention" } else { "conv" };
    Ok(json!({
        "norm_eps": model.epsilon()?,
        "rms_norm_eps": null,
        "conv_bias": false,
        "conv_L_cache": model.need_size("shortconv.l_cache")?,
        "layer_types": model.with("attn_q").into_iter().map(kind).collect::<Vec<_>>(),
        "tie_word_embeddings": true,
    }))
}

fn lfm2(model: &Model) -> Result<Value, String> {
    let mut own = short(model)?;
    own["intermediate_size"] = Value::Null;
    own["block_dim"] = model.hidden.into();
    own["block_ff_dim"] = model.most("feed_forward_length")?.into();
    own["block_multiple_of"] = 256.into();
    own["block_ffn_dim_multiplier"] = 1.0.into();
    own["block_auto_adjust_ff_dim"] = false.into();
    model.config("lfm2", "Lfm2ForCausalLM", own)
}

fn lfm2_moe(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let mut own = short(model)?;
    own["num_experts"] = count.into();
    own["num_experts_per_tok"] = used.into();
    own["moe_intermediate_size"] = model.need_size("expert_feed_forward_length")?.into();
    own["num_dense_layers"] = model.whole("leading_dense_block_count")?.unwrap_or(0).into();
    own["norm_topk_prob"] = true.into();
    own["use_expert_bias"] = model.any("exp_probs_b.bias").into();
    own["routed_scaling_factor"] = model.find::<f64>("expert_weights_scale")?.unwrap_or(1.0).into();
    model.config("lfm2_moe", "Lfm2MoeForCausalLM", own)
}
