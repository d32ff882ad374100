//! InternLM 2 (arXiv 2403.17297): Llama under other tensor names, with a fused attention matrix.

use mlxk_core::{Architecture, Result};
use serde_json::Value;

use super::decoder::Decoder;
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::new(Architecture::InternLm2, load_2)];

/// Loads an `internlm2`, whose fused rows are grouped by kv head.
pub fn load_2(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.discard(|name| name.ends_with("attention.rope.inv_freq"));
    w.rename(&[
        ("embed_tokens", "tok_embeddings"),
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn", "attention"),
        ("qkv_proj", "wqkv"),
        ("o_proj", "wo"),
        ("mlp", "feed_forward"),
        ("gate_proj", "w1"),
        ("down_proj", "w2"),
        ("up_proj", "w3"),
        ("lm_head", "output"),
    ]);
    let mut arch = llama::arch(&c, Some(10_000.0), false)?;
    arch.heads.fused = Some(c.kv_heads());
    Decoder::load(arch, w)
}
