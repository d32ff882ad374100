//! BERT (arXiv 1810.04805): a transformer encoder with learned positions and a norm after each
//! sublayer.
//!
//! Tensors have the names of transformers' `BertModel`. Heads for training (`pooler`, `cls`) are
//! left aside.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Architecture;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams, Mask};
use serde::Deserialize;
use serde_json::Value;

use super::encode::Encoder;
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::{Embedding, Linear};
use crate::nn::norm::{Norm, NormArch, NormKind};
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] = &[Spec::encoder(Architecture::Bert, load)];

/// Fields of config.json.
#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

/// Numbers of token types that a checkpoint has unless its config.json says otherwise.
const TYPES: usize = 2;

/// Epsilon of norms unless config.json says otherwise.
const EPS: f32 = 1e-12;

impl Config {
    fn read(config: &Value) -> mlxk_core::Result<Config> {
        let c: Config = fields(config)?;
        positive(&[
            ("vocab_size", c.vocab_size),
            ("hidden_size", c.hidden_size),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", c.num_attention_heads),
            ("max_position_embeddings", c.max_position_embeddings),
            ("type_vocab_size", c.types()),
        ])?;
        most_layers(c.num_hidden_layers)?;
        if !c.hidden_size.is_multiple_of(c.num_attention_heads) {
            let (hidden, heads) = (c.hidden_size, c.num_attention_heads);
            return Err(invalid(format!("{heads} heads cannot share {hidden} elements")));
        }
        if !(0.0..=1.0).contains(&c.eps()) {
            return Err(invalid(format!("`layer_norm_eps` cannot be {}", c.eps())));
        }
        match c.position_embedding_type.as_deref() {
            None | Some("absolute") => {}
            Some(other) => return Err(unknown(format!("positions of type `{other}` cannot run"))),
        }
        match c.is_decoder {
            Some(true) => Err(unknown("a decoder of type `bert` cannot run".to_owned())),
            _ => Ok(c),
        }
    }

    fn types(&self) -> usize {
        self.type_vocab_size.unwrap_or(TYPES)
    }

    fn eps(&self) -> f32 {
        self.layer_norm_eps.unwrap_or(EPS)
    }

    fn norm(&self) -> NormArch {
        NormArch { kind: NormKind::Layer, eps: self.eps() }
    }

    fn activation(&self) -> mlxk_core::Result<Activation> {
        match self.hidden_act.as_deref() {
            None | Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Ok(Activation::GeluTanh),
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some(other) => Err(unknown(format!("activation `{other}` cannot run"))),
        }
    }
}

/// BERT encoder.
pub struct Bert {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    config: Config,
}

