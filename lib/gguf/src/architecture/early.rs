//! Decoders from before Llama: their queries, keys and values are one matrix.

use serde_json::{Value, json};

use super::moves::{AS, Name, dealt};
use super::{Architecture, USUAL};
use crate::model::Model;

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "gpt2",
        layers: "model.h",
        ends: &[&[
            Name("token_embd", "model.wte", AS),
            Name("position_embd", "model.wpe", AS),
            Name("output_norm", "model.ln_f", AS),
            // MLX has the embedding in its place.
            Name("output", "", AS),
        ]],
        names: &[&[
            Name("attn_qkv", "attn.c_attn", AS),
            Name("attn_output", "attn.c_proj", AS),
            Name("attn_norm", "ln_1", AS),
            Name("ffn_norm", "ln_2", AS),
            Name("ffn_up", "mlp.c_fc", AS),
            Name("ffn_down", "mlp.c_proj", AS),
        ]],
        config: gpt2,
        ..USUAL
    },
    Architecture {
        gguf: "gptneox",
        layers: "model.h",
        ends: &[&[
            Name("token_embd", "model.embed_in", AS),
            Name("output_norm", "model.final_layer_norm", AS),
            Name("output", "model.embed_out", AS),
        ]],
        names: &[&[
            Name("attn_qkv", "attention.query_key_value", AS.rows(by_head)),
            Name("attn_output", "attention.dense", AS),
            Name("attn_norm", "input_layernorm", AS),
            Name("ffn_norm", "post_attention_layernorm", AS),
            Name("ffn_up", "mlp.dense_h_to_4h", AS),
            Name("ffn_down", "mlp.dense_4h_to_h", AS),
        ]],
        partial: true,
        config: gpt_neox,
        ..USUAL
    },
    Architecture {
        gguf: "exaone",
        layers: "transformer.h",
        ends: &[&[
            Name("token_embd", "transformer.wte", AS),
            Name("output_norm", "transformer.ln_f", AS),
            Name("output", "lm_head", AS),
        ]],
        names: &[&[
            Name("attn_q", "attn.attention.q_proj", AS),
            Name("attn_k", "attn.attention.k_proj", AS),
            Name("attn_v", "attn.attention.v_proj", AS),
            Name("attn_output", "attn.attention.out_proj", AS),
            Name("attn_norm", "ln_1", AS),
            Name("ffn_norm", "ln_2", AS),
            Name("ffn_gate", "mlp.c_fc_0", AS),
            Name("ffn_up", "mlp.c_fc_1", AS),
            Name("ffn_down", "mlp.c_proj", AS),
        ]],
        config: |m| {
            let own = json!({ "num_layers": m.layers, "layer_norm_epsilon": m.epsilon()? });
            m.config("exaone", "ExaoneForCausalLM", own)
        },
        ..USUAL
    },
];

/// Queries, keys and values of each head together.
fn by_head(model: &Model, rows: usize) -> Result<Vec<usize>, String> {
    dealt(model.heads, &[model.head; 3], rows)
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
        "rotary_pct": model.rope.rotated as f64 / model.head as f64,
        "use_parallel_residual": model.find::<bool>("use_parallel_residual")?.unwrap_or(true),
        "rms_norm_eps": null, "rope_theta": null, "head_dim": null, "partial_rotary_factor": null,
        "tie_word_embeddings": false,
    });
    model.config("gpt_neox", "GPTNeoXForCausalLM", own)
}
