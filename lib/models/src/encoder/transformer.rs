//! Transformer encoder; each family is a value of [`Arch`], a table of names, and a config.json.
//!
//! Every token attends to its whole sequence, or to the tokens near it. Layers are loaded under the
//! names below, which [`Arch::names`] maps to those of the checkpoint:
//! `embeddings.{word_embeddings, token_type_embeddings, position_embeddings, LayerNorm}`,
//! `layers.N.{attn.{q_proj, k_proj, v_proj, o_proj}, attn_norm, mlp.{gate_proj, up_proj,
//! down_proj}, mlp_norm}`, `final_norm`, `relative_attention_bias`.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::{AttentionParams, DistanceBias, HeadsParams, Mask};
use mlxk_tensor::ops::rope::Rope;
use mlxk_tensor::positions::Positions;

use super::classifier::{Classifier, ClassifierArch};
use super::encode::{Encoder, Packed, row};
use crate::checkpoint::config_error::{invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::{Embedding, Linear};
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Hyperparameters of an encoder that its weights do not determine.
pub struct Arch {
    /// Names above, each with the one of the checkpoint, replaced in this order.
    pub names: &'static [(&'static str, &'static str)],
    /// Prefixes that all names of a checkpoint may have, beside none.
    pub prefixes: &'static [&'static str],
    /// Beginnings of the names of tensors for training, which are left aside.
    pub heads_for_training: &'static [&'static str],
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Largest number of tokens of a sequence.
    pub max_length: usize,
    /// Number of token types; 0 if the embeddings have none.
    pub types: usize,
    /// Learned positions; `None` if there are none.
    pub positions: Option<LearnedPositions>,
    /// Kind and epsilon of norms.
    pub norm: NormArch,
    /// Place of the norms of a layer.
    pub norms: Placement,
    /// Feed-forward layers.
    pub mlp: MlpArch,
    /// True if queries, keys and values are one matrix `attn.qkv_proj`.
    pub fused: bool,
    /// True if up and gate projection are one matrix `mlp.up_gate_proj`.
    pub up_gate: bool,
    /// Number of buckets of distances whose biases, the same in all layers, are added to scores.
    pub buckets: Option<usize>,
    /// Hyperparameters of each layer, in order.
    pub layers: Vec<LayerArch>,
    /// Classifier, of which a checkpoint for embeddings has no tensors.
    pub classifier: ClassifierArch,
}

/// Learned absolute positions.
#[derive(Clone, Copy, Debug)]
pub struct LearnedPositions {
    /// Number of positions in the table.
    pub count: usize,
    /// Padding token after whose id positions begin, and whose own position that is (RoBERTa);
    /// `None` if positions begin at 0.
    pub padding: Option<u32>,
}

/// Place of the norms of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// After each sublayer and the addition of its input.
    After,
    /// Before each sublayer, but for attention in the first layer, and after the last layer.
    Before,
}

/// Hyperparameters of a layer.
#[derive(Clone)]
pub struct LayerArch {
    /// Rotary position embedding.
    pub rope: Option<Rope>,
    /// Distance of the first token on either side that a token does not attend to; `None` attends
    /// to all.
    pub near: Option<usize>,
}

/// Sizes of an encoder, as config.json states them.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Elements of an inner vector of a feed-forward layer.
    pub inner: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Number of positions.
    pub positions: usize,
}

impl Arch {
    /// Architecture of BERT: learned positions, two token types, norms after each sublayer, and no
    /// gates. Errors if a size is out of range.
    pub fn new(sizes: Sizes, eps: f32) -> mlxk_core::Result<Arch> {
        let Sizes { vocabulary, hidden, inner, layers, heads, positions } = sizes;
        positive(&[
            ("vocab_size", vocabulary),
            ("hidden_size", hidden),
            ("intermediate_size", inner),
            ("num_attention_heads", heads),
            ("max_position_embeddings", positions),
        ])?;
        most_layers(layers)?;
        if !hidden.is_multiple_of(heads) {
            return Err(invalid(format!("{heads} heads cannot share {hidden} elements")));
        }
        if !(0.0..=1.0).contains(&eps) {
            return Err(invalid(format!("the epsilon of norms cannot be {eps}")));
        }
        Ok(Arch {
            names: &[],
            prefixes: &[],
            heads_for_training: &[],
            vocabulary,
            hidden,
            heads,
            max_length: positions,
            types: 2,
            positions: Some(LearnedPositions { count: positions, padding: None }),
            norm: NormArch { kind: NormKind::Layer, eps },
            norms: Placement::After,
            mlp: MlpArch { inner, gated: false, fused: false, activation: Activation::Gelu },
            fused: false,
            up_gate: false,
            buckets: None,
            layers: vec![LayerArch { rope: None, near: None }; layers],
            classifier: ClassifierArch::BERT,
        })
    }

