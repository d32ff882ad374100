//! Dense decoders with norms, positions or feed-forward layers of their own.

use serde_json::{Value, json};

use super::moves::{AS, LESS, Name};
use super::names::{ATTENTION, FUSED_MLP, MLP, NORMS};
use super::{Architecture, USUAL};
use crate::model::Model;
use crate::rope;

/// Norms before attention and feed-forward layers, and behind them.
pub const FOUR_NORMS: &[Name] = &[
    Name("attn_norm", "input_layernorm", AS),
    Name("ffn_norm", "post_attention_layernorm", AS),
    Name("post_attention_norm", "post_self_attn_layernorm", AS),
    Name("post_ffw_norm", "post_mlp_layernorm", AS),
];

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "glm4",
        names: &[FOUR_NORMS, ATTENTION, FUSED_MLP],
        partial: true,
        config: glm4,
        ..USUAL
    },
    Architecture {
        gguf: "chatglm",
        names: &[NORMS, ATTENTION, FUSED_MLP],
        partial: true,
        config: glm,
        ..USUAL
    },
    Architecture {
        gguf: "command-r",
        names: &[NORMS, ATTENTION, MLP],
        partial: true,
        config: |m| {
            let own = cohere(m)?;
            m.config("cohere", "CohereForCausalLM", own)
        },
        ..USUAL
    },
    Architecture {
        gguf: "cohere2",
        names: &[NORMS, ATTENTION, MLP],
        partial: true,
        config: cohere2,
        ..USUAL
    },
    Architecture {
        gguf: "nemotron",
        ends: &[&[
            Name("token_embd", "model.embed_tokens", AS),
            Name("output_norm.weight", "model.norm.weight", LESS),
            Name("output_norm", "model.norm", AS),
            Name("output", "lm_head", AS),
        ]],
        names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm.weight", "input_layernorm.weight", LESS),
                Name("attn_norm", "input_layernorm", AS),
                Name("ffn_norm.weight", "post_attention_layernorm.weight", LESS),
                Name("ffn_norm", "post_attention_layernorm", AS),
            ],
        ],
        partial: true,
        config: |m| {
            let own = json!({ "hidden_act": "relu2", "norm_eps": m.epsilon()? });
            m.config("nemotron", "NemotronForCausalLM", own)
        },
        ..USUAL
    },
    Architecture {
        gguf: "stablelm",
        names: &[NORMS, ATTENTION, MLP],
        partial: true,
        config: stablelm,
        ..USUAL
    },
    Architecture {
        gguf: "starcoder2",
        names: &[
            NORMS,
            ATTENTION,
            &[Name("ffn_up", "mlp.c_fc", AS), Name("ffn_down", "mlp.c_proj", AS)],
        ],
        config: |m| {
            let own = json!({ "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": m.epsilon()?, "use_bias": true });
            m.config("starcoder2", "Starcoder2ForCausalLM", own)
        },
        ..USUAL
    },
    Architecture {
        gguf: "phi3",
        names: &[
            NORMS,
            FUSED_MLP,
            &[
                Name("attn_qkv", "self_attn.qkv_proj", AS),
                Name("attn_output", "self_attn.o_proj", AS),
            ],
        ],
        partial: true,
        config: |m| {
            let own = long_rope(m)?;
            m.config("phi3", "Phi3ForCausalLM", own)
        },
        ..USUAL
    },
    Architecture {
        gguf: "phi2",
        ends: &[&[
            Name("token_embd", "model.embed_tokens", AS),
            Name("output_norm", "model.final_layernorm", AS),
            Name("output", "lm_head", AS),
        ]],
        names: &[
            &[
                Name("attn_output", "self_attn.dense", AS),
                Name("attn_norm", "input_layernorm", AS),
                Name("ffn_up", "mlp.fc1", AS),
                Name("ffn_down", "mlp.fc2", AS),
            ],
            ATTENTION,
        ],
        partial: true,
        config: phi,
        ..USUAL
    },
];

fn glm(model: &Model) -> Result<Value, String> {
    if model.rope.rotated * 2 != model.head {
        let rotated = model.rope.rotated;
        return Err(format!("{rotated} of {} elements rotate; half can", model.head));
    }
    model.config("glm", "GlmForCausalLM", json!({}))
}

fn glm4(model: &Model) -> Result<Value, String> {
    let part = model.rope.rotated as f64 / model.head as f64;
    model.config("glm4", "Glm4ForCausalLM", json!({ "partial_rotary_factor": part }))
}

fn cohere(model: &Model) -> Result<Value, String> {
    Ok(json!({
        "layer_norm_eps": model.epsilon_of_layers()?,
        "logit_scale": model.need::<f64>("logit_scale")?,
        "use_qk_norm": model.has(0, "attn_q_norm"),
        "rms_norm_eps": null,
    }))
}

fn cohere2(model: &Model) -> Result<Value, String> {
    let mut own = cohere(model)?;
    own["sliding_window"] = model.need_size("attention.sliding_window")?.into();
    // Not in the file: every fourth layer sees everything.
    own["sliding_window_pattern"] = 4.into();
    model.config("cohere2", "Cohere2ForCausalLM", own)
}

fn stablelm(model: &Model) -> Result<Value, String> {
    let own = json!({
        "layer_norm_eps": model.epsilon()?,
        "use_qkv_bias": model.has(0, "attn_q.bias"),
        "use_parallel_residual": !model.has(0, "ffn_norm"),
        "qk_layernorm": model.has(0, "attn_q_norm"),
        "partial_rotary_factor": model.rope.rotated as f64 / model.head as f64,
    });
    model.config("stablelm", "StableLmForCausalLM", own)
}

fn phi(model: &Model) -> Result<Value, String> {
    let own = json!({
        "hidden_act": "gelu_new",
        "layer_norm_eps": model.epsilon()?,
        "partial_rotary_factor": model.rope.rotated as f64 / model.head as f64,
        // The length is that of the tensor: files state four times the width, whatever it is.
        "intermediate_size": model.rows("blk.0.ffn_up.weight")?,
    });
    model.config("phi", "PhiForCausalLM", own)
}

/// Factors of frequencies for short texts and for long ones, if the file has them.
pub fn long_rope(model: &Model) -> Result<Value, String> {
    let read = |name: &str| rope::factors(model, name, model.rope.rotated);
    let original = model.size("rope.scaling.original_context_length")?;
    let (Some(short), Some(long)) =
        (read("rope_factors_short.weight")?, read("rope_factors_long.weight")?)
    else {
        return Ok(json!({}));
    };
    let original = original.unwrap_or(model.context);
    Ok(json!({
        "original_max_position_embeddings": original,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": short.into_iter().map(shortest).collect::<Vec<_>>(),
            "long_factor": long.into_iter().map(shortest).collect::<Vec<_>>(),
            "original_max_position_embeddings": original,
        },
    }))
}

/// The f64 of the shortest decimal that means this f32.
pub fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
