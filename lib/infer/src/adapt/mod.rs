//! Checkpoints of other forms, brought into the one in which MLX's tools publish a model.
//!
//! Names, shapes, and how each tensor comes from those that are stored, after the `sanitize` of each
//! model of mlx-lm; nothing is read for it. What loads a model and what converts one both start here.

use std::collections::BTreeMap;

use mlx_rs::Dtype;
use mlxk_core::{Architecture, Error, Kind, Result};
use serde_json::Value;

use self::experts::Experts;
use crate::weights::Tensor;

mod arithmetic;
mod deepseek;
mod experts;
mod falcon;
mod latent;
mod packed;

/// A model as files tell of it.
pub struct Checkpoint {
    /// config.json.
    pub config: Value,
    /// All tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// Brings a model of `architecture` into MLX's form. Errors name the tensor that cannot be.
pub fn adapt(architecture: Architecture, mut all: Checkpoint) -> Result<Checkpoint> {
    use Architecture as A;
    all.remove(|name| {
        ["rotary_emb.inv_freq", "rope.inv_freq"].iter().any(|end| name.ends_with(end))
    });
    packed::unpack(&mut all)?;
    match architecture {
        // MLX has these under the names of transformers, and as if there was but text.
        A::Gemma3n | A::DeepseekV41 => {}
        _ if architecture.is_multimodal() => all.rename(beside_senses),
        _ => {}
    }
    match architecture {
        A::Apertus => all.change(is_alpha, |tensor| match *tensor.shape {
            [1] => tensor.shaped(Vec::new()),
            _ => tensor,
        }),
        A::Gpt2 => gpt2(&mut all),
        A::GptJ => all.rename(|name| Some(name.replacen("transformer.", "model.", 1))),
        A::GptNeoX => all.rename(gpt_neox),
        A::Qwen3Next | A::Qwen35 | A::Qwen35Moe => less_one(&mut all),
        A::FalconH1 => falcon::fold(&mut all)?,
        A::BailingHybrid
        | A::DeepseekV3
        | A::DeepseekV32
        | A::GlmMoeDsa
        | A::Glm4MoeLite
        | A::KimiK25
        | A::KimiVl
        | A::Mistral3
        | A::Mistral4 => latent::split(&mut all)?,
        A::DeepseekV41 => deepseek::translate(&mut all)?,
        A::GraniteMoeHybrid => dense_granite(&mut all)?,
        A::Hunyuan => hunyuan(&mut all)?,
        A::Lfm2Moe => all.rename(numbered),
        A::BailingMoe => bailing(&mut all),
        A::KimiLinear => kimi(&mut all)?,
        A::Laguna => laguna(&mut all),
        A::ExaoneMoe => all.rename(|name| {
            let stem = name.strip_suffix(".mlp.e_score_correction_bias")?;
            Some(format!("{stem}.mlp.gate.e_score_correction_bias"))
        }),
        _ => {}
    }
    convolutions(&mut all);
    experts::gather(
        &mut all,
        &match architecture {
            A::GptOss => {
                Experts { to: "experts", transposed: true, interleaved: true, ..Experts::USUAL }
            }
            A::Llama4 => Experts { to: "experts", transposed: true, ..Experts::USUAL },
            A::Gemma4 | A::Gemma4Text => Experts { to: "experts.switch_glu", ..Experts::USUAL },
            A::Afmoe | A::Dots1 => Experts { to: "experts", ..Experts::USUAL },
            A::Phixtral => Experts { from: "mlp", up: "fc1", down: "fc2", ..Experts::USUAL },
            A::Qwen3VlMoe => Experts { transposed: true, ..Experts::USUAL },
            A::DeepseekV41 => Experts { to: "experts.switch_mlp", ..Experts::USUAL },
            A::NemotronH => Experts { up: "fc1", down: "fc2", ..Experts::USUAL },
            _ => Experts::USUAL,
        },
    )?;
    Ok(all)
}

impl Checkpoint {
    /// The part of config.json that is about text.
    fn text(&self) -> &Value {
        self.config.get("text_config").unwrap_or(&self.config)
    }

