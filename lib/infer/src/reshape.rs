//! Tensors cut and turned while they are still bytes, so that checkpoints of other forms become what
//! the layers expect.

use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;
use mlx_rs::Dtype;
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

/// Ternary weights as BitNet has them, four rows in one of bytes, as MLX's affine form of two bits:
/// codes, scales and biases. The rows of a quarter of the matrix are the lowest bits of all bytes,
/// those of the next quarter the bits above; a code less one, times `scale`, is a weight.
pub fn ternary(packed: &Tensor, scale: &Tensor, group: usize) -> Result<[Tensor; 3]> {
    let (rows, ins) = (packed.shape[0], packed.shape[1]);
    let bytes = packed.bytes.as_slice();
    let word = |codes: &[u8], quarter: usize| {
        let code = |byte: &u8| u32::from(byte >> (2 * quarter) & 3);
        codes.iter().rev().fold(0, |word, byte| word << 2 | code(byte))
    };
    let words = (0..4).flat_map(|quarter| {
        bytes.chunks_exact(16).flat_map(move |codes| word(codes, quarter).to_le_bytes())
    });
    let scale_bytes = scale.bytes.as_slice();
    let mut negative = scale_bytes.to_vec();
    if let Some(last) = negative.last_mut() {
        *last ^= 0x80;
    }
    let groups = 4 * rows * ins / group;
    let each = |bytes: &[u8]| owned(bytes.repeat(groups).into_iter());
    let of = |dtype, columns, bytes| Tensor { dtype, shape: vec![4 * rows, columns], bytes };
    Ok([
        of(Dtype::Uint32, ins / 16, owned(words)?),
        of(scale.dtype, ins / group, each(scale_bytes)?),
        of(scale.dtype, ins / group, each(&negative)?),
    ])
}

/// Bytes in memory of their own.
fn owned(bytes: impl Iterator<Item = u8>) -> Result<Bytes> {
    let bytes: Vec<u8> = bytes.collect();
    let mut memory = MmapMut::map_anon(bytes.len().max(1))
        .map_err(|e| Error::new(Kind::InsufficientMemory, "weights", e.to_string()))?;
    memory[..bytes.len()].copy_from_slice(&bytes);
    Ok(Bytes { file: Arc::new(memory), range: 0..bytes.len() })
}
