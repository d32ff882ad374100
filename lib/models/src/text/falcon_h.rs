//! Falcon-H1 (arXiv 2507.22448): a state space parallel to attention in every layer.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::gated_norm::Order;
use mlxk_tensor::ops::ssd::SsdSizes;
use serde_json::{Value, json};

use super::hybrid::{Factors, Hybrid, Part, Step};
use super::llama;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::arithmetic::{rounded, times};
use crate::checkpoint::formats::checkpoint::{Checkpoint, trained};
use crate::checkpoint::tensor::Tensor;
use crate::config::Config;
use crate::language::Language;
use crate::nn::attention::Attention;
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::mlp::Mlp;
use crate::nn::ssm::mamba2::{Mamba2, Mamba2Arch, Mamba2Norm};
use crate::spec::Spec;
use mlxk_tensor::floats;
use serde::de::DeserializeOwned;

/// Architectures of the family.
pub const SPECS: &[Spec] =
    &[Spec { sanitize: &[sanitize], ..Spec::new(Architecture::FalconH1, load) }];

/// Loads a `falcon_h1`. The scale factors are folded into the weights, except that of a tied head.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read_or(config, defaults())?;
    let rope = c.rope(None)?;
    let (norm, hidden, mixer) = (c.rms_norm()?, c.hidden_size, mixer(&c)?);
    let (heads, mlp) = (llama::heads(&c, norm), llama::mlp(&c));
    let tied = c.tie_word_embeddings != Some(false);
    let [head, embeddings]: [f32; 2] =
        [c.need("lm_head_multiplier")?, c.need("embedding_multiplier")?];
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden,
        embeddings: "model.embed_tokens",
        norm: ("model.final_layernorm", norm),
        tied,
        scale: if tied { head / embeddings } else { 1.0 },
        softcap: None,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut steps = Vec::new();
    for i in 0..c.num_hidden_layers {
        let mut w = w.at(&format!("model.layers.{i}"));
        let rope = Some(rope.clone());
        let part = Part::TokenMixer(vec![
            Box::new(Mamba2::load(&mut w.at("mamba"), &mixer)?),
            Box::new(Attention::load(&mut w.at("self_attn"), &heads, rope)?),
        ]);
        steps.push(Step { norm: norm.load(&mut w, "input_layernorm", hidden)?, part });
        let feed = Mlp::load(&mut w.at("feed_forward"), hidden, &mlp, norm)?;
        let before = norm.load(&mut w, "pre_ff_layernorm", hidden)?;
        steps.push(Step::feed(before, Box::new(feed)));
    }
    Ok(Box::new(Hybrid { ends, steps, factors: Factors::NONE, ops: w.ops() }))
}

/// Defaults of the fields of config.json.
fn defaults() -> Value {
    json!({
        "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 36,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
        "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 1e11,
        "vocab_size": 32_784, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_ssm": 1536,
        "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_n_heads": 24,
        "embedding_multiplier": 5.656_854_249_492_381, "lm_head_multiplier": 0.039_062_5,
    })
}

fn mixer(c: &Config) -> Result<Mamba2Arch> {
    let ssd = SsdSizes {
        heads: c.need("mamba_n_heads")?,
        head_dim: c.need("mamba_d_head")?,
        groups: c.need("mamba_n_groups")?,
        state: c.need("mamba_d_state")?,
        dt: (0.0, f32::INFINITY),
    };
    let first = c.get("mamba_norm_before_gate")?.unwrap_or(false);
    let order = if first { Order::Norm } else { Order::Gate };
    let normed = c.get("mamba_rms_norm")?.unwrap_or(false);
    let norm = Mamba2Norm { eps: c.rms_norm()?.eps, order, grouped: false };
    let taps = c.need("mamba_d_conv")?;
    let arch = Mamba2Arch { hidden: c.hidden_size, ssd, taps, norm: normed.then_some(norm) };
    arch.check()?;
    Ok(arch)
}

/// Folds the factors of training into the weights, as MLX stores them.
fn sanitize(all: &mut Checkpoint) -> Result<()> {
    let first = all.tensors.get("model.layers.0.mamba.conv1d.weight");
    if !first.is_some_and(trained) {
        return Ok(());
    }
    let factors = Multipliers::read(all)?;
    for (name, tensor) in &mut all.tensors {
        let Some(stem) = name.strip_suffix(".weight") else { continue };
        if tensor.shape.len() == 2 {
            *tensor = factors.apply(stem, tensor.clone());
        }
    }
    Ok(())
}

struct Multipliers {
    /// Factors of tensors by the ends of their names; the first match counts.
    ends: Vec<(&'static str, f32)>,
    /// Factor of the input of a state space layer.
    ssm_in: f32,
    /// Numbers of rows and factors of the gate, inputs, `b`, `c` and steps of a state space layer.
    ssm: Vec<(usize, f32)>,
}

impl Multipliers {
    fn read(all: &Checkpoint) -> Result<Multipliers> {
        let one = |key: &str, usual: f32| stated(all, key, usual);
        let attention_in = one("attention_in_multiplier", 1.0)?;
        let [gate, down]: [f32; 2] = stated(all, "mlp_multipliers", [0.883_883_5, 0.585_937_5])?;
        let each: [f32; 5] =
            stated(all, "ssm_multipliers", [0.353_553_4, 0.25, 0.353_553_4, 0.5, 0.353_553_4])?;
        let inner = stated(all, "mamba_d_ssm", 1536)?;
        let shared =
            stated::<usize>(all, "mamba_n_groups", 1)? * stated(all, "mamba_d_state", 128)?;
        let sizes = [inner, inner, shared, shared, stated(all, "mamba_n_heads", 24)?];
        Ok(Multipliers {
            ends: vec![
                ("embed_tokens", one("embedding_multiplier", 5.656_854)?),
                ("lm_head", one("lm_head_multiplier", 0.039_062_5)?),
                ("q_proj", attention_in),
                ("k_proj", attention_in),
                ("o_proj", one("attention_out_multiplier", 0.9375)?),
                ("out_proj", one("ssm_out_multiplier", 0.235_702_26)?),
                ("gate_proj", gate),
                ("down_proj", down),
            ],
            ssm_in: one("ssm_in_multiplier", 1.25)?,
            ssm: sizes.into_iter().zip(each).collect(),
        })
    }

    fn apply(&self, stem: &str, tensor: Tensor) -> Tensor {
        if let Some((_, factor)) = self.ends.iter().find(|(end, _)| stem.ends_with(end)) {
            return times(tensor, vec![*factor]);
        }
        let Some(float) = floats::kind(tensor.dtype).filter(|_| stem.ends_with("in_proj")) else {
            return tensor;
        };
        let rows: Vec<f32> =
            self.ssm.iter().flat_map(|&(rows, factor)| std::iter::repeat_n(factor, rows)).collect();
        let [all] = rounded(&[self.ssm_in], float)[..] else { return tensor };
        let rows = rounded(&rows, float).into_iter().map(|factor| factor * all).collect();
        times(tensor, rows)
    }
}

/// Value of the field `key` of config.json; `usual` if it is absent.
fn stated<T: DeserializeOwned>(all: &Checkpoint, key: &str, usual: T) -> Result<T> {
    match all.text().get(key) {
        None | Some(Value::Null) => Ok(usual),
        Some(_) => all.number(key),
    }
}
