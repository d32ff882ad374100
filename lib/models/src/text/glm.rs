//! GLM and GLM 4: Llama with an interleaved rotary embedding; GLM 4 adds post-norms.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::moe_route::Score;
use mlxk_tensor::ops::rope::Scaling;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::{deepseek, llama};
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Glm, load),
    Spec::new(Architecture::Glm4, load_4),
    Spec { convert: Rules::CORRECTED, ..Spec::new(Architecture::Glm4Moe, load_4_moe) },
    Spec { convert: Rules::CORRECTED, ..Spec::new(Architecture::SolarOpen, load_4_moe) },
];

/// Loads a `glm`.
fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let mut c = Config::read(config)?;
    c.rope_traditional = true;
    Decoder::load(arch(&c)?, w)
}

/// Loads a `glm4`.
fn load_4(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read_or(config, json!({"rope_traditional": true}))?;
    let norms = Norms {
        attn_in: Some("input_layernorm"),
        attn_out: Some("post_self_attn_layernorm"),
        mlp_in: Some("post_attention_layernorm"),
        mlp_out: Some("post_mlp_layernorm"),
    };
    Decoder::load(Arch { norms, ..arch(&c)? }, w)
}

/// Loads a `glm4_moe`: Llama with the routing of DeepSeek V3. Skips the layers after the last,
/// which are for multi-token prediction.
fn load_4_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    deepseek::leave_further_layers(&mut w, c.num_hidden_layers);
    w.rename(&[("shared_expert", "shared_experts")]);
    let rope = c.rope_of(c.theta(None)?, &Scaling::default())?;
    let arch = llama::base(&c, rope, false, c.rms_norm()?)?;
    let dense: usize = c.need("first_k_dense_replace")?;
    Decoder::load(arch.with_moe(&deepseek::moe(&c, Score::Sigmoid, 2)?, |i| i >= dense), w)
}

fn arch(c: &Config) -> Result<Arch> {
    Ok(llama::arch(c, Some(10_000.0), false)?.with_mlp(|mlp| mlp.fused = true))
}