    /// A number that config.json states. Errors if it does not.
    fn number<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let value = self.text().get(key).cloned().unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|e| Error::new(Kind::InvalidModel, "config.json", format!("`{key}`: {e}")))
    }

    fn remove(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unwanted(name));
    }

    /// Gives the tensors new names; those without one keep theirs.
    fn rename(&mut self, new: impl Fn(&str) -> Option<String>) {
        let all = std::mem::take(&mut self.tensors);
        let renamed = all.into_iter().map(|(name, tensor)| (new(&name).unwrap_or(name), tensor));
        self.tensors = renamed.collect();
    }

    /// Puts what `change` makes of the tensors whose names `wanted` picks in their places.
    fn change(&mut self, wanted: impl Fn(&str) -> bool, change: impl Fn(Tensor) -> Tensor) {
        for (_, tensor) in self.tensors.iter_mut().filter(|(name, _)| wanted(name)) {
            *tensor = change(tensor.clone());
        }
    }

    /// Makes `parts` of the rows of all matrices named `.{name}.weight`, which hold the parts one after
    /// another `repeats` times over; each part has as many of the rows as its number says.
    fn split(&mut self, name: &str, repeats: usize, parts: &[(&str, usize)]) -> Result<()> {
        let end = format!(".{name}.weight");
        let whole = |name: &String| Some((name.clone(), name.strip_suffix(&end)?.to_owned()));
        let of_each = parts.iter().fold(0_usize, |sum, (_, lots)| sum.saturating_add(*lots));
        let lots = of_each.saturating_mul(repeats);
        for (name, stem) in self.tensors.keys().filter_map(whole).collect::<Vec<_>>() {
            let tensor = self.take(&name)?;
            let lot = match *tensor.shape {
                [rows, _] if lots > 0 && rows % lots == 0 => rows / lots,
                _ => {
                    let message = format!("expected {lots} equal parts, found {:?}", tensor.shape);
                    return Err(invalid(&name, message));
                }
            };
            let mut first = 0;
            for (part, lots) in parts {
                let range = first..first + lots * lot;
                first = range.end;
                let rows = crate::weights::reshape::rows(&tensor, repeats, range);
                self.tensors.insert(format!("{stem}.{part}.weight"), rows);
            }
        }
        Ok(())
    }

    /// Takes a tensor. Errors if there is none.
    fn take(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| invalid(name, "the tensor is missing"))
    }

    /// Makes what config.json says about how the matrix `of` is quantised hold for `name` too.
    fn alias(&mut self, name: &str, of: &str) {
        for key in ["quantization", "quantization_config"] {
            if let Some(table) = self.config.get_mut(key).and_then(Value::as_object_mut)
                && let Some(entry) = table.get(of).cloned()
            {
                table.insert(name.to_owned(), entry);
            }
        }
    }
}

fn invalid(tensor: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, tensor, message)
}

/// Where the language model of one with senses lies; weights of senses are where they are without
/// a `model.` before them.
fn beside_senses(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return Some(format!("language_model.model.{rest}"));
    }
    if name.starts_with("language_model.") {
        return None;
    }
    match SENSES.iter().any(|sense| name.contains(sense)) {
        true => name.strip_prefix("model.").map(str::to_owned),
        false => Some(format!("language_model.{name}")),
    }
}

/// Parts of names of tensors that text has no use for.
pub const SENSES: [&str; 9] = [
    "vision_tower.",
    "vision_embedder.",
    "visual.",
    "vision_model.",
    "multi_modal_projector.",
    "mm_projector.",
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
];

/// A number that an activation has learned.
fn is_alpha(name: &str) -> bool {
    name.ends_with("alpha_p") || name.ends_with("alpha_n")
}

/// Transformers has the matrices of a gpt2 transposed, under shorter names.
fn gpt2(all: &mut Checkpoint) {
    const TURNED: [&str; 4] = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
    if all.tensors.keys().any(|name| name.starts_with("model.")) {
        return;
    }
    all.rename(|name| Some(format!("model.{}", name.strip_prefix("transformer.").unwrap_or(name))));
    let turned = |name: &str| TURNED.iter().any(|end| name.ends_with(&format!("{end}.weight")));
    all.change(turned, crate::weights::reshape::transposed);
}

fn gpt_neox(name: &str) -> Option<String> {
    let rest = name.strip_prefix("model.").unwrap_or(name);
    let rest = rest.strip_prefix("gpt_neox.").unwrap_or(rest);
    let rest = rest.strip_prefix("layers.").map_or(rest.to_owned(), |rest| format!("h.{rest}"));
    Some(format!("model.{rest}"))
}

/// The router of a bailing_moe is a layer of its own, and heads whose file says so have columns of
/// length one.
fn bailing(all: &mut Checkpoint) {
    all.rename(|name| {
        let part = ["weight", "bias"]
            .into_iter()
            .find(|part| name.ends_with(&format!(".mlp.gate.{part}")))?;
        Some(format!("{}gate_proj.{part}", name.strip_suffix(part)?))
    });
    if all.config.get("norm_head") == Some(&Value::Bool(true)) {
        all.change(|name| name == "lm_head.weight", arithmetic::unit_columns);
    }
}

