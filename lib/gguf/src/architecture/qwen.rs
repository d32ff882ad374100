//! Qwen 2 to 3.5: dense, mixture of experts, and linear attention.

use serde_json::{Value, json};

use super::config::{extended, nested};
use super::names::{ATTENTION, EXPERTS, MLP, NORMS};
use super::row::{Architecture, DEFAULT};
use super::transform::{CONV, FLAT, LOG, Name, SAME, grouped};
use crate::model::Model;

pub const ALL: &[Architecture] = &[
    Architecture { gguf: "qwen2", ..QWEN2 },
    Architecture { gguf: "qwen3", ..QWEN3 },
    Architecture { gguf: "qwen3moe", ..QWEN3_MOE },
    // Files of the vision models hold the text model alone. Without images, multimodal rotary
    // positions equal the plain ones.
    Architecture { gguf: "qwen2vl", ..QWEN2 },
    Architecture { gguf: "qwen3vl", ..QWEN3 },
    Architecture { gguf: "qwen3vlmoe", ..QWEN3_MOE },
    Architecture {
        gguf: "qwen2moe",
        layer_names: &[NORMS, ATTENTION, EXPERTS, SHARED_EXPERT],
        config: |m| {
            let mut own = extended(experts(m)?, shared_expert(m)?);
            own["norm_topk_prob"] = false.into();
            m.config("qwen2_moe", "Qwen2MoeForCausalLM", own)
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "qwen3next",
        layer_names: &[
            LINEAR_NORM,
            EXPERTS,
            SHARED_EXPERT,
            FULL_ATTENTION,
            &[
                Name("attn_qkv", "linear_attn.in_proj_qkvz", SAME.merged(by_key_head)),
                Name("attn_gate", "linear_attn.in_proj_qkvz", SAME.part(1)),
                Name("ssm_in", "linear_attn.in_proj_qkvz", SAME),
                Name("ssm_ba", "linear_attn.in_proj_ba", SAME),
                Name("ssm_a", "linear_attn.A_log", LOG.flat()),
                Name("ssm_dt.bias", "linear_attn.dt_bias", FLAT),
                Name("ssm_conv1d", "linear_attn.conv1d", CONV),
                Name("ssm_out", "linear_attn.out_proj", SAME),
            ],
        ],
        partial_rotary: true,
        config: qwen3_next,
        ..DEFAULT
    },
    Architecture { gguf: "qwen35", ..QWEN35 },
    Architecture { gguf: "qwen35moe", ..QWEN35 },
];

const QWEN2: Architecture = Architecture {
    layer_names: &[NORMS, ATTENTION, MLP],
    config: |m| m.config("qwen2", "Qwen2ForCausalLM", json!({ "use_sliding_window": false })),
    ..DEFAULT
};

const QWEN3: Architecture = Architecture {
    layer_names: &[NORMS, ATTENTION, MLP],
    config: |m| m.config("qwen3", "Qwen3ForCausalLM", json!({})),
    ..DEFAULT
};

const QWEN3_MOE: Architecture = Architecture {
    layer_names: &[NORMS, ATTENTION, EXPERTS],
    config: |m| {
        let own = experts(m)?;
        m.config("qwen3_moe", "Qwen3MoeForCausalLM", own)
    },
    ..DEFAULT
};

const QWEN35: Architecture = Architecture {
    outer_prefix: "language_model.",
    layer_prefix: "language_model.model.layers",
    layer_names: &[
        LINEAR_NORM,
        EXPERTS,
        SHARED_EXPERT,
        FULL_ATTENTION,
        MLP,
        &[
            Name("attn_qkv", "linear_attn.in_proj_qkv", SAME.rows(qkv_by_value_head)),
            Name("attn_gate", "linear_attn.in_proj_z", SAME.rows(by_value_head)),
            Name("ssm_beta", "linear_attn.in_proj_b", SAME.rows(by_value_head)),
            Name("ssm_alpha", "linear_attn.in_proj_a", SAME.rows(by_value_head)),
            Name("ssm_a", "linear_attn.A_log", LOG.flat().rows(by_value_head)),
            Name("ssm_dt.bias", "linear_attn.dt_bias", FLAT.rows(by_value_head)),
            Name("ssm_conv1d", "linear_attn.conv1d", CONV.rows(qkv_by_value_head)),
            Name("ssm_out", "linear_attn.out_proj", SAME.columns(by_value_head)),
        ],
    ],
    partial_rotary: true,
    config: qwen35,
    ..DEFAULT
};

const FULL_ATTENTION: &[Name] = &[
    Name("attn_norm", "input_layernorm", SAME),
    Name("post_attention_norm", "post_attention_layernorm", SAME),
    Name("attn_q", "self_attn.q_proj", SAME),
    Name("attn_k", "self_attn.k_proj", SAME),
    Name("attn_v", "self_attn.v_proj", SAME),
    Name("attn_output", "self_attn.o_proj", SAME),
    Name("attn_q_norm", "self_attn.q_norm", SAME),
    Name("attn_k_norm", "self_attn.k_norm", SAME),
];

const LINEAR_NORM: &[Name] = &[Name("ssm_norm", "linear_attn.norm", SAME)];

/// Shared expert with a gate.
const SHARED_EXPERT: &[Name] = &[
    Name("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", SAME.row()),
    Name("ffn_gate_shexp", "mlp.shared_expert.gate_proj", SAME),
    Name("ffn_up_shexp", "mlp.shared_expert.up_proj", SAME),
    Name("ffn_down_shexp", "mlp.shared_expert.down_proj", SAME),
];

/// Fields of a mixture of experts.
fn experts(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    Ok(json!({
        "num_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": model.need_size("expert_feed_forward_length")?,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": true,
    }))
}

/// Fields of the shared expert.
fn shared_expert(model: &Model) -> Result<Value, String> {
    let size = model.need_size("expert_shared_feed_forward_length")?;
    Ok(json!({ "shared_expert_intermediate_size": size }))
}

/// Heads of linear attention: numbers of key and value heads, and elements of each.
struct Heads {
    keys: usize,
    values: usize,
    key: usize,
    value: usize,
}

fn heads(model: &Model) -> Result<Heads, String> {
    let (keys, values) =
        (model.need_size("ssm.group_count")?, model.need_size("ssm.time_step_rank")?);
    let (key, inner) = (model.need_size("ssm.state_size")?, model.need_size("ssm.inner_size")?);
    match values % keys == 0 && inner % values == 0 {
        true => Ok(Heads { keys, values, key, value: inner / values }),
        false => {
            Err(format!("{values} heads of values over {keys} of keys in {inner} are impossible"))
        }
    }
}

/// Order of rows with queries, keys, values and gates of each key head together.
fn by_key_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let Heads { keys, values, key, value } = heads(model)?;
    let own = values / keys * value;
    grouped(keys, &[key, key, own, own], rows)
}

