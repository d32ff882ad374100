//! Embeddings that each layer of Gemma 3n and 4 has of its own, beside those that it passes on.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use super::linear::{Embedding, Linear};
use super::norm::{Norm, NormArch};
use crate::checkpoint::cursor::Cursor;

/// What makes the vectors of all layers.
pub struct PerLayer {
    embed_tokens_per_layer: Embedding,
    per_layer_model_projection: Linear,
    per_layer_projection_norm: Norm,
    sizes: PerLayerSizes,
    ops: &'static dyn Ops,
}

/// The numbers of these embeddings that weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct PerLayerSizes {
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Elements of a layer's own embedding.
    pub size: usize,
    /// Layers of the model.
    pub layers: usize,
    /// Tokens that have per-layer embeddings; later ids take those of token 0.
    pub vocabulary: usize,
}

impl PerLayer {
    /// From the model at `w`.
    pub fn load(
        w: &mut Cursor,
        sizes: PerLayerSizes,
        norm: NormArch,
    ) -> mlxk_core::Result<PerLayer> {
        let PerLayerSizes { hidden, size, layers, vocabulary } = sizes;
        let all = layers * size;
        let project = |w: &mut Cursor| Linear::load(w, "per_layer_model_projection", all, hidden);
        Ok(PerLayer {
            embed_tokens_per_layer: Embedding::load(w, "embed_tokens_per_layer", vocabulary, all)?,
            per_layer_model_projection: project(w)?,
            per_layer_projection_norm: norm.load(w, "per_layer_projection_norm", size)?,
            sizes,
            ops: w.ops(),
        })
    }

    /// The vectors of `ids` [1, rows] for all layers, [1, rows, layers * size].
    pub fn embed(&self, ids: &Array) -> Result<Array> {
        let known = ids.lt(Array::from_int(self.sizes.vocabulary as i32))?;
        let h = self.embed_tokens_per_layer.forward(&ids.multiply(known)?)?;
        h.multiply(mlx::number((self.sizes.size as f32).sqrt(), &h)?)
    }

    /// The inputs [1, rows, size] of each layer: from such vectors, and from those that the first
    /// layer takes [1, rows, hidden].
    pub fn inputs(&self, h: &Array, own: &Array) -> Result<Vec<Array>> {
        let PerLayerSizes { hidden, size, layers, .. } = self.sizes;
        let projected = self.per_layer_model_projection.forward(h)?;
        let projected = projected.multiply(mlx::number((hidden as f32).powf(-0.5), h)?)?;
        let by_layer = projected.reshape(&[1, h.dim(1), layers as i32, size as i32])?;
        let normed = self.per_layer_projection_norm.forward(&by_layer)?.reshape(own.shape())?;
        let half = mlx::number(std::f32::consts::FRAC_1_SQRT_2, h)?;
        self.ops.split(&normed.add(own)?.multiply(half)?, &vec![size as i32; layers])
    }
}

/// What a layer does with its own input.
pub struct PerLayerGate {
    per_layer_input_gate: Linear,
    per_layer_projection: Linear,
    post_per_layer_input_norm: Norm,
    ops: &'static dyn Ops,
}

impl PerLayerGate {
    /// From the layer at `w`.
    pub fn load(
        w: &mut Cursor,
        sizes: &PerLayerSizes,
        norm: NormArch,
    ) -> mlxk_core::Result<PerLayerGate> {
        let PerLayerSizes { hidden, size, .. } = *sizes;
        Ok(PerLayerGate {
            per_layer_input_gate: Linear::load(w, "per_layer_input_gate", size, hidden)?,
            per_layer_projection: Linear::load(w, "per_layer_projection", hidden, size)?,
            post_per_layer_input_norm: norm.load(w, "post_per_layer_input_norm", hidden)?,
            ops: w.ops(),
        })
    }

    /// What is added to the vectors of a layer: as much of its `input` as `h` [1, rows, hidden] asks
    /// for.
    pub fn forward(&self, h: &Array, input: &Array) -> Result<Array> {
        let asked = self.per_layer_input_gate.forward(h)?;
        let given = self.ops.glu(&asked, input, Activation::GeluTanh)?;
        self.post_per_layer_input_norm.forward(&self.per_layer_projection.forward(&given)?)
    }
}
