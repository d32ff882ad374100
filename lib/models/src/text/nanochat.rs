//! nanochat: norms without weights, of embeddings, queries and keys too; a rotary embedding with
//! negative angles.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::rope::Rope;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::nn::norm::{NormArch, NormKind};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::new(Architecture::Nanochat, load)];

/// Loads a `nanochat`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"hidden_size": 1280, "num_hidden_layers": 20, "num_attention_heads": 10,
        "num_key_value_heads": 10, "vocab_size": 65_536, "intermediate_size": 5120});
    let c = Config::read_or(config, defaults)?;
    w.rename(&[
        ("model", "transformer"),
        ("embed_tokens", "wte"),
        ("layers", "h"),
        ("self_attn", "attn"),
        ("q_proj", "c_q"),
        ("k_proj", "c_k"),
        ("v_proj", "c_v"),
        ("o_proj", "c_proj"),
        ("up_proj", "c_fc"),
        ("down_proj", "c_proj"),
    ]);
    let rope = Rope::backwards(c.head_dim(), c.theta(Some(10_000.0))?);
    let norm = NormArch { kind: NormKind::Bare, eps: 1e-5 };
    let arch = llama::base(&c, rope, false, norm)?
        .with_mlp(|mlp| (mlp.gated, mlp.activation) = (false, Activation::ReluSquared));
    Decoder::load(Arch { embed_norm: true, logit_softcap: Some(15.0), ..arch }, w)
}
