//! The one decoder of the llama family; its members are data.

use mlx_rs::Array;
use mlx_rs::error::Result;

use super::Language;
use crate::cache::{Cache, Kv, Slot, Texts};
use crate::kernels::Kernels;
use crate::nn::{Attention, Embedding, Linear, Mlp, RmsNorm, Sizes};
use crate::rope::Rope;
use crate::weights::Cursor;

/// What the weights of a model do not show.
pub struct Arch {
    /// The sizes of attention.
    pub heads: Sizes,
    /// Elements of the vectors between the halves of a feed-forward layer.
    pub inner: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Whether the head is the embeddings; if unsaid, it is when the checkpoint has no head.
    pub tied: Option<bool>,
    /// What may differ from layer to layer.
    pub layers: Vec<LayerArch>,
}

/// What the weights of a layer do not show.
pub struct LayerArch {
    /// Its position embeddings, if it has any.
    pub rope: Option<Rope>,
    /// How many tokens it attends to, if not to all.
    pub window: Option<i32>,
}

/// A model of the family.
pub struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `None` if the embeddings serve as the head.
    lm_head: Option<Linear>,
    vocabulary: usize,
}

struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
    window: Option<i32>,
    kernels: &'static Kernels,
}

impl Decoder {
    /// The model at `w`.
    pub fn load(arch: Arch, mut w: Cursor) -> mlxk_core::Result<Box<dyn Language>> {
        let Arch { heads, inner, vocabulary, tied, layers } = arch;
        let headless = !w.at("lm_head").has("weight");
        let lm_head = match tied {
            None | Some(true) if headless => None,
            _ => Some(Linear::load(&mut w, "lm_head", vocabulary, heads.hidden)?),
        };
        let mut w = w.at("model");
        let layers = layers.into_iter().enumerate();
        Ok(Box::new(Decoder {
            embed_tokens: Embedding::load(&mut w, "embed_tokens", vocabulary, heads.hidden)?,
            layers: layers
                .map(|(i, arch)| Layer::load(w.at(&format!("layers.{i}")), arch, &heads, inner))
                .collect::<mlxk_core::Result<_>>()?,
            norm: RmsNorm::load(&mut w, "norm", heads.hidden, heads.norm_eps)?,
            lm_head,
            vocabulary,
        }))
    }
}

impl Language for Decoder {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn cache(&self) -> Cache {
        let slots = self.layers.iter().map(|layer| Slot::Kv(Kv::new(layer.window)));
        Cache { slots: slots.collect() }
    }

    fn embed(&self, ids: &Array) -> Result<Array> {
        self.embed_tokens.forward(ids)
    }

    fn forward(&self, h: &Array, texts: &mut Texts) -> Result<Array> {
        let mut h = h.clone();
        for (slot, layer) in self.layers.iter().enumerate() {
            h = layer.forward(&h, texts, slot)?;
        }
        Ok(h)
    }

    fn head(&self, h: &Array) -> Result<Array> {
        let h = self.norm.forward(h)?;
        match &self.lm_head {
            Some(lm_head) => lm_head.forward(&h),
            None => self.embed_tokens.as_linear(&h),
        }
    }
}

impl Layer {
    fn load(
        mut w: Cursor,
        arch: LayerArch,
        heads: &Sizes,
        inner: usize,
    ) -> mlxk_core::Result<Layer> {
        let norm = |w: &mut Cursor, name| RmsNorm::load(w, name, heads.hidden, heads.norm_eps);
        Ok(Layer {
            input_layernorm: norm(&mut w, "input_layernorm")?,
            self_attn: Attention::load(&mut w.at("self_attn"), heads, arch.rope)?,
            post_attention_layernorm: norm(&mut w, "post_attention_layernorm")?,
            mlp: Mlp::load(&mut w.at("mlp"), heads.hidden, inner)?,
            window: arch.window,
            kernels: w.kernels(),
        })
    }

    fn forward(&self, x: &Array, texts: &mut Texts, slot: usize) -> Result<Array> {
        let add = self.kernels.add;
        let a = self.self_attn.forward(&self.input_layernorm.forward(x)?, texts, slot)?;
        let x = add(x, &a)?;
        add(&x, &self.mlp.forward(&self.post_attention_layernorm.forward(&x)?)?)
    }
}
