//! The one decoder of the llama family; its members are data.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::tanh;
use mlxk_tensor::cache::{Cache, Kv, Sequences, Slot};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::rope::Rope;

use crate::checkpoint::cursor::Cursor;
use crate::language::{Inputs, Language, Spliced, splice};
use crate::nn::attention::{Attention, Sharing, Sizes};
use crate::nn::linear::{Embedding, Linear};
use crate::nn::mixer::FeedForward;
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::moe::{Moe, MoeArch};
use crate::nn::norm::{Norm, NormArch};

/// What the weights of a model do not show.
pub struct Arch {
    /// Attention, in the layers that have none of their own.
    pub heads: Sizes,
    /// What all norms of layers are like, and the last one.
    pub norm: NormArch,
    /// Which norms a layer has.
    pub norms: Norms,
    /// Tokens.
    pub vocabulary: usize,
    /// Whether the head is the embeddings; if unsaid, it is when the checkpoint has no head.
    pub tied: Option<bool>,
    /// Whether attention and feed-forward both start from what the layer starts from.
    pub parallel: bool,
    /// How many positions have a vector that is added to a token's, if positions are learned.
    pub positions: Option<usize>,
    /// Whether the vectors of tokens are normed.
    pub embed_norm: bool,
    /// What the vectors of tokens are multiplied by.
    pub embed_scale: f32,
    /// What is multiplied with the results of attention and feed-forward.
    pub residual_scale: f32,
    /// What logits are multiplied by.
    pub logit_scale: f32,
    /// What logits then never exceed.
    pub logit_softcap: Option<f32>,
    /// What may differ from layer to layer.
    pub layers: Vec<LayerArch>,
}

impl Arch {
    /// With mixtures of experts in the layers that `is_mixed` picks.
    pub fn with_moe(mut self, moe: &MoeArch, is_mixed: impl Fn(usize) -> bool) -> Arch {
        for (_, layer) in self.layers.iter_mut().enumerate().filter(|&(i, _)| is_mixed(i)) {
            layer.moe = Some(moe.clone());
        }
        self
    }

    /// The layers to be taken from `w`: all of them if some borrow keys and values.
    fn stage(&self, w: &mut Cursor) -> Range<usize> {
        let borrows = |heads: &Sizes| heads.sharing == Sharing::Borrows;
        match self.layers.iter().filter_map(|layer| layer.heads.as_ref()).any(borrows) {
            true => 0..self.layers.len(),
            false => w.stage(self.layers.len()),
        }
    }

    /// With changes to the feed-forward part of each layer.
    pub fn with_mlp(mut self, change: impl Fn(&mut MlpArch)) -> Arch {
        self.layers.iter_mut().for_each(|layer| change(&mut layer.mlp));
        self
    }
}

/// What the weights of a layer do not show.
pub struct LayerArch {
    /// Attention, if it is unlike that of the other layers.
    pub heads: Option<Sizes>,
    /// Its position embeddings, if it has any.
    pub rope: Option<Rope>,
    /// How many tokens it attends to, if not to all.
    pub window: Option<i32>,
    /// Its feed-forward part.
    pub mlp: MlpArch,
    /// The mixture of experts that it has instead.
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

/// The norms of a layer by their names; without a name there is none.
#[derive(Clone, Copy)]
pub struct Norms {
    /// Of what goes into attention.
    pub attn_in: Option<&'static str>,
    /// Of what comes out of it.
    pub attn_out: Option<&'static str>,
    /// Of what goes into the feed-forward part; without one that is what goes into attention if
    /// both run in parallel.
    pub mlp_in: Option<&'static str>,
    /// Of what comes out of it.
    pub mlp_out: Option<&'static str>,
}

impl Norms {
    /// Those of a llama.
    pub const LLAMA: Norms = Norms {
        attn_in: Some("input_layernorm"),
        attn_out: None,
        mlp_in: Some("post_attention_layernorm"),
        mlp_out: None,
    };

    /// Those of models that norm what comes out only.
    pub const AFTER: Norms = Norms {
        attn_in: None,
        attn_out: Some("post_attention_layernorm"),
        mlp_in: None,
        mlp_out: Some("post_feedforward_layernorm"),
    };
}

/// A model of the family.
pub struct Decoder {
    embed_tokens: Embedding,
    embed_norm: Option<Norm>,
    /// A vector for each of so many positions.
    embed_positions: Option<(Embedding, usize)>,
    layers: Vec<Layer>,
    norm: Norm,
    /// `None` if the embeddings serve as the head.
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
    window: Option<i32>,
    ops: &'static dyn Ops,
}

impl Decoder {
    /// The model at `w`.
    pub fn load(arch: Arch, mut w: Cursor) -> mlxk_core::Result<Box<dyn Language>> {
        let (vocabulary, hidden) = (arch.vocabulary, arch.heads.hidden);
        let headless = !w.at("lm_head").has("weight");
        let lm_head = match arch.tied {
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
            logit_scale: arch.logit_scale,
            logit_softcap: arch.logit_softcap,
            layers: Layer::load_all(arch, w, stage)?,
        }))
    }

    /// `h` and what is learned about the position of each row in its text.
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
        Cache { slots: own.map(|layer| Slot::Kv(Kv::new(layer.window))).collect() }
    }

    fn embed(&self, ids: &Array, spliced: &[Spliced]) -> Result<Inputs> {
        let h = scaled(self.embed_tokens.forward(ids)?, self.embed_scale)?;
        Ok(splice(normed(self.embed_norm.as_ref(), &h)?, spliced)?.into())
    }

    fn forward(&self, inputs: Inputs, sequences: &mut Sequences) -> Result<Array> {
        let mut h = self.positioned(&inputs.h, sequences)?;
        let mut slots = 0;
        for layer in &self.layers {
            slots += usize::from(!layer.self_attn.borrows());
            h = layer.forward(&h, sequences, slots - 1)?;
        }
        Ok(h)
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
                window: layer.window,
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
