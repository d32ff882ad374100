//! The module `Dense` of sentence-transformers: a linear layer and an activation for pooled
//! vectors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{maximum, tanh};
use mlxk_core::probe::sentence::{DenseActivation, DenseConfig};
use mlxk_core::tensors::Header;
use mlxk_core::{Error, Facts, Kind, regular_file};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::file::{map, place};
use crate::checkpoint::quantization::Quantization;
use crate::checkpoint::weights::{LoadOptions, Weights};
use crate::nn::linear::Linear;

/// `act(x W.T + b)`.
pub struct Dense {
    linear: Linear,
    activation: DenseActivation,
    ops: &'static dyn Ops,
    /// Number of output elements.
    pub outs: usize,
}

impl Dense {
    /// Loads the layer from its folder, for vectors of `ins` elements.
    ///
    /// # Errors
    /// If the weights are missing or of another shape, or the activation is not known.
    pub fn load(
        facts: &Facts,
        config: &DenseConfig,
        ins: usize,
        ops: &'static dyn Ops,
    ) -> mlxk_core::Result<Dense> {
        let folder = facts.path(&config.folder);
        let refused = |message: String| Error::at(Kind::InvalidModel, &folder, message);
        if config.in_features != ins {
            let message = format!("takes {} elements, and {ins} come", config.in_features);
            return Err(refused(message));
        }
        if config.use_residual {
            return Err(refused("a Dense with `use_residual` cannot run".to_owned()));
        }
        let activation =
            config.activation().ok_or_else(|| refused("its activation cannot run".to_owned()))?;
        let mut weights = weights(facts, &config.weights(), ops)?;
        let mut w = Cursor::root(&mut weights);
        if config.bias && !w.has("linear.bias") {
            return Err(refused("the tensor linear.bias is missing".to_owned()));
        }
        let linear = Linear::load(&mut w, "linear", config.out_features, ins)?;
        weights.finish()?;
        Ok(Dense { linear, activation, ops, outs: config.out_features })
    }

    /// [1, vectors, ins] to [1, vectors, outs].
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let y = self.linear.forward(x)?;
        match self.activation {
            DenseActivation::Identity => Ok(y),
            DenseActivation::Tanh => tanh(y),
            DenseActivation::Relu => maximum(&y, mlx::number(0.0, &y)?),
            DenseActivation::Gelu => self.ops.activate(&y, Activation::Gelu),
            DenseActivation::Silu => self.ops.activate(&y, Activation::Silu),
        }
    }
}

/// Tensors of a safetensors file of a model, widened to f32.
fn weights(facts: &Facts, file: &Path, ops: &'static dyn Ops) -> mlxk_core::Result<Weights> {
    let path = facts.path(file);
    let refused = |message: &str| Error::at(Kind::InvalidModel, &path, message);
    let size = facts.files.iter().find(|known| known.path == file).map(|known| known.size);
    let size = size.ok_or_else(|| refused("the file is missing"))?;
    let mut open = regular_file::open(&path).map_err(|e| Error::io(&path, e))?;
    let header = Header::read(&mut open, size).map_err(|why| refused(&why))?;
    let mapped = Arc::new(map(&path)?);
    let mut tensors = BTreeMap::new();
    for tensor in &header.tensors {
        tensors.insert(tensor.name.clone(), place(tensor, &mapped, &path)?);
    }
    let options = LoadOptions { ops, widen: true, sketch: false, part: None };
    Ok(Weights::new(tensors, Quantization::default(), options))
}
