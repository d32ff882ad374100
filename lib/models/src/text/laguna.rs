//! Poolside's Laguna: gated attention, a number of heads for each layer, rotary position embeddings
//! by type of layer, and mixtures with a shared expert.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder};
use super::{deepseek, llama};
use crate::checkpoint::config_error::{even, invalid, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::config::{Config, renamed};
use crate::language::Language;
use crate::nn::attention::{Gate, Sizes};
use crate::nn::mlp::MlpArch;
use crate::nn::moe::{MoeArch, SharedArch};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    sanitize: &[sanitize],
    convert: Rules { eight: &["mlp.gate.proj"], keep: &["e_score_correction_bias"], ..Rules::NONE },
    ..Spec::new(Architecture::Laguna, load)
}];

/// Loads a `laguna`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [
        ("num_experts", "n_routed_experts"),
        ("moe_routed_scaling_factor", "routed_scaling_factor"),
        ("moe_router_score_func", "scoring_func"),
    ];
    let defaults = json!({"vocab_size": 100_352, "hidden_size": 2048, "intermediate_size": 8192,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
        "num_hidden_layers": 40, "num_attention_heads": 48, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 262_144, "rms_norm_eps": 1e-6,
        "gating": true, "n_routed_experts": 256, "num_experts_per_tok": 8});
    let mut c = Config::read_or(&renamed(config, &names), defaults)?;
    let part = c.partial_rotary_factor.take();
    w.rename(&[
        ("self_attn.gate_proj", "self_attn.g_proj"),
        ("mlp.gate", "mlp.gate.proj"),
        ("mlp.gate.proj.e_score_correction_bias", "mlp.gate.e_score_correction_bias"),
    ]);
    let sparse = sparse(&c)?;
    Decoder::load(arch(&c, part)?.with_moe(&moe(&c)?, |i| sparse[i]), w)
}

/// Architecture without the mixtures. `part` is the fraction of a head that rotates, in layers
/// whose type states none.
fn arch(c: &Config, part: Option<f64>) -> Result<Arch> {
    let rope = |kind: &str| {
        let mut scaling = c.scaling_of(kind)?.unwrap_or_default();
        scaling.partial_rotary_factor = scaling.partial_rotary_factor.or(part);
        c.rope_of(scaling.rope_theta.unwrap_or(10_000.0), &scaling)
    };
    let [full, sliding] = [rope("full_attention")?, rope("sliding_attention")?];
    let mut arch = llama::base(c, full, false, c.rms_norm()?)?;
    arch.heads.gate = gate(c)?;
    let counts: Option<Vec<usize>> = c.get("num_attention_heads_per_layer")?;
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        let kind = c.layer_types.as_ref().map(|types| types[i].as_str());
        if kind == Some("sliding_attention") {
            layer.rope = Some(sliding.clone());
        }
        if let Some(counts) = &counts {
            let heads = counts.get(i).copied().unwrap_or_default();
            positive(&[("num_attention_heads_per_layer", heads)])?;
            even(heads, arch.heads.kv_heads)?;
            layer.heads = Some(Sizes { heads, ..arch.heads });
        }
    }
    Ok(arch)
}

/// Gate of attention, one for each head or each element; `None` if there is none.
fn gate(c: &Config) -> Result<Option<Gate>> {
    let by_head = match c.need("gating")? {
        Value::Bool(false) => return Ok(None),
        Value::Bool(true) => true,
        Value::String(kind) if kind == "per-head" => true,
        Value::String(kind) if kind == "per-element" => false,
        other => return Err(unknown(format!("`gating` of kind {other} cannot run yet"))),
    };
    Ok(Some(Gate { by_head, softplus: true }))
}

/// True for each layer that has a mixture: as `mlp_layer_types` states, else all layers that are
/// not in `mlp_only_layers`, which is layer 0 by default.
fn sparse(c: &Config) -> Result<Vec<bool>> {
    match c.get::<Vec<String>>("mlp_layer_types")? {
        Some(types) if types.len() < c.num_hidden_layers => {
            Err(invalid("`mlp_layer_types` does not name all layers".into()))
        }
        Some(types) => Ok(types.iter().map(|kind| kind == "sparse").collect()),
        None => {
            let dense = c.get("mlp_only_layers")?.unwrap_or(vec![0]);
            Ok((0..c.num_hidden_layers).map(|layer| !dense.contains(&layer)).collect())
        }
    }
}

/// Mixture with routed experts, chosen by corrected scores, whose weights sum up to one, and a
/// shared expert.
fn moe(c: &Config) -> Result<MoeArch> {
    let moe = deepseek::moe(c, deepseek::score(c, Score::Sigmoid)?, 1)?;
    let inner = c.need("shared_expert_intermediate_size")?;
    let mlp = MlpArch { inner, gated: true, fused: false, activation: Activation::Silu };
    let softcap = c.get("moe_router_logit_softcapping")?.filter(|&cap| cap > 0.0);
    Ok(MoeArch {
        routing: Routing { normalised: true, softcap, ..moe.routing },
        shared: Some(SharedArch { mlp, weighed: false }),
        ..moe
    })
}

/// Unwraps a nested model, drops the head if embeddings are tied, and renames the
/// tensors of the router.
fn sanitize(all: &mut Checkpoint) -> Result<()> {
    let ends = [
        (".mlp.gate.weight", ".mlp.gate.proj.weight"),
        (".mlp.experts.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"),
    ];
    all.rename(|name| {
        let own = name.strip_prefix("language_model.").unwrap_or(name);
        let end = ends.iter().find_map(|(theirs, ours)| Some((own.strip_suffix(theirs)?, ours)));
        Some(end.map_or_else(|| own.to_owned(), |(stem, ours)| format!("{stem}{ours}")))
    });
    if all.config.get("tie_word_embeddings") == Some(&Value::Bool(true)) {
        all.remove(|name| name == "lm_head.weight");
    }
    Ok(())
}