    /// Number of elements of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// The architecture with rotary positions of base `theta` in place of learned ones.
    pub fn rotary(mut self, rope: &Rope) -> Arch {
        self.positions = None;
        self.layers.iter_mut().for_each(|layer| layer.rope = Some(rope.clone()));
        self
    }
}

/// Activation that config.json calls `name`; GELU if it names none.
///
/// # Errors
/// If the activation is not known.
pub fn activation(name: Option<&str>) -> mlxk_core::Result<Activation> {
    match name {
        None | Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
        Some("silu" | "swish" | "swiglu") => Ok(Activation::Silu),
        Some("quick_gelu") => Ok(Activation::QuickGelu),
        Some(other) => Err(unknown(format!("activation `{other}` cannot run"))),
    }
}

/// True if a checkpoint has the tensor `name`, with one of `prefixes` or without.
pub fn has(w: &mut Cursor, prefixes: &[&str], name: &str) -> bool {
    w.has(name) || prefixes.iter().any(|prefix| w.at(prefix).has(name))
}

/// Transformer encoder.
pub struct Transformer {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    final_norm: Option<Norm>,
    classifier: Option<Classifier>,
    vocabulary: usize,
    hidden: usize,
    max_length: usize,
    near: Option<usize>,
}

impl Transformer {
    /// Loads the encoder whose tensors are at `w`.
    ///
    /// # Errors
    /// If a tensor is missing, left over or of another shape.
    pub fn load(arch: Arch, mut w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
        w.discard(|name| UNUSED.iter().any(|end| name.ends_with(end)));
        w.rename(arch.names);
        let word = format!("{WORD}.weight");
        let there = |prefix: &&&str| w.at(prefix).has(&word);
        let prefix = arch.prefixes.iter().find(there).copied();
        let classifier = Classifier::load(&mut w, prefix, arch.hidden, &arch.classifier)?;
        let training = |name: &str| {
            let name = prefix.map_or(name, |prefix| match name.strip_prefix(prefix) {
                Some(rest) => rest.trim_start_matches('.'),
                None => name,
            });
            arch.heads_for_training.iter().any(|start| name.starts_with(start))
        };
        w.leave(training);
        let mut w = match prefix {
            Some(prefix) => w.at(prefix),
            None => w,
        };
        // Checkpoints from TensorFlow.
        if w.has("embeddings.LayerNorm.gamma") {
            w.rename(&[
                ("LayerNorm.weight", "LayerNorm.gamma"),
                ("LayerNorm.bias", "LayerNorm.beta"),
            ]);
        }
        let bias = arch.buckets.map(|buckets| distance_bias(&mut w, buckets, arch.heads));
        let bias = bias.transpose()?;
        let layer = |i| Layer::load(&mut w.at(&format!("layers.{i}")), &arch, i, bias.clone());
        let layers = (0..arch.layers.len()).map(layer).collect::<mlxk_core::Result<_>>()?;
        let last = (arch.norms == Placement::Before)
            .then(|| arch.norm.load(&mut w, "final_norm", arch.hidden));
        Ok(Box::new(Transformer {
            embeddings: Embeddings::load(&mut w.at("embeddings"), &arch)?,
            layers,
            final_norm: last.transpose()?,
            classifier,
            vocabulary: arch.vocabulary,
            hidden: arch.hidden,
            max_length: arch.max_length,
            near: arch.layers.iter().find_map(|layer| layer.near),
        }))
    }
}

/// Name of the token embeddings.
const WORD: &str = "embeddings.word_embeddings";

/// Ends of the names of tensors without use: indices, which are counted here.
const UNUSED: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

impl Encoder for Transformer {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn hidden_size(&self) -> usize {
        self.hidden
    }

    fn max_length(&self) -> usize {
        self.max_length
    }

