//! Gemma 3n: several residual streams, per-layer embeddings, and layers that share the kv cache of
//! earlier ones.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::{erfinv, maximum, std_axis};
use mlxk_core::Architecture;
use mlxk_tensor::cache::{Cache, Kv, Sequences, Slot};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::rope::Rope;
use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::config_error::{fields, invalid, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::text_part;
use crate::language::{Inputs, Language, Spliced, splice, text_ids};
use crate::nn::altup::{self, AltUp, AltUpSizes};
use crate::nn::embed_head::{EmbedHead, EmbedHeadArch};
use crate::nn::linear::Linear;
use crate::nn::norm::{Norm, NormArch, NormKind};
use crate::nn::per_layer::{PerLayer, PerLayerGate, PerLayerSizes};
use crate::nn::shared_kv::{self, SharedKv, SharedKvArch};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::new(Architecture::Gemma3n, load)];

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    vocab_size_per_layer_input: usize,
    hidden_size: usize,
    hidden_size_per_layer_input: usize,
    intermediate_size: Inner,
    num_hidden_layers: usize,
    num_kv_shared_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f32,
    sliding_window: i32,
    rope_local_base_freq: f64,
    rope_theta: f64,
    final_logit_softcapping: Option<f32>,
    layer_types: Vec<String>,
    activation_sparsity_pattern: Option<Vec<f32>>,
    altup_num_inputs: usize,
    altup_active_idx: usize,
    altup_coef_clip: Option<f32>,
    altup_correct_scale: bool,
    laurel_rank: usize,
}

/// Hidden width of the feed-forward layers: one number, or one per layer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Inner {
    Same(usize),
    Each(Vec<usize>),
}

struct Gemma3n {
    ends: EmbedHead,
    per_layer: PerLayer,
    altup_projections: Vec<Linear>,
    altup_unembed_projections: Vec<Linear>,
    layers: Vec<Layer>,
    /// Sliding windows of the layers that own a kv cache.
    windows: Vec<Option<i32>>,
    hidden: i32,
}

struct Layer {
    altup: AltUp,
    input_layernorm: Norm,
    laurel: Laurel,
    self_attn: SharedKv,
    post_attention_layernorm: Norm,
    pre_feedforward_layernorm: Norm,
    mlp: Mlp,
    post_feedforward_layernorm: Norm,
    gate: PerLayerGate,
    ops: &'static dyn Ops,
}

/// Loads the language model of Gemma 3n; skips the vision and audio towers.
fn load(config: &Value, mut w: Cursor) -> mlxk_core::Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    let c: Config = fields(&text_part::text(config)?)?;
    c.check()?;
    let norm = c.norm();
    let ends = EmbedHeadArch {
        vocabulary: c.vocab_size,
        hidden: c.hidden_size,
        embeddings: "model.embed_tokens",
        norm: ("model.norm", norm),
        tied: true,
        scale: 1.0,
        softcap: c.final_logit_softcapping,
    };
    let ends = EmbedHead::load(&mut w, &ends)?;
    let mut w = w.at("model");
    let slots = shared_kv::slots(&c.layer_types, c.num_kv_shared_layers)
        .ok_or_else(|| invalid("a layer shares keys and values that none has".into()))?;
    let own = c.num_hidden_layers - c.num_kv_shared_layers;
    let layers = (0..c.num_hidden_layers)
        .map(|i| Layer::load(&mut w.at(&format!("layers.{i}")), &c, i, slots[i]));
    let layers = layers.collect::<mlxk_core::Result<_>>()?;
    Ok(Box::new(Gemma3n {
        ends,
        per_layer: PerLayer::load(&mut w, c.per_layer(), norm)?,
        altup_projections: c.projections(&mut w.at("altup_projections"))?,
        altup_unembed_projections: c.projections(&mut w.at("altup_unembed_projections"))?,
        layers,
        windows: (0..own).map(|i| c.window(i)).collect(),
        hidden: c.hidden_size as i32,
    }))
}

