//! DistilBERT (arXiv 1910.01108): a BERT without token types, with names and keys of its own.

use mlxk_core::Architecture;
use serde_json::{Value, json};

use super::bert;
use super::classifier::{ClassifierActivation, ClassifierArch};
use super::encode::Encoder;
use super::transformer::Transformer;
use crate::checkpoint::cursor::Cursor;
use crate::config::{given, renamed};
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] = &[Spec::encoder(Architecture::DistilBert, load)];

/// Names in a checkpoint.
const NAMES: &[(&str, &str)] = &[
    ("layers", "transformer.layer"),
    ("attn.q_proj", "attention.q_lin"),
    ("attn.k_proj", "attention.k_lin"),
    ("attn.v_proj", "attention.v_lin"),
    ("attn.o_proj", "attention.out_lin"),
    ("attn_norm", "sa_layer_norm"),
    ("mlp.up_proj", "ffn.lin1"),
    ("mlp.down_proj", "ffn.lin2"),
    ("mlp_norm", "output_layer_norm"),
];

/// Keys of config.json, and those of a BERT.
const KEYS: &[(&str, &str)] = &[
    ("dim", "hidden_size"),
    ("hidden_dim", "intermediate_size"),
    ("n_layers", "num_hidden_layers"),
    ("n_heads", "num_attention_heads"),
    ("activation", "hidden_act"),
];

/// Loads a `distilbert`, whose names may begin with `distilbert.`. Sinusoidal positions are stored
/// as a table like learned ones.
fn load(config: &Value, w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
    let defaults = json!({"type_vocab_size": 0, "max_position_embeddings": 512});
    let mut arch = bert::arch(&given(&renamed(config, KEYS), defaults))?;
    arch.names = NAMES;
    arch.prefixes = &["distilbert"];
    arch.heads_for_training = &["vocab_transform.", "vocab_layer_norm.", "vocab_projector."];
    arch.types = 0;
    arch.classifier = ClassifierArch {
        dense: "pre_classifier",
        pooled: false,
        activation: ClassifierActivation::Relu,
        ..ClassifierArch::BERT
    };
    Transformer::load(arch, w)
}
