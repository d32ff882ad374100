//! The steps of a layer on a CPU, each done when it is called.
//!
//! MLX queues every operation for another thread; on a CPU, with the short rows of decoding, that
//! takes longer than the operations do.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use mlx_rs::error::{AsSliceError, Exception, Result};
use mlx_rs::{Array, Dtype};
use mlxk_core::Packing;
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
        (Packing::Mxfp4, _) => Scales::Mxfp4(codes()?),
        (Packing::Nvfp4, _) => Scales::Nvfp4(codes()?),
        (Packing::Mxfp8, _) => Scales::Mxfp8(codes()?),
        (Packing::Affine, Some(biases)) => Scales::Affine(floats(&w.scales)?, floats(biases)?),
        (Packing::Affine, None) => return Err(Exception::custom("affine weights without biases")),
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
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use serde_json::json;

    use super::*;
    use crate::kernels::{CPU, MLX};
    use crate::rope::Rope;

    /// Numbers around zero.
    fn some(shape: &[i32]) -> Array {
        crate::mlx::noise(shape, 7)
    }

    #[track_caller]
    fn alike(a: Array, b: Array) {
        assert_eq!((a.shape(), a.dtype()), (b.shape(), b.dtype()));
        let apart = a.subtract(&b).unwrap().abs().unwrap().max(None).unwrap();
        let largest = b.abs().unwrap().max(None).unwrap();
        assert!(apart.item_exact::<f32>() <= 1e-5 * largest.item_exact::<f32>(), "{a} {b}");
    }

    /// A row, a few, and more than one core is asked to do.
    const LENGTHS: [i32; 3] = [1, 7, 300];

    /// Weights of any codes but those of no number, with scales around one.
    fn any(packing: Packing, bits: i32, group_size: i32) -> Weights {
        let random = |shape: &[i32]| -> Vec<u32> {
            let word = |n: i32| (n as u32 + 1).wrapping_mul(2_654_435_761).rotate_left(13);
            (0..shape.iter().product()).map(word).collect()
        };
        let mask = if packing == Packing::Mxfp8 { 0xbfbf_bfbf } else { u32::MAX };
        let shape = [96, 256 * bits / 32];
        let weight: Vec<u32> = random(&shape).iter().map(|word| word & mask).collect();
        let weight = Array::from_slice(&weight, &shape);
        let groups = [96, 256 / group_size];
        let few: Vec<u8> = random(&groups).iter().map(|word| (word % 16) as u8).collect();
        let powers: Vec<u8> = few.iter().map(|scale| scale + 120).collect();
        let scales = match packing {
            Packing::Affine => some(&groups),
            Packing::Nvfp4 => Array::from_slice(&few, &groups),
            _ => Array::from_slice(&powers, &groups),
        };
        let biases = (packing == Packing::Affine).then(|| some(&groups));
        Weights::Packed(Packed { weight, scales, biases, group_size, bits, packing })
    }

    #[test]
    fn products_and_rows_are_those_of_mlx() {
        for packing in Packing::ALL {
            for (bits, group_size) in packing.forms() {
                let w = any(packing, bits as i32, group_size as i32);
                for length in LENGTHS {
                    let x = some(&[1, length, 256]);
                    alike((CPU.product)(&w, &x).unwrap(), (MLX.product)(&w, &x).unwrap());
                }
                let ids = Array::from_slice(&[95u32, 0, 17], &[1, 3]);
                let theirs = (MLX.rows)(&w, &ids).unwrap().as_dtype(Dtype::Float32).unwrap();
                alike((CPU.rows)(&w, &ids).unwrap(), theirs);
            }
        }
    }

    #[test]
    fn floats_of_16_bits_are_those_that_they_widen_to() {
        for dtype in [Dtype::Float16, Dtype::Bfloat16, Dtype::Float32] {
            let weight = some(&[96, 200]).as_dtype(dtype).unwrap();
            let wide = Weights::Dense(weight.as_dtype(Dtype::Float32).unwrap());
            let weights = Weights::Dense(weight);
            for length in LENGTHS {
                let x = some(&[1, length, 200]);
                alike((CPU.product)(&weights, &x).unwrap(), (MLX.product)(&wide, &x).unwrap());
            }
            let ids = Array::from_slice(&[95u32, 0, 17], &[1, 3]);
            alike((CPU.rows)(&weights, &ids).unwrap(), (MLX.rows)(&wide, &ids).unwrap());
        }
    }

    #[test]
    fn a_row_that_is_not_there_is_an_error() {
        let w = any(Packing::Mxfp4, 4, 32);
        assert!((CPU.rows)(&w, &Array::from_slice(&[96u32], &[1, 1])).is_err());
    }

    #[test]
    fn norms_sums_and_gates_are_those_of_mlx() {
        for length in LENGTHS {
            let (x, y) = (some(&[1, length, 256]), some(&[1, length, 256]).square().unwrap());
            for (centred, bias) in [(false, None), (true, None), (true, Some(some(&[256])))] {
                let scale = Scale { weight: Some(some(&[256])), bias, eps: 1e-3, centred };
                alike((CPU.norm)(&x, &scale).unwrap(), (MLX.norm)(&x, &scale).unwrap());
            }
            alike((CPU.add)(&x, &y).unwrap(), (MLX.add)(&x, &y).unwrap());
            for activation in [
                Activation::Silu,
                Activation::Gelu,
                Activation::GeluTanh,
                Activation::ReluSquared,
                Activation::ClippedSwish { alpha: 1.702, limit: 1.0 },
                Activation::Xielu { positive: 0.7, negative: 1.3, beta: 0.5, eps: -1e-6 },
            ] {
                let [ours, theirs] = [&CPU, &MLX].map(|k| (k.gate)(&x, &y, activation).unwrap());
                alike(ours, theirs);
                let [ours, theirs] = [&CPU, &MLX].map(|k| (k.activate)(&x, activation).unwrap());
                alike(ours, theirs);
            }
            alike((CPU.multiply)(&x, &y).unwrap(), (MLX.multiply)(&x, &y).unwrap());
            let [ours, theirs] = [&CPU, &MLX].map(|k| (k.split)(&x, &[1, 250, 5]).unwrap());
            ours.into_iter().zip(theirs).for_each(|(a, b)| alike(a, b));
        }
    }

    #[test]
    fn heads_are_those_of_mlx_in_every_kind_of_rotation() {
        let scale = |shape: &[i32], centred| Scale {
            weight: Some(some(shape)),
            bias: None,
            eps: 1e-5,
            centred,
        };
        let norms = [scale(&[64], false), scale(&[64], true), scale(&[3, 64], true)];
        for (dims, traditional, scaling) in [
            (64, false, json!({})),
            (64, true, json!({})),
            (32, false, json!({"type": "linear", "factor": 3.0})),
            (64, false, json!({"type": "dynamic", "factor": 3.0})),
            (
                64,
                false,
                json!({"type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}),
            ),
            (
                48,
                false,
                json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}),
            ),
            (
                64,
                false,
                json!({"type": "longrope", "original_max_position_embeddings": 64,
                    "long_factor": (0..32).map(|i| 1.0 + f64::from(i) / 8.0).collect::<Vec<_>>()}),
            ),
            (64, false, json!({"type": "proportional", "partial_rotary_factor": 0.25})),
        ] {
            let scaling_given = serde_json::from_value(scaling.clone()).unwrap();
            let rope = Rope::new(dims, traditional, 1e4, Some(100), Some(&scaling_given)).unwrap();
            for (length, offset) in [(1, 0), (1, 250), (7, 90), (300, 5)] {
                let x = some(&[1, length, 3 * 64]);
                let norms = [None].into_iter().chain(norms.iter().map(Some));
                for (norm, rotated_first) in norms.flat_map(|n| [(n, false), (n, true)]) {
                    let rope = Some((&rope, offset));
                    let heads = Heads { size: 64, norm, rotated_first, rope };
                    let [ours, theirs] = [&CPU, &MLX].map(|k| (k.heads)(&x, &heads).unwrap());
                    assert_eq!(ours.shape(), theirs.shape());
                    let apart = ours.subtract(&theirs).unwrap().abs().unwrap().max(None).unwrap();
                    let apart = apart.item_exact::<f32>();
                    assert!(apart < 1e-3, "{scaling}, {length} from {offset}: {apart} apart");
                }
            }
        }
    }
}