impl Config {
    fn check(&self) -> mlxk_core::Result<()> {
        positive(&[
            ("vocab_size", self.vocab_size),
            ("vocab_size_per_layer_input", self.vocab_size_per_layer_input),
            ("hidden_size", self.hidden_size),
            ("hidden_size_per_layer_input", self.hidden_size_per_layer_input),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("sliding_window", self.sliding_window.max(0) as usize),
            ("altup_num_inputs", self.altup_num_inputs),
            ("laurel_rank", self.laurel_rank),
        ])?;
        if let Some(kind) = self.layer_types.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(unknown(format!("layers of type `{kind}` cannot run yet")));
        }
        let lists = [
            ("layer_types", Some(self.layer_types.len())),
            (
                "activation_sparsity_pattern",
                self.activation_sparsity_pattern.as_ref().map(Vec::len),
            ),
            ("intermediate_size", self.intermediate_size.list().map(<[usize]>::len)),
        ];
        let short = |&&(_, len): &&(&str, Option<usize>)| {
            len.is_some_and(|len| len != self.num_hidden_layers)
        };
        if let Some((name, _)) = lists.iter().find(short) {
            return Err(invalid(format!("`{name}` does not name all layers")));
        }
        if self.altup_active_idx >= self.altup_num_inputs {
            return Err(invalid(format!("`altup_active_idx` cannot be {}", self.altup_active_idx)));
        }
        match self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            true => Ok(()),
            false => Err(invalid("`num_key_value_heads` does not divide the heads".into())),
        }
    }

    fn norm(&self) -> NormArch {
        NormArch { kind: NormKind::Rms, eps: self.rms_norm_eps }
    }

    fn per_layer(&self) -> PerLayerSizes {
        PerLayerSizes {
            hidden: self.hidden_size,
            size: self.hidden_size_per_layer_input,
            layers: self.num_hidden_layers,
            vocabulary: self.vocab_size_per_layer_input,
        }
    }

    fn projections(&self, w: &mut Cursor) -> mlxk_core::Result<Vec<Linear>> {
        let load = |i: usize| Linear::load(w, &i.to_string(), self.hidden_size, self.hidden_size);
        (0..self.altup_num_inputs - 1).map(load).collect()
    }

    fn window(&self, layer: usize) -> Option<i32> {
        (self.layer_types[layer] == KINDS[0]).then_some(self.sliding_window)
    }

    fn attention(&self, layer: usize, slot: usize) -> mlxk_core::Result<SharedKvArch> {
        let theta = match self.window(layer) {
            Some(_) => self.rope_local_base_freq,
            None => self.rope_theta,
        };
        Ok(SharedKvArch {
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            norm: self.norm(),
            rope: Rope::new(self.head_dim, false, theta, None, None)?,
            slot,
            own: layer == slot,
            k_eq_v: false,
        })
    }
}

const KINDS: [&str; 2] = ["sliding_attention", "full_attention"];

impl Inner {
    fn list(&self) -> Option<&[usize]> {
        match self {
            Inner::Same(_) => None,
            Inner::Each(list) => Some(list),
        }
    }

    fn of(&self, layer: usize) -> usize {
        match self {
            Inner::Same(inner) => *inner,
            Inner::Each(list) => list[layer],
        }
    }
}

impl Language for Gemma3n {
    fn vocabulary(&self) -> usize {
        self.ends.vocabulary
    }

    fn cache(&self) -> Cache {
        Cache { slots: self.windows.iter().map(|&window| Slot::Kv(Kv::new(window))).collect() }
    }

    fn embed(&self, ids: &Array, spliced: &[Spliced]) -> Result<Inputs> {
        let h = self.ends.embed(ids)?;
        let h = h.multiply(mlx::number((self.hidden as f32).sqrt(), &h)?)?;
        let side = self.per_layer.embed(&text_ids(ids, spliced)?)?;
        Ok(Inputs { h: splice(h, spliced)?, side: Some(side), deep: Vec::new() })
    }

    fn forward(&self, inputs: Inputs, sequences: &mut Sequences) -> Result<Array> {
        let Inputs { h, side, .. } = inputs;
        let side =
            side.ok_or_else(|| Exception::custom("the layers have no inputs of their own"))?;
        let inputs = self.per_layer.inputs(&h, &side)?;
        let mut streams = altup::expand(&h, &self.altup_projections)?;
        for (layer, input) in self.layers.iter().zip(&inputs) {
            streams = layer.forward(&streams, input, sequences)?;
        }
        altup::merge(&streams, &self.altup_unembed_projections)
    }

    fn head(&self, h: &Array) -> Result<Array> {
        self.ends.head(h)
    }
}

