//! Granite 4: state spaces, attention in a few layers, and scale factors of embeddings, residuals
//! and logits.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::gated_norm::Order;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use mlxk_tensor::ops::rope::Rope;
use mlxk_tensor::ops::ssd::SsdSizes;
use serde_json::Value;

use super::hybrid::{Factors, Hybrid, Step};
use super::llama;
use crate::checkpoint::config_error::{invalid, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::config::Config;
use crate::language::Language;
use crate::nn::attention::{Attention, Sizes};
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Moe, MoeArch, SharedArch};
use crate::nn::ssm::mamba2::{Limits, Mamba2, Mamba2Arch, Mamba2Norm};
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    sanitize: &[sanitize],
    convert: Rules { eight: &["router.layer"], ..Rules::NONE },
    ..Spec::new(Architecture::GraniteMoeHybrid, load)
}];

/// Loads a `granitemoehybrid`, with mixtures of experts or dense.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let arch = Arch::read(&c)?;
    w.rename(&NAMES);
    let (norm, hidden) = (c.rms_norm()?, c.hidden_size);
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: c.tie_word_embeddings != Some(false),
        scale: 1.0 / c.need::<f32>("logits_scaling")?,
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut steps = Vec::new();
    for (i, kind) in arch.kinds.iter().enumerate() {
        let mut w = w.at(&format!("model.layers.{i}"));
        let input = norm.load(&mut w, "input_layernorm", hidden)?;
        steps.push(match kind {
            Kind::Mamba => Step::mix(input, Mamba2::load(&mut w.at("mamba"), &arch.mixer(&c)?)?),
            Kind::Attention => {
                let rope = arch.rope.clone();
                Step::mix(input, Attention::load(&mut w.at("self_attn"), &arch.heads, rope)?)
            }
        });
        let post = norm.load(&mut w, "post_attention_layernorm", hidden)?;
        steps.push(Step::feed(post, arch.feed(&c, &mut w)?));
    }
    let factors = Factors {
        embeddings: c.need("embedding_multiplier")?,
        residual: c.need("residual_multiplier")?,
    };
    Ok(Box::new(Hybrid { ends, steps, factors, ops: w.ops() }))
}

struct Arch {
    kinds: Vec<Kind>,
    heads: Sizes,
    rope: Option<Rope>,
    mlp: MlpArch,
    moe: Option<MoeArch>,
}

enum Kind {
    Mamba,
    Attention,
}

impl Arch {
    fn read(c: &Config) -> Result<Arch> {
        let kind = |kind: &String| match kind.as_str() {
            "mamba" => Ok(Kind::Mamba),
            "attention" => Ok(Kind::Attention),
            kind => Err(unknown(format!("layers of type `{kind}` cannot run yet"))),
        };
        let kinds = c.layer_types.iter().flatten().map(kind).collect::<Result<Vec<_>>>()?;
        if kinds.len() != c.num_hidden_layers {
            return Err(invalid("`layer_types` does not name all layers".into()));
        }
        let nowhere = c.get::<String>("position_embedding_type")?.as_deref() == Some("nope");
        Ok(Arch {
            kinds,
            heads: Sizes {
                scale: c.need("attention_multiplier")?,
                ..llama::heads(c, c.rms_norm()?)
            },
            rope: (!nowhere).then(|| c.rope(Some(10_000.0))).transpose()?,
            mlp: llama::mlp(c),
            moe: moe(c)?,
        })
    }

    fn mixer(&self, c: &Config) -> Result<Mamba2Arch> {
        let limits = c.get::<Limits>("time_step_limit")?;
        let ssd = SsdSizes {
            heads: c.need("mamba_n_heads")?,
            head_dim: c.need("mamba_d_head")?,
            groups: c.need("mamba_n_groups")?,
            state: c.need("mamba_d_state")?,
            dt: limits.map_or((0.001, 100.0), Limits::range),
        };
        let norm = Mamba2Norm { eps: c.rms_norm()?.eps, order: Order::Gate, grouped: false };
        let taps = c.need("mamba_d_conv")?;
        let arch = Mamba2Arch { hidden: c.hidden_size, ssd, taps, norm: Some(norm) };
        arch.check()?;
        Ok(arch)
    }

    fn feed(&self, c: &Config, w: &mut Cursor) -> Result<Box<dyn FeedForward>> {
        Ok(match &self.moe {
            Some(moe) => Box::new(Moe::load(
                &mut w.at("block_sparse_moe"),
                c.hidden_size,
                moe,
                c.rms_norm()?,
            )?),
            None => Box::new(Mlp::load(&mut w.at("mlp"), c.hidden_size, &self.mlp, c.rms_norm()?)?),
        })
    }
}

/// Mixture of experts beside the shared layer; `None` if the model is dense.
fn moe(c: &Config) -> Result<Option<MoeArch>> {
    let Some(count) = c.get::<usize>("num_local_experts")?.filter(|&count| count > 0) else {
        return Ok(None);
    };
    let inner = c.need("shared_intermediate_size")?;
    let mlp = MlpArch { inner, fused: true, ..llama::mlp(c) };
    let routing = Routing::new(c.need("num_experts_per_tok")?, Score::Softmax);
    Ok(Some(MoeArch {
        count,
        inner: c.intermediate_size,
        gated: true,
        activation: Activation::Silu,
        routing: Routing { normalised: true, ..routing },
        shared: Some(SharedArch { mlp, weighed: false }),
    }))
}

/// Common names of feed-forward tensors and those in the checkpoint.
const NAMES: [(&str, &str); 4] = [
    ("block_sparse_moe.gate", "block_sparse_moe.router.layer"),
    ("block_sparse_moe.shared_expert", "shared_mlp"),
    ("shared_mlp.gate_up_proj", "shared_mlp.input_linear"),
    ("shared_mlp.down_proj", "shared_mlp.output_linear"),
];

/// Renames the feed-forward layers of a dense `granitemoehybrid`, and splits its fused gate and up
/// projections.
fn sanitize(all: &mut Checkpoint) -> Result<()> {
    if all.config.get("num_local_experts").and_then(Value::as_u64).is_some_and(|count| count > 0) {
        return Ok(());
    }
    all.split("shared_mlp.input_linear", 1, &[("mlp.gate_proj", 1), ("mlp.up_proj", 1)])?;
    all.rename(|name| {
        let stem = name.strip_suffix(".shared_mlp.output_linear.weight")?;
        Some(format!("{stem}.mlp.down_proj.weight"))
    });
    Ok(())
}
