//! Llama and architectures with its structure.

use serde_json::{Value, json};

use super::config::{layer_types, nested};
use super::names::{ATTENTION, EXPERTS, MIXTRAL_EXPERTS, MLP, NORMS, PAIRED, POST_NORMS};
use super::row::{Architecture, DEFAULT, Scalars};
use super::transform::{FLAT, Name, PAIRS, SAME, grouped};
use crate::model::Model;

const LLAMA: Architecture =
    Architecture { layer_names: &[NORMS, PAIRED, MLP, MIXTRAL_EXPERTS], config: llama, ..DEFAULT };

pub const ALL: &[Architecture] = &[
    Architecture { gguf: "llama", ..LLAMA },
    Architecture { gguf: "xverse", ..LLAMA },
    Architecture { gguf: "mistral3", config: ministral3, ..LLAMA },
    Architecture { gguf: "smollm3", config: smollm3, ..LLAMA },
    Architecture { gguf: "minicpm", config: minicpm, ..LLAMA },
    Architecture {
        gguf: "internlm2",
        outer_names: &[&[
            Name("token_embd", "model.tok_embeddings", SAME),
            Name("output_norm", "model.norm", SAME),
            Name("output", "output", SAME),
        ]],
        layer_names: &[INTERNLM2],
        config: |m| {
            m.config(
                "internlm2",
                "InternLM2ForCausalLM",
                json!({ "bias": m.has(0, "attn_output.bias") }),
            )
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "seed_oss",
        layer_names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm", "input_layernorm", SAME),
                Name("post_attention_norm", "post_attention_layernorm", SAME),
            ],
        ],
        config: |m| {
            let out = m.has(0, "attn_output.bias");
            m.config("seed_oss", "SeedOssForCausalLM", json!({ "attention_out_bias": out }))
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "apertus",
        layer_names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm", "attention_layernorm", SAME),
                Name("ffn_norm", "feedforward_layernorm", SAME),
            ],
        ],
        config: |m| {
            let own = json!({ "hidden_act": "xielu", "post_norm": false, "qk_norm": true });
            m.config("apertus", "ApertusForCausalLM", own)
        },
        scalars: xielu_scalars,
        ..DEFAULT
    },
    Architecture {
        gguf: "olmo2",
        layer_names: &[ATTENTION, MLP, POST_NORMS],
        config: olmo,
        ..DEFAULT
    },
    Architecture {
        gguf: "exaone4",
        layer_names: &[ATTENTION, MLP, POST_NORMS],
        config: exaone4,
        ..DEFAULT
    },
    Architecture {
        gguf: "hunyuan-dense",
        layer_names: &[HUNYUAN_ATTENTION, MLP, NORMS],
        config: |m| {
            let own = json!({ "use_qk_norm": m.has(0, "attn_q_norm") });
            m.config("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", own)
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "ernie4_5",
        layer_names: &[ATTENTION, MLP, NORMS],
        config: |m| {
            let own = json!({ "use_bias": m.has(0, "ffn_up.bias") });
            m.config("ernie4_5", "Ernie4_5ForCausalLM", own)
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "llama4",
        outer_prefix: "language_model.",
        layer_prefix: "language_model.model.layers",
        layer_names: &[NORMS, ATTENTION, LLAMA4],
        config: llama4,
        ..DEFAULT
    },
    Architecture {
        gguf: "gpt-oss",
        layer_names: &[ATTENTION, GPT_OSS],
        config: gpt_oss,
        ..DEFAULT
    },
    Architecture {
        gguf: "olmoe",
        layer_names: &[NORMS, ATTENTION, EXPERTS],
        config: |m| {
            let (count, used) = m.experts()?;
            let own = json!({ "num_experts": count, "num_experts_per_tok": used, "norm_topk_prob": false });
            m.config("olmoe", "OlmoeForCausalLM", own)
        },
        ..DEFAULT
    },
];

/// Attention of Hunyuan: queries and keys are normed after the rotation, under other names.
const HUNYUAN_ATTENTION: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", SAME),
    Name("attn_k", "self_attn.k_proj", SAME),
    Name("attn_v", "self_attn.v_proj", SAME),
    Name("attn_output", "self_attn.o_proj", SAME),
    Name("attn_q_norm", "self_attn.query_layernorm", SAME),
    Name("attn_k_norm", "self_attn.key_layernorm", SAME),
];

