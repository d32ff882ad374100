//! Nemotron-H (arXiv 2504.03624): a list of state space, attention and feed-forward layers.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::gated_norm::Order;
use mlxk_tensor::ops::moe_route::{Groups, Routing, Score};
use mlxk_tensor::ops::ssd::SsdSizes;
use serde_json::{Value, json};

use super::hybrid::{Factors, Hybrid, Step};
use super::llama;
use crate::checkpoint::config_error::{invalid, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::config::{Config, given, renamed};
use crate::language::Language;
use crate::nn::attention::{Attention, Sizes};
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Moe, MoeArch, SharedArch};
use crate::nn::ssm::mamba2::{Limits, Mamba2, Mamba2Arch, Mamba2Norm};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    experts: ExpertLayout { up: "fc1", down: "fc2", ..ExpertLayout::DEFAULT },
    convert: Rules {
        plain: &["mixer.gate"],
        keep: &["e_score_correction_bias", "A_log"],
        ..Rules::NONE
    },
    ..Spec::new(Architecture::NemotronH, load)
}];

/// Loads a `nemotron_h`, whose attention has no position embeddings.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let kinds = kinds(config)?;
    let counted = given(config, json!({"num_hidden_layers": kinds.len()}));
    let c = Config::read(&renamed(&counted, &[("layer_norm_epsilon", "rms_norm_eps")]))?;
    let arch = Arch::read(&c)?;
    let (norm, hidden) = (c.rms_norm()?, c.hidden_size);
    w.discard(|name| name.starts_with("mtp."));
    w.rename(&[
        ("mixer.switch_mlp.up_proj", "mixer.switch_mlp.fc1"),
        ("mixer.switch_mlp.down_proj", "mixer.switch_mlp.fc2"),
        ("mixer.shared_expert", "mixer.shared_experts"),
    ]);
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "backbone.embeddings",
        norm: ("backbone.norm_f", norm),
        tied: false,
        scale: 1.0,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut steps = Vec::new();
    for (i, kind) in kinds.into_iter().enumerate() {
        let mut w = w.at(&format!("backbone.layers.{i}"));
        let before = norm.load(&mut w, "norm", hidden)?;
        let w = &mut w.at("mixer");
        steps.push(match kind {
            Kind::Mamba => Step::mix(before, Mamba2::load(w, &arch.mixer)?),
            Kind::Attention => Step::mix(before, Attention::load(w, &arch.heads, None)?),
            Kind::Mlp => Step::feed(before, Box::new(Mlp::load(w, hidden, &arch.mlp, norm)?)),
            Kind::Moe => Step::feed(before, Box::new(Moe::load(w, hidden, &moe(&c)?, norm)?)),
        });
    }
    Ok(Box::new(Hybrid { ends, steps, factors: Factors::NONE, ops: w.ops() }))
}

struct Arch {
    mixer: Mamba2Arch,
    heads: Sizes,
    mlp: MlpArch,
}

enum Kind {
    Mamba,
    Attention,
    Mlp,
    Moe,
}

/// Kind of each layer, from a pattern of characters or a list of names.
fn kinds(config: &Value) -> Result<Vec<Kind>> {
    const KEYS: [&str; 3] = ["hybrid_override_pattern", "layers_block_type", "layer_types"];
    let list = KEYS.iter().find_map(|key| config.get(key).filter(|list| !list.is_null()));
    let names: Vec<String> = match list {
        Some(Value::String(pattern)) => pattern.chars().map(String::from).collect(),
        Some(list) => serde_json::from_value(list.clone())
            .map_err(|e| invalid(format!("`layers_block_type`: {e}")))?,
        None => return Err(invalid("missing field `hybrid_override_pattern`".into())),
    };
    let kind = |name: &String| match name.as_str() {
        "M" | "linear_attention" | "mamba" | "conv" => Ok(Kind::Mamba),
        "*" | "full_attention" | "attention" => Ok(Kind::Attention),
        "-" | "mlp" => Ok(Kind::Mlp),
        "E" | "moe" => Ok(Kind::Moe),
        other => Err(unknown(format!("layers of type `{other}` cannot run yet"))),
    };
    names.iter().map(kind).collect()
}

impl Arch {
    fn read(c: &Config) -> Result<Arch> {
        let ssd = SsdSizes {
            heads: c.need("mamba_num_heads")?,
            head_dim: c.need("mamba_head_dim")?,
            groups: c.need("n_groups")?,
            state: c.need("ssm_state_size")?,
            dt: c.get::<Limits>("time_step_limit")?.map_or((0.0, f32::INFINITY), Limits::range),
        };
        let norm = Mamba2Norm { eps: c.rms_norm()?.eps, order: Order::Gate, grouped: true };
        let taps = c.need("conv_kernel")?;
        let mixer = Mamba2Arch { hidden: c.hidden_size, ssd, taps, norm: Some(norm) };
        mixer.check()?;
        Ok(Arch { mixer, heads: llama::heads(c, c.rms_norm()?), mlp: mlp(c.intermediate_size) })
    }
}

/// Feed-forward layer without gates, with squared ReLU.
fn mlp(inner: usize) -> MlpArch {
    MlpArch { inner, gated: false, fused: false, activation: Activation::ReluSquared }
}

/// Mixture of experts, which may run on a projection to a smaller latent size.
fn moe(c: &Config) -> Result<MoeArch> {
    let count = c.get("n_group")?.unwrap_or(1);
    let groups =
        Groups { count, kept: c.get("topk_group")?.unwrap_or(count), judged: 2, dropped: 0.0 };
    let chosen = c.need("num_experts_per_tok")?;
    let routing = Routing {
        groups: (count > 1).then_some(groups),
        normalised: chosen > 1 && c.get("norm_topk_prob")?.unwrap_or(false),
        scale: c.get("routed_scaling_factor")?.unwrap_or(1.0),
        ..Routing::new(chosen, Score::Sigmoid)
    };
    let shared = match c.get::<usize>("n_shared_experts")? {
        Some(_) => {
            let mlp = mlp(c.need("moe_shared_expert_intermediate_size")?);
            Some(SharedArch { mlp, weighed: false })
        }
        None => None,
    };
    Ok(MoeArch {
        count: c.need("n_routed_experts")?,
        inner: c.need("moe_intermediate_size")?,
        activation: Activation::ReluSquared,
        routing,
        shared,
        gated: false,
    })
}
