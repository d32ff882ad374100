//! BERT (arXiv 1810.04805): learned positions and a norm after each sublayer.
//!
//! Tensors have the names of transformers' `BertModel`. Heads for training (`pooler`, `cls`) are
//! left aside.

use mlxk_core::Architecture;
use serde::Deserialize;
use serde_json::Value;

use super::encode::Encoder;
use super::transformer::{Arch, Sizes, Transformer, activation};
use crate::checkpoint::config_error::{fields, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] = &[Spec::encoder(Architecture::Bert, load)];

/// Names in a checkpoint.
const NAMES: &[(&str, &str)] = &[
    ("layers", "encoder.layer"),
    ("attn.q_proj", "attention.self.query"),
    ("attn.k_proj", "attention.self.key"),
    ("attn.v_proj", "attention.self.value"),
    ("attn.o_proj", "attention.output.dense"),
    ("attn_norm", "attention.output.LayerNorm"),
    ("mlp.up_proj", "intermediate.dense"),
    ("mlp.down_proj", "output.dense"),
    ("mlp_norm", "output.LayerNorm"),
];

/// Fields of config.json.
#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    is_decoder: Option<bool>,
}

/// Architecture of a BERT that config.json describes.
///
/// # Errors
/// If a field is missing or out of range, or states what cannot run.
pub fn arch(config: &Value) -> mlxk_core::Result<Arch> {
    let c: Config = fields(config)?;
    if c.is_decoder == Some(true) {
        return Err(unknown("an encoder that is a decoder (`is_decoder`) cannot run".to_owned()));
    }
    let sizes = Sizes {
        vocabulary: c.vocab_size,
        hidden: c.hidden_size,
        inner: c.intermediate_size,
        layers: c.num_hidden_layers,
        heads: c.num_attention_heads,
        positions: c.max_position_embeddings,
    };
    let mut arch = Arch::new(sizes, c.layer_norm_eps.unwrap_or(1e-12))?;
    arch.names = NAMES;
    arch.prefixes = &["bert"];
    arch.heads_for_training = &["pooler.", "cls.", "lm_head."];
    arch.types = c.type_vocab_size.unwrap_or(arch.types);
    arch.mlp.activation = activation(c.hidden_act.as_deref())?;
    Ok(arch)
}

/// Loads a `bert`, whose names may begin with `bert.`.
fn load(config: &Value, w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
    let arch = arch(config)?;
    positive(&[("type_vocab_size", arch.types)])?;
    learned(config)?;
    Transformer::load(arch, w)
}

/// Checks that positions are learned.
///
/// # Errors
/// If they are not.
pub fn learned(config: &Value) -> mlxk_core::Result<()> {
    match config.get("position_embedding_type").and_then(Value::as_str) {
        None | Some("absolute") => Ok(()),
        Some(other) => Err(unknown(format!("positions of type `{other}` cannot run"))),
    }
}