const INTERNLM2: &[Name] = &[
    Name("attn_q", "attention.wqkv", PAIRS.merged(by_kv_head)),
    Name("attn_k", "attention.wqkv", PAIRS.part(1)),
    Name("attn_v", "attention.wqkv", SAME.part(2)),
    Name("attn_output", "attention.wo", SAME),
    Name("attn_norm", "attention_norm", SAME),
    Name("ffn_norm", "ffn_norm", SAME),
    Name("ffn_gate", "feed_forward.w1", SAME),
    Name("ffn_down", "feed_forward.w2", SAME),
    Name("ffn_up", "feed_forward.w3", SAME),
];

const LLAMA4: &[Name] = &[
    Name("ffn_gate", "feed_forward.gate_proj", SAME),
    Name("ffn_up", "feed_forward.up_proj", SAME),
    Name("ffn_down", "feed_forward.down_proj", SAME),
    Name("ffn_gate_inp", "feed_forward.router", SAME),
    Name("ffn_gate_exps", "feed_forward.experts.gate_proj", SAME),
    Name("ffn_up_exps", "feed_forward.experts.up_proj", SAME),
    Name("ffn_down_exps", "feed_forward.experts.down_proj", SAME),
    Name("ffn_gate_shexp", "feed_forward.shared_expert.gate_proj", SAME),
    Name("ffn_up_shexp", "feed_forward.shared_expert.up_proj", SAME),
    Name("ffn_down_shexp", "feed_forward.shared_expert.down_proj", SAME),
];

const GPT_OSS: &[Name] = &[
    Name("attn_norm", "input_layernorm", SAME),
    Name("post_attention_norm", "post_attention_layernorm", SAME),
    Name("attn_sinks", "self_attn.sinks", FLAT),
    Name("attn_sinks.weight", "self_attn.sinks", FLAT),
    Name("ffn_gate_inp", "mlp.router", SAME),
    Name("ffn_gate_exps", "mlp.experts.gate_proj", SAME),
    Name("ffn_up_exps", "mlp.experts.up_proj", SAME),
    Name("ffn_down_exps", "mlp.experts.down_proj", SAME),
];

/// Order of rows with the queries, keys and values of each key/value head together.
fn by_kv_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let queries = model.heads / model.kv_heads.max(1) * model.head;
    grouped(model.kv_heads, &[queries, model.head, model.head], rows)
}

/// Parameters of the xIELU activation of each layer.
fn xielu_scalars(model: &Model) -> Result<Scalars, String> {
    let mut scalars = Vec::new();
    for name in ["alpha_p", "alpha_n", "beta", "eps"] {
        let key = format!("xielu.{name}");
        let list: &[f64] = model.gguf().need(&key)?;
        if list.len() != model.layers {
            return Err(format!("`{key}` has {} numbers for {} layers", list.len(), model.layers));
        }
        let full = |layer| format!("model.layers.{layer}.mlp.act_fn.{name}");
        scalars.extend(list.iter().enumerate().map(|(layer, x)| (full(layer), *x as f32)));
    }
    Ok(scalars)
}

fn llama(model: &Model) -> Result<Value, String> {
    match model.is_mixture()? {
        true => {
            let (count, used) = model.experts()?;
            let own = json!({ "num_local_experts": count, "num_experts_per_tok": used });
            model.config("mixtral", "MixtralForCausalLM", own)
        }
        false => model.config("llama", "LlamaForCausalLM", json!({})),
    }
}

fn ministral3(model: &Model) -> Result<Value, String> {
    let mut config = model.config("ministral3", "Ministral3ForCausalLM", json!({}))?;
    let mut rope = model.rope.scaling.clone().unwrap_or_else(|| json!({ "rope_type": "default" }));
    rope["rope_theta"] = model.rope.theta.into();
    if let Some(beta) = model.find::<f64>("attention.temperature_scale")? {
        rope["llama_4_scaling_beta"] = beta.into();
    }
    if let Some(scale) = model.find::<f64>("rope.scaling.yarn_log_multiplier")? {
        rope["mscale"] = 1.0.into();
        rope["mscale_all_dim"] = scale.into();
    }
    config["rope_parameters"] = rope;
    if let Some(config) = config.as_object_mut() {
        config.remove("rope_scaling");
    }
    Ok(config)
}