impl Layer {
    fn load(w: &mut Cursor, c: &Config, i: usize, slot: usize) -> mlxk_core::Result<Layer> {
        let (norm, hidden) = (c.norm(), c.hidden_size);
        let altup = AltUpSizes {
            hidden,
            streams: c.altup_num_inputs,
            active: c.altup_active_idx,
            clip: c.altup_coef_clip,
            scale: c.altup_correct_scale,
        };
        let sparsity = c.activation_sparsity_pattern.as_ref().map_or(0.0, |pattern| pattern[i]);
        let inner = c.intermediate_size.of(i);
        Ok(Layer {
            altup: AltUp::load(&mut w.at("altup"), altup, norm)?,
            input_layernorm: norm.load(w, "input_layernorm", hidden)?,
            laurel: Laurel::load(&mut w.at("laurel"), hidden, c.laurel_rank, norm)?,
            self_attn: SharedKv::load(&mut w.at("self_attn"), c.attention(i, slot)?)?,
            post_attention_layernorm: norm.load(w, "post_attention_layernorm", hidden)?,
            pre_feedforward_layernorm: norm.load(w, "pre_feedforward_layernorm", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, inner, sparsity)?,
            post_feedforward_layernorm: norm.load(w, "post_feedforward_layernorm", hidden)?,
            gate: PerLayerGate::load(w, &c.per_layer(), norm)?,
            ops: w.ops(),
        })
    }

    /// Maps `streams` [rows, streams, hidden] to the same shape; `input` [1, rows, size] is the
    /// per-layer embedding.
    fn forward(&self, streams: &Array, input: &Array, sequences: &mut Sequences) -> Result<Array> {
        let predicted = self.altup.predict(streams)?;
        let active = self.altup.active(&predicted)?;
        let normed = self.input_layernorm.forward(&active)?;
        let learned = self.laurel.forward(&normed)?;
        let attended = self.self_attn.forward(&normed, sequences)?;
        let h = active.add(self.post_attention_layernorm.forward(&attended)?)?;
        let h = h.add(learned)?.multiply(mlx::number(std::f32::consts::FRAC_1_SQRT_2, &h)?)?;
        let fed = self.mlp.forward(&self.pre_feedforward_layernorm.forward(&h)?)?;
        let h = self.ops.add(&h, &self.post_feedforward_layernorm.forward(&fed)?)?;
        let corrected = self.altup.correct(&predicted, &h)?;
        let given = self.gate.forward(&self.altup.gate_input(&corrected)?, input)?;
        self.altup.add_to_rest(&corrected, &given)
    }
}

/// Learned augmented residual layer (arXiv 2411.07501): `x + norm(right(left(x)))`.
struct Laurel {
    linear_left: Linear,
    linear_right: Linear,
    post_laurel_norm: Norm,
    ops: &'static dyn Ops,
}

impl Laurel {
    fn load(
        w: &mut Cursor,
        hidden: usize,
        rank: usize,
        norm: NormArch,
    ) -> mlxk_core::Result<Laurel> {
        Ok(Laurel {
            linear_left: Linear::load(w, "linear_left", rank, hidden)?,
            linear_right: Linear::load(w, "linear_right", hidden, rank)?,
            post_laurel_norm: norm.load(w, "post_laurel_norm", hidden)?,
            ops: w.ops(),
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let learned = self.linear_right.forward(&self.linear_left.forward(x)?)?;
        self.ops.add(x, &self.post_laurel_norm.forward(&learned)?)
    }
}

/// Feed-forward layer, whose gate is sparse in some layers: only the largest elements are kept.
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    /// Threshold of the sparse gate, in standard deviations above the mean; `None` if the gate is
    /// dense.
    cutoff: Option<Array>,
    ops: &'static dyn Ops,
}

impl Mlp {
    /// Loads a layer that zeroes the fraction `sparsity` of gate elements, taken as normally
    /// distributed.
    fn load(w: &mut Cursor, hidden: usize, inner: usize, sparsity: f32) -> mlxk_core::Result<Mlp> {
        let root_2 = Array::from_f32(std::f32::consts::SQRT_2);
        let cutoff = || erfinv(Array::from_f32(2.0 * sparsity - 1.0))?.multiply(root_2);
        Ok(Mlp {
            gate_proj: Linear::load(w, "gate_proj", inner, hidden)?,
            up_proj: Linear::load(w, "up_proj", inner, hidden)?,
            down_proj: Linear::load(w, "down_proj", hidden, inner)?,
            cutoff: (sparsity > 0.0).then(cutoff).transpose().map_err(mlx::failed)?,
            ops: w.ops(),
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        let mut gate = self.gate_proj.forward(x)?;
        if let Some(cutoff) = &self.cutoff {
            let spread = std_axis(&gate, -1, true, None)?;
            let least = spread.multiply(cutoff.as_dtype(gate.dtype())?)?;
            let least = gate.mean_axis(-1, true)?.add(least)?;
            gate = maximum(gate.subtract(least)?, mlx::number(0.0, &gate)?)?;
        }
        let up = self.up_proj.forward(x)?;
        self.down_proj.forward(&self.ops.glu(&gate, &up, Activation::GeluTanh)?)
    }
}