/// Loads a bert, whose names may begin with `bert.`.
///
/// # Errors
/// If config.json is not one of a bert, or a tensor is missing or of another shape.
pub fn load(config: &Value, mut w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
    let config = Config::read(config)?;
    w.discard(|name| {
        ["embeddings.position_ids", "embeddings.token_type_ids"]
            .iter()
            .any(|end| name.ends_with(end))
    });
    w.leave(|name| ["pooler.", "bert.pooler.", "cls."].iter().any(|start| name.starts_with(start)));
    let mut w = match w.has("bert.embeddings.word_embeddings.weight") {
        true => w.at("bert"),
        false => w,
    };
    // Checkpoints from TensorFlow.
    if w.has("embeddings.LayerNorm.gamma") {
        w.rename(&[("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]);
    }
    let embeddings = Embeddings::load(&mut w.at("embeddings"), &config)?;
    let layer = |i| Layer::load(&mut w.at(&format!("encoder.layer.{i}")), &config);
    let layers = (0..config.num_hidden_layers).map(layer).collect::<mlxk_core::Result<_>>()?;
    Ok(Box::new(Bert { embeddings, layers, config }))
}

impl Encoder for Bert {
    fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn max_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn encode(&self, ids: &Array, lengths: &[usize]) -> Result<Array> {
        let mask = Mask::packed(lengths);
        let h = self.embeddings.forward(ids, lengths)?;
        self.layers.iter().try_fold(h, |h, layer| layer.forward(&h, &mask))
    }
}

/// `LayerNorm(word + type + position)`; every token is of type 0.
struct Embeddings {
    word: Embedding,
    token_type: Embedding,
    position: Embedding,
    norm: Norm,
    ops: &'static dyn Ops,
}

impl Embeddings {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<Embeddings> {
        let hidden = c.hidden_size;
        Ok(Embeddings {
            word: Embedding::load(w, "word_embeddings", c.vocab_size, hidden)?,
            token_type: Embedding::load(w, "token_type_embeddings", c.types(), hidden)?,
            position: Embedding::load(w, "position_embeddings", c.max_position_embeddings, hidden)?,
            norm: c.norm().load(w, "LayerNorm", hidden)?,
            ops: w.ops(),
        })
    }

    /// Vectors [1, rows, hidden] of `ids` [1, rows]; the positions of each sequence begin at 0.
    fn forward(&self, ids: &Array, lengths: &[usize]) -> Result<Array> {
        let positions: Vec<u32> = lengths.iter().flat_map(|&length| 0..length as u32).collect();
        let types = vec![0u32; positions.len()];
        let [positions, types] =
            [positions, types].map(|ids| Array::from_slice(&ids, &[1, ids.len() as i32]));
        let h = self.ops.add(&self.word.forward(ids)?, &self.token_type.forward(&types)?)?;
        let h = self.ops.add(&h, &self.position.forward(&positions)?)?;
        self.norm.forward(&h)
    }
}

/// Encoder layer: self-attention, then a feed-forward network, each added to its input and normed.
struct Layer {
    attention: Attention,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
    activation: Activation,
    ops: &'static dyn Ops,
}

impl Layer {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<Layer> {
        let (hidden, inner) = (c.hidden_size, c.intermediate_size);
        Ok(Layer {
            attention: Attention::load(&mut w.at("attention"), c)?,
            attention_norm: c.norm().load(w, "attention.output.LayerNorm", hidden)?,
            intermediate: Linear::load(w, "intermediate.dense", inner, hidden)?,
            output: Linear::load(w, "output.dense", hidden, inner)?,
            output_norm: c.norm().load(w, "output.LayerNorm", hidden)?,
            activation: c.activation()?,
            ops: w.ops(),
        })
    }

    /// `a = LayerNorm(x + attention(x))`, `LayerNorm(a + W2 act(W1 a))`.
    fn forward(&self, x: &Array, mask: &Mask) -> Result<Array> {
        let a = self.ops.add(x, &self.attention.forward(x, mask)?)?;
        let a = self.attention_norm.forward(&a)?;
        let inner = self.ops.activate(&self.intermediate.forward(&a)?, self.activation)?;
        let y = self.ops.add(&a, &self.output.forward(&inner)?)?;
        self.output_norm.forward(&y)
    }
}

/// Self-attention, in which `mask` selects the visible tokens.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    head_dim: usize,
    params: AttentionParams,
    ops: &'static dyn Ops,
}

impl Attention {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<Attention> {
        let hidden = c.hidden_size;
        let head_dim = hidden / c.num_attention_heads;
        let scale = (head_dim as f32).sqrt().recip();
        Ok(Attention {
            query: Linear::load(w, "self.query", hidden, hidden)?,
            key: Linear::load(w, "self.key", hidden, hidden)?,
            value: Linear::load(w, "self.value", hidden, hidden)?,
            output: Linear::load(w, "output.dense", hidden, hidden)?,
            head_dim,
            params: AttentionParams { scale, softcap: None, sinks: None },
            ops: w.ops(),
        })
    }

    /// Attention output, [1, rows, hidden] for `x` of that shape.
    fn forward(&self, x: &Array, mask: &Mask) -> Result<Array> {
        let [q, k, v] = [&self.query, &self.key, &self.value].map(|proj| self.heads(proj, x));
        let mixed = self.ops.attend(&q?, [&k?, &v?], mask, &self.params)?;
        self.output.forward(&mixed)
    }

    /// Heads [1, heads, rows, head size] of the projection of `x` by `proj`.
    fn heads(&self, proj: &Linear, x: &Array) -> Result<Array> {
        let size = self.head_dim as i32;
        let heads = HeadsParams { size, norm: None, rotated_first: false, rope: None };
        self.ops.split_heads(&proj.forward(x)?, &heads)
    }
}
