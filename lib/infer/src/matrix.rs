//! A matrix of weights in the form that the checkpoint and the device call for.

use mlx_rs::error::Result;
use mlx_rs::ops::dequantize;
use mlx_rs::{Array, Dtype};

use crate::kernels::Kernels;
use crate::quantization::Entry;
use crate::weights::{Cursor, Tensor};

/// Bits of a quantised weight that MLX knows.
const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
/// Weights that can share a scale.
const GROUPS: [usize; 3] = [32, 64, 128];

/// [outs, ins] weights: plain, or packed a few bits each.
pub enum Matrix {
    /// As they are.
    Dense(Array),
    /// Packed a few bits each.
    Quantized(Packed, &'static Kernels),
}

/// Weights packed `bits` at a time, with a scale and a bias for each `group_size` of a row.
pub struct Packed {
    pub weight: Array,
    pub scales: Array,
    pub biases: Array,
    pub group_size: i32,
    pub bits: i32,
}

impl Matrix {
    /// The matrix at `w`. Errors name the tensor that is missing, of another shape or type.
    pub fn load(w: &mut Cursor, outs: usize, ins: usize) -> mlxk_core::Result<Matrix> {
        let Some(stated) = w.quantized() else {
            return Ok(Matrix::Dense(w.floats("weight", &[outs, ins])?));
        };
        Ok(Matrix::Quantized(Packed::load(w, stated, outs, ins)?, w.kernels()))
    }

    /// `x W.T`: [.., ins] to [.., outs].
    pub fn times(&self, x: &Array) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => x.matmul(weight.transpose()?),
            Matrix::Quantized(packed, kernels) => (kernels.product)(packed, x),
        }
    }

    /// The rows `ids` [..], as [.., ins].
    pub fn rows(&self, ids: &Array) -> Result<Array> {
        match self {
            Matrix::Dense(weight) => weight.take_axis(ids, 0),
            Matrix::Quantized(packed, _) => packed.rows(ids),
        }
    }
}

impl Packed {
    fn load(w: &mut Cursor, stated: Entry, outs: usize, ins: usize) -> mlxk_core::Result<Packed> {
        let weight = w.take("weight")?;
        let bits = bits(w, &weight, ins)?;
        w.expect("weight", &weight, &[Dtype::Uint32], &[outs, ins * bits / 32])?;
        let group_size = group_size(w, ins)?;
        agree(w, stated, group_size, bits)?;
        let scales = w.floats("scales", &[outs, ins / group_size])?;
        let biases = w.floats("biases", &[outs, ins / group_size])?;
        let (group_size, bits) = (group_size as i32, bits as i32);
        Ok(Packed { weight: weight.array(), scales, biases, group_size, bits })
    }

    fn rows(&self, ids: &Array) -> Result<Array> {
        let Packed { weight, scales, biases, group_size, bits } = self;
        let [weight, scales, biases] = [weight, scales, biases].map(|all| all.take_axis(ids, 0));
        dequantize(weight?, scales?, &biases?, *group_size, *bits)
    }
}

/// How many bits a weight has, by the length of a packed row.
fn bits(w: &Cursor, weight: &Tensor, ins: usize) -> mlxk_core::Result<usize> {
    let packed = weight.shape.last().copied().unwrap_or_default() * 32;
    BITS.into_iter().find(|bits| ins * bits == packed && weight.dtype == Dtype::Uint32).ok_or_else(
        || {
            let (shape, dtype) = (&weight.shape, weight.dtype);
            w.invalid(
                "weight",
                format!("expected rows of {ins} quantised weights, found {dtype:?} {shape:?}"),
            )
        },
    )
}

/// How many weights share a scale, by the length of a row of scales.
fn group_size(w: &mut Cursor, ins: usize) -> mlxk_core::Result<usize> {
    let shape = w.shape("scales")?;
    let groups = shape.last().copied().unwrap_or_default();
    GROUPS.into_iter().find(|size| groups * size == ins).ok_or_else(|| {
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
        Entry::Quantized { group_size: g, bits: b } if other(g, group_size) || other(b, bits) => {
            let message = format!(
                "packed in {bits} bits and groups of {group_size}, which is not what config.json says"
            );
            Err(w.invalid("weight", message))
        }
        _ => Ok(()),
    }
}
