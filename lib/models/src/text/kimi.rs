//! Kimi Linear (arXiv 2510.26692): delta attention in most layers, and latent attention without
//! position embeddings in the others.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::gated_delta::Decay;
use mlxk_tensor::ops::moe_route::Score;
use serde::Deserialize;
use serde_json::Value;

use super::deepseek::{self, Member};
use crate::checkpoint::config_error::positive;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::{Checkpoint, mla};
use crate::config::renamed;
use crate::language::Language;
use crate::nn::mla::Mla;
use crate::nn::ssm::kimi_delta::{KimiDelta, KimiDeltaArch};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    sanitize: &[sanitize, mla::split],
    convert: Rules {
        eight: &["mlp.gate"],
        keep: &["e_score_correction_bias", "A_log", "dt_bias"],
        ..Rules::NONE
    },
    ..Spec::new(Architecture::KimiLinear, load)
}];

/// Fields of delta attention in config.json.
#[derive(Deserialize)]
struct Linear {
    /// Numbers of the layers with delta attention, counted from 1.
    kda_layers: Vec<usize>,
    num_heads: usize,
    head_dim: usize,
    short_conv_kernel_size: Option<usize>,
}

/// Loads a `kimi_linear`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [
        ("num_experts", "n_routed_experts"),
        ("num_shared_experts", "n_shared_experts"),
        ("num_experts_per_token", "num_experts_per_tok"),
        ("moe_renormalize", "norm_topk_prob"),
        ("moe_router_activation_func", "scoring_func"),
        ("num_expert_group", "n_group"),
    ];
    let c = deepseek::read(&renamed(config, &names), true)?;
    w.discard(|name| name.starts_with("model.mtp"));
    w.rename(&[
        ("gate.e_score_correction_bias", "e_score_correction_bias"),
        ("q_conv1d", "q_conv.conv"),
        ("k_conv1d", "k_conv.conv"),
        ("v_conv1d", "v_conv.conv"),
    ]);
    let own: Linear = c.need("linear_attn_config")?;
    positive(&[("num_heads", own.num_heads), ("head_dim", own.head_dim)])?;
    let norm = c.rms_norm()?;
    let delta = KimiDeltaArch {
        hidden: c.hidden_size,
        heads: own.num_heads,
        dim: own.head_dim,
        taps: own.short_conv_kernel_size.unwrap_or(4),
        decay: Decay::Element,
        norm,
    };
    let moe = deepseek::moe(&c, deepseek::score(&c, Score::Sigmoid)?, 2)?;
    let member = Member { eps: norm.eps, ..Member::new(Some(moe)) };
    let (sizes, _) = deepseek::attention(&c, &member)?;
    deepseek::layers(&c, member, w, |i, w| match own.kda_layers.contains(&(i + 1)) {
        true => Ok(Box::new(KimiDelta::load(w, &delta)?)),
        false => Ok(Box::new(Mla::load(w, &sizes, None)?)),
    })
}

/// Renames the experts and convolutions of a `kimi_linear` in the form of transformers.
fn sanitize(all: &mut Checkpoint) -> Result<()> {
    let names = [
        (".block_sparse_moe.", ".mlp."),
        (".mlp.gate.e_score_correction_bias", ".mlp.e_score_correction_bias"),
        (".q_conv1d.", ".q_conv.conv."),
        (".k_conv1d.", ".k_conv.conv."),
        (".v_conv1d.", ".v_conv.conv."),
    ];
    all.rename(|name| {
        let new = names.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new));
        (new != name).then_some(new)
    });
    let bias = |name: &str| name.ends_with(".dt_bias");
    all.change(bias, |tensor| {
        let size = tensor.shape.iter().product();
        tensor.shaped(vec![size])
    });
    Ok(())
}
