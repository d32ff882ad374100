//! Per-layer embeddings of Gemma 3n and Gemma 4: each layer has a token embedding of its own.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use super::linear::{Embedding, Linear};
use super::norm::{Norm, NormArch};
use crate::checkpoint::cursor::Cursor;

/// Embeddings and projection that give each layer its own input.
pub struct PerLayer {
    embed_tokens_per_layer: Embedding,
    per_layer_model_projection: Linear,
    per_layer_projection_norm: Norm,
    sizes: PerLayerSizes,
    ops: &'static dyn Ops,
}

/// Sizes of per-layer embeddings that their weights do not show.
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
    /// Loads the tensors of the model at `w`.
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

    /// Per-layer embeddings of `ids` [1, rows], [1, rows, layers * size].
    pub fn embed(&self, ids: &Array) -> Result<Array> {
        let known = ids.lt(Array::from_int(self.sizes.vocabulary as i32))?;
        let h = self.embed_tokens_per_layer.forward(&ids.multiply(known)?)?;
        h.multiply(mlx::number((self.sizes.size as f32).sqrt(), &h)?)
    }

    /// Inputs [1, rows, size] of each layer, from the per-layer embeddings `own` and the input `h`
    /// [1, rows, hidden] of the first layer.
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

/// Gate of a layer that adds its per-layer input.
pub struct PerLayerGate {
    per_layer_input_gate: Linear,
    per_layer_projection: Linear,
    post_per_layer_input_norm: Norm,
    ops: &'static dyn Ops,
}

impl PerLayerGate {
    /// Loads the tensors of the layer at `w`.
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

    /// Addition to the layer's output: `input` [1, rows, size], gated by `h` [1, rows, hidden],
    /// projected and normed.
    pub fn forward(&self, h: &Array, input: &Array) -> Result<Array> {
        let asked = self.per_layer_input_gate.forward(h)?;
        let given = self.ops.glu(&asked, input, Activation::GeluTanh)?;
        self.post_per_layer_input_norm.forward(&self.per_layer_projection.forward(&given)?)
    }
}
