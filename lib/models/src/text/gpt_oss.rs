//! gpt-oss (arXiv 2508.10925): mixtures of experts with a clipped gate, a sliding window in every
//! other layer, and an attention sink for each head.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::{Value, json};

use super::decoder::Decoder;
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::ExpertLayout;
use crate::config::Config;
use crate::language::Language;
use crate::nn::moe::MoeArch;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    experts: ExpertLayout {
        to: "experts",
        transposed: true,
        interleaved: true,
        ..ExpertLayout::DEFAULT
    },
    convert: Rules { eight: &["router"], ..Rules::NONE },
    ..Spec::new(Architecture::GptOss, load)
}];

/// Loads a `gpt_oss`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"num_local_experts": 128, "num_experts_per_tok": 4,
        "rms_norm_eps": 1e-5, "head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128});
    let c = Config::read_or(config, defaults)?;
    w.rename(&[("switch_mlp", "experts"), ("gate", "router")]);
    let mut arch = llama::arch(&c, Some(150_000.0), false)?;
    if c.layer_types.is_none() {
        arch.layers.iter_mut().step_by(2).for_each(|layer| layer.window = c.sliding_window);
    }
    let limit = c.get("swiglu_limit")?.unwrap_or(7.0);
    let routing = Routing::new(c.need("num_experts_per_tok")?, Score::Softmax);
    let moe = MoeArch {
        count: c.need("num_local_experts")?,
        inner: c.intermediate_size,
        activation: Activation::ClippedSwish { alpha: 1.702, limit },
        routing: Routing { normalised: true, ..routing },
        gated: true,
        shared: None,
    };
    Decoder::load(arch.with_moe(&moe, |_| true), w)
}
