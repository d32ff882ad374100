//! The steps of a layer on a CPU, each done when it is called.
//!
//! MLX queues every operation for another thread; on a CPU, with the short rows of decoding, that
//! takes longer than the operations do.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use mlx_rs::error::{AsSliceError, Exception, Result};
use mlx_rs::{Array, Dtype};
use mlxk_core::quantization::Mode;
use rayon::prelude::*;

use crate::cpu::{self, Floats, Scales, query};
use crate::kernels::{Activation, Heads, Scale};
use crate::matrix::{Packed, Weights};

/// `x W.T`.
pub fn product(w: &Weights, x: &Array) -> Result<Array> {
    let (outs, ins) = (rows_of(w), x.dim(-1) as usize);
    let rows = x.size() / ins;
    let mut y = vec![0.0; rows * outs];
    cpu::product(elements(x)?, &matrix(w)?, rows, &mut y);
    let shape = [&x.shape()[..x.ndim() - 1], &[outs as i32]].concat();
    Ok(Array::from_slice(&y, &shape))
}

/// The rows `ids` [..], as [.., ins].
pub fn rows(w: &Weights, ids: &Array) -> Result<Array> {
    let ins = match w {
        Weights::Dense(weight) => weight.dim(-1),
        Weights::Packed(packed) => packed.scales.dim(-1) * packed.group_size,
    };
    let (count, matrix) = (rows_of(w), matrix(w)?);
    let wanted = ids.as_dtype(Dtype::Uint32)?;
    let wanted: &[u32] = wanted.try_as_slice().map_err(unreadable)?;
    let mut y = vec![0.0; wanted.len() * ins as usize];
    for (&id, y) in wanted.iter().zip(y.chunks_exact_mut(ins as usize)) {
        if id as usize >= count {
            return Err(Exception::custom(format!("row {id} of {count}")));
        }
        cpu::unpack(&matrix, id as usize, y);
    }
    Ok(Array::from_slice(&y, &[ids.shape(), &[ins]].concat()))
}

fn rows_of(w: &Weights) -> usize {
    let (Weights::Dense(weight) | Weights::Packed(Packed { weight, .. })) = w;
    weight.dim(0) as usize
}

/// The weights where they lie.
pub fn matrix(w: &Weights) -> Result<cpu::Matrix<'_>> {
    let w = match w {
        Weights::Dense(weight) => return floats(weight).map(cpu::Matrix::Plain),
        Weights::Packed(packed) => packed,
    };
    let codes = || w.scales.try_as_slice().map_err(unreadable);
    let scales = match (w.packing, &w.biases) {
        (Mode::Mxfp4, _) => Scales::Mxfp4(codes()?),
        (Mode::Nvfp4, _) => Scales::Nvfp4(codes()?),
        (Mode::Mxfp8, _) => Scales::Mxfp8(codes()?),
        (Mode::Affine, Some(biases)) => Scales::Affine(floats(&w.scales)?, floats(biases)?),
        (Mode::Affine, None) => return Err(Exception::custom("affine weights without biases")),
    };
    let weight = w.weight.try_as_slice().map_err(unreadable)?;
    let (group_size, bits) = (w.group_size as usize, w.bits as usize);
    Ok(cpu::Matrix::Packed(cpu::Packed { weight, scales, group_size, bits }))
}

/// Floats of any type where they lie.
fn floats(array: &Array) -> Result<Floats<'_>> {
    Ok(match array.dtype() {
        Dtype::Float16 => {
            Floats::F16(array.try_as_slice::<f16>().map_err(unreadable)?.reinterpret_cast())
        }
        Dtype::Bfloat16 => {
            Floats::Bf16(array.try_as_slice::<bf16>().map_err(unreadable)?.reinterpret_cast())
        }
        _ => Floats::F32(elements(array)?),
    })
}

/// The last axis normalised.
pub fn norm(x: &Array, scale: &Scale) -> Result<Array> {
    let scale = Factors::of(scale)?;
    let mut y = elements(x)?.to_vec();
    each_row(&mut y, x.dim(-1) as usize, |i, row| scale.normalise(i, row));
    Ok(Array::from_slice(&y, x.shape()))
}

/// [1, length, heads * size] to [1, heads, length, size].
pub fn heads(x: &Array, heads: &Heads) -> Result<Array> {
    let (length, size) = (x.dim(1) as usize, heads.size as usize);
    let all = elements(x)?;
    let row = x.dim(2) as usize;
    let (norm, rotated_first) = (heads.norm.map(Factors::of).transpose()?, heads.rotated_first);
    let turns = heads.rope.map(|(rope, offset)| rope.turns(offset, length));
    let turn = |head: &mut [f32], position| {
        if let Some(turns) = &turns {
            turns.turn(head, position);
        }
    };
    let mut y = vec![0.0; all.len()];
    each_row(&mut y, size, |i, head| {
        let (head_index, position) = (i / length, i % length);
        head.copy_from_slice(&all[position * row + head_index * size..][..size]);
        if rotated_first {
            turn(head, position);
        }
        if let Some(norm) = &norm {
            norm.normalise(head_index, head);
        }
        if !rotated_first {
            turn(head, position);
        }
    });
    Ok(Array::from_slice(&y, &[1, (row / size) as i32, length as i32, size as i32]))
}