fn smollm3(model: &Model) -> Result<Value, String> {
    // Not in the file: every fourth layer of this architecture has no rotary positions.
    let rotary = |layer| u8::from((layer + 1) % 4 != 0);
    let own = json!({
        "no_rope_layer_interval": 4,
        "no_rope_layers": (0..model.layers).map(rotary).collect::<Vec<_>>(),
    });
    model.config("smollm3", "SmolLM3ForCausalLM", own)
}

fn minicpm(model: &Model) -> Result<Value, String> {
    let logits: f64 = model.find("logit_scale")?.unwrap_or(model.hidden as f64 / 256.0);
    let residual: f64 = model.find("residual_scale")?.unwrap_or(1.4 / (model.layers as f64).sqrt());
    let own = json!({
        "scale_emb": model.find::<f64>("embedding_scale")?.unwrap_or(12.0),
        "scale_depth": residual * (model.layers as f64).sqrt(),
        "dim_model_base": (model.hidden as f64 / logits).round() as u64,
    });
    model.config("minicpm", "MiniCPMForCausalLM", own)
}

fn olmo(model: &Model) -> Result<Value, String> {
    let Some(window) = model.size("attention.sliding_window")? else {
        return model.config("olmo2", "Olmo2ForCausalLM", json!({}));
    };
    let own = json!({ "sliding_window": window, "layer_types": layer_types(model, 4)? });
    model.config("olmo3", "Olmo3ForCausalLM", own)
}

fn exaone4(model: &Model) -> Result<Value, String> {
    let window = model.size("attention.sliding_window")?;
    // MLX repeats the pattern, a letter for each layer.
    let letters = || {
        let kinds = layer_types(model, 4)?;
        Ok::<_, String>(
            kinds
                .iter()
                .map(|kind| if kind.starts_with('s') { 'L' } else { 'G' })
                .collect::<String>(),
        )
    };
    let own = json!({
        "sliding_window": window,
        "sliding_window_pattern": window.map(|_| letters()).transpose()?,
        "rope_scaling": model.rope.scaling,
    });
    let mut config = model.config("exaone4", "Exaone4ForCausalLM", json!({}))?;
    if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
        config.extend(own); // keeps nulls, which MLX expects
    }
    Ok(config)
}

fn llama4(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let inner = model.need_size("expert_feed_forward_length")?;
    let own = json!({
        "intermediate_size": inner,
        "intermediate_size_mlp": model.max("feed_forward_length")?.unwrap_or(inner),
        "interleave_moe_layer_step": model.size("interleave_moe_layer_step")?.unwrap_or(1),
        "num_local_experts": count,
        "num_experts_per_tok": used,
        // Not in the file, and the same in all models of this architecture.
        "attention_chunk_size": 8192,
        "use_qk_norm": count != 128,
        "attn_temperature_tuning": 4,
        "floor_scale": 8192,
        "attn_scale": 0.1,
        "rope_scaling": model.rope.scaling,
    });
    let mut text = model.config("llama4_text", "Llama4ForConditionalGeneration", own)?;
    if model.rope.scaling.is_none() {
        text["rope_scaling"] = Value::Null;
    }
    Ok(nested("llama4", text))
}

fn gpt_oss(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let own = json!({
        "intermediate_size": model.need_size("expert_feed_forward_length")?,
        "num_local_experts": count,
        "num_experts_per_tok": used,
        "sliding_window": model.need_size("attention.sliding_window")?,
        "layer_types": layer_types(model, 2)?,
    });
    let mut config = model.config("gpt_oss", "GptOssForCausalLM", own)?;
    if let Some(scaling) = config.get_mut("rope_scaling") {
        // Not in the file, and the same in all models of this architecture.
        scaling["truncate"] = false.into();
    }
    Ok(config)
}