    fn encode(&self, packed: &Packed) -> Result<Array> {
        let positions: Vec<[i32; 3]> = packed.places().map(|place| [place as i32; 3]).collect();
        let all = Mask::packed(packed.lengths);
        let near = self.near.map(|near| Mask::windows(packed.lengths, near));
        let rows = Rows { positions: &positions, all: &all, near: near.as_ref() };
        let h = self.embeddings.forward(packed)?;
        let h = self.layers.iter().try_fold(h, |h, layer| layer.forward(&h, &rows))?;
        match &self.final_norm {
            Some(norm) => norm.forward(&h),
            None => Ok(h),
        }
    }

    fn classifier(&self) -> Option<&Classifier> {
        self.classifier.as_ref()
    }
}

/// Positions of rows, and masks of the attention between them.
struct Rows<'a> {
    positions: &'a [[i32; 3]],
    all: &'a Mask,
    near: Option<&'a Mask>,
}

/// Sum of the embeddings of token, type and position, normed if the checkpoint has that norm.
struct Embeddings {
    word: Embedding,
    token_type: Option<Embedding>,
    position: Option<(Embedding, LearnedPositions)>,
    norm: Norm,
    ops: &'static dyn Ops,
}

impl Embeddings {
    fn load(w: &mut Cursor, arch: &Arch) -> mlxk_core::Result<Embeddings> {
        let mut table = |name, count| Embedding::load(w, name, count, arch.hidden);
        let positions = arch.positions.map(|learned| {
            Ok::<_, mlxk_core::Error>((table("position_embeddings", learned.count)?, learned))
        });
        let token_type = (arch.types > 0).then(|| table("token_type_embeddings", arch.types));
        Ok(Embeddings {
            position: positions.transpose()?,
            token_type: token_type.transpose()?,
            word: table("word_embeddings", arch.vocabulary)?,
            norm: arch.norm.load(w, "LayerNorm", arch.hidden)?,
            ops: w.ops(),
        })
    }

    /// Vectors [1, rows, hidden] of the tokens of `packed`.
    fn forward(&self, packed: &Packed) -> Result<Array> {
        let mut h = self.word.forward(&packed.array())?;
        if let Some(types) = &self.token_type {
            let zeros = || vec![0; packed.ids.len()];
            let ids = packed.types.map_or_else(zeros, <[u32]>::to_vec);
            h = self.ops.add(&h, &types.forward(&row(&ids))?)?;
        }
        if let Some((table, learned)) = &self.position {
            let positions = learned.positions(packed);
            h = self.ops.add(&h, &table.forward(&row(&positions))?)?;
        }
        self.norm.forward(&h)
    }
}

impl LearnedPositions {
    /// Position of each token.
    fn positions(&self, packed: &Packed) -> Vec<u32> {
        let Some(padding) = self.padding else {
            return packed.places().map(|place| place as u32).collect();
        };
        let mut next = padding;
        let position = |(place, &id): (usize, &u32)| {
            if place == 0 {
                next = padding;
            }
            if id == padding {
                return padding;
            }
            next += 1;
            next
        };
        packed.places().zip(packed.ids).map(position).collect()
    }
}

/// Layer: self-attention and a feed-forward network, each added to its input.
struct Layer {
    attention: Attention,
    attn_norm: Option<Norm>,
    mlp: Mlp,
    mlp_norm: Norm,
    placement: Placement,
    ops: &'static dyn Ops,
}

impl Layer {
    fn load(
        w: &mut Cursor,
        arch: &Arch,
        number: usize,
        bias: Option<Array>,
    ) -> mlxk_core::Result<Layer> {
        let first = arch.norms == Placement::Before && number == 0;
        let attn_norm = (!first).then(|| arch.norm.load(w, "attn_norm", arch.hidden));
        if arch.up_gate {
            let inner = arch.mlp.inner;
            w.at("mlp").split("up_gate_proj", 1, &[("up_proj", inner), ("gate_proj", inner)])?;
        }
        Ok(Layer {
            attention: Attention::load(&mut w.at("attn"), arch, &arch.layers[number], bias)?,
            attn_norm: attn_norm.transpose()?,
            mlp: Mlp::load(&mut w.at("mlp"), arch.hidden, &arch.mlp, arch.norm)?,
            mlp_norm: arch.norm.load(w, "mlp_norm", arch.hidden)?,
            placement: arch.norms,
            ops: w.ops(),
        })
    }

