//! Qwen, with its mixtures and its linear attention.

use serde_json::{Value, json};

use super::llama::nested;
use super::moves::{AS, CONV, FLAT, LOG, Name, dealt};
use super::names::{ATTENTION, EXPERTS, MLP, NORMS};
use super::{Architecture, USUAL};
use crate::model::Model;

pub const ALL: &[Architecture] = &[
    Architecture { gguf: "qwen2", ..TWO },
    Architecture { gguf: "qwen3", ..THREE },
    Architecture { gguf: "qwen3moe", ..THREE_MOE },
    // Of those that take pictures a file holds what reads text; for it alone, the positions in
    // pictures are those in the text.
    Architecture { gguf: "qwen2vl", ..TWO },
    Architecture { gguf: "qwen3vl", ..THREE },
    Architecture { gguf: "qwen3vlmoe", ..THREE_MOE },
    Architecture {
        gguf: "qwen2moe",
        names: &[NORMS, ATTENTION, EXPERTS, WEIGHED],
        config: |m| {
            let mut own = experts(m)?;
            own["shared_expert_intermediate_size"] =
                m.need_size("expert_shared_feed_forward_length")?.into();
            m.config("qwen2_moe", "Qwen2MoeForCausalLM", own)
        },
        ..USUAL
    },
    Architecture {
        gguf: "qwen3next",
        names: &[
            LINEAR,
            EXPERTS,
            WEIGHED,
            ATTENTION_AFTER,
            &[
                Name("attn_qkv", "linear_attn.in_proj_qkvz", AS.joined(by_key_head)),
                Name("attn_gate", "linear_attn.in_proj_qkvz", AS.part(1)),
                Name("ssm_in", "linear_attn.in_proj_qkvz", AS),
                Name("ssm_ba", "linear_attn.in_proj_ba", AS),
                Name("ssm_a", "linear_attn.A_log", LOG.flat()),
                Name("ssm_dt.bias", "linear_attn.dt_bias", FLAT),
                Name("ssm_conv1d", "linear_attn.conv1d", CONV),
                Name("ssm_out", "linear_attn.out_proj", AS),
            ],
        ],
        partial: true,
        config: next,
        ..USUAL
    },
    Architecture { gguf: "qwen35", ..FIVE },
    Architecture { gguf: "qwen35moe", ..FIVE },
];

const TWO: Architecture = Architecture {
    names: &[NORMS, ATTENTION, MLP],
    config: |m| m.config("qwen2", "Qwen2ForCausalLM", json!({ "use_sliding_window": false })),
    ..USUAL
};

const THREE: Architecture = Architecture {
    names: &[NORMS, ATTENTION, MLP],
    config: |m| m.config("qwen3", "Qwen3ForCausalLM", json!({})),
    ..USUAL
};

const THREE_MOE: Architecture = Architecture {
    names: &[NORMS, ATTENTION, EXPERTS],
    config: |m| {
        let own = experts(m)?;
        m.config("qwen3_moe", "Qwen3MoeForCausalLM", own)
    },
    ..USUAL
};

const FIVE: Architecture = Architecture {
    root: "language_model.",
    layers: "language_model.model.layers",
    names: &[
        LINEAR,
        EXPERTS,
        WEIGHED,
        ATTENTION_AFTER,
        MLP,
        &[
            Name("attn_qkv", "linear_attn.in_proj_qkv", AS.rows(values_grouped)),
            Name("attn_gate", "linear_attn.in_proj_z", AS.rows(grouped)),
            Name("ssm_beta", "linear_attn.in_proj_b", AS.rows(grouped)),
            Name("ssm_alpha", "linear_attn.in_proj_a", AS.rows(grouped)),
            Name("ssm_a", "linear_attn.A_log", LOG.flat().rows(grouped)),
            Name("ssm_dt.bias", "linear_attn.dt_bias", FLAT.rows(grouped)),
            Name("ssm_conv1d", "linear_attn.conv1d", CONV.rows(values_grouped)),
            Name("ssm_out", "linear_attn.out_proj", AS.columns(grouped)),
        ],
    ],
    partial: true,
    config: five,
    ..USUAL
};

