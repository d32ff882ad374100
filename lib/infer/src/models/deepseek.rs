//! DeepSeek V2 (arXiv 2405.04434) and V3 (arXiv 2412.19437).

use mlxk_core::Result;

use super::config::Config;
use crate::kernels::Activation;
use crate::mixture::{Groups, MoeArch, Routing, Score, SharedArch};
use crate::nn::MlpArch;
use crate::weights::Cursor;

/// The mixtures of the family, whose groups are judged by their `judged` best experts.
pub fn moe(c: &Config, score: Score, judged: usize) -> Result<MoeArch> {
    let inner = c.need("moe_intermediate_size")?;
    let activation = Activation::Silu;
    let shared = |count: usize| {
        let inner = count.saturating_mul(inner);
        let mlp = MlpArch { inner, gated: true, fused: false, activation };
        SharedArch { mlp, weighed: false }
    };
    let chosen: usize = c.need("num_experts_per_tok")?;
    let groups = Groups {
        count: c.get("n_group")?.unwrap_or(1),
        kept: c.get("topk_group")?.unwrap_or(1),
        judged,
    };
    let normalised = chosen > 1 && c.get("norm_topk_prob")?.unwrap_or(false);
    let scale = c.get("routed_scaling_factor")?.unwrap_or(1.0);
    Ok(MoeArch {
        count: c.need("n_routed_experts")?,
        inner,
        activation,
        routing: Routing {
            groups: (groups.count > 1).then_some(groups),
            normalised,
            scale,
            ..Routing::new(chosen, score)
        },
        gated: true,
        shared: c.get("n_shared_experts")?.map(shared),
    })
}

/// Leaves the layers after the last of `count` aside: they predict further tokens.
pub fn leave_further_layers(w: &mut Cursor, count: usize) {
    w.leave(|name| {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        layer.and_then(|layer| layer.parse::<usize>().ok()).is_some_and(|layer| layer >= count)
    });
}
