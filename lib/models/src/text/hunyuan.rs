//! Hunyuan's dense models: llamas whose queries and keys are normed after they are rotated.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::rope::Scaling;
use serde_json::Value;

use super::decoder::Decoder;
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::new(Architecture::HunyuanV1Dense, load)];

/// A hunyuan_v1_dense; `rope_scaling.alpha` makes the base of its positions larger.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.rename(&[("q_norm", "query_layernorm"), ("k_norm", "key_layernorm")]);
    let scaling: Option<Value> = c.get("rope_scaling")?.or(c.get("rope_parameters")?);
    let alpha = scaling.and_then(|scaling| scaling.get("alpha").and_then(Value::as_f64));
    let dims = c.head_dim() as f64;
    let theta = c.theta(Some(10_000.0))? * alpha.unwrap_or(1.0).powf(dims / (dims - 2.0));
    let rope = c.rope_of(theta, &Scaling::default())?;
    let mut arch = llama::base(&c, rope, false, c.rms_norm()?)?;
    arch.heads.rotated_first = true;
    Decoder::load(arch, w)
}
