//! DeepSeek V2 (arXiv 2405.04434) and V3 (arXiv 2412.19437), and others that are the same.

use mlxk_core::Result;
use serde_json::{Value, json};

use super::config::{Config, given, invalid, unknown};
use super::ends::{Ends, EndsArch};
use super::stack::{Factors, Stack, Step};
use super::{Language, llama, within};
use crate::kernels::Activation;
use crate::mixture::{Groups, Moe, MoeArch, Routing, Score, SharedArch};
use crate::nn::{Feed, Latent, LatentSizes, Mlp, MlpArch, NormArch};
use crate::rope::{Rope, Scaling};
use crate::weights::Cursor;

/// A deepseek_v2; groups of experts are as good as their best.
pub fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = read(config, false)?;
    let mut moe = mixture(&c, Score::Softmax, 1)?;
    let method = c.get::<String>("topk_method")?;
    if let (Some(moe), true) = (&mut moe, method.as_deref() != Some("group_limited_greedy")) {
        moe.routing.groups = None;
    }
    load(&c, moe.as_ref(), 1e-6, w)
}

/// A deepseek_v3; groups of experts are as good as their two best.
pub fn load_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = read(config, true)?;
    match c.get::<String>("topk_method")?.as_deref() {
        None | Some("noaux_tc") => load(&c, mixture(&c, Score::Sigmoid, 2)?.as_ref(), 1e-6, w),
        Some(other) => Err(unknown(format!("experts chosen by `{other}` cannot run yet"))),
    }
}

/// A kimi_k25 or a kimi_vl: a deepseek_v3 without what it sees.
pub fn load_within(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    within::text_only(&mut w);
    load_3(&within::text(config)?, w)
}

/// A glm4_moe_lite: a deepseek_v3 but for what a file need not say.
pub fn load_glm(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0, "q_lora_rank": 768,
        "qk_nope_head_dim": 192, "v_head_dim": 256, "first_k_dense_replace": 1,
        "n_routed_experts": 64, "n_shared_experts": 1, "num_experts_per_tok": 4,
        "moe_intermediate_size": 1536, "routed_scaling_factor": 1.8});
    let c = read(&given(config, defaults), true)?;
    load(&c, mixture(&c, Score::Sigmoid, 2)?.as_ref(), c.rms_norm()?.eps, w)
}

fn read(config: &Value, normalised: bool) -> Result<Config> {
    let defaults = json!({"rms_norm_eps": 1e-6, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "qk_nope_head_dim": 128, "first_k_dense_replace": 0,
        "moe_layer_freq": 1, "norm_topk_prob": normalised});
    Config::read_or(config, defaults)
}

/// The mixtures of the family if it has any.
fn mixture(c: &Config, score: Score, judged: usize) -> Result<Option<MoeArch>> {
    let mixed = c.get::<usize>("n_routed_experts")?.is_some();
    mixed.then(|| moe(c, score, judged)).transpose()
}

/// With `eps` in the norms within attention.
fn load(c: &Config, moe: Option<&MoeArch>, eps: f32, mut w: Cursor) -> Result<Box<dyn Language>> {
    leave_further_layers(&mut w, c.num_hidden_layers);
    w.rename(&[("shared_expert", "shared_experts")]);
    let (norm, hidden) = (c.rms_norm()?, c.hidden_size);
    let ends = EndsArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: false,
        scale: 1.0,
        softcap: None,
    };
    let ends = Ends::load(&mut w, &ends)?;
    let (sizes, rope) = attention(c, eps)?;
    let (dense, every) = (c.need::<usize>("first_k_dense_replace")?, c.need("moe_layer_freq")?);
    let mut steps = Vec::new();
    for i in 0..c.num_hidden_layers {
        let mut w = w.at(&format!("model.layers.{i}"));
        let input = norm.load(&mut w, "input_layernorm", hidden)?;
        let latent = Latent::load(&mut w.at("self_attn"), &sizes, rope.clone())?;
        steps.push(Step::mix(input, latent));
        let post = norm.load(&mut w, "post_attention_layernorm", hidden)?;
        let w = &mut w.at("mlp");
        let feed: Box<dyn Feed> = match moe {
            Some(moe) if i >= dense && i.is_multiple_of(every) => {
                Box::new(Moe::load(w, hidden, moe, norm)?)
            }
            _ => Box::new(Mlp::load(w, hidden, &llama::mlp(c), norm)?),
        };
        steps.push(Step::feed(post, feed));
    }
    Ok(Box::new(Stack { ends, steps, factors: Factors::NONE, kernels: w.kernels() }))
}

/// The sizes of attention and what it rotates by.
fn attention(c: &Config, eps: f32) -> Result<(LatentSizes, Rope)> {
    let scaling = match c.get::<Scaling>("rope_scaling")? {
        Some(scaling) => scaling,
        None => c.get("rope_parameters")?.unwrap_or_default(),
    };
    let (plain, rotated) = (c.need::<usize>("qk_nope_head_dim")?, c.need("qk_rope_head_dim")?);
    let (rank, value) = (c.need::<usize>("kv_lora_rank")?, c.need::<usize>("v_head_dim")?);
    let most = i32::MAX as usize / (2 * c.num_attention_heads);
    if [rank, plain, rotated, value].iter().any(|&n| n == 0 || n > most) || rotated % 2 == 1 {
        let sizes = format!("{rank}, {plain}, {rotated} and {value}");
        return Err(invalid(format!("heads cannot be made of {sizes} elements")));
    }
    let sizes = LatentSizes {
        hidden: c.hidden_size,
        heads: c.num_attention_heads,
        query_rank: c.get("q_lora_rank")?,
        rank,
        plain,
        rotated,
        value,
        scale: ((plain + rotated) as f32).powf(-0.5) * scaling.sharpness(),
        norm: NormArch { eps, ..c.rms_norm()? },
    };
    let trained = c.get("max_position_embeddings")?;
    Ok((sizes, Rope::new(rotated, true, c.theta(Some(10_000.0))?, trained, Some(&scaling))?))
}

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
    w.discard(|name| {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        layer.and_then(|layer| layer.parse::<usize>().ok()).is_some_and(|layer| layer >= count)
    });
}
