//! Llama, and what is built like it.

use serde_json::{Value, json};

use super::moves::{AS, FLAT, Name, PAIRS, dealt};
use super::names::{ATTENTION, EXPERTS, LATE_NORMS, MLP, NORMS, PAIRED, SPARSE};
use super::{Architecture, Numbers, USUAL};
use crate::model::Model;

const LLAMA: Architecture =
    Architecture { names: &[NORMS, PAIRED, MLP, SPARSE], config: llama, ..USUAL };

pub const ALL: &[Architecture] = &[
    Architecture { gguf: "llama", ..LLAMA },
    Architecture { gguf: "xverse", ..LLAMA },
    Architecture { gguf: "mistral3", config: ministral3, ..LLAMA },
    Architecture { gguf: "smollm3", config: smollm3, ..LLAMA },
    Architecture { gguf: "minicpm", config: minicpm, ..LLAMA },
    Architecture {
        gguf: "internlm2",
        ends: &[&[
            Name("token_embd", "model.tok_embeddings", AS),
            Name("output_norm", "model.norm", AS),
            Name("output", "output", AS),
        ]],
        names: &[INTERNLM2],
        config: |m| {
            m.config(
                "internlm2",
                "InternLM2ForCausalLM",
                json!({ "bias": m.has(0, "attn_output.bias") }),
            )
        },
        ..USUAL
    },
    Architecture {
        gguf: "seed_oss",
        names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm", "input_layernorm", AS),
                Name("post_attention_norm", "post_attention_layernorm", AS),
            ],
        ],
        config: |m| {
            let out = m.has(0, "attn_output.bias");
            m.config("seed_oss", "SeedOssForCausalLM", json!({ "attention_out_bias": out }))
        },
        ..USUAL
    },
    Architecture {
        gguf: "apertus",
        names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm", "attention_layernorm", AS),
                Name("ffn_norm", "feedforward_layernorm", AS),
            ],
        ],
        config: |m| {
            let own = json!({ "hidden_act": "xielu", "post_norm": false, "qk_norm": true });
            m.config("apertus", "ApertusForCausalLM", own)
        },
        numbers: activations,
        ..USUAL
    },
    Architecture { gguf: "olmo2", names: &[ATTENTION, MLP, LATE_NORMS], config: olmo, ..USUAL },
    Architecture {
        gguf: "exaone4",
        names: &[ATTENTION, MLP, LATE_NORMS],
        config: exaone4,
        ..USUAL
    },
    Architecture {
        gguf: "hunyuan-dense",
        names: &[ATTENTION_LAST, MLP, NORMS],
        config: |m| {
            let own = json!({ "use_qk_norm": m.has(0, "attn_q_norm") });
            m.config("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", own)
        },
        ..USUAL
    },
    Architecture {
        gguf: "ernie4_5",
        names: &[ATTENTION, MLP, NORMS],
        config: |m| {
            let own = json!({ "use_bias": m.has(0, "ffn_up.bias") });
            m.config("ernie4_5", "Ernie4_5ForCausalLM", own)
        },
        ..USUAL
    },
    Architecture {
        gguf: "llama4",
        root: "language_model.",
        layers: "language_model.model.layers",
        names: &[NORMS, ATTENTION, LLAMA4],
        config: llama4,
        ..USUAL
    },
    Architecture { gguf: "gpt-oss", names: &[ATTENTION, GPT_OSS], config: gpt_oss, ..USUAL },
    Architecture {
        gguf: "olmoe",
        names: &[NORMS, ATTENTION, EXPERTS],
        config: |m| {
            let (count, used) = m.experts()?;
            let own = json!({ "num_experts": count, "num_experts_per_tok": used, "norm_topk_prob": false });
            m.config("olmoe", "OlmoeForCausalLM", own)
        },
        ..USUAL
    },
];

/// Queries and keys are normed after they are rotated, and MLX calls the norms otherwise.
const ATTENTION_LAST: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", AS),
    Name("attn_k", "self_attn.k_proj", AS),
    Name("attn_v", "self_attn.v_proj", AS),
    Name("attn_output", "self_attn.o_proj", AS),
    Name("attn_q_norm", "self_attn.query_layernorm", AS),
    Name("attn_k_norm", "self_attn.key_layernorm", AS),
];

const INTERNLM2: &[Name] = &[
    Name("attn_q", "attention.wqkv", PAIRS.joined(by_key_head)),
    Name("attn_k", "attention.wqkv", PAIRS.part(1)),
    Name("attn_v", "attention.wqkv", AS.part(2)),
    Name("attn_output", "attention.wo", AS),
    Name("attn_norm", "attention_norm", AS),
    Name("ffn_norm", "ffn_norm", AS),
    Name("ffn_gate", "feed_forward.w1", AS),
    Name("ffn_down", "feed_forward.w2", AS),
    Name("ffn_up", "feed_forward.w3", AS),
];

