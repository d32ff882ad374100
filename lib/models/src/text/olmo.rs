//! OLMo 2 (arXiv 2501.00656) norms what comes out of attention and feed-forward, and all queries and
//! keys as one; three of four layers of OLMo 3 have a window.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use mlxk_tensor::ops::rope::Scaling;
use serde_json::Value;

use super::decoder::{Arch, Decoder, Norms};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::nn::moe::MoeArch;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Olmo2, load_2),
    Spec::new(Architecture::Olmo3, load_3),
    Spec::new(Architecture::Olmoe, load_e),
];

/// An olmo2.
fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let arch = llama::arch(&Config::read(config)?, Some(10_000.0), false)?;
    Decoder::load(Arch { norms: Norms::AFTER, ..arch }, w)
}

/// An olmoe (arXiv 2409.02060): a llama of experts that norms all queries and keys as one.
fn load_e(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let routing = Routing::new(c.need("num_experts_per_tok")?, Score::Softmax);
    let moe = MoeArch {
        count: c.need("num_experts")?,
        inner: c.intermediate_size,
        activation: Activation::Silu,
        routing: Routing { normalised: c.get("norm_topk_prob")?.unwrap_or(false), ..routing },
        gated: true,
        shared: None,
    };
    Decoder::load(llama::arch(&c, Some(10_000.0), false)?.with_moe(&moe, |_| true), w)
}

/// An olmo3; only layers without a window stretch their positions.
fn load_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let mut arch = Arch { norms: Norms::AFTER, ..llama::arch(&c, None, false)? };
    let near = c.rope_of(c.theta(None)?, &Scaling::default())?;
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        layer.window = c.window(i, !(i + 1).is_multiple_of(4))?;
        if layer.window.is_some() {
            layer.rope = Some(near.clone());
        }
    }
    Decoder::load(arch, w)
}
