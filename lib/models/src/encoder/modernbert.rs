//! ModernBERT (arXiv 2412.13663): rotary positions, gated feed-forward layers, a norm before each
//! sublayer, and layers in which tokens attend to those near them only.

use mlxk_core::Architecture;
use mlxk_core::probe::sentence::Pooling;
use mlxk_tensor::ops::rope::{Rope, Scaling};
use serde::Deserialize;
use serde_json::Value;

use super::classifier::{ClassifierActivation, ClassifierArch};
use super::encode::Encoder;
use super::transformer::{Arch, LayerArch, Placement, Sizes, Transformer, activation};
use crate::checkpoint::config_error::{fields, invalid, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] = &[Spec::encoder(Architecture::ModernBert, load)];

/// Names in a checkpoint.
const NAMES: &[(&str, &str)] = &[
    ("embeddings.word_embeddings", "embeddings.tok_embeddings"),
    ("embeddings.LayerNorm", "embeddings.norm"),
    ("attn.qkv_proj", "attn.Wqkv"),
    ("attn.o_proj", "attn.Wo"),
    ("mlp.gate_up_proj", "mlp.Wi"),
    ("mlp.down_proj", "mlp.Wo"),
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
    hidden_activation: Option<String>,
    norm_eps: Option<f32>,
    global_attn_every_n_layers: Option<usize>,
    local_attention: Option<usize>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    layer_types: Option<Vec<String>>,
    rope_parameters: Option<RopeTypes>,
    classifier_pooling: Option<String>,
    classifier_activation: Option<String>,
}

/// Rotary embeddings by type of layer, in newer files.
#[derive(Debug, Deserialize)]
struct RopeTypes {
    full_attention: Option<Scaling>,
    sliding_attention: Option<Scaling>,
}

/// Loads a `modernbert`, whose names may begin with `model.`.
fn load(config: &Value, w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
    let c: Config = fields(config)?;
    let sizes = Sizes {
        vocabulary: c.vocab_size,
        hidden: c.hidden_size,
        inner: c.intermediate_size,
        layers: c.num_hidden_layers,
        heads: c.num_attention_heads,
        positions: c.max_position_embeddings,
    };
    let mut arch = Arch::new(sizes, c.norm_eps.unwrap_or(1e-5))?;
    arch.names = NAMES;
    arch.prefixes = &["model"];
    arch.heads_for_training = &["head.", "decoder."];
    arch.types = 0;
    arch.positions = None;
    arch.norms = Placement::Before;
    (arch.mlp.gated, arch.mlp.fused) = (true, true);
    arch.mlp.activation = activation(c.hidden_activation.as_deref())?;
    arch.fused = true;
    arch.classifier = ClassifierArch {
        pooling: match c.classifier_pooling.as_deref() {
            None | Some("cls") => Pooling::Cls,
            Some("mean") => Pooling::Mean,
            Some(other) => return Err(unknown(format!("pooling `{other}` cannot run"))),
        },
        dense: "head.dense",
        pooled: false,
        activation: ClassifierActivation::Other(activation(c.classifier_activation.as_deref())?),
        norm: Some(("head.norm", arch.norm)),
        ..ClassifierArch::BERT
    };
    arch.layers = layers(&c, arch.head_dim())?;
    Transformer::load(arch, w)
}

/// Layers: every n-th attends to all tokens, the others to those at most half a window away.
fn layers(c: &Config, head_dim: usize) -> mlxk_core::Result<Vec<LayerArch>> {
    let every = c.global_attn_every_n_layers.unwrap_or(3).max(1);
    let types = c.rope_parameters.as_ref();
    let rope = |types: Option<&Scaling>, theta: Option<f64>, usual: f64| {
        let theta = types.and_then(|rope| rope.rope_theta).or(theta).unwrap_or(usual);
        Rope::new(head_dim, false, theta, Some(c.max_position_embeddings as u64), types)
    };
    let all = types.and_then(|types| types.full_attention.as_ref());
    let all = rope(all, c.global_rope_theta, 160_000.0)?;
    let near = types.and_then(|types| types.sliding_attention.as_ref());
    let near = rope(near, c.local_rope_theta, 10_000.0)?;
    let window = c.local_attention.unwrap_or(128) / 2 + 1;
    let layer = |i: usize| {
        let is_near = match c.layer_types.as_ref().map(|types| types.get(i).map(String::as_str)) {
            None => !i.is_multiple_of(every),
            Some(Some("full_attention")) => false,
            Some(Some("sliding_attention")) => true,
            Some(other) => {
                return Err(invalid(format!("`layer_types` has {other:?} for layer {i}")));
            }
        };
        let rope = if is_near { near.clone() } else { all.clone() };
        Ok(LayerArch { rope: Some(rope), near: is_near.then_some(window) })
    };
    (0..c.num_hidden_layers).map(layer).collect()
}
