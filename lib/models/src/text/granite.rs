//! Granite (arXiv 2405.04324) and MiniCPM (arXiv 2404.06395): Llama with scale factors of
//! embeddings, residuals, attention and logits.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::nn::moe::MoeArch;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec {
        convert: Rules { eight: &["self_attn.o_proj", "mlp.down_proj", "lm_head"], ..Rules::NONE },
        ..Spec::new(Architecture::Granite, load)
    },
    Spec {
        convert: Rules {
            eight: &[
                "block_sparse_moe.router.layer",
                "self_attn.o_proj",
                "mlp.down_proj",
                "lm_head",
            ],
            ..Rules::NONE
        },
        ..Spec::new(Architecture::GraniteMoe, load_moe)
    },
    Spec {
        convert: Rules { untie: true, ..Rules::NONE },
        ..Spec::new(Architecture::MiniCpm, load_minicpm)
    },
];

/// Loads a `granite`.
fn load(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?)?, w)
}

/// Loads a `granitemoe`.
fn load_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.rename(&[("mlp", "block_sparse_moe"), ("gate", "router.layer")]);
    let routing = Routing::new(c.need("num_experts_per_tok")?, Score::Softmax);
    let moe = MoeArch {
        count: c.need("num_local_experts")?,
        inner: c.intermediate_size,
        activation: Activation::Silu,
        routing: Routing { normalised: true, ..routing },
        gated: true,
        shared: None,
    };
    Decoder::load(arch(&c)?.with_moe(&moe, |_| true), w)
}

/// Architecture with the scale factors that config.json states.
fn arch(c: &Config) -> Result<Arch> {
    let mut arch = llama::arch(c, None, false)?;
    arch.heads.scale = c.need("attention_multiplier")?;
    arch.embed_scale = c.need("embedding_multiplier")?;
    arch.residual_scale = c.need("residual_multiplier")?;
    arch.logit_scale = 1.0 / c.need::<f32>("logits_scaling")?;
    Ok(arch)
}

/// Loads a `minicpm`, whose scale factors follow from its width and depth.
fn load_minicpm(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read_or(config, json!({"tie_word_embeddings": false}))?;
    let depth = (c.num_hidden_layers as f32).sqrt();
    let tied = c.tie_word_embeddings == Some(true);
    let width = c.need::<f32>("dim_model_base")? / c.hidden_size as f32;
    let arch = Arch {
        tied: None,
        embed_scale: c.need("scale_emb")?,
        residual_scale: c.need::<f32>("scale_depth")? / depth,
        logit_scale: if tied { 1.0 } else { width },
        ..llama::arch(&c, Some(1_000_000.0), false)?
    };
    Decoder::load(arch, w)
}
