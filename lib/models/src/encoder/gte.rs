//! GTE (arXiv 2407.19669), `new` in the published form: a BERT with rotary positions and gated
//! feed-forward layers.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::rope::Rope;
use serde_json::{Value, json};

use super::bert;
use super::encode::Encoder;
use super::nomic_bert::{NATIVE, rotary};
use super::transformer::{Transformer, has};
use crate::checkpoint::config_error::unknown;
use crate::checkpoint::cursor::Cursor;
use crate::config::given;
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] = &[Spec::encoder(Architecture::Gte, load)];

/// Names in the published form.
const NAMES: &[(&str, &str)] = &[
    ("layers", "encoder.layer"),
    ("attn.qkv_proj", "attention.qkv_proj"),
    ("attn.o_proj", "attention.o_proj"),
    ("attn_norm", "attn_ln"),
    ("mlp_norm", "mlp_ln"),
];

/// Prefixes of all names.
const PREFIXES: &[&str] = &["new", "gte"];

/// Loads a `new` or `gte`, whose names may begin with `new.` or `gte.`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Encoder>> {
    if let Some(kind) = config.get("layer_norm_type").and_then(Value::as_str)
        && kind != "layer_norm"
    {
        return Err(unknown(format!("norms of type `{kind}` cannot run")));
    }
    let config = given(config, json!({"hidden_act": "gelu", "type_vocab_size": 0}));
    let mut arch = bert::arch(&config)?;
    arch.fused = has(&mut w, PREFIXES, "encoder.layer.0.attention.qkv_proj.weight");
    arch.up_gate = arch.fused;
    arch.names = if arch.fused { NAMES } else { NATIVE };
    arch.prefixes = PREFIXES;
    arch.mlp.gated = true;
    let rope = rope(&config, arch.head_dim(), arch.max_length as u64)?;
    Transformer::load(arch.rotary(&rope), w)
}

/// Rotary embedding. In the published form its type may be `ntk`: the base is multiplied by the
/// factor, and wavelengths by the power of it that leaves the shortest as it was trained.
fn rope(config: &Value, dims: usize, trained: u64) -> Result<Rope> {
    let ntk = config.get("rope_scaling").filter(|scaling| {
        scaling.get("type").or(scaling.get("rope_type")).is_some_and(|kind| kind == "ntk")
    });
    let Some(ntk) = ntk else { return rotary(config, dims, 10_000.0, trained) };
    let factor = ntk.get("factor").and_then(Value::as_f64).filter(|&factor| factor > 0.0);
    let (Some(factor), None) = (factor, ntk.get("mixed_b").filter(|b| !b.is_null())) else {
        return Err(unknown(format!("`rope_scaling` {ntk} cannot run")));
    };
    let theta = config.get("rope_theta").and_then(Value::as_f64).unwrap_or(10_000.0);
    let rope = Rope::new(dims, false, theta * factor, Some(trained), None)?;
    rope.stretched(factor.powf(2.0 / dims as f64))
}
