//! Granite: dense, mixture of experts, and hybrid with Mamba 2.

use serde_json::{Value, json};

use super::config::extended;
use super::names::{MLP, NORMS, PAIRED};
use super::recurrent::{MAMBA2_BLOCK, ssm_sizes};
use super::row::{Architecture, DEFAULT};
use super::transform::{Name, SAME};
use crate::model::Model;

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "granite",
        layer_names: &[NORMS, PAIRED, MLP, GRANITE],
        config: granite,
        ..DEFAULT
    },
    Architecture {
        gguf: "granitemoe",
        layer_names: &[NORMS, PAIRED, MLP, GRANITE],
        config: granite,
        ..DEFAULT
    },
    Architecture {
        gguf: "granitehybrid",
        layer_names: &[NORMS, PAIRED, MLP, GRANITE, MAMBA2_BLOCK],
        config: granite_hybrid,
        ..DEFAULT
    },
];

/// Granite's experts and shared feed-forward layer.
const GRANITE: &[Name] = &[
    Name("ffn_gate_inp", "block_sparse_moe.router.layer", SAME),
    Name("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj", SAME),
    Name("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj", SAME),
    Name("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj", SAME),
    Name("ffn_gate_shexp", "shared_mlp.input_linear", SAME.part(0)),
    Name("ffn_up_shexp", "shared_mlp.input_linear", SAME.part(1)),
    Name("ffn_down_shexp", "shared_mlp.output_linear", SAME),
];

/// Granite's multipliers of attention, embedding, residual and logits.
fn multipliers(model: &Model) -> Result<Value, String> {
    Ok(json!({
        "attention_multiplier": model.need::<f64>("attention.scale")?,
        "embedding_multiplier": model.need::<f64>("embedding_scale")?,
        "residual_multiplier": model.need::<f64>("residual_scale")?,
        "logits_scaling": model.need::<f64>("logit_scale")?,
    }))
}

fn granite(model: &Model) -> Result<Value, String> {
    let mut own = multipliers(model)?;
    if !model.is_mixture()? {
        return model.config("granite", "GraniteForCausalLM", own);
    }
    let (count, used) = model.experts()?;
    own["num_local_experts"] = count.into();
    own["num_experts_per_tok"] = used.into();
    model.config("granitemoe", "GraniteMoeForCausalLM", own)
}

fn granite_hybrid(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, heads] = ssm_sizes(model)?;
    let kind = |attends| if attends { "attention" } else { "mamba" };
    let own = multipliers(model)?;
    let hybrid = json!({
        "layer_types": model.layers_with("attn_q").into_iter().map(kind).collect::<Vec<_>>(),
        "mamba_n_heads": heads,
        "mamba_d_head": inner / heads,
        "mamba_d_state": state,
        "mamba_d_conv": kernel,
        "mamba_n_groups": model.need_size("ssm.group_count")?,
        "mamba_conv_bias": model.any_has("ssm_conv1d.bias"),
        "mamba_proj_bias": model.any_has("ssm_in.bias"),
        "attention_bias": model.any_has("attn_q.bias"),
        // llama.cpp's converter marks models without rotary positions by this key.
        "position_embedding_type": match model.find::<bool>("rope.scaling.finetuned")? {
            Some(false) => "nope",
            _ => "rope",
        },
    });
    let mut own = extended(own, hybrid);
    if model.is_mixture()? {
        let (count, used) = model.experts()?;
        own["num_local_experts"] = count.into();
        own["num_experts_per_tok"] = used.into();
        own["shared_intermediate_size"] =
            model.need_size("expert_shared_feed_forward_length")?.into();
    } else {
        own["num_local_experts"] = 0.into();
    }
    model.config("granitemoehybrid", "GraniteMoeHybridForCausalLM", own)
}
