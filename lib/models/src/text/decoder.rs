//! Decoder of the Llama family; each member is a value of [`Arch`].

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::tanh;
use mlxk_tensor::cache::{Cache, Kv, KvLayout, Sequences, Slot};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::rope::Rope;

use crate::checkpoint::cursor::Cursor;
use crate::language::{Inputs, Language, Spliced, deepened, splice};
use crate::nn::attention::{Attention, Sharing, Sizes};
use crate::nn::linear::{Embedding, Linear};
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Moe, MoeArch};
use crate::nn::norm::{Norm, NormArch};

/// Hyperparameters of a model that its weights do not determine.
pub struct Arch {
    /// Attention of the layers without `heads` of their own.
    pub heads: Sizes,
    /// Kind and epsilon of the norms of the layers and of the final norm.
    pub norm: NormArch,
    /// Names of the norms that each layer has.
    pub norms: Norms,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// True if the head shares the embedding matrix; `None` ties them if the checkpoint has no
    /// head.
    pub tied: Option<bool>,
    /// True if attention and feed-forward both take the input of the layer (parallel residual).
    pub parallel: bool,
    /// Number of learned absolute positions, whose embeddings are added to those of tokens.
    pub positions: Option<usize>,
    /// True if token embeddings are normalised.
    pub embed_norm: bool,
    /// Scale of token embeddings.
    pub embed_scale: f32,
    /// Scale of the outputs of attention and feed-forward before the residual addition.
    pub residual_scale: f32,
    /// Scale of logits.
    pub logit_scale: f32,
    /// Bound of the scaled logits: `cap * tanh(logits / cap)`.
    pub logit_softcap: Option<f32>,
    /// Hyperparameters of each layer, in order.
    pub layers: Vec<LayerArch>,
}

impl Arch {
    /// Puts the mixture of experts `moe` in the layers for which `is_mixed` returns true.
    pub fn with_moe(mut self, moe: &MoeArch, is_mixed: impl Fn(usize) -> bool) -> Arch {
        for (_, layer) in self.layers.iter_mut().enumerate().filter(|&(i, _)| is_mixed(i)) {
            layer.moe = Some(moe.clone());
        }
        self
    }

    /// Range of the layers to load from `w`: all of them if some borrow keys and values.
    fn stage(&self, w: &mut Cursor) -> Range<usize> {
        let borrows = |heads: &Sizes| heads.sharing == Sharing::Borrows;
        match self.layers.iter().filter_map(|layer| layer.heads.as_ref()).any(borrows) {
            true => 0..self.layers.len(),
            false => w.stage(self.layers.len()),
        }
    }

    /// Applies `change` to the feed-forward hyperparameters of each layer.
    pub fn with_mlp(mut self, change: impl Fn(&mut MlpArch)) -> Arch {
        self.layers.iter_mut().for_each(|layer| change(&mut layer.mlp));
        self
    }
}

/// Hyperparameters of a layer that its weights do not determine.
pub struct LayerArch {
    /// Attention, if it differs from `Arch::heads`.
    pub heads: Option<Sizes>,
    /// Rotary position embedding; `None` if the layer has none.
    pub rope: Option<Rope>,
    /// Sliding window in tokens; `None` attends to all tokens.
    pub window: Option<i32>,
    /// True if the tokens of a picture attend to each other.
    pub blocks: bool,
    /// Dense feed-forward layer.
    pub mlp: MlpArch,
    /// Mixture of experts, used instead of `mlp` if present.
    pub moe: Option<MoeArch>,
}

impl LayerArch {
    fn feed(
        &self,
        w: &mut Cursor,
        hidden: usize,
        norm: NormArch,
    ) -> mlxk_core::Result<Box<dyn FeedForward>> {
        Ok(match &self.moe {
            Some(moe) => Box::new(Moe::load(w, hidden, moe, norm)?),
            None => Box::new(Mlp::load(w, hidden, &self.mlp, norm)?),
        })
    }
}

/// Names of the norms of a layer; `None` if the layer lacks that norm.
#[derive(Clone, Copy)]
pub struct Norms {
    /// Norm of the input of attention.
    pub attn_in: Option<&'static str>,
    /// Norm of the output of attention.
    pub attn_out: Option<&'static str>,
    /// Norm of the input of feed-forward. If `None` and both run in parallel, feed-forward takes
    /// the normed input of attention.
    pub mlp_in: Option<&'static str>,
    /// Norm of the output of feed-forward.
    pub mlp_out: Option<&'static str>,
}

