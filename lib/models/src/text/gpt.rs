//! GPT-2 and StarCoder (arXiv 2305.06161): layer norms, biases in all linear layers, no gates,
//! learned positions. GPT-J, GPT-NeoX (arXiv 2204.06745), StarCoder 2 (arXiv 2402.19173) and
//! StableLM have a rotary embedding instead.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::rope::Rope;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::checkpoint::reshape;
use crate::config::{Config, given, renamed};
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec { sanitize: &[sanitize_2], ..Spec::new(Architecture::Gpt2, load_2) },
    Spec::new(Architecture::GptBigCode, load_big_code),
    Spec { sanitize: &[sanitize_j], ..Spec::new(Architecture::GptJ, load_j) },
    Spec { sanitize: &[sanitize_neox], ..Spec::new(Architecture::GptNeoX, load_neox) },
    Spec::new(Architecture::StableLm, load_stablelm),
    Spec::new(Architecture::Starcoder2, load_starcoder_2),
];

/// Fields of GPT-2's config.json and their common names.
const FIELDS: [(&str, &str); 4] = [
    ("n_embd", "hidden_size"),
    ("n_head", "num_attention_heads"),
    ("n_layer", "num_hidden_layers"),
    ("n_inner", "intermediate_size"),
];

/// Common tensor names and those of GPT-2.
const NAMES: [(&str, &str); 6] = [
    ("embed_tokens", "wte"),
    ("layers", "h"),
    ("input_layernorm", "ln_1"),
    ("post_attention_layernorm", "ln_2"),
    ("self_attn", "attn"),
    ("norm", "ln_f"),
];

/// Loads a `gpt2`.
fn load_2(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    discard_masks(&mut w);
    learned(&elder(config)?, Activation::GeluTanh, w)
}

/// Loads a `gpt_bigcode`, which has a single kv head unless `multi_query` is false.
fn load_big_code(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let many = config.get("multi_query").is_some_and(|shared| *shared == Value::Bool(false));
    let heads = if many { config.get("n_head").cloned() } else { Some(1.into()) };
    w.rename(&[("model", "transformer")]);
    learned(&elder(&given(config, json!({"num_key_value_heads": heads})))?, Activation::Gelu, w)
}

/// Loads a `gptj`: parallel attention, without biases, and feed-forward.
fn load_j(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"n_embd": 4096, "n_head": 16, "n_layer": 28, "vocab_size": 50_400,
        "layer_norm_epsilon": 1e-5});
    let c = elder(&given(config, defaults))?;
    discard_masks(&mut w);
    w.rename(&NAMES);
    w.rename(&[("o_proj", "out_proj"), ("up_proj", "fc_in"), ("down_proj", "fc_out")]);
    let dims = c.get("rotary_dim")?.unwrap_or(64).min(c.head_dim());
    let rope = Rope::new(c.rotary(dims)?, true, 10_000.0, None, None)?;
    let arch = llama::base(&c, rope, false, c.layer_norm("layer_norm_epsilon")?)?;
    let norms = Norms { mlp_in: None, ..Norms::LLAMA };
    Decoder::load(plain(Arch { parallel: true, norms, ..arch }, Activation::GeluTanh), w)
}

/// Reads a configuration in GPT-2's form; the feed-forward width defaults to four times the hidden
/// size.
fn elder(config: &Value) -> Result<Config> {
    let config = renamed(config, &FIELDS);
    let inner = config.get("hidden_size").and_then(Value::as_u64).unwrap_or_default() * 4;
    Config::read_or(&config, json!({"intermediate_size": inner}))
}

