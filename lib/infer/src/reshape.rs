//! Tensors cut and turned while they are still bytes, so that checkpoints of other forms become what
//! the layers expect.

use std::iter;
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
        _ => owned(all.chunks_exact(part).map(|part| &part[within.clone()]))?,
    };
    let mut shape = tensor.shape.clone();
    shape[0] = repeats * range.len();
    Ok(Tensor { dtype: tensor.dtype, shape, bytes })
}

/// Tensors of one type and shape as one, along a new first axis.
pub fn stacked(parts: &[Tensor]) -> Result<Tensor> {
    let dtype = parts.first().map_or(Dtype::Uint8, |part| part.dtype);
    let shape = parts.first().map_or(Vec::new(), |part| part.shape.clone());
    let bytes = owned(parts.iter().map(|part| part.bytes.as_slice()))?;
    Ok(Tensor { dtype, shape: [&[parts.len()], shape.as_slice()].concat(), bytes })
}

/// The transpose of a matrix, or of each of several.
pub fn transposed(tensor: &Tensor) -> Result<Tensor> {
    let &[ref count @ .., rows, columns] = tensor.shape.as_slice() else {
        let message = format!("expected a matrix, found shape {:?}", tensor.shape);
        return Err(Error::new(Kind::InvalidModel, "", message));
    };
    let all = tensor.bytes.as_slice();
    let count_all: usize = count.iter().product();
    let size = all.len() / (count_all * rows * columns).max(1);
    let element = |i: usize| &all[i * size..][..size];
    let order = (0..count_all).flat_map(|n| {
        (0..columns).flat_map(move |c| (0..rows).map(move |r| (n * rows + r) * columns + c))
    });
    let bytes = owned(order.map(element))?;
    Ok(Tensor { dtype: tensor.dtype, shape: [count, &[columns, rows]].concat(), bytes })
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
    let words: Vec<u8> = (0..4)
        .flat_map(|quarter| {
            bytes.chunks_exact(16).flat_map(move |codes| word(codes, quarter).to_le_bytes())
        })
        .collect();
    let scale_bytes = scale.bytes.as_slice();
    let mut negative = scale_bytes.to_vec();
    if let Some(last) = negative.last_mut() {
        *last ^= 0x80;
    }
    let groups = 4 * rows * ins / group;
    let each = |bytes: &[u8]| owned(iter::repeat_n(bytes, groups));
    let of = |dtype, columns, bytes| Tensor { dtype, shape: vec![4 * rows, columns], bytes };
    Ok([
        of(Dtype::Uint32, ins / 16, owned(iter::once(words.as_slice()))?),
        of(scale.dtype, ins / group, each(scale_bytes)?),
        of(scale.dtype, ins / group, each(&negative)?),
    ])
}

/// Bytes in memory of their own.
fn owned<'a>(pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Bytes> {
    let length = pieces.clone().map(<[u8]>::len).sum();
    let mut memory = MmapMut::map_anon(usize::max(length, 1))
        .map_err(|e| Error::new(Kind::InsufficientMemory, "weights", e.to_string()))?;
    let mut rest = &mut memory[..];
    for piece in pieces {
        let (start, after) = rest.split_at_mut(piece.len());
        start.copy_from_slice(piece);
        rest = after;
    }
    Ok(Bytes { file: Arc::new(memory), range: 0..length })
}