/// A kimi_linear has the experts and convolutions under other names.
fn kimi(all: &mut Checkpoint) -> Result<()> {
    let names = [
        (".block_sparse_moe.", ".mlp."),
        (".mlp.gate.e_score_correction_bias", ".mlp.e_score_correction_bias"),
        (".q_conv1d.", ".q_conv.conv."),
        (".k_conv1d.", ".k_conv.conv."),
        (".v_conv1d.", ".v_conv.conv."),
    ];
    let new = |name: &str| {
        let new = names.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new));
        (new != name).then_some(new)
    };
    all.rename(new);
    let bias = |name: &str| name.ends_with(".dt_bias");
    all.change(bias, |tensor| {
        let size = tensor.shape.iter().product();
        tensor.shaped(vec![size])
    });
    latent::split(all)
}

/// A laguna may lie within something else, with a head that is not used if embeddings are tied; its
/// router is a layer of its own.
fn laguna(all: &mut Checkpoint) {
    let ends = [
        (".mlp.gate.weight", ".mlp.gate.proj.weight"),
        (".mlp.experts.e_score_correction_bias", ".mlp.gate.e_score_correction_bias"),
    ];
    all.rename(|name| {
        let own = name.strip_prefix("language_model.").unwrap_or(name);
        let end = ends.iter().find_map(|(theirs, ours)| Some((own.strip_suffix(theirs)?, ours)));
        Some(end.map_or_else(|| own.to_owned(), |(stem, ours)| format!("{stem}{ours}")))
    });
    if all.config.get("tie_word_embeddings") == Some(&Value::Bool(true)) {
        all.remove(|name| name == "lm_head.weight");
    }
}

/// The layers of feed-forward parts that were numbered.
fn numbered(name: &str) -> Option<String> {
    let pairs = [
        ("w1.weight", "gate_proj.weight"),
        ("w2.weight", "down_proj.weight"),
        ("w3.weight", "up_proj.weight"),
    ];
    let (theirs, ours) = pairs.into_iter().find(|(theirs, _)| name.ends_with(theirs))?;
    name.strip_suffix(theirs).map(|stem| format!("{stem}{ours}"))
}

/// Checkpoints whose convolutions are as they were in training store the factors of norms less one.
fn less_one(all: &mut Checkpoint) {
    const NORMS: [&str; 5] = [
        ".input_layernorm.weight",
        ".post_attention_layernorm.weight",
        "model.norm.weight",
        ".q_norm.weight",
        ".k_norm.weight",
    ];
    if all.tensors.iter().any(|(name, tensor)| name.ends_with("conv1d.weight") && trained(tensor)) {
        let norm = |name: &str| NORMS.iter().any(|end| name.ends_with(end));
        all.change(norm, arithmetic::plus_one);
    }
}

/// A dense granitemoehybrid has its feed-forward parts under other names, gate and rest in one.
fn dense_granite(all: &mut Checkpoint) -> Result<()> {
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

/// A hunyuan may have queries, keys and values in one matrix, by key head, and gates behind what they let
/// pass in another.
fn hunyuan(all: &mut Checkpoint) -> Result<()> {
    let (heads, kv_heads): (usize, usize) =
        (all.number("num_attention_heads")?, all.number("num_key_value_heads")?);
    let shared = heads / kv_heads.max(1);
    all.split("qkv_proj", kv_heads, &[("q_proj", shared), ("k_proj", 1), ("v_proj", 1)])?;
    all.split("gate_and_up_proj", 1, &[("up_proj", 1), ("gate_proj", 1)])
}

/// Convolutions [channels, 1, taps], as they were in training, become [channels, taps, 1].
fn convolutions(all: &mut Checkpoint) {
    let ends = ["conv1d.weight", "conv.conv.weight"];
    all.change(
        |name| ends.iter().any(|end| name.ends_with(end)),
        |tensor| match (trained(&tensor), tensor.shape.as_slice()) {
            (true, &[channels, _, taps]) => tensor.shaped(vec![channels, taps, 1]),
            _ => tensor,
        },
    );
}

/// Whether a convolution is as it was in training.
fn trained(tensor: &Tensor) -> bool {
    matches!(tensor.shape.as_slice(), [_, 1, taps] if *taps > 1)
}

/// Whether the elements are numbers to compute with.
fn is_float(dtype: Dtype) -> bool {
    crate::numbers::kind(dtype).is_some()
}
