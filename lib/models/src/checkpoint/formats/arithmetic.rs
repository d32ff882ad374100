//! Elementwise changes of float tensors, rounded to the type of the tensor.

use mlx_rs::Dtype;
use mlxk_core::Float;
use mlxk_tensor::floats::{self, narrow, widen};

use crate::checkpoint::tensor::{Bytes, Tensor};

/// Adds one to a vector of floats; other tensors stay unchanged.
pub fn plus_one(tensor: Tensor) -> Tensor {
    match tensor.shape.len() {
        1 => each(tensor, |_, x| x + 1.0),
        _ => tensor,
    }
}

/// Multiplies row i by `factors[i % len]`, rounded to the tensor's type; tensors that are not
/// floats stay unchanged.
pub fn times(tensor: Tensor, factors: Vec<f32>) -> Tensor {
    let row = tensor.shape[1..].iter().product::<usize>().max(1);
    let Some(float) = floats::kind(tensor.dtype) else { return tensor };
    let factors = rounded(&factors, float);
    each(tensor, move |at, x| x * factors[(at / row) % factors.len()])
}

/// Normalises the columns of a matrix of floats to length one; other tensors stay unchanged.
pub fn unit_columns(tensor: Tensor) -> Tensor {
    let (Some(float), &[_, columns]) = (floats::kind(tensor.dtype), tensor.shape.as_slice()) else {
        return tensor;
    };
    let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
    Tensor::made(dtype, shape, move || {
        let mut matrix = tensor.read(|bytes| widen(bytes, float))?;
        let mut lengths = vec![0.0_f32; columns];
        for row in matrix.chunks_exact(columns) {
            lengths.iter_mut().zip(row).for_each(|(length, x)| *length += x * x);
        }
        lengths.iter_mut().for_each(|length| *length = length.sqrt() + 1e-7);
        for row in matrix.chunks_exact_mut(columns) {
            row.iter_mut().zip(&lengths).for_each(|(x, length)| *x /= length);
        }
        Bytes::of(&narrow(&matrix, float))
    })
}

/// Casts floats to the type `dtype`; other tensors stay unchanged.
pub fn cast(tensor: Tensor, dtype: Dtype) -> Tensor {
    let (Some(from), Some(to)) = (floats::kind(tensor.dtype), floats::kind(dtype)) else {
        return tensor;
    };
    if from == to {
        return tensor;
    }
    let shape = tensor.shape.clone();
    Tensor::made(dtype, shape, move || {
        Bytes::of(&tensor.read(|bytes| narrow(&widen(bytes, from), to))?)
    })
}

/// Numbers rounded to the type `float`.
pub fn rounded(numbers: &[f32], float: Float) -> Vec<f32> {
    widen(&narrow(numbers, float), float)
}

/// Applies `change` to the index and value of each element of a float tensor.
fn each(tensor: Tensor, change: impl Fn(usize, f32) -> f32 + Send + Sync + 'static) -> Tensor {
    let Some(float) = floats::kind(tensor.dtype) else { return tensor };
    let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
    Tensor::made(dtype, shape, move || {
        let mut numbers = tensor.read(|bytes| widen(bytes, float))?;
        numbers.iter_mut().enumerate().for_each(|(at, x)| *x = change(at, *x));
        Bytes::of(&narrow(&numbers, float))
    })
}
