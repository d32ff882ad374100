//! A matrix of weights in the form that the checkpoint and the device call for.

use mlx_rs::error::Result;
use mlx_rs::ops::{dequantize, quantized_matmul};
use mlx_rs::{Array, Dtype};

use crate::quantization::Entry;
use crate::weights::{Cursor, Tensor};

/// Bits of a quantised weight that MLX knows.
const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
/// Weights that can share a scale.
const GROUPS: [usize; 3] = [32, 64, 128];

/// [outs, ins] weights: plain, or packed `bits` at a time with a scale and a bias for each group.
pub enum Matrix {
    /// As they are.
    Dense(Array),
    /// For MLX's own products.
    Quantized {
        weight: Array,
        scales: Array,
        biases: Array,
        group_size: i32,
        bits: i32,
    },
}

impl Matrix {
    /// The matrix at `w`. Errors name the tensor that is missing, of another shape or type.
    pub fn load(w: &mut Cursor, outs: usize, ins: usize) -> mlxk_core::Result<Matrix> {
        let Some(stated) = w.quantized() else {
            return Ok(Matrix::Dense(w.floats("weight", &[outs, ins])?));
        };
        let weight = w.take("weight")?;
        let bits = bits(w, &weight, ins)?;
        w.expect(
            "weight",
            &weight,
            &[Dtype::Uint32],
            &[outs, ins * bits / 32],
        )?;
        let group_size = group_size(w, ins)?;
        agree(w, stated, group_size, bits)?;
        let scales = w.floats("scales", &[outs, ins / group_size])?;
        let biases = w.floats("biases", &[outs, ins / group_size])?;
        let (group_size, bits) = (group_size as i32, bits as i32);
        Ok(Matrix::Quantized {
            weight: weight.array(),
            scales,
            biases,
            group_size,
            bits,
        })
    }

    /// `x W.T`: [.., ins] to [.., outs].
    pub fn times(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => x.matmul(weight.transpose()?),
            Matrix::Quantized {
                weight,
                scales,
                biases,
                group_size,
                bits,
            } => quantized_matmul(x, weight, scales, biases, true, *group_size, *bits),
        }
    }

    /// The rows `ids` [..], as [.., ins].
    pub fn rows(&self, ids: &Array) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => weight.take_axis(ids, 0),
            Matrix::Quantized {
                weight,
                scales,
                biases,
                group_size,
                bits,
            } => {
                let biases = biases.take_axis(ids, 0)?;
                let scales = scales.take_axis(ids, 0)?;
                dequantize(
                    weight.take_axis(ids, 0)?,
                    scales,
                    &biases,
                    *group_size,
                    *bits,
                )
            }
        }
    }
}

/// How many bits a weight has, by the length of a packed row.
fn bits(w: &Cursor, weight: &Tensor, ins: usize) -> mlxk_core::Result<usize> {
    let packed = weight.shape.last().copied().unwrap_or_default() * 32;
    BITS.into_iter()
        .find(|bits| ins * bits == packed && weight.dtype == Dtype::Uint32)
        .ok_or_else(|| {
            let (shape, dtype) = (&weight.shape, weight.dtype);
            w.invalid(
                "weight",
                format!("expected rows of {ins} quantised weights, found {dtype:?} {shape:?}"),
            )
        })
}

/// How many weights share a scale, by the length of a row of scales.
fn group_size(w: &mut Cursor, ins: usize) -> mlxk_core::Result<usize> {
    let shape = w.shape("scales")?;
    let groups = shape.last().copied().unwrap_or_default();
    GROUPS
        .into_iter()
        .find(|size| groups * size == ins)
        .ok_or_else(|| {
            w.invalid(
                "scales",
                format!("expected rows of scales for {ins} weights, found shape {shape:?}"),
            )
        })
}

/// Errors if config.json states another form than the tensors show.
fn agree(w: &Cursor, stated: Entry, group_size: usize, bits: usize) -> mlxk_core::Result<()> {
    let other = |stated: Option<usize>, shown| stated.is_some_and(|n| n != shown);
    match stated {
        Entry::Quantized {
            group_size: g,
            bits: b,
        } if other(g, group_size) || other(b, bits) => {
            let message = format!(
                "packed in {bits} bits and groups of {group_size}, which is not what config.json says"
            );
            Err(w.invalid("weight", message))
        }
        _ => Ok(()),
    }
}
