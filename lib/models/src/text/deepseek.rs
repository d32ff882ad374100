//! DeepSeek (arXiv 2401.06066), V2 (arXiv 2405.04434), V3 (arXiv 2412.19437), and models with
//! nearly the same architecture.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Groups, Routing, Score};
use mlxk_tensor::ops::rope::{Rope, Scaling};
use serde_json::{Value, json};

use super::decoder::Decoder;
use super::hybrid::{Factors, Hybrid, Part, Step};
use super::llama;
use crate::checkpoint::config_error::{invalid, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::{ExpertLayout, mla};
use crate::checkpoint::text_part;
use crate::config::{Config, given};
use crate::language::Language;
use crate::nn::attention::TemperatureTuning;
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mixer::{FeedForward, TokenMixer};
use crate::nn::mla::{Mla, MlaSizes};
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Moe, MoeArch, SharedArch};
use crate::nn::norm::NormArch;
use crate::nn::sparse::{TopK, TopKSizes};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec { convert: Rules::ROUTED, ..Spec::new(Architecture::Deepseek, load_1) },
    Spec { convert: Rules::ROUTED, ..Spec::new(Architecture::DeepseekV2, load_2) },
    Spec {
        sanitize: &[mla::split],
        convert: Rules::CORRECTED,
        ..Spec::new(Architecture::DeepseekV3, load_3)
    },
    Spec {
        sanitize: &[mla::split],
        convert: Rules::CORRECTED,
        ..Spec::new(Architecture::DeepseekV32, load_32)
    },
    Spec {
        experts: ExpertLayout { to: "experts", ..ExpertLayout::DEFAULT },
        convert: Rules::ROUTED,
        ..Spec::new(Architecture::Dots1, load_dots)
    },
    Spec {
        sanitize: &[mla::split],
        convert: Rules::CORRECTED,
        ..Spec::new(Architecture::Glm4MoeLite, load_glm)
    },
    Spec {
        sanitize: &[mla::split],
        convert: Rules::CORRECTED,
        ..Spec::new(Architecture::GlmMoeDsa, load_glm_dsa)
    },
    Spec {
        sanitize: &[text_part::under_language_model, mla::split],
        convert: Rules::CORRECTED,
        ..Spec::new(Architecture::KimiK25, load_within)
    },
    Spec {
        sanitize: &[text_part::under_language_model, mla::split],
        convert: Rules::CORRECTED,
        ..Spec::new(Architecture::KimiVl, load_within)
    },
    Spec::new(Architecture::MiniCpm3, load_minicpm),
    Spec::new(Architecture::YoutuLlm, load_youtu),
];

/// Settings that differ between members of the family.
pub struct Member {
    /// Mixture of experts; `None` if all layers are dense.
    pub moe: Option<MoeArch>,
    /// Epsilon of the norms within attention.
    pub eps: f32,
    /// True if the rotary embedding rotates adjacent pairs (interleaved).
    pub traditional: bool,
    /// Scaling of queries by position; `None` if the model has none.
    pub temperature_tuning: Option<TemperatureTuning>,
    /// Factors of embeddings and residuals.
    pub factors: Factors,
    /// Scale of logits.
    pub logit_scale: f32,
}

impl Member {
    /// Member with the mixture `moe` and all other settings of DeepSeek V2 and V3.
    pub fn new(moe: Option<MoeArch>) -> Member {
        let (eps, factors) = (1e-6, Factors::NONE);
        Member { moe, eps, traditional: true, temperature_tuning: None, factors, logit_scale: 1.0 }
    }
}

/// Loads a `deepseek`: Llama with mixtures of experts after the first dense layers.
fn load_1(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"vocab_size": 102_400, "hidden_size": 4096, "intermediate_size": 11_008,
        "moe_intermediate_size": 1407, "num_hidden_layers": 30, "num_attention_heads": 32,
        "num_key_value_heads": 32, "rms_norm_eps": 1e-6, "first_k_dense_replace": 0,
        "moe_layer_freq": 1});
    let c = Config::read_or(config, defaults)?;
    let every: usize = c.need("moe_layer_freq")?;
    load_llama(&c, mixture(&c, Score::Softmax, 1)?, |i| i.is_multiple_of(every), w)
}

/// Loads a `dots1`: as `deepseek`, with the routing of DeepSeek V3.
fn load_dots(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.rename(&[("switch_mlp", "experts")]);
    load_llama(&c, Some(moe(&c, Score::Sigmoid, 2)?), |_| true, w)
}

/// Loads a Llama with mixtures in the layers, after the first dense ones, for which `mixed` returns
/// true.
fn load_llama(
    c: &Config,
    moe: Option<MoeArch>,
    mixed: impl Fn(usize) -> bool,
    mut w: Cursor,
) -> Result<Box<dyn Language>> {
    w.rename(&[("shared_expert", "shared_experts")]);
    let arch = llama::arch(c, Some(10_000.0), false)?;
    let dense: usize = c.need("first_k_dense_replace")?;
    match moe {
        Some(moe) => Decoder::load(arch.with_moe(&moe, |i| i >= dense && mixed(i)), w),
        None => Decoder::load(arch, w),
    }
}