/// Order of rows with the value heads of each key head together; the file has the first value head
/// of every key head first.
fn by_value_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let Heads { keys, values, .. } = heads(model)?;
    if !rows.is_multiple_of(values) {
        return Err(format!("{rows} rows are not those of {values} heads"));
    }
    let (unit, each) = (rows / values, values / keys);
    let from = |row: usize| {
        let (head, within) = (row / unit, row % unit);
        (head % each * keys + head / each) * unit + within
    };
    Ok((0..rows).map(from).collect())
}

/// Order of rows that keeps queries and keys, and applies [`by_value_head`] to the values after
/// them.
fn qkv_by_value_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let Heads { keys, key, .. } = heads(model)?;
    let first = 2 * keys * key;
    let values = rows.checked_sub(first).ok_or_else(|| format!("{rows} rows have no values"))?;
    let values = by_value_head(model, values)?.into_iter().map(|row| first + row);
    Ok((0..first).chain(values).collect())
}

/// Fields of linear attention.
fn linear(model: &Model) -> Result<Value, String> {
    let Heads { keys, values, key, value } = heads(model)?;
    let stated = model.size("full_attention_interval")?.unwrap_or(4);
    let first = model.layers_with("attn_k").iter().position(|attends| *attends);
    Ok(json!({
        "linear_num_value_heads": values,
        "linear_num_key_heads": keys,
        "linear_key_head_dim": key,
        "linear_value_head_dim": value,
        "linear_conv_kernel_dim": model.need_size("ssm.conv_kernel")?,
        "full_attention_interval": first.map_or(stated, |first| first + 1),
        "partial_rotary_factor": model.rotary_factor(),
        "attention_bias": model.any_has("attn_k.bias"),
    }))
}

fn qwen3_next(model: &Model) -> Result<Value, String> {
    let own = extended(experts(model)?, linear(model)?);
    let shared = shared_expert(model)?;
    model.config("qwen3_next", "Qwen3NextForCausalLM", extended(own, shared))
}

fn qwen35(model: &Model) -> Result<Value, String> {
    let mut own = linear(model)?;
    own["rope_parameters"] = json!({
        "rope_type": "default",
        "mrope_interleaved": true,
        "mrope_section": model.find::<&[i64]>("rope.dimension_sections")?.map(|s| s.iter().take(3).collect::<Vec<_>>()),
        "rope_theta": model.rope.theta,
        "partial_rotary_factor": own["partial_rotary_factor"],
    });
    if !model.is_mixture()? {
        let text = model.config("qwen3_5_text", "Qwen3_5ForConditionalGeneration", own)?;
        return Ok(nested("qwen3_5", text));
    }
    let shared = shared_expert(model)?;
    let own = extended(extended(own, experts(model)?), shared);
    let text = model.config("qwen3_5_moe_text", "Qwen3_5MoeForConditionalGeneration", own)?;
    Ok(nested("qwen3_5_moe", text))
}
