//! OLMo (arXiv 2402.00838): Llama with norms without weights. OLMo 2 (arXiv 2501.00656) norms the
//! outputs of attention and feed-forward layers, and queries and keys over all heads; three of four
//! layers of OLMo 3 have sliding-window attention.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use mlxk_tensor::ops::rope::Scaling;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::{Config, given, renamed};
use crate::language::Language;
use crate::nn::moe::MoeArch;
use crate::nn::norm::{NormArch, NormKind};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Olmo, load),
    Spec::new(Architecture::Olmo2, load_2),
    Spec::new(Architecture::Olmo3, load_3),
    Spec::new(Architecture::Olmoe, load_e),
];

/// Loads an `olmo` in the form of AI2's own library, or in that of transformers, which names
/// tensors as Llama does. `clip_qkv` bounds queries, keys and values.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    if config.get("d_model").is_none() {
        return Decoder::load(arch(&Config::read(config)?)?, w);
    }
    let c = Config::read(&native(config))?;
    w.rename(&[
        ("model", "model.transformer"),
        ("lm_head", "model.transformer.ff_out"),
        ("embed_tokens", "wte"),
        ("layers", "blocks"),
        ("self_attn.qkv_proj", "att_proj"),
        ("self_attn.o_proj", "attn_out"),
        ("mlp.ff_proj", "ff_proj"),
        ("mlp.down_proj", "ff_out"),
    ]);
    let halves = [("up_proj", c.intermediate_size), ("gate_proj", c.intermediate_size)];
    for layer in w.at("model").stage(c.num_hidden_layers) {
        w.at(&format!("model.layers.{layer}.mlp")).split("ff_proj", 1, &halves)?;
    }
    let mut arch = arch(&c)?;
    arch.heads.fused = Some(1);
    Decoder::load(arch, w)
}

/// Translates the fields of AI2's library to those of Llama. `embedding_size` is the padded
/// vocabulary, and `mlp_hidden_size` the width of gate and up projections together.
fn native(config: &Value) -> Value {
    let names = [
        ("d_model", "hidden_size"),
        ("n_layers", "num_hidden_layers"),
        ("n_heads", "num_attention_heads"),
        ("n_kv_heads", "num_key_value_heads"),
        ("embedding_size", "vocab_size"),
        ("max_sequence_length", "max_position_embeddings"),
        ("weight_tying", "tie_word_embeddings"),
    ];
    let number = |name: &str| config.get(name).and_then(Value::as_u64);
    let width =
        number("d_model").unwrap_or_default().saturating_mul(number("mlp_ratio").unwrap_or(4));
    let inner = number("mlp_hidden_size").unwrap_or(width) / 2;
    given(&renamed(config, &names), json!({"intermediate_size": inner}))
}

fn arch(c: &Config) -> Result<Arch> {
    let norm = NormArch { kind: NormKind::LayerBare, eps: 1e-5 };
    let mut arch = llama::base(c, c.rope(Some(10_000.0))?, false, norm)?;
    arch.heads.clip = c.get("clip_qkv")?;
    Ok(arch)
}

/// Loads an `olmo2`.
fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let arch = llama::arch(&Config::read(config)?, Some(10_000.0), false)?;
    Decoder::load(Arch { norms: Norms::AFTER, ..arch }, w)
}

/// Loads an `olmoe` (arXiv 2409.02060): mixtures of experts, and norms of queries and keys over all
/// heads.
fn load_e(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let routing = Routing::new(c.need("num_experts_per_tok")?, Score::Softmax);
    let moe = MoeArch {
        count: c.need("num_experts")?,
        inner: c.intermediate_size,
        activation: Activation::Silu,
        routing: Routing { normalised: c.get("norm_topk_prob")?.unwrap_or(false), ..routing },
        gated: true,
        shared: None,
    };
    Decoder::load(llama::arch(&c, Some(10_000.0), false)?.with_moe(&moe, |_| true), w)
}

/// Loads an `olmo3`; rotary scaling applies only to layers without a sliding window.
fn load_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let mut arch = Arch { norms: Norms::AFTER, ..llama::arch(&c, None, false)? };
    let near = c.rope_of(c.theta(None)?, &Scaling::default())?;
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        layer.window = c.window(i, !(i + 1).is_multiple_of(4))?;
        if layer.window.is_some() {
            layer.rope = Some(near.clone());
        }
    }
    Decoder::load(arch, w)
}