/// Loads a `deepseek_v2`, which scores a group of experts by its best one.
fn load_2(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = read(config, false)?;
    let mut moe = mixture(&c, Score::Softmax, 1)?;
    let method = c.get::<String>("topk_method")?;
    if let (Some(moe), true) = (&mut moe, method.as_deref() != Some("group_limited_greedy")) {
        moe.routing.groups = None;
    }
    load(&c, Member::new(moe), w)
}

/// Loads a `deepseek_v3`, which scores a group of experts by its two best.
fn load_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = read(config, true)?;
    match c.get::<String>("topk_method")?.as_deref() {
        None | Some("noaux_tc") => load(&c, Member::new(mixture(&c, Score::Sigmoid, 2)?), w),
        Some(other) => Err(unknown(format!("experts chosen by `{other}` cannot run yet"))),
    }
}

/// Loads a `deepseek_v32`: a `deepseek_v3` with sparse attention to the tokens an indexer selects.
fn load_32(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    with_topk(config, false, w)
}

/// Loads a `glm_moe_dsa`: a `deepseek_v32` whose indexer has an interleaved rotary embedding.
fn load_glm_dsa(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    with_topk(config, true, w)
}

fn with_topk(config: &Value, interleaved: bool, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"q_lora_rank": 1536, "index_n_heads": 64, "index_head_dim": 128,
        "index_topk": 2048, "topk_method": "noaux_tc"});
    let c = read(&given(config, defaults), true)?;
    let method: String = c.need("topk_method")?;
    if method != "noaux_tc" {
        return Err(unknown(format!("experts chosen by `{method}` cannot run yet")));
    }
    let member = Member::new(mixture(&c, Score::Sigmoid, 2)?);
    let (sizes, rope) = attention(&c, &member)?;
    let traditional = c.get("indexer_rope_interleave")?.unwrap_or(interleaved);
    let (_, turn) = attention(&c, &Member { traditional, ..Member::new(None) })?;
    let pick = TopKSizes {
        hidden: c.hidden_size,
        query_rank: c.need("q_lora_rank")?,
        heads: c.need("index_n_heads")?,
        size: c.need("index_head_dim")?,
        chosen: c.need("index_topk")?,
    };
    positive(&[("index_n_heads", pick.heads), ("index_topk", pick.chosen)])?;
    positive(&[("index_head_dim", pick.size), ("q_lora_rank", pick.query_rank)])?;
    if pick.size < sizes.rotated {
        return Err(invalid(format!("`index_head_dim` cannot be {}", pick.size)));
    }
    layers(&c, member, w, |_, w| {
        let pick = TopK::load(&mut w.at("indexer"), pick, turn.clone())?;
        Ok(Box::new(Mla::load(w, &sizes, Some(rope.clone()))?.with_topk(pick)))
    })
}

/// Loads the language model of a `kimi_k25` or `kimi_vl`, a `deepseek_v3`; skips the vision tower.
fn load_within(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    load_3(&text_part::text(config)?, w)
}

/// Loads a `glm4_moe_lite`: a `deepseek_v3` with other defaults.
fn load_glm(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0, "q_lora_rank": 768,
        "qk_nope_head_dim": 192, "v_head_dim": 256, "first_k_dense_replace": 1,
        "n_routed_experts": 64, "n_shared_experts": 1, "num_experts_per_tok": 4,
        "moe_intermediate_size": 1536, "routed_scaling_factor": 1.8});
    let c = read(&given(config, defaults), true)?;
    let moe = mixture(&c, Score::Sigmoid, 2)?;
    load(&c, Member { eps: c.rms_norm()?.eps, ..Member::new(moe) }, w)
}

/// Loads a `youtu_llm`: latent attention with dense feed-forward layers.
fn load_youtu(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 32, "num_attention_heads": 16, "q_lora_rank": 1536,
        "rope_theta": 1_600_000.0, "rope_traditional": true, "tie_word_embeddings": true});
    let c = read(&given(config, defaults), false)?;
    let (eps, traditional) = (c.rms_norm()?.eps, c.rope_traditional);
    load(&c, Member { eps, traditional, ..Member::new(None) }, w)
}

/// Loads a `minicpm3`: latent attention, dense feed-forward layers and the scale factors of
/// MiniCPM.
fn load_minicpm(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let positions = json!({"original_max_position_embeddings": 4096, "type": "longrope"});
    let mut config = given(config, json!({"rope_theta": 1_000_000.0, "rope_scaling": {}}));
    config["rope_scaling"] = given(&config["rope_scaling"], positions);
    let head = config.get("hidden_size").and_then(Value::as_u64).unwrap_or_default()
        / config.get("num_attention_heads").and_then(Value::as_u64).unwrap_or_default().max(1);
    config["v_head_dim"] = head.into();
    let c = read(&config, false)?;
    let depth = (c.num_hidden_layers as f32).sqrt();
    let width = c.need::<f32>("dim_model_base")? / c.hidden_size as f32;
    let residual = c.need::<f32>("scale_depth")? / depth;
    let member = Member {
        eps: 1e-5,
        traditional: false,
        factors: Factors { embeddings: c.need("scale_emb")?, residual },
        logit_scale: if c.tie_word_embeddings == Some(true) { 1.0 } else { width },
        ..Member::new(None)
    };
    load(&c, member, w)
}

