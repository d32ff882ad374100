//! Qwen3-Next and Qwen3.5: gated delta nets, and gated attention in every fourth layer.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::gated_delta::{Decay, DeltaSizes};
use mlxk_tensor::ops::rope::Rope;
use serde_json::{Value, json};

use super::hybrid::{Factors, Hybrid, Step};
use super::{llama, qwen};
use crate::checkpoint::config_error::positive;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::checkpoint::trained;
use crate::checkpoint::formats::{Checkpoint, arithmetic};
use crate::checkpoint::text_part;
use crate::config::{Config, given};
use crate::language::Language;
use crate::nn::attention::{Attention, Gate, Sizes};
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Moe, MoeArch, SharedArch};
use crate::nn::norm::NormArch;
use crate::nn::ssm::delta_net::{DeltaNet, DeltaNetArch};
use crate::nn::ssm::delta_rule;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec {
        sanitize: &[text_part::under_language_model, sanitize],
        convert: Rules { eight: ROUTERS, keep: &["A_log"], ..Rules::NONE },
        ..Spec::new(Architecture::Qwen35, load_5)
    },
    Spec {
        sanitize: &[text_part::under_language_model, sanitize],
        convert: Rules { eight: ROUTERS, keep: &["A_log"], ..Rules::NONE },
        ..Spec::new(Architecture::Qwen35Moe, load_5_moe)
    },
    Spec {
        sanitize: &[sanitize],
        convert: Rules { eight: ROUTERS, ..Rules::NONE },
        ..Spec::new(Architecture::Qwen3Next, load)
    },
];

/// Names of router matrices.
const ROUTERS: &[&str] = &["mlp.gate", "shared_expert_gate"];

/// Loads a `qwen3_next`.
fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    mixed(&Config::read(config)?, w)
}

/// Loads the language model of a `qwen3_5`; skips the vision tower.
fn load_5(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    let c = config_5(config)?;
    let mlp = llama::mlp(&c);
    stack(&c, w, |_, w, norm| Ok(Box::new(Mlp::load(w, c.hidden_size, &mlp, norm)?)))
}

/// Loads the language model of a `qwen3_5_moe`; skips the vision tower.
fn load_5_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    mixed(&config_5(config)?, w)
}

/// Loads a model with mixtures of experts in the layers that config.json selects.
fn mixed(c: &Config, w: Cursor) -> Result<Box<dyn Language>> {
    let (hidden, mlp) = (c.hidden_size, llama::mlp(c));
    let inner = c.need("shared_expert_intermediate_size")?;
    let shared = SharedArch { mlp: MlpArch { inner, ..mlp }, weighed: true };
    let moe = MoeArch { shared: Some(shared), ..qwen::moe(c)? };
    let is_mixed = qwen::mixed(c)?;
    stack(c, w, |i, w, norm| match is_mixed(i) {
        true => Ok(Box::new(Moe::load(w, hidden, &moe, norm)?)),
        false => Ok(Box::new(Mlp::load(w, hidden, &mlp, norm)?)),
    })
}

/// Configuration of the language model, with the defaults of the family.
fn config_5(config: &Value) -> Result<Config> {
    let defaults = json!({
        "rope_parameters": {"rope_theta": 100_000.0, "partial_rotary_factor": 0.25},
        "full_attention_interval": 4, "linear_conv_kernel_dim": 4,
        "norm_topk_prob": true, "rms_norm_eps": 1e-6,
    });
    let mut text = given(text_part::text_or_all(config), defaults);
    let positions = json!({"rope_theta": 100_000.0, "partial_rotary_factor": 0.25});
    text["rope_parameters"] = given(&text["rope_parameters"], positions);
    Config::read(&text)
}

/// Hyperparameters that all members share.
struct Arch {
    /// Sizes of gated attention.
    heads: Sizes,
    rope: Rope,
    delta: DeltaNetArch,
    /// Period of attention layers: each `interval`th layer has attention, the others delta nets.
    interval: usize,
}

fn arch(c: &Config) -> Result<Arch> {
    let norm = c.rms_norm()?;
    let rule = DeltaSizes {
        key_heads: c.need("linear_num_key_heads")?,
        value_heads: c.need("linear_num_value_heads")?,
        key_dim: c.need("linear_key_head_dim")?,
        value_dim: c.need("linear_value_head_dim")?,
        decay: Decay::Head,
    };
    delta_rule::check(&rule)?;
    let interval = c.get("full_attention_interval")?.unwrap_or(4);
    positive(&[("full_attention_interval", interval)])?;
    let taps = c.need("linear_conv_kernel_dim")?;
    Ok(Arch {
        heads: Sizes { gate: Some(Gate::SIGMOID), ..llama::heads(c, norm) },
        rope: c.rope(None)?,
        delta: DeltaNetArch { hidden: c.hidden_size, rule, taps, norm_eps: norm.eps },
        interval,
    })
}

/// Loads a model whose feed-forward layers are loaded by `feed` from the layer's index.
fn stack(
    c: &Config,
    mut w: Cursor,
    feed: impl Fn(usize, &mut Cursor, NormArch) -> Result<Box<dyn FeedForward>>,
) -> Result<Box<dyn Language>> {
    // Tensors of multi-token prediction, which is not supported.
    w.discard(|name| name.split('.').any(|part| part == "mtp"));
    let arch = arch(c)?;
    let (norm, hidden) = (arch.heads.norm, c.hidden_size);
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: c.tie_word_embeddings == Some(true),
        scale: 1.0,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut steps = Vec::new();
    for i in 0..c.num_hidden_layers {
        let mut w = w.at(&format!("model.layers.{i}"));
        let input = norm.load(&mut w, "input_layernorm", hidden)?;
        steps.push(if (i + 1).is_multiple_of(arch.interval) {
            let rope = Some(arch.rope.clone());
            Step::mix(input, Attention::load(&mut w.at("self_attn"), &arch.heads, rope)?)
        } else {
            Step::mix(input, DeltaNet::load(&mut w.at("linear_attn"), &arch.delta)?)
        });
        let post = norm.load(&mut w, "post_attention_layernorm", hidden)?;
        steps.push(Step::feed(post, feed(i, &mut w.at("mlp"), norm)?));
    }
    Ok(Box::new(Hybrid { ends, steps, factors: Factors::NONE, ops: w.ops() }))
}

/// Adds one to the weights of norms, which checkpoints with convolutions in training form store
/// minus one.
fn sanitize(all: &mut Checkpoint) -> Result<()> {
    const NORMS: [&str; 5] = [
        ".input_layernorm.weight",
        ".post_attention_layernorm.weight",
        "model.norm.weight",
        ".q_norm.weight",
        ".k_norm.weight",
    ];
    if all.tensors.iter().any(|(name, tensor)| name.ends_with("conv1d.weight") && trained(tensor)) {
        let norm = |name: &str| NORMS.iter().any(|end| name.ends_with(end));
        all.change(norm, arithmetic::plus_one);
    }
    Ok(())
}
