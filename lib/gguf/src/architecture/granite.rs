//! Granite, with its experts and its state spaces.

use serde_json::{Value, json};

use super::moves::{AS, Name};
use super::names::{MLP, NORMS, PAIRED};
use super::recurrent::{FALCON, space};
use super::{Architecture, USUAL};
use crate::model::Model;

pub const ALL: &[Architecture] = &[
    Architecture {
        gguf: "granite",
        names: &[NORMS, PAIRED, MLP, GRANITE],
        config: granite,
        ..USUAL
    },
    Architecture {
        gguf: "granitemoe",
        names: &[NORMS, PAIRED, MLP, GRANITE],
        config: granite,
        ..USUAL
    },
    Architecture {
        gguf: "granitehybrid",
        names: &[NORMS, PAIRED, MLP, GRANITE, FALCON],
        config: granite_hybrid,
        ..USUAL
    },
];

/// Granite's experts, and what all tokens share beside them.
const GRANITE: &[Name] = &[
    Name("ffn_gate_inp", "block_sparse_moe.router.layer", AS),
    Name("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj", AS),
    Name("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj", AS),
    Name("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj", AS),
    Name("ffn_gate_shexp", "shared_mlp.input_linear", AS.part(0)),
    Name("ffn_up_shexp", "shared_mlp.input_linear", AS.part(1)),
    Name("ffn_down_shexp", "shared_mlp.output_linear", AS),
];

/// Granite's factors.
fn factors(model: &Model) -> Result<Value, String> {
    Ok(json!({
        "attention_multiplier": model.need::<f64>("attention.scale")?,
        "embedding_multiplier": model.need::<f64>("embedding_scale")?,
        "residual_multiplier": model.need::<f64>("residual_scale")?,
        "logits_scaling": model.need::<f64>("logit_scale")?,
    }))
}

fn granite(model: &Model) -> Result<Value, String> {
    let mut own = factors(model)?;
    if !model.is_mixture()? {
        return model.config("granite", "GraniteForCausalLM", own);
    }
    let (count, used) = model.experts()?;
    own["num_local_experts"] = count.into();
    own["num_experts_per_tok"] = used.into();
    model.config("granitemoe", "GraniteMoeForCausalLM", own)
}

fn granite_hybrid(model: &Model) -> Result<Value, String> {
    let [kernel, inner, state, heads] = space(model)?;
    let kind = |attends| if attends { "attention" } else { "mamba" };
    let mut own = factors(model)?;
    let more = json!({
        "layer_types": model.with("attn_q").into_iter().map(kind).collect::<Vec<_>>(),
        "mamba_n_heads": heads,
        "mamba_d_head": inner / heads,
        "mamba_d_state": state,
        "mamba_d_conv": kernel,
        "mamba_n_groups": model.need_size("ssm.group_count")?,
        "mamba_conv_bias": model.any("ssm_conv1d.bias"),
        "mamba_proj_bias": model.any("ssm_in.bias"),
        "attention_bias": model.any("attn_q.bias"),
        // Files say so by having frequencies, or not.
        "position_embedding_type": match model.find::<bool>("rope.scaling.finetuned")? {
            Some(false) => "nope",
            _ => "rope",
        },
    });
    if let (Value::Object(own), Value::Object(more)) = (&mut own, more) {
        own.extend(more);
    }
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
