//! Alternating updates (AltUp, arXiv 2301.13310) of Gemma 3n: several streams of vectors, of which
//! a layer computes one and predicts the others.

use mlx_rs::error::Result;
use mlx_rs::ops::{clip, concatenate, stack, tanh};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::mlx;

use super::linear::Linear;
use super::norm::{Norm, NormArch};
use crate::checkpoint::cursor::Cursor;

/// AltUp of one layer: predicts the streams after the layer, and corrects the prediction by the
/// layer's output. Streams are [rows, streams, hidden].
pub struct AltUp {
    /// Correction coefficients, [streams, streams].
    correction_coefs: Array,
    /// Prediction coefficients, [streams * streams, streams].
    prediction_coefs: Array,
    modality_router: Linear,
    router_norm: Norm,
    correct_output_scale: Array,
    sizes: AltUpSizes,
}

/// Parameters of AltUp that its weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct AltUpSizes {
    /// Elements of a stream's vector (`hidden_size`).
    pub hidden: usize,
    /// Streams of vectors that run beside each other (`altup_num_inputs`).
    pub streams: usize,
    /// Index of the stream that layers compute (`altup_active_idx`).
    pub active: usize,
    /// Largest magnitude of a coefficient (`altup_coef_clip`).
    pub clip: Option<f32>,
    /// True if the per-layer input gate gets the active stream scaled (`altup_correct_scale`).
    pub scale: bool,
}

impl AltUp {
    /// Loads the tensors at `w`. Errors name a tensor that is missing or of another shape.
    pub fn load(w: &mut Cursor, sizes: AltUpSizes, norm: NormArch) -> mlxk_core::Result<AltUp> {
        let AltUpSizes { hidden, streams, .. } = sizes;
        let mut coefs = |name: &str, outs| {
            let coefs = w.at(name).floats("weight", &[outs, streams])?;
            clipped(&coefs, sizes.clip).map_err(mlx::failed)
        };
        let prediction_coefs = coefs("prediction_coefs", streams * streams)?;
        let correction_coefs = coefs("correction_coefs", streams)?;
        Ok(AltUp {
            prediction_coefs,
            correction_coefs,
            modality_router: Linear::load(w, "modality_router", streams, hidden)?,
            router_norm: norm.load(w, "router_norm", hidden)?,
            correct_output_scale: w.floats("correct_output_scale", &[hidden])?,
            sizes,
        })
    }

    /// Active stream, [1, rows, hidden].
    pub fn active(&self, streams: &Array) -> Result<Array> {
        let active = self.sizes.active as i32;
        mlx::columns(streams, active..active + 1)?.swap_axes(0, 1)?.contiguous()
    }

    /// Predicted streams after the layer.
    pub fn predict(&self, streams: &Array) -> Result<Array> {
        let (rows, n) = (streams.dim(0), streams.dim(1));
        let modalities = self.modalities(&self.active(streams)?)?;
        let coefs = modalities.matmul(self.prediction_coefs.transpose()?)?;
        let wide = streams.as_dtype(Dtype::Float32)?;
        let change = coefs.reshape(&[rows, n, n])?.matmul(&wide)?;
        wide.add(change)?.as_dtype(streams.dtype())
    }

    /// Predicted streams, corrected by the layer's output for the active stream [1, rows, hidden].
    pub fn correct(&self, predicted: &Array, activated: &Array) -> Result<Array> {
        let coefs = self.modalities(activated)?.matmul(self.correction_coefs.transpose()?)?;
        let coefs = coefs.add(Array::from_f32(1.0))?.swap_axes(0, 1)?.swap_axes(1, 2)?;
        let surprise = activated.subtract(self.active(predicted)?)?.swap_axes(0, 1)?;
        surprise.multiply(coefs)?.add(predicted)?.as_dtype(activated.dtype())
    }

    /// Input of the per-layer input gate [1, rows, hidden]: the active stream of the corrected
    /// ones, scaled if [`AltUpSizes::scale`].
    pub fn gate_input(&self, corrected: &Array) -> Result<Array> {
        let active = self.active(corrected)?;
        match self.sizes.scale {
            true => active.multiply(&self.correct_output_scale),
            false => Ok(active),
        }
    }

    /// Streams with `new` [1, rows, hidden] added to all but the first.
    pub fn add_to_rest(&self, streams: &Array, new: &Array) -> Result<Array> {
        let first = mlx::columns(streams, 0..1)?;
        let rest = mlx::columns(streams, 1..streams.dim(1))?.add(new.swap_axes(0, 1)?)?;
        concatenate(&[first, rest], 1)
    }

    /// Router's coefficients of each token [1, rows, streams], float32.
    fn modalities(&self, x: &Array) -> Result<Array> {
        let x = self.router_norm.forward(x)?;
        let x = x.multiply(mlx::number(1.0 / self.sizes.hidden as f32, &x)?)?;
        tanh(self.modality_router.forward(&x)?.as_dtype(Dtype::Float32)?)
    }
}

/// Streams [rows, streams, hidden] before the first layer: the embeddings `h` [1, rows, hidden],
/// and their projections brought to the same magnitude.
pub fn expand(h: &Array, projections: &[Linear]) -> Result<Array> {
    let target = magnitude(h)?;
    let mut streams = vec![h.clone()];
    for projection in projections {
        streams.push(with_magnitude(&projection.forward(h)?, &target)?);
    }
    stack(&streams, 2)?.squeeze_axes(&[0])
}

/// Hidden vectors [1, rows, hidden] after the last layer: the mean of the first stream and of the
/// projections of the others, brought to the same magnitude.
pub fn merge(streams: &Array, projections: &[Linear]) -> Result<Array> {
    let stream = |i: i32| mlx::columns(streams, i..i + 1)?.swap_axes(0, 1)?.contiguous();
    let first = stream(0)?;
    let target = magnitude(&first)?;
    let mut sum = first;
    for (i, projection) in (1..).zip(projections) {
        sum = sum.add(with_magnitude(&projection.forward(&stream(i)?)?, &target)?)?;
    }
    sum.multiply(mlx::number(1.0 / streams.dim(1) as f32, &sum)?)
}

/// Root mean square of each row.
fn magnitude(x: &Array) -> Result<Array> {
    x.square()?.mean_axis(-1, true)?.sqrt()
}

/// Rows of `x` scaled to the root mean square `target`.
fn with_magnitude(x: &Array, target: &Array) -> Result<Array> {
    x.multiply(target.divide(magnitude(x)?)?)
}

/// Coefficients as float32, clipped to ±`most`.
fn clipped(coefs: &Array, most: Option<f32>) -> Result<Array> {
    let coefs = coefs.as_dtype(Dtype::Float32)?;
    match most {
        Some(most) => clip(&coefs, (-most, most)),
        None => Ok(coefs),
    }
}
