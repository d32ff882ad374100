//! Qwen3-Next and Qwen3.5: gated delta nets, and gated attention on every fourth layer.

use mlxk_core::Result;
use serde_json::{Value, json};

use super::Language;
use super::config::{Config, given, positive};
use super::ends::{Ends, EndsArch};
use super::stack::{Factors, Stack, Step};
use super::{llama, qwen, within};
use crate::mixture::{Moe, MoeArch, SharedArch};
use crate::nn::{Attention, Feed, Gate, Mlp, MlpArch, NormArch, Sizes};
use crate::recurrent::{Decay, DeltaNet, DeltaNetArch, DeltaSizes};
use crate::rope::Rope;
use crate::weights::Cursor;

/// A qwen3_next.
pub fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    mixed(&Config::read(config)?, w)
}

/// A qwen3_5, without what it sees.
pub fn load_5(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    within::text_only(&mut w);
    let c = config_5(config)?;
    let mlp = llama::mlp(&c);
    stack(&c, w, |_, w, norm| Ok(Box::new(Mlp::load(w, c.hidden_size, &mlp, norm)?)))
}

/// A qwen3_5_moe, without what it sees.
pub fn load_5_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    within::text_only(&mut w);
    mixed(&config_5(config)?, w)
}

/// With mixtures of experts where the file says so.
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

/// The configuration of the text part, with what the family does if the file does not say.
fn config_5(config: &Value) -> Result<Config> {
    let defaults = json!({
        "rope_parameters": {"rope_theta": 100_000.0, "partial_rotary_factor": 0.25},
        "full_attention_interval": 4, "linear_conv_kernel_dim": 4,
        "norm_topk_prob": true, "rms_norm_eps": 1e-6,
    });
    let mut text = given(within::text_or_all(config), defaults);
    let positions = json!({"rope_theta": 100_000.0, "partial_rotary_factor": 0.25});
    text["rope_parameters"] = given(&text["rope_parameters"], positions);
    Config::read(&text)
}

/// What all members share.
struct Arch {
    /// Of attention.
    heads: Sizes,
    rope: Rope,
    delta: DeltaNetArch,
    /// A layer of attention comes after one fewer of delta nets.
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
    rule.check()?;
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

/// Layers with a feed-forward part that `feed` loads by its number.
fn stack(
    c: &Config,
    mut w: Cursor,
    feed: impl Fn(usize, &mut Cursor, NormArch) -> Result<Box<dyn Feed>>,
) -> Result<Box<dyn Language>> {
    // For predicting further tokens at once, which is not done here.
    w.discard(|name| name.split('.').any(|part| part == "mtp"));
    let arch = arch(c)?;
    let (norm, hidden) = (arch.heads.norm, c.hidden_size);
    let ends = EndsArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: c.tie_word_embeddings == Some(true),
        scale: 1.0,
        softcap: None,
    };
    let ends = Ends::load(&mut w, &ends)?;
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
    Ok(Box::new(Stack { ends, steps, factors: Factors::NONE, kernels: w.kernels() }))
}
