//! Ling (arXiv 2503.05139), with model types named Bailing: Llama with mixtures of experts, whose
//! routing config.json selects; the hybrid adds delta attention.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::gated_delta::Decay;
use mlxk_tensor::ops::moe_route::Score;
use serde_json::{Value, json};

use super::decoder::Decoder;
use super::deepseek::{self, Member};
use super::llama;
use crate::checkpoint::config_error::{positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::{Checkpoint, arithmetic, mla};
use crate::config::{Config, given, renamed};
use crate::language::Language;
use crate::nn::mla::{Mla, MlaSizes};
use crate::nn::moe::MoeArch;
use crate::nn::ssm::kimi_delta::{KimiDelta, KimiDeltaArch};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec {
        sanitize: &[mla::split],
        convert: Rules {
            plain: &[
                "model.word_embeddings",
                "lm_head",
                "q_a_proj",
                "q_b_proj",
                "kv_a_proj_with_mqa",
                "embed_q",
                "unembed_out",
                "attention.b_proj",
                "mlp.gate",
            ],
            keep: &["expert_bias"],
            ..Rules::NONE
        },
        ..Spec::new(Architecture::BailingHybrid, load_hybrid)
    },
    Spec {
        sanitize: &[sanitize],
        convert: Rules { eight: &["mlp.gate.gate_proj"], keep: &["expert_bias"], ..Rules::NONE },
        ..Spec::new(Architecture::BailingMoe, load)
    },
];

/// Fields of mixtures in Ling's config.json and their common names.
const FIELDS: [(&str, &str); 3] = [
    ("num_experts", "n_routed_experts"),
    ("num_shared_experts", "n_shared_experts"),
    ("score_function", "scoring_func"),
];

/// Loads a `bailing_moe`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let mut c = Config::read_or(&renamed(config, &FIELDS), json!({"topk_group": 4}))?;
    if let Some(dims) = c.get::<f64>("rotary_dim")? {
        c.partial_rotary_factor = Some(dims / c.head_dim() as f64);
    }
    deepseek::leave_further_layers(&mut w, c.num_hidden_layers);
    w.rename(&[
        ("embed_tokens", "word_embeddings"),
        ("self_attn", "attention"),
        ("qkv_proj", "query_key_value"),
        ("q_norm", "query_layernorm"),
        ("k_norm", "key_layernorm"),
        ("o_proj", "dense"),
        ("gate", "gate.gate_proj"),
        ("gate.gate_proj.e_score_correction_bias", "gate.expert_bias"),
        ("shared_expert", "shared_experts"),
    ]);
    let moe = moe(&c, deepseek::score(&c, Score::Softmax)?)?;
    let mut arch = llama::arch(&c, None, false)?;
    arch.heads.fused = Some(1);
    let dense: usize = c.need("first_k_dense_replace")?;
    Decoder::load(arch.with_moe(&moe, |i| i >= dense), w)
}

/// Loads a `bailing_hybrid` of version 3: delta attention, except latent attention with a gate per
/// head in the last layer of each group and in the layers after the last group.
fn load_hybrid(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let defaults = json!({"rope_theta": 6_000_000.0, "layer_group_size": 4,
        "short_conv_kernel_size": 4, "kda_lower_bound": -5.0, "kda_safe_gate": true});
    let c = deepseek::read(&given(&renamed(config, &FIELDS), defaults), true)?;
    if !c.need("kda_safe_gate")? {
        return Err(unknown("layers without `kda_safe_gate` cannot run yet".into()));
    }
    let group: usize = c.need("layer_group_size")?;
    positive(&[("layer_group_size", group)])?;
    let linear =
        |i: usize| !(i + 1).is_multiple_of(group) && i < c.num_hidden_layers / group * group;
    w.rename(&[
        ("embed_tokens", "word_embeddings"),
        ("self_attn", "attention"),
        ("gate.e_score_correction_bias", "gate.expert_bias"),
    ]);
    for i in (0..c.num_hidden_layers).filter(|i| !linear(*i)) {
        let of = |part| format!("layers.{i}.attention.{part}");
        w.rename(&[(&of("o_proj"), &of("dense"))]);
    }
    let norm = c.rms_norm()?;
    let delta = KimiDeltaArch {
        hidden: c.hidden_size,
        heads: c.num_attention_heads,
        dim: c.head_dim(),
        taps: c.need("short_conv_kernel_size")?,
        decay: Decay::Bounded(c.need("kda_lower_bound")?),
        norm,
    };
    let mut moe = moe(&c, Score::Sigmoid)?;
    moe.routing.normalised = true;
    if let Some(groups) = &mut moe.routing.groups {
        groups.dropped = f32::NEG_INFINITY;
    }
    let member = Member { eps: norm.eps, ..Member::new(Some(moe)) };
    let (sizes, rope) = deepseek::attention(&c, &member)?;
    let sizes = MlaSizes { gated: true, ..sizes };
    deepseek::layers(&c, member, w, |i, w| match linear(i) {
        true => Ok(Box::new(KimiDelta::load(w, &delta)?)),
        false => Ok(Box::new(Mla::load(w, &sizes, Some(rope.clone()))?)),
    })
}

/// Mixture of experts; the shared expert may have a width of its own.
fn moe(c: &Config, score: Score) -> Result<MoeArch> {
    let mut moe = deepseek::moe(c, score, 2)?;
    let inner: Option<usize> = c.get("moe_shared_expert_intermediate_size")?;
    if let (Some(inner), Some(shared)) = (inner, &mut moe.shared) {
        shared.mlp.inner = inner.saturating_mul(c.need("n_shared_experts")?);
    }
    Ok(moe)
}

/// Renames the router of a `bailing_moe`, and normalises the columns of the head to unit length if
/// `norm_head` is true.
fn sanitize(all: &mut Checkpoint) -> Result<()> {
    all.rename(|name| {
        let part = ["weight", "bias"]
            .into_iter()
            .find(|part| name.ends_with(&format!(".mlp.gate.{part}")))?;
        Some(format!("{}gate_proj.{part}", name.strip_suffix(part)?))
    });
    if all.config.get("norm_head") == Some(&Value::Bool(true)) {
        all.change(|name| name == "lm_head.weight", arithmetic::unit_columns);
    }
    Ok(())
}