const LLAMA4: &[Name] = &[
    Name("ffn_gate", "feed_forward.gate_proj", AS),
    Name("ffn_up", "feed_forward.up_proj", AS),
    Name("ffn_down", "feed_forward.down_proj", AS),
    Name("ffn_gate_inp", "feed_forward.router", AS),
    Name("ffn_gate_exps", "feed_forward.experts.gate_proj", AS),
    Name("ffn_up_exps", "feed_forward.experts.up_proj", AS),
    Name("ffn_down_exps", "feed_forward.experts.down_proj", AS),
    Name("ffn_gate_shexp", "feed_forward.shared_expert.gate_proj", AS),
    Name("ffn_up_shexp", "feed_forward.shared_expert.up_proj", AS),
    Name("ffn_down_shexp", "feed_forward.shared_expert.down_proj", AS),
];

const GPT_OSS: &[Name] = &[
    Name("attn_norm", "input_layernorm", AS),
    Name("post_attention_norm", "post_attention_layernorm", AS),
    Name("attn_sinks", "self_attn.sinks", FLAT),
    Name("attn_sinks.weight", "self_attn.sinks", FLAT),
    Name("ffn_gate_inp", "mlp.router", AS),
    Name("ffn_gate_exps", "mlp.experts.gate_proj", AS),
    Name("ffn_up_exps", "mlp.experts.up_proj", AS),
    Name("ffn_down_exps", "mlp.experts.down_proj", AS),
];

/// Queries, keys and values of each head of keys together.
fn by_key_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    let queries = model.heads / model.kv_heads.max(1) * model.head;
    dealt(model.kv_heads, &[queries, model.head, model.head], rows)
}

/// The numbers of the activation of each layer.
fn activations(model: &Model) -> Result<Numbers, String> {
    let mut numbers = Vec::new();
    for name in ["alpha_p", "alpha_n", "beta", "eps"] {
        let key = format!("xielu.{name}");
        let list: &[f64] = model.gguf().need(&key)?;
        if list.len() != model.layers {
            return Err(format!("`{key}` has {} numbers for {} layers", list.len(), model.layers));
        }
        let full = |layer| format!("model.layers.{layer}.mlp.act_fn.{name}");
        numbers.extend(list.iter().enumerate().map(|(layer, x)| (full(layer), *x as f32)));
    }
    Ok(numbers)
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

/// The kinds of layers: as the file says, or else every `full`th sees everything.
pub fn layer_types(model: &Model, full: usize) -> Result<Vec<&'static str>, String> {
    let slides = match model.flags("attention.sliding_window_pattern")? {
        Some(slides) if slides.len() == model.layers => slides,
        _ => (1..=model.layers).map(|layer| layer % full != 0).collect(),
    };
    let kind = |slides| if slides { "sliding_attention" } else { "full_attention" };
    Ok(slides.into_iter().map(kind).collect())
}

fn exaone4(model: &Model) -> Result<Value, String> {
    let window = model.size("attention.sliding_window")?;
    // MLX reads a letter for each layer, again and again from the start.
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
        config.extend(own); // null has a meaning here
    }
    Ok(config)
}

fn llama4(model: &Model) -> Result<Value, String> {
    let (count, used) = model.experts()?;
    let inner = model.need_size("expert_feed_forward_length")?;
    let own = json!({
        "intermediate_size": inner,
        "intermediate_size_mlp": model.most("feed_forward_length")?.unwrap_or(inner),
        "interleave_moe_layer_step": model.size("interleave_moe_layer_step")?.unwrap_or(1),
        "num_local_experts": count,
        "num_experts_per_tok": used,
        // Not in the file; what all models of this architecture have.
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

/// The configuration of a model that could take pictures too.
pub fn nested(mlx: &str, mut text: Value) -> Value {
    let class = text["architectures"].take();
    if let Some(text) = text.as_object_mut() {
        text.remove("architectures");
    }
    let (tied, vocabulary) = (text["tie_word_embeddings"].clone(), text["vocab_size"].clone());
    json!({
        "architectures": class,
        "model_type": mlx,
        "tie_word_embeddings": tied,
        "vocab_size": vocabulary,
        "text_config": text,
    })
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
        // Not in the file; what all models of this architecture have.
        scaling["truncate"] = false.into();
    }
    Ok(config)
}