impl Norms {
    /// Pre-norms under the names of Llama.
    pub const LLAMA: Norms = Norms {
        attn_in: Some("input_layernorm"),
        attn_out: None,
        mlp_in: Some("post_attention_layernorm"),
        mlp_out: None,
    };

    /// Post-norms only, as in OLMo 2 and EXAONE 4.
    pub const AFTER: Norms = Norms {
        attn_in: None,
        attn_out: Some("post_attention_layernorm"),
        mlp_in: None,
        mlp_out: Some("post_feedforward_layernorm"),
    };
}

/// Decoder-only transformer of the Llama family.
pub struct Decoder {
    embed_tokens: Embedding,
    embed_norm: Option<Norm>,
    /// Learned position embeddings and their number.
    embed_positions: Option<(Embedding, usize)>,
    layers: Vec<Layer>,
    /// Number of layers of the model before these.
    first: usize,
    norm: Norm,
    /// Output projection; `None` if it is tied to the embeddings.
    lm_head: Option<Linear>,
    vocabulary: usize,
    embed_scale: f32,
    logit_scale: f32,
    logit_softcap: Option<f32>,
}

struct Layer {
    attn_in: Option<Norm>,
    self_attn: Attention,
    attn_out: Option<Norm>,
    mlp_in: Option<Norm>,
    mlp: Box<dyn FeedForward>,
    mlp_out: Option<Norm>,
    parallel: bool,
    residual_scale: f32,
    layout: KvLayout,
    ops: &'static dyn Ops,
}

impl Decoder {
    /// Loads the model whose tensors are at `w`.
    pub fn load(arch: Arch, mut w: Cursor) -> mlxk_core::Result<Box<dyn Language>> {
        let (vocabulary, hidden) = (arch.vocabulary, arch.heads.hidden);
        // Models that were saved without their head lack the prefix.
        let bare = w.has("embed_tokens.weight");
        if bare {
            w.rename(&[("model", "")]);
        }
        let headless = !w.at("lm_head").has("weight");
        let lm_head = match arch.tied {
            _ if headless && bare => None,
            None | Some(true) if headless => None,
            _ => Some(Linear::load(&mut w, "lm_head", vocabulary, hidden)?),
        };
        let mut w = w.at("model");
        let stage = arch.stage(&mut w);
        let embeddings = |w: &mut Cursor, name, count| Embedding::load(w, name, count, hidden);
        let positions = |count| Ok((embeddings(&mut w, "embed_positions", count)?, count));
        let embed_positions =
            arch.positions.map(positions).transpose()?.filter(|_| stage.start == 0);
        let normed = arch.embed_norm.then(|| arch.norm.load(&mut w, "embed_norm", hidden));
        Ok(Box::new(Decoder {
            embed_tokens: embeddings(&mut w, "embed_tokens", vocabulary)?,
            embed_norm: normed.transpose()?,
            embed_positions,
            norm: arch.norm.load(&mut w, "norm", hidden)?,
            lm_head,
            vocabulary,
            embed_scale: arch.embed_scale,
            first: stage.start,
            logit_scale: arch.logit_scale,
            logit_softcap: arch.logit_softcap,
            layers: Layer::load_all(arch, w, stage)?,
        }))
    }

    /// Adds the learned embedding of each row's position in its sequence to `h`.
    fn positioned(&self, h: &Array, sequences: &mut Sequences) -> Result<Array> {
        let Some((positions, count)) = &self.embed_positions else {
            return Ok(h.clone());
        };
        sequences.each_kv(0, [h], |[h], kv| {
            let first = kv.offset();
            if first + h.dim(1) > *count as i32 {
                return Err(Exception::custom(format!("the model knows {count} positions only")));
            }
            let ids: Vec<i32> = (first..first + h.dim(1)).collect();
            h.add(positions.forward(&Array::from_slice(&ids, &[1, h.dim(1)]))?)
        })
    }
}

