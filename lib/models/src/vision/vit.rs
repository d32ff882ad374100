//! Vision transformer (arXiv 2010.11929): layers in which the patches of an image attend to each
//! other.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams, Mask};
use mlxk_tensor::ops::rope::Rope;
use mlxk_tensor::positions::Positions;

use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::norm::{Norm, NormArch};

/// Hyperparameters of a vision transformer that differ among families.
pub struct VitArch {
    /// Number of elements of a patch embedding, a multiple of `heads`.
    pub hidden: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Norms before attention and before the feed-forward layer.
    pub norm: NormArch,
    /// Feed-forward layers.
    pub mlp: MlpArch,
    /// True if queries, keys and values are one matrix `qkv` on disk.
    pub fused: bool,
    /// Rotary embedding of queries and keys; `None` if the tower has other position embeddings.
    pub rope: Option<Rope>,
    /// True for each layer with windowed attention.
    pub windowed: Vec<bool>,
}

/// Positions of patches, and masks of the attention between them.
pub struct Patches {
    /// Position of each patch in time, height and width.
    pub positions: Vec<[i32; 3]>,
    /// Mask of patches of the same image, or the same frame of a video.
    pub pictures: Mask,
    /// Mask of patches of the same window.
    pub windows: Mask,
}

/// Vision transformer layers, between patch embedding and projector.
pub struct Vit {
    layers: Vec<Layer>,
}

struct Layer {
    norm1: Norm,
    attn: Attention,
    norm2: Norm,
    mlp: Mlp,
    windowed: bool,
    ops: &'static dyn Ops,
}

/// Attention without a cache.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    rope: Option<Rope>,
    head_dim: i32,
    params: AttentionParams,
    ops: &'static dyn Ops,
}

impl Vit {
    /// Loads the layers `blocks.0`, `blocks.1` and so on of `w`.
    pub fn load(w: &mut Cursor, arch: &VitArch) -> mlxk_core::Result<Vit> {
        let mut w = w.at("blocks");
        let windowed = arch.windowed.iter().enumerate();
        let layers =
            windowed.map(|(i, &windowed)| Layer::load(&mut w.at(&i.to_string()), arch, windowed));
        Ok(Vit { layers: layers.collect::<mlxk_core::Result<_>>()? })
    }

    /// Hidden states [1, rows, hidden] after all layers for the patch embeddings `x`.
    pub fn forward(&self, x: Array, patches: &Patches) -> Result<Array> {
        self.layers.iter().try_fold(x, |x, layer| layer.forward(&x, patches))
    }
}

impl Layer {
    fn load(w: &mut Cursor, arch: &VitArch, windowed: bool) -> mlxk_core::Result<Layer> {
        let &VitArch { hidden, norm, .. } = arch;
        Ok(Layer {
            norm1: norm.load(w, "norm1", hidden)?,
            attn: Attention::load(&mut w.at("attn"), arch)?,
            norm2: norm.load(w, "norm2", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, &arch.mlp, norm)?,
            windowed,
            ops: w.ops(),
        })
    }

    /// `h = x + attn(norm1(x))`, then `h + mlp(norm2(h))`: [1, rows, hidden] to the same shape.
    fn forward(&self, x: &Array, patches: &Patches) -> Result<Array> {
        let mask = if self.windowed { &patches.windows } else { &patches.pictures };
        let mixed = self.attn.forward(&self.norm1.forward(x)?, &patches.positions, mask)?;
        let h = self.ops.add(x, &mixed)?;
        self.ops.add(&h, &self.mlp.forward(&self.norm2.forward(&h)?)?)
    }
}

impl Attention {
    fn load(w: &mut Cursor, arch: &VitArch) -> mlxk_core::Result<Attention> {
        let &VitArch { hidden, heads, .. } = arch;
        if arch.fused {
            w.split("qkv", 1, &[("q_proj", hidden), ("k_proj", hidden), ("v_proj", hidden)])?;
        }
        let mut linear = |name| Linear::load(w, name, hidden, hidden);
        let head_dim = hidden / heads;
        let scale = (head_dim as f32).powf(-0.5);
        Ok(Attention {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            o_proj: linear("o_proj")?,
            rope: arch.rope.clone(),
            head_dim: head_dim as i32,
            params: AttentionParams { scale, softcap: None, sinks: None, bias: None },
            ops: w.ops(),
        })
    }

    /// Attention among the rows that `mask` allows: [1, rows, hidden] to the same shape.
    fn forward(&self, x: &Array, positions: &[[i32; 3]], mask: &Mask) -> Result<Array> {
        let rope = self.rope.as_ref().map(|rope| (rope, Positions::Rows(positions)));
        // [1, rows, hidden] to [1, heads, rows, head size].
        let heads = |proj: &Linear, rope| {
            let params =
                HeadsParams { size: self.head_dim, norm: None, rotated_first: false, rope };
            self.ops.split_heads(&proj.forward(x)?, &params)
        };
        let [q, k, v] =
            [heads(&self.q_proj, rope)?, heads(&self.k_proj, rope)?, heads(&self.v_proj, None)?];
        self.o_proj.forward(&self.ops.attend(&q, [&k, &v], mask, &self.params)?)
    }
}
