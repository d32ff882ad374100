//! Tensors cut and turned while they are still bytes, so that checkpoints of other forms become what
//! the layers expect.

use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;
use mlxk_core::{Error, Kind, Result};

use crate::weights::{Bytes, Tensor};

/// The rows of `tensor` that belong to one of several layers fused into it: its rows come in
/// `repeats` equal parts, in each of which `range` is taken. One part is not copied.
pub fn rows(tensor: &Tensor, repeats: usize, range: Range<usize>) -> Result<Tensor> {
    let all = tensor.bytes.as_slice();
    let row = all.len() / tensor.shape[0];
    let part = tensor.shape[0] / repeats * row;
    let within = range.start * row..range.end * row;
    let bytes = match repeats {
        1 => {
            let start = tensor.bytes.range.start;
            let range = start + within.start..start + within.end;
            Bytes { file: tensor.bytes.file.clone(), range }
        }
        _ => owned(all.chunks_exact(part).flat_map(|part| &part[within.clone()]).copied())?,
    };
    let mut shape = tensor.shape.clone();
    shape[0] = repeats * range.len();
    Ok(Tensor { dtype: tensor.dtype, shape, bytes })
}

/// The transpose of a matrix.
pub fn transposed(tensor: &Tensor) -> Result<Tensor> {
    let &[rows, columns] = tensor.shape.as_slice() else {
        let message = format!("expected a matrix, found shape {:?}", tensor.shape);
        return Err(Error::new(Kind::InvalidModel, "", message));
    };
    let all = tensor.bytes.as_slice();
    let size = all.len() / (rows * columns).max(1);
    let element = |i: usize| &all[i * size..][..size];
    let order = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
    let bytes = owned(order.flat_map(element).copied())?;
    Ok(Tensor { dtype: tensor.dtype, shape: vec![columns, rows], bytes })
}

/// Bytes in memory of their own.
fn owned(bytes: impl Iterator<Item = u8>) -> Result<Bytes> {
    let bytes: Vec<u8> = bytes.collect();
    let mut memory = MmapMut::map_anon(bytes.len().max(1))
        .map_err(|e| Error::new(Kind::InsufficientMemory, "weights", e.to_string()))?;
    memory[..bytes.len()].copy_from_slice(&bytes);
    Ok(Bytes { file: Arc::new(memory), range: 0..bytes.len() })
}