const ATTENTION_AFTER: &[Name] = &[
    Name("attn_norm", "input_layernorm", AS),
    Name("post_attention_norm", "post_attention_layernorm", AS),
    Name("attn_q", "self_attn.q_proj", AS),
    Name("attn_k", "self_attn.k_proj", AS),
    Name("attn_v", "self_attn.v_proj", AS),
    Name("attn_output", "self_attn.o_proj", AS),
    Name("attn_q_norm", "self_attn.q_norm", AS),
    Name("attn_k_norm", "self_attn.k_norm", AS),
];

const LINEAR: &[Name] = &[Name("ssm_norm", "linear_attn.norm", AS)];

/// An expert that every token goes to, with a weight of its own.
const WEIGHED: &[Name] = &[
    Name("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", AS.row()),
    Name("ffn_gate_shexp", "mlp.shared_expert.gate_proj", AS),
    Name("ffn_up_shexp", "mlp.shared_expert.up_proj", AS),
    Name("ffn_down_shexp", "mlp.shared_expert.down_proj", AS),
];

fn experts(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    Ok(json!({
        "num_experts": count,
        "num_experts_per_tok": used,
        "moe_intermediate_size": model.need_size("expert_feed_forward_length")?,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": model.architecture.gguf != "qwen2moe",
    }))
}

/// The heads of linear attention.
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

/// Queries, keys, values and gates of each head of keys together.
fn by_key_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let Heads { keys, values, key, value } = heads(model)?;
    let own = values / keys * value;
    dealt(keys, &[key, key, own, own], rows)
}

/// Heads of values beside those that share their keys; in the file the first of each come first.
fn grouped(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
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

/// The same of the values behind queries and keys.
fn values_grouped(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let Heads { keys, key, .. } = heads(model)?;
    let first = 2 * keys * key;
    let values = rows.checked_sub(first).ok_or_else(|| format!("{rows} rows have no values"))?;
    let values = grouped(model, values)?.into_iter().map(|row| first + row);
    Ok((0..first).chain(values).collect())
}

/// The fields of linear attention.
fn linear(model: &Model) -> Result<Value, String> {
    let Heads { keys, values, key, value } = heads(model)?;
    let stated = model.size("full_attention_interval")?.unwrap_or(4);
    let first = model.with("attn_k").iter().position(|attends| *attends);
    Ok(json!({
        "linear_num_value_heads": values,
        "linear_num_key_heads": keys,
        "linear_key_head_dim": key,
        "linear_value_head_dim": value,
        "linear_conv_kernel_dim": model.need_size("ssm.conv_kernel")?,
        "full_attention_interval": first.map_or(stated, |first| first + 1),
        "partial_rotary_factor": model.rope.rotated as f64 / model.head as f64,
        "attention_bias": model.any("attn_k.bias"),
    }))
}

fn merged(mut a: Value, b: Value) -> Value {
    if let (Value::Object(a), Value::Object(b)) = (&mut a, b) {
        a.extend(b);
    }
    a
}

fn next(model: &Model) -> Result<Value, String> {
    let own = merged(experts(model)?, linear(model)?);
    let shared = json!({ "shared_expert_intermediate_size": model.need_size("expert_shared_feed_forward_length")? });
    model.config("qwen3_next", "Qwen3NextForCausalLM", merged(own, shared))
}

fn five(model: &Model) -> Result<Value, String> {
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
    let shared = json!({ "shared_expert_intermediate_size": model.need_size("expert_shared_feed_forward_length")? });
    let own = merged(merged(own, experts(model)?), shared);
    let text = model.config("qwen3_5_moe_text", "Qwen3_5MoeForConditionalGeneration", own)?;
    Ok(nested("qwen3_5_moe", text))
}