    /// Output [1, rows, hidden] for `x` of that shape.
    fn forward(&self, x: &Array, rows: &Rows) -> Result<Array> {
        let normed = |norm: Option<&Norm>, x: &Array| {
            norm.map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
        };
        match self.placement {
            Placement::After => {
                let a = self.ops.add(x, &self.attention.forward(x, rows)?)?;
                let a = normed(self.attn_norm.as_ref(), &a)?;
                let y = self.ops.add(&a, &self.mlp.forward(&a)?)?;
                self.mlp_norm.forward(&y)
            }
            Placement::Before => {
                let inner = normed(self.attn_norm.as_ref(), x)?;
                let a = self.ops.add(x, &self.attention.forward(&inner, rows)?)?;
                self.ops.add(&a, &self.mlp.forward(&self.mlp_norm.forward(&a)?)?)
            }
        }
    }
}

/// Self-attention.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    rope: Option<Rope>,
    is_near: bool,
    head_dim: usize,
    params: AttentionParams,
    ops: &'static dyn Ops,
}

impl Attention {
    fn load(
        w: &mut Cursor,
        arch: &Arch,
        layer: &LayerArch,
        bias: Option<Array>,
    ) -> mlxk_core::Result<Attention> {
        let (hidden, head_dim) = (arch.hidden, arch.head_dim());
        if arch.fused {
            w.split("qkv_proj", 1, &[("q_proj", hidden), ("k_proj", hidden), ("v_proj", hidden)])?;
        }
        let scale = (head_dim as f32).sqrt().recip();
        let bias = bias.map(|by_distance| DistanceBias { by_distance, farthest: FARTHEST });
        Ok(Attention {
            q_proj: Linear::load(w, "q_proj", hidden, hidden)?,
            k_proj: Linear::load(w, "k_proj", hidden, hidden)?,
            v_proj: Linear::load(w, "v_proj", hidden, hidden)?,
            o_proj: Linear::load(w, "o_proj", hidden, hidden)?,
            rope: layer.rope.clone(),
            is_near: layer.near.is_some(),
            head_dim,
            params: AttentionParams { scale, softcap: None, sinks: None, bias },
            ops: w.ops(),
        })
    }

    /// Attention output, [1, rows, hidden] for `x` of that shape.
    fn forward(&self, x: &Array, rows: &Rows) -> Result<Array> {
        let rope = self.rope.as_ref().map(|rope| (rope, Positions::Rows(rows.positions)));
        let q = self.heads(&self.q_proj, x, rope)?;
        let k = self.heads(&self.k_proj, x, rope)?;
        let v = self.heads(&self.v_proj, x, None)?;
        let mask = rows.near.filter(|_| self.is_near).unwrap_or(rows.all);
        self.o_proj.forward(&self.ops.attend(&q, [&k, &v], mask, &self.params)?)
    }

    /// Heads [1, heads, rows, head size] of the projection of `x` by `proj`.
    fn heads(&self, proj: &Linear, x: &Array, rope: Option<(&Rope, Positions)>) -> Result<Array> {
        let size = self.head_dim as i32;
        let heads = HeadsParams { size, norm: None, rotated_first: false, rope };
        self.ops.split_heads(&proj.forward(x)?, &heads)
    }
}

/// Largest distance between tokens that has a bucket of its own or shares it.
const FARTHEST: usize = 128;

/// Biases [heads, 2 * FARTHEST + 1] of distances from `-FARTHEST` to `FARTHEST`, from those of
/// `buckets` at `w`. Source: T5 (arXiv 1910.10683), as in transformers' `MPNetEncoder`.
fn distance_bias(w: &mut Cursor, buckets: usize, heads: usize) -> mlxk_core::Result<Array> {
    let table = Embedding::load(w, "relative_attention_bias", buckets, heads)?;
    let half = buckets / 2;
    let exact = (half / 2).max(1);
    let bucket = |distance: i32| {
        let far = distance.unsigned_abs() as usize;
        let after = if distance > 0 { half } else { 0 };
        if far < exact {
            return (after + far) as u32;
        }
        let ratio = (far as f32 / exact as f32).ln() / (FARTHEST as f32 / exact as f32).ln();
        let step = (ratio * (half - exact) as f32) as usize;
        (after + (exact + step).min(half - 1)) as u32
    };
    let farthest = FARTHEST as i32;
    let ids: Vec<u32> = (-farthest..=farthest).map(bucket).collect();
    let by_head = || table.forward(&row(&ids))?.squeeze_axes(&[0])?.transpose()?.contiguous();
    let by_head = by_head().map_err(mlx::failed)?;
    w.widened(by_head)
}