/// Skips the causal masks that some checkpoints contain.
fn discard_masks(w: &mut Cursor) {
    w.discard(|name| name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"));
}

/// Loads a model with learned position embeddings.
fn learned(c: &Config, activation: Activation, mut w: Cursor) -> Result<Box<dyn Language>> {
    w.rename(&NAMES);
    w.rename(&[
        ("embed_positions", "wpe"),
        ("qkv_proj", "c_attn"),
        ("o_proj", "c_proj"),
        ("up_proj", "c_fc"),
        ("down_proj", "c_proj"),
    ]);
    let unused = Rope::new(2, false, 1.0, None, None)?;
    let mut arch = llama::base(c, unused, false, c.layer_norm("layer_norm_epsilon")?)?;
    arch.layers.iter_mut().for_each(|layer| layer.rope = None);
    arch.positions = Some(c.need("n_positions")?);
    arch.heads.fused = Some(1);
    Decoder::load(plain(arch, activation), w)
}

/// Loads a `gpt_neox`. Rows of queries, keys and values are grouped by head.
fn load_neox(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let config = renamed(
        config,
        &[("rotary_emb_base", "rope_theta"), ("rotary_pct", "partial_rotary_factor")],
    );
    let inner = config.get("hidden_size").and_then(Value::as_u64).unwrap_or_default() * 4;
    let c = Config::read_or(&config, json!({"intermediate_size": inner}))?;
    w.discard(|name| name.ends_with(".attention.bias") || name.ends_with(".attention.masked_bias"));
    w.rename(&[
        ("embed_tokens", "embed_in"),
        ("self_attn", "attention"),
        ("qkv_proj", "query_key_value"),
        ("o_proj", "dense"),
        ("up_proj", "dense_h_to_4h"),
        ("down_proj", "dense_4h_to_h"),
        ("model.norm", "model.final_layer_norm"),
        ("layers", "h"),
        ("lm_head", "model.embed_out"),
    ]);
    let mut arch =
        llama::base(&c, c.rope(Some(10_000.0))?, false, c.layer_norm("layer_norm_eps")?)?;
    arch.heads.fused = Some(c.num_attention_heads);
    arch.parallel = c.get("use_parallel_residual")?.unwrap_or(true);
    Decoder::load(plain(arch, Activation::GeluTanh), w)
}

/// Loads a `starcoder2`; all layers have the sliding window of config.json.
fn load_starcoder_2(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"vocab_size": 49_152, "norm_epsilon": 1e-5});
    let c = Config::read_or(config, defaults)?;
    w.rename(&[("up_proj", "c_fc"), ("down_proj", "c_proj")]);
    let arch = llama::base(&c, c.rope(Some(100_000.0))?, true, c.layer_norm("norm_epsilon")?)?;
    Decoder::load(plain(arch, Activation::Gelu), w)
}

/// Loads a `stablelm`, whose feed-forward layers are gated.
fn load_stablelm(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.rename(&[("q_norm", "q_layernorm"), ("k_norm", "k_layernorm")]);
    let mut arch = llama::base(&c, c.rope(None)?, false, c.layer_norm("layer_norm_eps")?)?;
    arch.parallel = c.get("use_parallel_residual")?.unwrap_or(false);
    if arch.parallel {
        arch.norms = Norms { mlp_in: None, ..Norms::LLAMA };
    }
    Decoder::load(arch, w)
}

/// Architecture with feed-forward layers without gates.
fn plain(arch: Arch, activation: Activation) -> Arch {
    arch.with_mlp(|mlp| (mlp.gated, mlp.activation) = (false, activation))
}

/// Transposes and renames the matrices of a `gpt2` in the form of transformers.
fn sanitize_2(all: &mut Checkpoint) -> Result<()> {
    const TURNED: [&str; 4] = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
    if all.tensors.keys().any(|name| name.starts_with("model.")) {
        return Ok(());
    }
    all.rename(|name| Some(format!("model.{}", name.strip_prefix("transformer.").unwrap_or(name))));
    let turned = |name: &str| TURNED.iter().any(|end| name.ends_with(&format!("{end}.weight")));
    all.change(turned, reshape::transposed);
    Ok(())
}

fn sanitize_j(all: &mut Checkpoint) -> Result<()> {
    all.rename(|name| Some(name.replacen("transformer.", "model.", 1)));
    Ok(())
}

fn sanitize_neox(all: &mut Checkpoint) -> Result<()> {
    all.rename(|name| {
        let rest = name.strip_prefix("model.").unwrap_or(name);
        let rest = rest.strip_prefix("gpt_neox.").unwrap_or(rest);
        let rest = rest.strip_prefix("layers.").map_or(rest.to_owned(), |rest| format!("h.{rest}"));
        Some(format!("model.{rest}"))
    });
    Ok(())
}
