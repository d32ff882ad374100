//! Rearrangement of tensors as bytes, done when their elements are read.

use std::iter;
use std::ops::Range;

use mlx_rs::Dtype;

use super::tensor::{Bytes, Tensor, size};

/// Rows of one of several layers fused in `tensor`: the rows come in `repeats` equal parts, of each
/// of which `range` is taken. A single part is not copied.
pub fn rows(tensor: &Tensor, repeats: usize, range: Range<usize>) -> Tensor {
    let mut shape = tensor.shape.clone();
    let row = shape[1..].iter().product::<usize>() * size(tensor.dtype);
    let part = shape[0] / repeats * row;
    shape[0] = repeats * range.len();
    let (whole, within) = (tensor.clone(), range.start * row..range.end * row);
    Tensor::made(tensor.dtype, shape, move || match repeats {
        1 => Ok(whole.bytes()?.part(within.clone())),
        _ => whole.read(|all| {
            Bytes::joined(all.chunks_exact(part.max(1)).map(|part| &part[within.clone()]))
        })?,
    })
}

/// Slice `range` of an axis.
pub fn part(tensor: &Tensor, axis: usize, range: Range<usize>) -> Tensor {
    let mut shape = tensor.shape.clone();
    let outer = shape[..axis].iter().product::<usize>();
    let inner = shape[axis + 1..].iter().product::<usize>();
    let flat = tensor.clone().shaped(vec![outer * shape[axis], inner]);
    shape[axis] = range.len();
    rows(&flat, outer, range).shaped(shape)
}

/// Stack of tensors of one type and shape along a new first axis.
pub fn stacked(parts: Vec<Tensor>) -> Tensor {
    let dtype = parts.first().map_or(Dtype::Uint8, |part| part.dtype);
    let shape = parts.first().map_or(Vec::new(), |part| part.shape.clone());
    Tensor::joined(dtype, [&[parts.len()], shape.as_slice()].concat(), parts)
}

/// Transpose of the last two axes; a tensor with fewer axes stays as it is.
pub fn transposed(tensor: Tensor) -> Tensor {
    let &[ref count @ .., rows, columns] = tensor.shape.as_slice() else {
        return tensor;
    };
    let shape = [count, &[columns, rows]].concat();
    let size = size(tensor.dtype);
    Tensor::made(tensor.dtype, shape, move || {
        tensor.read(|all| {
            let mut turned = Vec::with_capacity(all.len());
            for matrix in all.chunks_exact((rows * columns * size).max(1)) {
                for column in 0..columns {
                    for row in 0..rows {
                        let at = (row * columns + column) * size;
                        turned.extend_from_slice(&matrix[at..at + size]);
                    }
                }
            }
            Bytes::of(&turned)
        })?
    })
}

/// Converts BitNet's ternary weights to MLX's affine quantisation of 2 bits: codes, scales and
/// biases. BitNet packs four rows in one row of bytes: the first quarter of the rows is in the
/// lowest bits, the next quarter in the bits above. A weight is `(code - 1) * scale`.
pub fn ternary(packed: Tensor, scale: &Tensor, group: usize) -> [Tensor; 3] {
    let (rows, ins) = (packed.shape[0], packed.shape[1]);
    let codes = Tensor::made(Dtype::Uint32, vec![4 * rows, ins / 16], move || {
        packed.read(|bytes| {
            let words = (0..4).flat_map(|quarter| {
                bytes.chunks_exact(16).flat_map(move |codes| word(codes, quarter).to_le_bytes())
            });
            Bytes::of(&words.collect::<Vec<u8>>())
        })?
    });
    let each = |negative: bool| {
        let scale = scale.clone();
        Tensor::made(scale.dtype, vec![4 * rows, ins / group], move || {
            let mut scale = scale.bytes()?.as_slice().to_vec();
            if let Some(last) = scale.last_mut().filter(|_| negative) {
                *last ^= 0x80;
            }
            Bytes::joined(iter::repeat_n(scale.as_slice(), 4 * rows * ins / group))
        })
    };
    [codes, each(false), each(true)]
}

/// Sixteen codes of a quarter as one word.
fn word(codes: &[u8], quarter: usize) -> u32 {
    let code = |byte: &u8| u32::from(byte >> (2 * quarter) & 3);
    codes.iter().rev().fold(0, |word, byte| word << 2 | code(byte))
}
