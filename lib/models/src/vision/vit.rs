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
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Hyperparameters of a vision transformer that differ among families.
pub struct VitArch {
    /// Number of elements of a patch embedding.
    pub hidden: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Norms before attention and before the feed-forward layer.
    pub norm: NormArch,
    /// True if layers also have norms after attention and after the feed-forward layer.
    pub norms_after: bool,
    /// True if the outputs of attention and of the feed-forward layer have scales (arXiv 2103.17239).
    pub scaled: bool,
    /// Norm of each head's queries and keys; that of values has no weight. `None` if there are none.
    pub head_norm: Option<NormArch>,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Feed-forward layers.
    pub mlp: MlpArch,
    /// True if queries, keys and values are one matrix `qkv` on disk.
    pub fused: bool,
    /// Rotary embedding of queries and keys; `None` if the tower has other position embeddings.
    pub rope: Option<Rope>,
    /// True for each layer with windowed attention.
    pub windowed: Vec<bool>,
}

impl VitArch {
    /// Transformer of `layers` layers that attend to whole images, without rotary embedding.
    pub fn new(sizes: &Sizes, norm: NormArch, mlp: MlpArch) -> VitArch {
        let &Sizes { hidden, heads, layers } = sizes;
        let head_dim = hidden / heads.max(1);
        VitArch {
            hidden,
            heads,
            head_dim,
            norm,
            norms_after: false,
            scaled: false,
            head_norm: None,
            scale: (head_dim as f32).powf(-0.5),
            mlp,
            fused: false,
            rope: None,
            windowed: vec![false; layers],
        }
    }
}

/// Sizes of a vision transformer.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Number of elements of a patch embedding.
    pub hidden: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Number of layers.
    pub layers: usize,
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
    /// Norm of the output of attention.
    norm1_after: Option<Norm>,
    /// Scale of the output of attention.
    ls1: Option<Array>,
    norm2: Norm,
    mlp: Mlp,
    /// Norm of the output of the feed-forward layer.
    norm2_after: Option<Norm>,
    /// Scale of the output of the feed-forward layer.
    ls2: Option<Array>,
    windowed: bool,
    ops: &'static dyn Ops,
}

/// Attention without a cache.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Norms of the queries, keys and values of a head.
    norms: [Option<Norm>; 3],
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
        self.forward_with(x, patches, |_, _| Ok(()))
    }

    /// Hidden states as [`forward`](Self::forward) returns them; `see` is called with the number of
    /// each layer and the hidden states after it.
    pub fn forward_with(
        &self,
        x: Array,
        patches: &Patches,
        mut see: impl FnMut(usize, &Array) -> Result<()>,
    ) -> Result<Array> {
        self.layers.iter().enumerate().try_fold(x, |x, (i, layer)| {
            let h = layer.forward(&x, patches)?;
            see(i, &h)?;
            Ok(h)
        })
    }
}

impl Layer {
    fn load(w: &mut Cursor, arch: &VitArch, windowed: bool) -> mlxk_core::Result<Layer> {
        let &VitArch { hidden, norm, norms_after, .. } = arch;
        let after = |w: &mut Cursor, name: &str| {
            norms_after.then(|| norm.load(w, name, hidden)).transpose()
        };
        Ok(Layer {
            norm1: norm.load(w, "norm1", hidden)?,
            attn: Attention::load(&mut w.at("attn"), arch)?,
            norm1_after: after(w, "norm1_after")?,
            ls1: arch.scaled.then(|| w.floats("ls1", &[hidden])).transpose()?,
            norm2: norm.load(w, "norm2", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, &arch.mlp, norm)?,
            norm2_after: after(w, "norm2_after")?,
            ls2: arch.scaled.then(|| w.floats("ls2", &[hidden])).transpose()?,
            windowed,
            ops: w.ops(),
        })
    }

    /// `h = x + attn(norm1(x))`, then `h + mlp(norm2(h))`: [1, rows, hidden] to the same shape.
    fn forward(&self, x: &Array, patches: &Patches) -> Result<Array> {
        let mask = if self.windowed { &patches.windows } else { &patches.pictures };
        let mixed = self.attn.forward(&self.norm1.forward(x)?, &patches.positions, mask)?;
        let mixed = scaled(self.ls1.as_ref(), normed(self.norm1_after.as_ref(), mixed)?)?;
        let h = self.ops.add(x, &mixed)?;
        let fed = self.mlp.forward(&self.norm2.forward(&h)?)?;
        let fed = scaled(self.ls2.as_ref(), normed(self.norm2_after.as_ref(), fed)?)?;
        self.ops.add(&h, &fed)
    }
}

impl Attention {
    fn load(w: &mut Cursor, arch: &VitArch) -> mlxk_core::Result<Attention> {
        let &VitArch { hidden, heads, head_dim, scale, .. } = arch;
        let all = heads * head_dim;
        if arch.fused {
            w.split("qkv", 1, &[("q_proj", all), ("k_proj", all), ("v_proj", all)])?;
        }
        let norm = |w: &mut Cursor, name: &str, norm: Option<NormArch>| {
            norm.map(|norm| norm.load(w, name, head_dim)).transpose()
        };
        let bare = arch.head_norm.map(|norm| NormArch { kind: NormKind::Bare, ..norm });
        Ok(Attention {
            q_proj: Linear::load(w, "q_proj", all, hidden)?,
            k_proj: Linear::load(w, "k_proj", all, hidden)?,
            v_proj: Linear::load(w, "v_proj", all, hidden)?,
            o_proj: Linear::load(w, "o_proj", hidden, all)?,
            norms: [
                norm(w, "q_norm", arch.head_norm)?,
                norm(w, "k_norm", arch.head_norm)?,
                norm(w, "v_norm", bare)?,
            ],
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
        let heads = |proj: &Linear, norm: &Option<Norm>, rope| {
            let norm = norm.as_ref().map(Norm::params);
            let params = HeadsParams { size: self.head_dim, norm, rotated_first: false, rope };
            self.ops.split_heads(&proj.forward(x)?, &params)
        };
        let [q_norm, k_norm, v_norm] = &self.norms;
        let q = heads(&self.q_proj, q_norm, rope)?;
        let k = heads(&self.k_proj, k_norm, rope)?;
        let v = heads(&self.v_proj, v_norm, None)?;
        self.o_proj.forward(&self.ops.attend(&q, [&k, &v], mask, &self.params)?)
    }
}

fn normed(norm: Option<&Norm>, x: Array) -> Result<Array> {
    norm.map_or(Ok(x.clone()), |norm| norm.forward(&x))
}

fn scaled(scale: Option<&Array>, x: Array) -> Result<Array> {
    scale.map_or(Ok(x.clone()), |scale| x.multiply(scale))
}
