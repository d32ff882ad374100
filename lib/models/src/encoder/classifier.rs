//! Classifier of whole sequences: the head of a cross encoder, which scores pairs of texts.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{maximum, tanh};
use mlxk_core::probe::sentence::Pooling;
use mlxk_tensor::array::elements;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;

use super::pooling::pool;
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::norm::{Norm, NormArch};

/// Names and functions of a classifier.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierArch {
    /// Method that makes one vector of those of the tokens.
    pub pooling: Pooling,
    /// Layer before the last one; it comes below the prefix of the encoder if `pooled`.
    pub dense: &'static str,
    /// True if `dense` is the pooler of the encoder.
    pub pooled: bool,
    /// Activation after `dense`.
    pub activation: ClassifierActivation,
    /// Norm after the activation.
    pub norm: Option<(&'static str, NormArch)>,
    /// Last layer, whose outputs are the scores.
    pub out: &'static str,
}

/// Activation of a classifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClassifierActivation {
    /// Hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// Activation that feed-forward layers have too.
    Other(Activation),
}

impl ClassifierArch {
    /// Classifier of BERT, after the pooler.
    pub const BERT: ClassifierArch = ClassifierArch {
        pooling: Pooling::Cls,
        dense: "pooler.dense",
        pooled: true,
        activation: ClassifierActivation::Tanh,
        norm: None,
        out: "classifier",
    };

    /// Classifier of RoBERTa.
    pub const ROBERTA: ClassifierArch = ClassifierArch {
        dense: "classifier.dense",
        pooled: false,
        out: "classifier.out_proj",
        ..ClassifierArch::BERT
    };
}

/// Classifier in memory: `out(norm(act(dense(pool(h)))))`.
pub struct Classifier {
    dense: Linear,
    norm: Option<Norm>,
    out: Linear,
    arch: ClassifierArch,
    /// Number of scores of a sequence.
    pub labels: usize,
    ops: &'static dyn Ops,
}

impl Classifier {
    /// Loads the classifier at `w`, above an encoder below `prefix` with vectors of `hidden`
    /// elements; `None` if there is none.
    ///
    /// # Errors
    /// If one of its tensors is missing or of another shape.
    pub fn load(
        w: &mut Cursor,
        prefix: Option<&str>,
        hidden: usize,
        arch: &ClassifierArch,
    ) -> mlxk_core::Result<Option<Classifier>> {
        let Ok((shape, _)) = w.form(&format!("{}.weight", arch.out)) else { return Ok(None) };
        let labels = shape.first().copied().unwrap_or_default();
        let dense = match prefix.filter(|_| arch.pooled) {
            Some(prefix) => Linear::load(&mut w.at(prefix), arch.dense, hidden, hidden)?,
            None => Linear::load(w, arch.dense, hidden, hidden)?,
        };
        let norm = arch.norm.map(|(name, norm)| norm.load(w, name, hidden)).transpose()?;
        let out = Linear::load(w, arch.out, labels, hidden)?;
        Ok(Some(Classifier { dense, norm, out, arch: *arch, labels, ops: w.ops() }))
    }

    /// Scores of the sequences of `lengths` tokens, whose packed hidden states are `h` [1, rows,
    /// hidden]: `labels` of each.
    ///
    /// # Errors
    /// If MLX fails.
    pub fn forward(&self, h: &Array, lengths: &[usize]) -> Result<Vec<f32>> {
        let size = h.dim(2) as usize;
        let h = h.as_type::<f32>()?;
        let mut rest = elements(&h)?;
        let mut pooled = Vec::with_capacity(lengths.len() * size);
        for length in lengths {
            let (own, others) = rest.split_at(length * size);
            rest = others;
            pooled.extend(pool(self.arch.pooling, own, size, 0));
        }
        let x = Array::from_slice(&pooled, &[1, lengths.len() as i32, size as i32]);
        let x = self.dense.forward(&x)?;
        let x = match self.arch.activation {
            ClassifierActivation::Tanh => tanh(x)?,
            ClassifierActivation::Relu => maximum(&x, mlx::number(0.0, &x)?)?,
            ClassifierActivation::Other(activation) => self.ops.activate(&x, activation)?,
        };
        let x = match &self.norm {
            Some(norm) => norm.forward(&x)?,
            None => x,
        };
        Ok(elements(&self.out.forward(&x)?.as_type::<f32>()?)?.to_vec())
    }
}
