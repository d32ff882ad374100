//! Mamba (arXiv 2312.00752), Falcon Mamba (arXiv 2410.05355) and Mamba 2 (arXiv 2405.21060): state
//! space models without attention.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::gated_norm::Order;
use mlxk_tensor::ops::ssd::SsdSizes;
use serde::Deserialize;
use serde_json::Value;

use super::hybrid::{Factors, Hybrid, Step};
use crate::checkpoint::config_error::{fields, invalid, positive};
use crate::checkpoint::cursor::Cursor;
use crate::language::Language;
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mixer::TokenMixer;
use crate::nn::norm::{NormArch, NormKind};
use crate::nn::ssm::mamba::{Mamba, MambaSizes};
use crate::nn::ssm::mamba2::{Limits, Mamba2, Mamba2Arch, Mamba2Norm};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] =
    &[Spec::new(Architecture::Mamba, load), Spec::new(Architecture::Mamba2, load_2)];

/// Norm between layers, with the epsilon of Mamba, which config.json does not state.
const NORM: NormArch = NormArch { kind: NormKind::Rms, eps: 1e-5 };

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    state_size: usize,
    conv_kernel: usize,
    tie_word_embeddings: Option<bool>,
}

/// Fields of config.json that only Mamba has.
#[derive(Deserialize)]
struct First {
    model_type: String,
    intermediate_size: usize,
    time_step_rank: Value,
    #[serde(default)]
    use_bcdt_rms: bool,
    mixer_rms_eps: Option<f32>,
}

/// Fields of config.json that only Mamba 2 has.
#[derive(Deserialize)]
struct Second {
    num_heads: usize,
    head_dim: usize,
    n_groups: usize,
    ssm_state_size: Option<usize>,
    layer_norm_epsilon: f32,
    time_step_limit: Limits,
}

/// Loads a `mamba`, or a `falcon_mamba`, which norms B, C and the time step.
fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let (c, own): (Config, First) = (fields(config)?, fields(config)?);
    let rank = rank(&own.time_step_rank, c.hidden_size)?;
    positive(&[("intermediate_size", own.intermediate_size)])?;
    let normed = own.use_bcdt_rms || own.model_type == "falcon_mamba";
    let eps = own.mixer_rms_eps.unwrap_or(1e-6);
    let sizes = MambaSizes {
        hidden: c.hidden_size,
        inner: own.intermediate_size,
        state: c.state_size,
        rank,
        taps: c.conv_kernel,
        norm: normed.then_some(NormArch { kind: NormKind::Bare, eps }),
    };
    stack(&c, NORM, true, w, |w| Mamba::load(w, sizes))
}

/// Rank of the time step projection; `stated` is a number or `auto`.
pub fn rank(stated: &Value, hidden: usize) -> Result<usize> {
    let rank = match stated {
        Value::String(auto) if auto == "auto" => Some(hidden.div_ceil(16)),
        rank => rank.as_u64().map(|rank| rank as usize),
    };
    let rank = rank.ok_or_else(|| invalid("the rank of steps is not a number".into()))?;
    positive(&[("the rank of steps", rank)])?;
    Ok(rank)
}

/// Loads a `mamba2`.
fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let (c, own): (Config, Second) = (fields(config)?, fields(config)?);
    let ssd = SsdSizes {
        heads: own.num_heads,
        head_dim: own.head_dim,
        groups: own.n_groups,
        state: own.ssm_state_size.unwrap_or(c.state_size),
        dt: own.time_step_limit.range(),
    };
    let eps = own.layer_norm_epsilon;
    let norm = Some(Mamba2Norm { eps, order: Order::Gate, grouped: false });
    let arch = Mamba2Arch { hidden: c.hidden_size, ssd, taps: c.conv_kernel, norm };
    arch.check()?;
    stack(&c, NormArch { eps, ..NORM }, false, w, |w| Mamba2::load(w, &arch))
}

/// Loads layers of one kind of `mixer` and a final `norm`; `tied` is the default of
/// `tie_word_embeddings`.
fn stack<M: TokenMixer + 'static>(
    c: &Config,
    norm: NormArch,
    tied: bool,
    mut w: Cursor,
    mixer: impl Fn(&mut Cursor) -> Result<M>,
) -> Result<Box<dyn Language>> {
    positive(&[
        ("vocab_size", c.vocab_size),
        ("hidden_size", c.hidden_size),
        ("state_size", c.state_size),
    ])?;
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden: c.hidden_size,
        embeddings: "backbone.embeddings",
        norm: ("backbone.norm_f", norm),
        tied: c.tie_word_embeddings.unwrap_or(tied),
        scale: 1.0,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let layer = |i: usize| {
        let mut w = w.at(&format!("backbone.layers.{i}"));
        Ok(Step::mix(NORM.load(&mut w, "norm", c.hidden_size)?, mixer(&mut w.at("mixer"))?))
    };
    let steps = (0..c.num_hidden_layers).map(layer).collect::<Result<_>>()?;
    Ok(Box::new(Hybrid { ends, steps, factors: Factors::NONE, ops: w.ops() }))
}
