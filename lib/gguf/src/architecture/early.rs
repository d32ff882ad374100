//! Decoders with names from before Llama: GPT-2, GPT-NeoX, EXAONE 3.

use serde_json::{Value, json};

use super::row::{Architecture, DEFAULT};
use super::transform::{Name, SAME, grouped};
use crate::model::Model;

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "gpt2",
        layer_prefix: "model.h",
        outer_names: &[&[
            Name("token_embd", "model.wte", SAME),
            Name("position_embd", "model.wpe", SAME),
            Name("output_norm", "model.ln_f", SAME),
            // MLX ties the output to the embedding.
            Name("output", "", SAME),
        ]],
        layer_names: &[&[
            Name("attn_qkv", "attn.c_attn", SAME),
            Name("attn_output", "attn.c_proj", SAME),
            Name("attn_norm", "ln_1", SAME),
            Name("ffn_norm", "ln_2", SAME),
            Name("ffn_up", "mlp.c_fc", SAME),
            Name("ffn_down", "mlp.c_proj", SAME),
        ]],
        config: gpt2,
        ..DEFAULT
    },
    Architecture {
        gguf: "gptneox",
        layer_prefix: "model.h",
        outer_names: &[&[
            Name("token_embd", "model.embed_in", SAME),
            Name("output_norm", "model.final_layer_norm", SAME),
            Name("output", "model.embed_out", SAME),
        ]],
        layer_names: &[&[
            Name("attn_qkv", "attention.query_key_value", SAME.rows(by_head)),
            Name("attn_output", "attention.dense", SAME),
            Name("attn_norm", "input_layernorm", SAME),
            Name("ffn_norm", "post_attention_layernorm", SAME),
            Name("ffn_up", "mlp.dense_h_to_4h", SAME),
            Name("ffn_down", "mlp.dense_4h_to_h", SAME),
        ]],
        partial_rotary: true,
        config: gpt_neox,
        ..DEFAULT
    },
    Architecture {
        gguf: "exaone",
        layer_prefix: "transformer.h",
        outer_names: &[&[
            Name("token_embd", "transformer.wte", SAME),
            Name("output_norm", "transformer.ln_f", SAME),
            Name("output", "lm_head", SAME),
        ]],
        layer_names: &[&[
            Name("attn_q", "attn.attention.q_proj", SAME),
            Name("attn_k", "attn.attention.k_proj", SAME),
            Name("attn_v", "attn.attention.v_proj", SAME),
            Name("attn_output", "attn.attention.out_proj", SAME),
            Name("attn_norm", "ln_1", SAME),
            Name("ffn_norm", "ln_2", SAME),
            Name("ffn_gate", "mlp.c_fc_0", SAME),
            Name("ffn_up", "mlp.c_fc_1", SAME),
            Name("ffn_down", "mlp.c_proj", SAME),
        ]],
        config: |m| {
            let own = json!({ "num_layers": m.layers, "layer_norm_epsilon": m.epsilon()? });
            m.config("exaone", "ExaoneForCausalLM", own)
        },
        ..DEFAULT
    },
];

/// Order of rows with queries, keys and values of each head together.
fn by_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    grouped(model.heads, &[model.head; 3], rows)
}

fn gpt2(model: &Model) -> Result<Value, String> {
    Ok(json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocabulary,
        "n_ctx": model.context,
        "n_positions": model.rows("position_embd.weight")?,
        "n_embd": model.hidden,
        "n_head": model.heads,
        "n_layer": model.layers,
        "layer_norm_epsilon": model.epsilon()?,
        "tie_word_embeddings": true,
    }))
}

fn gpt_neox(model: &Model) -> Result<Value, String> {
    let own = json!({
        "hidden_act": "gelu",
        "layer_norm_eps": model.epsilon()?,
        "rotary_emb_base": model.rope.theta,
        "rotary_pct": model.rotary_factor(),
        "use_parallel_residual": model.find::<bool>("use_parallel_residual")?.unwrap_or(true),
        "rms_norm_eps": null, "rope_theta": null, "head_dim": null, "partial_rotary_factor": null,
        "tie_word_embeddings": false,
    });
    model.config("gpt_neox", "GPTNeoXForCausalLM", own)
}
