//! LFM2 (arXiv 2511.23404): short convolutions in most layers, attention in the others.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::Value;

use super::hybrid::{Factors, Hybrid, Step};
use super::llama;
use crate::checkpoint::config_error::{invalid, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::checkpoint::text_part;
use crate::config::{Config, renamed};
use crate::language::Language;
use crate::nn::attention::Attention;
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::Mlp;
use crate::nn::moe::{Moe, MoeArch};
use crate::nn::ssm::short_conv::ShortConv;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Lfm2, load),
    Spec {
        sanitize: &[sanitize_moe],
        convert: Rules { eight: &["feed_forward.gate"], keep: &["expert_bias"], ..Rules::NONE },
        ..Spec::new(Architecture::Lfm2Moe, load_moe)
    },
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::Lfm2Vl, load_vl)
    },
];

/// Loads an `lfm2`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let mut c = read(config)?;
    c.intermediate_size = inner(&c)?;
    w.rename(&NUMBERED);
    let (mlp, norm) = (llama::mlp(&c), c.rms_norm()?);
    stack(&c, w, |_, w| Ok(Box::new(Mlp::load(w, c.hidden_size, &mlp, norm)?)))
}

/// Loads an `lfm2_moe`, with mixtures of experts after the first dense layers.
fn load_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = read(config)?;
    w.rename(&[("gate.e_score_correction_bias", "expert_bias")]);
    let routing = Routing {
        normalised: c.need("norm_topk_prob")?,
        scale: c.get("routed_scaling_factor")?.unwrap_or(1.0),
        ..Routing::new(c.need("num_experts_per_tok")?, Score::Sigmoid)
    };
    let moe = MoeArch {
        count: c.need("num_experts")?,
        inner: c.need("moe_intermediate_size")?,
        activation: Activation::Silu,
        gated: true,
        routing,
        shared: None,
    };
    let (mlp, norm, dense) = (llama::mlp(&c), c.rms_norm()?, c.need::<usize>("num_dense_layers")?);
    stack(&c, w, |i, w| match i < dense {
        true => Ok(Box::new(Mlp::load(w, c.hidden_size, &mlp, norm)?)),
        false => Ok(Box::new(Moe::load(w, c.hidden_size, &moe, norm)?)),
    })
}

/// Loads the language model of an `lfm2-vl`; skips the vision tower.
fn load_vl(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    load(&text_part::text(config)?, w)
}

/// Common names of feed-forward matrices and the numbered names in checkpoints.
const NUMBERED: [(&str, &str); 3] = [
    ("feed_forward.gate_proj", "feed_forward.w1"),
    ("feed_forward.up_proj", "feed_forward.w3"),
    ("feed_forward.down_proj", "feed_forward.w2"),
];

/// Fields of LFM2's config.json and their common names.
const NAMES: [(&str, &str); 2] =
    [("norm_eps", "rms_norm_eps"), ("block_ff_dim", "intermediate_size")];

fn read(config: &Value) -> Result<Config> {
    let there = |(theirs, _): &&(&str, &str)| config.get(theirs).is_some_and(|v| !v.is_null());
    let names: Vec<_> = NAMES.iter().filter(there).copied().collect();
    Config::read(&renamed(config, &names))
}

/// Rotary base if config.json states none.
const THETA: Option<f64> = Some(1_000_000.0);

/// Loads a model whose feed-forward layers are loaded by `feed` from the layer's index.
fn stack(
    c: &Config,
    mut w: Cursor,
    feed: impl Fn(usize, &mut Cursor) -> Result<Box<dyn FeedForward>>,
) -> Result<Box<dyn Language>> {
    w.rename(&[("o_proj", "out_proj"), ("q_norm", "q_layernorm"), ("k_norm", "k_layernorm")]);
    let (norm, hidden, taps) = (c.rms_norm()?, c.hidden_size, c.need("conv_L_cache")?);
    let (heads, rope) = (llama::heads(c, norm), c.rope(THETA)?);
    let attends = attends(c)?;
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.embedding_norm", norm),
        tied: true,
        scale: 1.0,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut steps = Vec::new();
    for (i, attends) in attends.into_iter().enumerate() {
        let mut w = w.at(&format!("model.layers.{i}"));
        let operator_norm = norm.load(&mut w, "operator_norm", hidden)?;
        steps.push(if attends {
            let rope = Some(rope.clone());
            Step::mix(operator_norm, Attention::load(&mut w.at("self_attn"), &heads, rope)?)
        } else {
            Step::mix(operator_norm, ShortConv::load(&mut w.at("conv"), hidden, taps)?)
        });
        let ffn_norm = norm.load(&mut w, "ffn_norm", hidden)?;
        steps.push(Step::feed(ffn_norm, feed(i, &mut w.at("feed_forward"))?));
    }
    Ok(Box::new(Hybrid { ends, steps, factors: Factors::NONE, ops: w.ops() }))
}

/// True for each layer with attention.
fn attends(c: &Config) -> Result<Vec<bool>> {
    let layers = 0..c.num_hidden_layers;
    if let Some(indices) = c.get::<Vec<usize>>("full_attn_idxs")? {
        return Ok(layers.map(|i| indices.contains(&i)).collect());
    }
    let types = c.layer_types.as_deref().unwrap_or_default();
    if types.len() != c.num_hidden_layers {
        return Err(invalid("`layer_types` does not name all layers".into()));
    }
    let attends = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(true),
        "conv" => Ok(false),
        kind => Err(unknown(format!("layers of type `{kind}` cannot run yet"))),
    };
    types.iter().map(attends).collect()
}

/// Hidden width of the feed-forward layers.
fn inner(c: &Config) -> Result<usize> {
    let stated = c.intermediate_size;
    if !c.need::<bool>("block_auto_adjust_ff_dim")? {
        return Ok(stated);
    }
    let factor: Option<f64> = c.get("block_ffn_dim_multiplier")?;
    let wanted = (factor.unwrap_or(1.0) * (2 * stated / 3) as f64) as usize;
    let multiple: usize = c.need("block_multiple_of")?;
    positive(&[("block_multiple_of", multiple)])?;
    Ok(wanted.next_multiple_of(multiple))
}

/// Renames the numbered feed-forward matrices of an `lfm2_moe` in the form of transformers.
fn sanitize_moe(all: &mut Checkpoint) -> Result<()> {
    let pairs = [
        ("w1.weight", "gate_proj.weight"),
        ("w2.weight", "down_proj.weight"),
        ("w3.weight", "up_proj.weight"),
    ];
    all.rename(|name| {
        let (theirs, ours) = pairs.into_iter().find(|(theirs, _)| name.ends_with(theirs))?;
        name.strip_suffix(theirs).map(|stem| format!("{stem}{ours}"))
    });
    Ok(())
}