impl Language for Decoder {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn cache(&self) -> Cache {
        let own = self.layers.iter().filter(|layer| !layer.self_attn.borrows());
        let slot = |layer: &Layer| Slot::Kv(Kv::new(None).with_layout(|_| layer.layout));
        Cache { slots: own.map(slot).collect() }
    }

    fn embed(&self, ids: &Array, spliced: &[Spliced]) -> Result<Inputs> {
        let h = scaled(self.embed_tokens.forward(ids)?, self.embed_scale)?;
        let h = splice(normed(self.embed_norm.as_ref(), &h)?, spliced)?;
        let deep = spliced.iter().filter(|own| !own.deep.is_empty()).cloned().collect();
        Ok(Inputs { h, side: None, deep })
    }

    fn forward(&self, inputs: Inputs, sequences: &mut Sequences) -> Result<Array> {
        let mut h = self.positioned(&inputs.h, sequences)?;
        let mut slots = 0;
        for (i, layer) in self.layers.iter().enumerate() {
            slots += usize::from(!layer.self_attn.borrows());
            h = layer.forward(&h, sequences, slots - 1)?;
            h = deepened(h, &inputs.deep, self.first + i)?;
        }
        Ok(h)
    }

    fn states(&self, h: &Array) -> Result<Array> {
        self.norm.forward(h)
    }

    fn head(&self, h: &Array) -> Result<Array> {
        let h = self.norm.forward(h)?;
        let logits = match &self.lm_head {
            Some(lm_head) => lm_head.forward(&h)?,
            None => self.embed_tokens.as_linear(&h)?,
        };
        let logits = scaled(logits, self.logit_scale)?;
        match self.logit_softcap {
            Some(cap) => {
                let cap = mlx::number(cap, &logits)?;
                tanh(logits.divide(&cap)?)?.multiply(cap)
            }
            None => Ok(logits),
        }
    }
}

impl Layer {
    fn load_all(arch: Arch, mut w: Cursor, stage: Range<usize>) -> mlxk_core::Result<Vec<Layer>> {
        let Arch { heads, norm, norms, parallel, residual_scale, layers, .. } = arch;
        let load = |(i, layer): (usize, LayerArch)| {
            let mut w = w.at(&format!("layers.{i}"));
            let sizes = layer.heads.as_ref().unwrap_or(&heads);
            let mut named = |name: Option<&str>| {
                name.map(|name| norm.load(&mut w, name, heads.hidden)).transpose()
            };
            Ok(Layer {
                attn_in: named(norms.attn_in)?,
                attn_out: named(norms.attn_out)?,
                mlp_in: named(norms.mlp_in)?,
                mlp_out: named(norms.mlp_out)?,
                mlp: layer.feed(&mut w.at("mlp"), heads.hidden, norm)?,
                self_attn: Attention::load(&mut w.at("self_attn"), sizes, layer.rope)?,
                parallel,
                residual_scale,
                layout: KvLayout { blocks: layer.blocks, ..KvLayout::new(layer.window) },
                ops: w.ops(),
            })
        };
        layers.into_iter().enumerate().filter(|(i, _)| stage.contains(i)).map(load).collect()
    }

    fn forward(&self, x: &Array, sequences: &mut Sequences, slot: usize) -> Result<Array> {
        let add = |a: &Array, b: &Array| self.ops.add(a, b);
        let inner = normed(self.attn_in.as_ref(), x)?;
        let a = self.self_attn.forward(&inner, sequences, slot)?;
        let a = scaled(normed(self.attn_out.as_ref(), &a)?, self.residual_scale)?;
        let h = add(x, &a)?;
        let inner = match (&self.mlp_in, self.parallel) {
            (None, true) => inner,
            (norm, true) => normed(norm.as_ref(), x)?,
            (norm, false) => normed(norm.as_ref(), &h)?,
        };
        let m = normed(self.mlp_out.as_ref(), &self.mlp.forward(&inner)?)?;
        add(&h, &scaled(m, self.residual_scale)?)
    }
}

fn normed(norm: Option<&Norm>, x: &Array) -> Result<Array> {
    norm.map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
}

fn scaled(x: Array, factor: f32) -> Result<Array> {
    if factor == 1.0 { Ok(x) } else { x.multiply(mlx::number(factor, &x)?) }
}
