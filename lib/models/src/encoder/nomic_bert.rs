//! Nomic BERT (arXiv 2402.01613): a BERT with rotary positions and gated feed-forward layers, in the
//! published form and in that of transformers.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::rope::{Rope, Scaling};
use serde_json::{Value, json};

use super::bert;
use super::encode::Encoder;
use super::transformer::{Transformer, has};
use crate::checkpoint::config_error::{fields, invalid, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::{given, renamed};
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] = &[Spec::encoder(Architecture::NomicBert, load)];

/// Names in the published form.
const NAMES: &[(&str, &str)] = &[
    ("layers", "encoder.layers"),
    ("embeddings.LayerNorm", "emb_ln"),
    ("attn.qkv_proj", "attn.Wqkv"),
    ("attn.o_proj", "attn.out_proj"),
    ("mlp.up_proj", "mlp.fc11"),
    ("mlp.gate_proj", "mlp.fc12"),
    ("mlp.down_proj", "mlp.fc2"),
    ("attn_norm", "norm1"),
    ("mlp_norm", "norm2"),
];

/// Names in the form of transformers.
pub const NATIVE: &[(&str, &str)] = &[
    ("attn", "self_attn"),
    ("attn_norm", "post_attention_layernorm"),
    ("mlp_norm", "post_mlp_layernorm"),
];

/// Prefixes of all names.
const PREFIXES: &[&str] = &["nomic_bert", "bert"];

/// Keys of config.json in the published form, and those of a BERT.
const KEYS: &[(&str, &str)] = &[
    ("n_embd", "hidden_size"),
    ("n_inner", "intermediate_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_positions", "max_position_embeddings"),
    ("layer_norm_epsilon", "layer_norm_eps"),
    ("activation_function", "hidden_act"),
    ("rotary_emb_base", "rope_theta"),
];

/// Values that the model has or needs, of keys for what is not computed otherwise.
const ONLY: &[(&str, Value)] = &[
    ("prenorm", Value::Bool(false)),
    ("parallel_block", Value::Bool(false)),
    ("causal", Value::Bool(false)),
    ("use_rms_norm", Value::Bool(false)),
    ("rotary_emb_interleaved", Value::Bool(false)),
    ("rotary_emb_scale_base", Value::Null),
    ("num_experts", Value::Null),
];

/// Loads a `nomic_bert`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Encoder>> {
    if let Some((key, _)) = ONLY
        .iter()
        .find(|(key, only)| config.get(key).is_some_and(|value| value != only && !value.is_null()))
    {
        return Err(unknown(format!("`{key}` cannot be {}", config[key])));
    }
    let published = has(&mut w, PREFIXES, "emb_ln.weight");
    let config = given(&renamed(config, KEYS), json!({"hidden_act": "silu"}));
    let mut arch = bert::arch(&config)?;
    arch.names = if published { NAMES } else { NATIVE };
    arch.prefixes = PREFIXES;
    arch.mlp.gated = true;
    arch.fused = published;
    let rope = rope(&config, arch.head_dim(), arch.max_length)?;
    Transformer::load(arch.rotary(&rope), w)
}

/// Rotary embedding, scaled beyond the trained length if config.json has a factor for it.
fn rope(config: &Value, head_dim: usize, positions: usize) -> Result<Rope> {
    let part = config.get("rotary_emb_fraction").and_then(Value::as_f64).unwrap_or(1.0);
    let dims = (head_dim as f64 * part) as usize;
    if dims == 0 || !dims.is_multiple_of(2) || dims > head_dim {
        return Err(invalid(format!("{dims} elements of a head cannot rotate")));
    }
    let trained = config.get("max_trained_positions").and_then(Value::as_u64);
    rotary(config, dims, 1000.0, trained.unwrap_or(positions as u64))
}

/// Rotary embedding of `dims` elements that config.json describes; the base is `theta` by default.
pub fn rotary(config: &Value, dims: usize, theta: f64, trained: u64) -> Result<Rope> {
    let stated = |key: &str| config.get(key).filter(|value| !value.is_null());
    let factor = stated("rotary_scaling_factor").and_then(Value::as_f64);
    let scaling: Option<Scaling> =
        match (factor, stated("rope_scaling").or(stated("rope_parameters"))) {
            (Some(factor), _) => Some(fields(&json!({"type": "dynamic", "factor": factor}))?),
            (None, Some(scaling)) => Some(fields(scaling)?),
            (None, None) => None,
        };
    let within = scaling.as_ref().and_then(|scaling| scaling.rope_theta);
    let theta = stated("rope_theta").and_then(Value::as_f64).or(within).unwrap_or(theta);
    Rope::new(dims, false, theta, Some(trained), scaling.as_ref())
}