/// `activation(gate) * up`.
pub fn gate(gate: &Array, up: &Array, activation: Activation) -> Result<Array> {
    let mut y = elements(gate)?.to_vec();
    let up = elements(up)?;
    let row = gate.dim(-1) as usize;
    each_row(&mut y, row, |i, gate| {
        for (g, u) in gate.iter_mut().zip(&up[i * row..]) {
            *g = activation.gated_of(*g, *u);
        }
    });
    Ok(Array::from_slice(&y, gate.shape()))
}

/// `activation(x)`.
pub fn activate(x: &Array, activation: Activation) -> Result<Array> {
    let mut y = elements(x)?.to_vec();
    each_row(&mut y, x.dim(-1) as usize, |_, row| {
        row.iter_mut().for_each(|x| *x = activation.of(*x));
    });
    Ok(Array::from_slice(&y, x.shape()))
}

/// The sum of two arrays of one shape.
pub fn add(a: &Array, b: &Array) -> Result<Array> {
    let sum: Vec<f32> = elements(a)?.iter().zip(elements(b)?).map(|(a, b)| a + b).collect();
    Ok(Array::from_slice(&sum, a.shape()))
}

/// The product of two arrays of one shape, element by element.
pub fn multiply(a: &Array, b: &Array) -> Result<Array> {
    let y: Vec<f32> = elements(a)?.iter().zip(elements(b)?).map(|(a, b)| a * b).collect();
    Ok(Array::from_slice(&y, a.shape()))
}

/// The last axis in parts of these sizes.
pub fn split(x: &Array, sizes: &[i32]) -> Result<Vec<Array>> {
    let (all, row) = (elements(x)?, x.dim(-1) as usize);
    let mut first = 0;
    let part = |&size: &i32| {
        let range = first..first + size as usize;
        first = range.end;
        let part: Vec<f32> =
            all.chunks_exact(row).flat_map(|row| &row[range.clone()]).copied().collect();
        let shape = [&x.shape()[..x.ndim() - 1], &[size]].concat();
        Array::from_slice(&part, &shape)
    };
    Ok(sizes.iter().map(part).collect())
}

/// `x[:, range]` of x [1, rows, ..].
pub fn columns(x: &Array, range: Range<i32>) -> Result<Array> {
    let row: i32 = x.shape()[2..].iter().product();
    let part = &elements(x)?[(range.start * row) as usize..(range.end * row) as usize];
    Ok(Array::from_slice(part, &[&[1, range.len() as i32], &x.shape()[2..]].concat()))
}

/// Arrays [1, rows, ..] one after another.
pub fn joined(parts: &[Array]) -> Result<Array> {
    let all: Vec<&[f32]> = parts.iter().map(elements).collect::<Result<_>>()?;
    let rows = parts.iter().map(|part| part.dim(1)).sum();
    let rest = parts.first().map_or(&[][..], |first| &first.shape()[2..]);
    Ok(Array::from_slice(&all.concat(), &[&[1, rows], rest].concat()))
}

/// What a norm multiplies with, at hand.
struct Factors<'a> {
    /// For all rows alike, or for each of some heads in turn.
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f32,
    centred: bool,
}

impl<'a> Factors<'a> {
    fn of(scale: &'a Scale) -> Result<Factors<'a>> {
        let Scale { weight, bias, eps, centred } = scale;
        let weight = weight.as_ref().map(elements).transpose()?;
        let bias = bias.as_ref().map(elements).transpose()?;
        Ok(Factors { weight, bias, eps: *eps, centred: *centred })
    }

    /// Normalises a row of head `head`.
    fn normalise(&self, head: usize, row: &mut [f32]) {
        if self.centred {
            let mean = query::sum(row) / row.len() as f32;
            row.iter_mut().for_each(|x| *x -= mean);
        }
        let squares = query::squares(row);
        let factor = 1.0 / (squares / row.len() as f32 + self.eps).sqrt();
        match self.weight {
            Some(weight) => {
                let weight = &weight[head * row.len() % weight.len()..];
                row.iter_mut().zip(weight).for_each(|(x, w)| *x *= factor * w);
            }
            None => row.iter_mut().for_each(|x| *x *= factor),
        }
        if let Some(bias) = self.bias {
            row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
        }
    }
}

/// Calls `work` with each row of `size` and its number; many rows on all cores.
pub fn each_row(rows: &mut [f32], size: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    /// Fewer elements take less time than it takes to wake another core.
    const MANY: usize = 1 << 15;
    if rows.len() < MANY {
        rows.chunks_exact_mut(size).enumerate().for_each(|(i, row)| work(i, row));
    } else {
        rows.par_chunks_exact_mut(size).enumerate().for_each(|(i, row)| work(i, row));
    }
}

/// The elements of `array`, once they are computed.
pub fn elements(array: &Array) -> Result<&[f32]> {
    array.try_as_slice().map_err(unreadable)
}

fn unreadable(error: AsSliceError) -> Exception {
    Exception::custom(error.to_string())
}

#[cfg(test)]
mod tests;
