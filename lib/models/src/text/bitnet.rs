//! BitNet b1.58 (arXiv 2504.12285): Llama with ternary weights and a norm before each output
//! projection.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use serde_json::Value;

use super::decoder::Decoder;
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::new(Architecture::BitNet, load)];

/// Loads a `bitnet`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let (hidden, inner) = (c.hidden_size, c.intermediate_size);
    let [heads, kv_heads] = [c.num_attention_heads, c.kv_heads()].map(|n| n * c.head_dim());
    for i in 0..c.num_hidden_layers {
        for (name, outs, ins) in [
            ("self_attn.q_proj", heads, hidden),
            ("self_attn.k_proj", kv_heads, hidden),
            ("self_attn.v_proj", kv_heads, hidden),
            ("self_attn.o_proj", hidden, heads),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ] {
            let mut w = w.at(&format!("model.layers.{i}"));
            if w.has(&format!("{name}.weight_scale")) {
                w.unpack_ternary(name, outs, ins)?;
            }
        }
    }
    let arch = llama::base(&c, c.rope(Some(10_000.0))?, false, c.rms_norm()?)?;
    Decoder::load(arch.with_mlp(|mlp| mlp.activation = Activation::ReluSquared), w)
}