/// Reads the configuration of a member, with the defaults of the family.
pub fn read(config: &Value, normalised: bool) -> Result<Config> {
    let defaults = json!({"rms_norm_eps": 1e-6, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "qk_nope_head_dim": 128, "first_k_dense_replace": 0,
        "moe_layer_freq": 1, "norm_topk_prob": normalised});
    Config::read_or(config, defaults)
}

/// Mixture of the family; `None` if `n_routed_experts` is absent.
pub fn mixture(c: &Config, score: Score, judged: usize) -> Result<Option<MoeArch>> {
    let mixed = c.get::<usize>("n_routed_experts")?.is_some();
    mixed.then(|| moe(c, score, judged)).transpose()
}

/// Loads a model with latent attention (MLA) in all layers.
pub fn load(c: &Config, member: Member, w: Cursor) -> Result<Box<dyn Language>> {
    let (sizes, rope) = attention(c, &member)?;
    layers(c, member, w, |_, w| Ok(Box::new(Mla::load(w, &sizes, Some(rope.clone()))?)))
}

/// Loads a model whose attention in each layer is loaded by `mix` from the layer's index.
pub fn layers(
    c: &Config,
    member: Member,
    mut w: Cursor,
    mix: impl Fn(usize, &mut Cursor) -> Result<Box<dyn TokenMixer>>,
) -> Result<Box<dyn Language>> {
    leave_further_layers(&mut w, c.num_hidden_layers);
    w.rename(&[("shared_expert", "shared_experts")]);
    let (norm, hidden) = (c.rms_norm()?, c.hidden_size);
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: c.tie_word_embeddings == Some(true),
        scale: member.logit_scale,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let (dense, every) = (c.need::<usize>("first_k_dense_replace")?, c.need("moe_layer_freq")?);
    let mut steps = Vec::new();
    for i in 0..c.num_hidden_layers {
        let mut w = w.at(&format!("model.layers.{i}"));
        let input = norm.load(&mut w, "input_layernorm", hidden)?;
        let mix = mix(i, &mut w.at("self_attn"))?;
        steps.push(Step { norm: input, part: Part::TokenMixer(vec![mix]) });
        let post = norm.load(&mut w, "post_attention_layernorm", hidden)?;
        let w = &mut w.at("mlp");
        let feed: Box<dyn FeedForward> = match &member.moe {
            Some(moe) if i >= dense && i.is_multiple_of(every) => {
                Box::new(Moe::load(w, hidden, moe, norm)?)
            }
            _ => Box::new(Mlp::load(w, hidden, &llama::mlp(c), norm)?),
        };
        steps.push(Step::feed(post, feed));
    }
    Ok(Box::new(Hybrid { ends, steps, factors: member.factors, ops: w.ops() }))
}

/// Sizes of latent attention, and its rotary embedding.
pub fn attention(c: &Config, member: &Member) -> Result<(MlaSizes, Rope)> {
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
    let sizes = MlaSizes {
        hidden: c.hidden_size,
        heads: c.num_attention_heads,
        query_rank: c.get("q_lora_rank")?,
        rank,
        plain,
        rotated,
        value,
        scale: ((plain + rotated) as f32).powf(-0.5) * scaling.sharpness(),
        norm: NormArch { eps: member.eps, ..c.rms_norm()? },
        temperature_tuning: member.temperature_tuning,
        gated: false,
    };
    let trained = c.get("max_position_embeddings")?;
    let theta = c.theta(Some(10_000.0))?;
    Ok((sizes, Rope::new(rotated, member.traditional, theta, trained, Some(&scaling))?))
}

/// Score function of the router from `scoring_func`; `usual` if the field is absent.
pub fn score(c: &Config, usual: Score) -> Result<Score> {
    match c.get::<String>("scoring_func")?.as_deref() {
        None => Ok(usual),
        Some("softmax") => Ok(Score::Softmax),
        Some("sigmoid") => Ok(Score::Sigmoid),
        Some("sqrtsoftplus") => Ok(Score::RootSoftplus),
        Some(other) => Err(unknown(format!("experts chosen by `{other}` cannot run yet"))),
    }
}

/// Mixture of the family; a group of experts is scored by the sum of its `judged` best.
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
        dropped: 0.0,
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
        shared: c.get("n_shared_experts")?.filter(|&count| count > 0).map(shared),
    })
}

/// Skips the layers from index `count` on, which are for multi-token prediction.
pub fn leave_further_layers(w: &mut Cursor, count: usize) {
    w.discard(|name| {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
        layer.and_then(|layer| layer.parse::<usize>().ok()).is_some_and(|layer| layer >= count)
    });
}
