//! Jamba (arXiv 2403.19887): state spaces, attention without position embeddings, and mixtures of
//! experts.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::{Value, json};

use super::hybrid::{Factors, Hybrid, Step};
use super::{llama, mamba};
use crate::checkpoint::config_error::{invalid, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::nn::attention::Attention;
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::Mlp;
use crate::nn::moe::{Moe, MoeArch};
use crate::nn::ssm::mamba::{Mamba, MambaSizes};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    convert: Rules { eight: &["router"], ..Rules::NONE },
    ..Spec::new(Architecture::Jamba, load)
}];

/// Loads a `jamba`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.rename(&[("feed_forward.gate", "feed_forward.router")]);
    let (norm, hidden) = (c.rms_norm()?, c.hidden_size);
    let (heads, sizes, moe) = (llama::heads(&c, norm), sizes(&c)?, moe(&c)?);
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.final_layernorm", norm),
        tied: c.tie_word_embeddings != Some(false),
        scale: 1.0,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let is_mixed = every(&c, "expert_layer_period", "expert_layer_offset", true)?;
    let mut steps = Vec::new();
    for (i, attends) in attends(&c)?.into_iter().enumerate() {
        let mut w = w.at(&format!("model.layers.{i}"));
        let input = norm.load(&mut w, "input_layernorm", hidden)?;
        steps.push(match attends {
            true => Step::mix(input, Attention::load(&mut w.at("self_attn"), &heads, None)?),
            false => Step::mix(input, Mamba::load(&mut w.at("mamba"), sizes)?),
        });
        let before = norm.load(&mut w, "pre_ff_layernorm", hidden)?;
        let w = &mut w.at("feed_forward");
        let feed: Box<dyn FeedForward> = match moe.as_ref().filter(|_| is_mixed(i)) {
            Some(moe) => Box::new(Moe::load(w, hidden, moe, norm)?),
            None => Box::new(Mlp::load(w, hidden, &llama::mlp(&c), norm)?),
        };
        steps.push(Step::feed(before, feed));
    }
    Ok(Box::new(Hybrid { ends, steps, factors: Factors::NONE, ops: w.ops() }))
}

fn sizes(c: &Config) -> Result<MambaSizes> {
    let (expand, state): (usize, usize) = (c.need("mamba_expand")?, c.need("mamba_d_state")?);
    positive(&[("mamba_expand", expand), ("mamba_d_state", state)])?;
    let rank = c.get("mamba_dt_rank")?.unwrap_or(json!("auto"));
    Ok(MambaSizes {
        hidden: c.hidden_size,
        inner: expand.saturating_mul(c.hidden_size),
        state,
        rank: mamba::rank(&rank, c.hidden_size)?,
        taps: c.need("mamba_d_conv")?,
        norm: Some(c.rms_norm()?),
    })
}

/// Mixture of experts; `None` if layers have a single expert.
fn moe(c: &Config) -> Result<Option<MoeArch>> {
    let count: usize = c.need("num_experts")?;
    let routing = Routing::new(c.need("num_experts_per_tok")?, Score::Softmax);
    Ok((count > 1).then_some(MoeArch {
        count,
        inner: c.intermediate_size,
        gated: true,
        activation: Activation::Silu,
        routing: Routing { normalised: true, ..routing },
        shared: None,
    }))
}

/// True for each layer with attention: as `layers_block_type` states, else one in each period.
fn attends(c: &Config) -> Result<Vec<bool>> {
    let Some(kinds) = c.get::<Vec<String>>("layers_block_type")? else {
        let attends = every(c, "attn_layer_period", "attn_layer_offset", false)?;
        return Ok((0..c.num_hidden_layers).map(attends).collect());
    };
    if kinds.len() != c.num_hidden_layers {
        return Err(invalid("`layers_block_type` does not name all layers".into()));
    }
    let attends = |kind: &String| match kind.as_str() {
        "attention" => Ok(true),
        "mamba" => Ok(false),
        kind => Err(unknown(format!("layers of type `{kind}` cannot run yet"))),
    };
    kinds.iter().map(attends).collect()
}

/// Predicate of the layers at an offset in each period: `i % period == offset`, or `(i + offset) %
/// period == 0` if `early`.
fn every(c: &Config, period: &str, offset: &str, early: bool) -> Result<impl Fn(usize) -> bool> {
    let (every, first): (usize, usize) = (c.need(period)?, c.need(offset)?);
    positive(&[(period, every)])?;
    Ok(move |i: usize| match early {
        true => (i + first).is_multiple_of(every),
        false => i % every == first,
    })
}
