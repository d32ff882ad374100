//! Llama 4: three of four layers attend within chunks, the fourth to all tokens without position
//! embeddings and with temperature tuning; the router chooses one expert per token.

use mlx_rs::Array;
use mlxk_core::{Architecture, Result};
use mlxk_tensor::cache::{Kv, Sequences, Slot};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::{Value, json};

use super::hybrid::{Factors, Hybrid, Step};
use super::llama;
use crate::checkpoint::config_error::positive;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::checkpoint::text_part;
use crate::config::{Config, given};
use crate::language::Language;
use crate::nn::attention::{Attention, Sizes, TemperatureTuning};
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mixer::{FeedForward, TokenMixer};
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Moe, MoeArch, SharedArch};
use crate::nn::norm::{NormArch, NormKind};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    sanitize: &[text_part::under_language_model],
    experts: ExpertLayout { to: "experts", transposed: true, ..ExpertLayout::DEFAULT },
    ..Spec::new(Architecture::Llama4, load)
}];

/// Loads the language model of a `llama4`; skips the vision tower.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"rope_traditional": true, "attn_temperature_tuning": 4,
        "floor_scale": 8192, "attn_scale": 0.1});
    let c = Config::read(&given(&text_part::text(config)?, defaults))?;
    text_part::text_only(&mut w);
    w.rename(&[("switch_mlp", "experts"), ("gate", "router")]);
    let (norm, hidden) = (c.rms_norm()?, c.hidden_size);
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: false,
        scale: 1.0,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut steps = Vec::new();
    for i in 0..c.num_hidden_layers {
        let mut w = w.at(&format!("model.layers.{i}"));
        let input = norm.load(&mut w, "input_layernorm", hidden)?;
        steps.push(match (i + 1).is_multiple_of(4) {
            true => Step::mix(input, Attention::load(&mut w.at("self_attn"), &far(&c)?, None)?),
            false => Step::mix(input, Near::load(&mut w.at("self_attn"), &c)?),
        });
        let post = norm.load(&mut w, "post_attention_layernorm", hidden)?;
        steps.push(Step::feed(post, feed(&c, i, &mut w.at("feed_forward"))?));
    }
    Ok(Box::new(Hybrid { ends, steps, factors: Factors::NONE, ops: w.ops() }))
}

/// Chunked attention: a token attends to the earlier tokens of its chunk.
struct Near {
    attention: Attention,
    chunk: i32,
}

impl Near {
    fn load(w: &mut Cursor, c: &Config) -> Result<Near> {
        let mut sizes = llama::heads(c, c.rms_norm()?);
        if c.need("use_qk_norm")? {
            sizes.norm = NormArch { kind: NormKind::Bare, eps: 1e-6 };
            sizes.rotated_first = true;
        }
        let chunk = c.need::<u32>("attention_chunk_size")?;
        positive(&[("attention_chunk_size", chunk as usize)])?;
        let rope = c.rope(Some(500_000.0))?;
        let attention = Attention::load(w, &sizes, Some(rope))?;
        Ok(Near { attention, chunk: chunk.min(i32::MAX as u32) as i32 })
    }
}

impl TokenMixer for Near {
    fn slot(&self) -> Slot {
        Slot::Kv(Kv::chunked(self.chunk))
    }

    fn forward(
        &self,
        x: &Array,
        sequences: &mut Sequences,
        slot: usize,
    ) -> mlx_rs::error::Result<Array> {
        self.attention.forward(x, sequences, slot)
    }
}

/// Sizes of attention to all tokens.
fn far(c: &Config) -> Result<Sizes> {
    let tuned = !matches!(c.need::<Value>("attn_temperature_tuning")?, Value::Bool(false))
        && c.get::<Value>("attn_temperature_tuning")? != Some(json!(0));
    let temperature_tuning = TemperatureTuning {
        beta: c.need("attn_scale")?,
        shift: 1,
        trained: c.need("floor_scale")?,
    };
    Ok(Sizes {
        temperature_tuning: tuned.then_some(temperature_tuning),
        ..llama::heads(c, c.rms_norm()?)
    })
}

/// Loads the feed-forward layer of layer `i`.
fn feed(c: &Config, i: usize, w: &mut Cursor) -> Result<Box<dyn FeedForward>> {
    let step = c.need::<usize>("interleave_moe_layer_step")?;
    positive(&[("interleave_moe_layer_step", step)])?;
    let (hidden, norm) = (c.hidden_size, c.rms_norm()?);
    if !(i + 1).is_multiple_of(step) {
        let inner = c.need("intermediate_size_mlp")?;
        return Ok(Box::new(Mlp::load(w, hidden, &MlpArch { inner, ..llama::mlp(c) }, norm)?));
    }
    let routing = Routing::new(c.need("num_experts_per_tok")?, Score::Sigmoid);
    let moe = MoeArch {
        count: c.need("num_local_experts")?,
        inner: c.intermediate_size,
        activation: Activation::Silu,
        gated: true,
        routing: Routing { before: true, ..routing },
        shared: Some(SharedArch { mlp: llama::mlp(c), weighed: false }),
    };
    Ok(Box::new(Moe::load(w, hidden, &moe, norm)?))
}
