//! Jina embeddings v3 (arXiv 2409.10173): XLM-RoBERTa with rotary positions, in the published form
//! and in that of transformers. Adapters of tasks (LoRA) are added to the weights when they are
//! read.

use mlxk_core::{Architecture, Result};
use serde_json::{Value, json};

use super::bert;
use super::classifier::ClassifierArch;
use super::encode::Encoder;
use super::nomic_bert::rotary;
use super::transformer::{Transformer, has};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::config::given;
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] = &[Spec::encoder(Architecture::JinaEmbeddings3, load)];

/// Names in the published form.
const NAMES: &[(&str, &str)] = &[
    ("layers", "encoder.layers"),
    ("embeddings.LayerNorm", "emb_ln"),
    ("attn.qkv_proj", "mixer.Wqkv"),
    ("attn.o_proj", "mixer.out_proj"),
    ("mlp.up_proj", "mlp.fc1"),
    ("mlp.down_proj", "mlp.fc2"),
    ("attn_norm", "norm1"),
    ("mlp_norm", "norm2"),
];

/// Names in the form of transformers.
const NATIVE: &[(&str, &str)] = &[
    ("attn", "self_attn"),
    ("mlp.up_proj", "mlp.fc1"),
    ("mlp.down_proj", "mlp.fc2"),
    ("attn_norm", "post_attention_layernorm"),
    ("mlp_norm", "post_mlp_layernorm"),
];

/// Prefixes of all names.
const PREFIXES: &[&str] = &["roberta"];

/// Name of a matrix with adapters, after that of its layer.
const ORIGINAL: &str = "parametrizations.weight.original";

/// Loads Jina embeddings v3.
pub fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Encoder>> {
    let defaults = json!({"type_vocab_size": 1, "layer_norm_eps": 1e-5});
    let config = given(config, defaults);
    let mut arch = bert::arch(&config)?;
    let published = has(&mut w, PREFIXES, "emb_ln.weight");
    arch.names = if published { NAMES } else { NATIVE };
    arch.fused = published;
    arch.prefixes = PREFIXES;
    arch.classifier = ClassifierArch::ROBERTA;
    let theta = config.get("rotary_emb_base").and_then(Value::as_f64).unwrap_or(20_000.0);
    let rope = rotary(&config, arch.head_dim(), theta, arch.max_length as u64)?;
    w.leave(|name| name.contains(".lora_"));
    Transformer::load(arch.rotary(&rope), w)
}

/// Gives matrices with adapters their usual names.
///
/// # Errors
/// None.
pub fn originals(all: &mut Checkpoint) -> Result<()> {
    all.rename(|name| Some(format!("{}weight", name.strip_suffix(ORIGINAL)?)));
    Ok(())
}
