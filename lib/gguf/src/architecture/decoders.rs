//! Dense decoders whose norms, positions or feed-forward layers differ from Llama's: GLM, Cohere,
//! Phi, ...

use serde_json::{Value, json};

use super::names::{ATTENTION, FUSED_MLP, MLP, NORMS};
use super::row::{Architecture, DEFAULT};
use super::transform::{MINUS_ONE, Name, SAME};
use crate::model::Model;
use crate::rope;
use crate::value::shortest;

/// Norms before and after attention, and before and after the feed-forward layer.
pub const FOUR_NORMS: &[Name] = &[
    Name("attn_norm", "input_layernorm", SAME),
    Name("ffn_norm", "post_attention_layernorm", SAME),
    Name("post_attention_norm", "post_self_attn_layernorm", SAME),
    Name("post_ffw_norm", "post_mlp_layernorm", SAME),
];

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "glm4",
        layer_names: &[FOUR_NORMS, ATTENTION, FUSED_MLP],
        partial_rotary: true,
        config: glm4,
        ..DEFAULT
    },
    Architecture {
        gguf: "chatglm",
        layer_names: &[NORMS, ATTENTION, FUSED_MLP],
        partial_rotary: true,
        config: glm,
        ..DEFAULT
    },
    Architecture {
        gguf: "command-r",
        layer_names: &[NORMS, ATTENTION, MLP],
        partial_rotary: true,
        config: |m| {
            let own = cohere(m)?;
            m.config("cohere", "CohereForCausalLM", own)
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "cohere2",
        layer_names: &[NORMS, ATTENTION, MLP],
        partial_rotary: true,
        config: cohere2,
        ..DEFAULT
    },
    Architecture {
        gguf: "nemotron",
        outer_names: &[&[
            Name("token_embd", "model.embed_tokens", SAME),
            Name("output_norm.weight", "model.norm.weight", MINUS_ONE),
            Name("output_norm", "model.norm", SAME),
            Name("output", "lm_head", SAME),
        ]],
        layer_names: &[
            ATTENTION,
            MLP,
            &[
                Name("attn_norm.weight", "input_layernorm.weight", MINUS_ONE),
                Name("attn_norm", "input_layernorm", SAME),
                Name("ffn_norm.weight", "post_attention_layernorm.weight", MINUS_ONE),
                Name("ffn_norm", "post_attention_layernorm", SAME),
            ],
        ],
        partial_rotary: true,
        config: |m| {
            let own = json!({ "hidden_act": "relu2", "norm_eps": m.epsilon()? });
            m.config("nemotron", "NemotronForCausalLM", own)
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "stablelm",
        layer_names: &[NORMS, ATTENTION, MLP],
        partial_rotary: true,
        config: stablelm,
        ..DEFAULT
    },
    Architecture {
        gguf: "starcoder2",
        layer_names: &[
            NORMS,
            ATTENTION,
            &[Name("ffn_up", "mlp.c_fc", SAME), Name("ffn_down", "mlp.c_proj", SAME)],
        ],
        config: |m| {
            let own = json!({ "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": m.epsilon()?, "use_bias": true });
            m.config("starcoder2", "Starcoder2ForCausalLM", own)
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "phi3",
        layer_names: &[
            NORMS,
            FUSED_MLP,
            &[
                Name("attn_qkv", "self_attn.qkv_proj", SAME),
                Name("attn_output", "self_attn.o_proj", SAME),
            ],
        ],
        partial_rotary: true,
        config: |m| {
            let own = long_rope(m)?;
            m.config("phi3", "Phi3ForCausalLM", own)
        },
        ..DEFAULT
    },
    Architecture {
        gguf: "phi2",
        outer_names: &[&[
            Name("token_embd", "model.embed_tokens", SAME),
            Name("output_norm", "model.final_layernorm", SAME),
            Name("output", "lm_head", SAME),
        ]],
        layer_names: &[
            &[
                Name("attn_output", "self_attn.dense", SAME),
                Name("attn_norm", "input_layernorm", SAME),
                Name("ffn_up", "mlp.fc1", SAME),
                Name("ffn_down", "mlp.fc2", SAME),
            ],
            ATTENTION,
        ],
        partial_rotary: true,
        config: phi,
        ..DEFAULT
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
    let own = json!({ "partial_rotary_factor": model.rotary_factor() });
    model.config("glm4", "Glm4ForCausalLM", own)
}

fn cohere(model: &Model) -> Result<Value, String> {
    Ok(json!({
        "layer_norm_eps": model.layer_norm_epsilon()?,
        "logit_scale": model.need::<f64>("logit_scale")?,
        "use_qk_norm": model.has(0, "attn_q_norm"),
        "rms_norm_eps": null,
    }))
}

fn cohere2(model: &Model) -> Result<Value, String> {
    let mut own = cohere(model)?;
    own["sliding_window"] = model.need_size("attention.sliding_window")?.into();
    // Not in the file: every fourth layer has full attention.
    own["sliding_window_pattern"] = 4.into();
    model.config("cohere2", "Cohere2ForCausalLM", own)
}

fn stablelm(model: &Model) -> Result<Value, String> {
    let own = json!({
        "layer_norm_eps": model.epsilon()?,
        "use_qkv_bias": model.has(0, "attn_q.bias"),
        "use_parallel_residual": !model.has(0, "ffn_norm"),
        "qk_layernorm": model.has(0, "attn_q_norm"),
        "partial_rotary_factor": model.rotary_factor(),
    });
    model.config("stablelm", "StableLmForCausalLM", own)
}

fn phi(model: &Model) -> Result<Value, String> {
    let own = json!({
        "hidden_act": "gelu_new",
        "layer_norm_eps": model.epsilon()?,
        "partial_rotary_factor": model.rotary_factor(),
        // From the tensor, since files always state four times the hidden size.
        "intermediate_size": model.rows("blk.0.ffn_up.weight")?,
    });
    model.config("phi", "PhiForCausalLM", own)
}

/// Fields of LongRoPE scaling, with factors for short and long contexts; empty if the file has
/// none.
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
