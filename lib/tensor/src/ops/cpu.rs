//! The CPU backend: computes operations in float32 when they are called.
//!
//! MLX queues operations for another thread, which for the short rows of decoding on a CPU takes
//! longer than the operations themselves.

use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Dtype};

use super::activation::Activation;
use super::backend::Ops;
use super::conv1d::{self, Conv1d};
use super::gated_delta::{self, GatedDelta};
use super::gated_norm::{self, GatedNorm};
use super::moe_experts::{self, Experts};
use super::moe_route::{self, ExpertChoice, Routing};
use super::params::{AttentionParams, HeadsParams, Mask, NormParams};
use super::selective_scan::{self, SelectiveScan};
use super::ssd::{self, Ssd};
use super::weight_view::matrix;
use super::{attention, lstm, sinkhorn};
use crate::array::{elements, for_each_row, unreadable};
use crate::cache::Kv;
use crate::cpu::{self, attend as row};
use crate::positions::Positions;
use crate::weight::{Quantized, Weight};

/// The CPU backend.
pub struct Cpu;

/// The one instance of the CPU backend.
pub static CPU: Cpu = Cpu;

impl Ops for Cpu {
    fn linear(&self, w: &Weight, x: &Array) -> Result<Array> {
        let (outs, ins) = (rows_of(w), x.dim(-1) as usize);
        let rows = x.size() / ins;
        let mut y = vec![0.0; rows * outs];
        cpu::linear(elements(x)?, &matrix(w)?, rows, &mut y);
        let shape = [&x.shape()[..x.ndim() - 1], &[outs as i32]].concat();
        Ok(Array::from_slice(&y, &shape))
    }

    fn embedding(&self, w: &Weight, ids: &Array) -> Result<Array> {
        let ins = match w {
            Weight::Dense(weight) => weight.dim(-1),
            Weight::Quantized(packed) => packed.scales.dim(-1) * packed.group_size,
        };
        let (count, matrix) = (rows_of(w), matrix(w)?);
        let wanted = ids.as_dtype(Dtype::Uint32)?;
        let wanted: &[u32] = wanted.try_as_slice().map_err(unreadable)?;
        let mut y = vec![0.0; wanted.len() * ins as usize];
        for (&id, y) in wanted.iter().zip(y.chunks_exact_mut(ins as usize)) {
            if id as usize >= count {
                return Err(Exception::custom(format!("row {id} of {count}")));
            }
            cpu::decode_row(&matrix, id as usize, y);
        }
        Ok(Array::from_slice(&y, &[ids.shape(), &[ins]].concat()))
    }

    fn norm(&self, x: &Array, params: &NormParams) -> Result<Array> {
        let factors = Factors::of(params)?;
        let mut y = elements(x)?.to_vec();
        for_each_row(&mut y, x.dim(-1) as usize, |i, row| factors.normalise(i, row));
        Ok(Array::from_slice(&y, x.shape()))
    }

    fn split_heads(&self, x: &Array, params: &HeadsParams) -> Result<Array> {
        split_heads(x, params)
    }

    fn append_kv(&self, kv: &mut Kv, keys: &Array, values: &Array) -> Result<()> {
        kv.append_at_once(keys, values)
    }

    fn attend_cached(&self, queries: &Array, kv: &Kv, params: &AttentionParams) -> Result<Array> {
        attention::attend_cached(queries, kv, params)
    }

    fn attend(
        &self,
        queries: &Array,
        keys_values: [&Array; 2],
        mask: &Mask,
        params: &AttentionParams,
    ) -> Result<Array> {
        attention::attend(queries, keys_values, mask, params)
    }

    fn glu(&self, gate: &Array, up: &Array, activation: Activation) -> Result<Array> {
        let mut y = elements(gate)?.to_vec();
        let up = elements(up)?;
        let row = gate.dim(-1) as usize;
        for_each_row(&mut y, row, |i, gate| {
            if activation == Activation::Gelu {
                cpu::gelu(gate);
                gate.iter_mut().zip(&up[i * row..]).for_each(|(g, u)| *g *= u);
                return;
            }
            for (g, u) in gate.iter_mut().zip(&up[i * row..]) {
                *g = activation.glu_of(*g, *u);
            }
        });
        Ok(Array::from_slice(&y, gate.shape()))
    }

    fn activate(&self, x: &Array, activation: Activation) -> Result<Array> {
        let mut y = elements(x)?.to_vec();
        for_each_row(&mut y, x.dim(-1) as usize, |_, row| match activation {
            Activation::Gelu => cpu::gelu(row),
            _ => row.iter_mut().for_each(|x| *x = activation.of(*x)),
        });
        Ok(Array::from_slice(&y, x.shape()))
    }

    fn add(&self, a: &Array, b: &Array) -> Result<Array> {
        let sum: Vec<f32> = elements(a)?.iter().zip(elements(b)?).map(|(a, b)| a + b).collect();
        Ok(Array::from_slice(&sum, a.shape()))
    }

    fn multiply(&self, a: &Array, b: &Array) -> Result<Array> {
        let y: Vec<f32> = elements(a)?.iter().zip(elements(b)?).map(|(a, b)| a * b).collect();
        Ok(Array::from_slice(&y, a.shape()))
    }

    fn split(&self, x: &Array, sizes: &[i32]) -> Result<Vec<Array>> {
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

    fn conv1d(&self, conv: &Conv1d, x: &Array, tail: &mut Option<Array>) -> Result<Array> {
        conv1d::cpu(conv, x, tail)
    }

    fn ssd(&self, ssd: &Ssd, inputs: [&Array; 4], state: &mut Option<Array>) -> Result<Array> {
        ssd::cpu(ssd, inputs, state)
    }

    fn selective_scan(
        &self,
        scan: &SelectiveScan,
        inputs: [&Array; 4],
        state: &mut Option<Array>,
    ) -> Result<Array> {
        selective_scan::cpu(scan, inputs, state)
    }

    fn gated_delta(
        &self,
        rule: &GatedDelta,
        inputs: [&Array; 3],
        state: &mut Option<Array>,
    ) -> Result<Array> {
        gated_delta::cpu(rule, inputs, state)
    }

    fn gated_norm(&self, norm: &GatedNorm, x: &Array, gate: &Array) -> Result<Array> {
        gated_norm::cpu(norm, x, gate)
    }

    fn moe_route(
        &self,
        routing: &Routing,
        logits: &Array,
        correction: Option<&Array>,
    ) -> Result<ExpertChoice> {
        moe_route::cpu(routing, logits, correction)
    }

    fn moe_experts(&self, experts: &Experts, x: &Array, choice: &ExpertChoice) -> Result<Array> {
        moe_experts::cpu(experts, x, choice)
    }

    fn lstm(&self, gates: &Array, cell: Option<&Array>) -> Result<[Array; 2]> {
        lstm::cpu(gates, cell)
    }

    fn sinkhorn(&self, matrices: &Array, rounds: usize, eps: f32) -> Result<Array> {
        sinkhorn::cpu(matrices, rounds, eps)
    }
}

/// Splits [1, length, heads * size] into heads [1, heads, length, size].
fn split_heads(x: &Array, heads: &HeadsParams) -> Result<Array> {
    let (length, size) = (x.dim(1) as usize, heads.size as usize);
    let all = elements(x)?;
    let row = x.dim(2) as usize;
    let (norm, rotated_first) = (heads.norm.map(Factors::of).transpose()?, heads.rotated_first);
    if let Some((_, Positions::Rows(rows))) = heads.rope
        && rows.len() != length
    {
        return Err(Exception::custom(format!("{} positions of {length} rows", rows.len())));
    }
    let turns = heads.rope.map(|(rope, positions)| rope.turns(positions, length));
    let turn = |head: &mut [f32], position| {
        if let Some(turns) = &turns {
            turns.turn(head, position);
        }
    };
    let mut y = vec![0.0; all.len()];
    for_each_row(&mut y, size, |i, head| {
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

/// Rows of a weight matrix, its outputs.
fn rows_of(w: &Weight) -> usize {
    let (Weight::Dense(weight) | Weight::Quantized(Quantized { weight, .. })) = w;
    weight.dim(0) as usize
}

/// Parameters of a norm as slices.
struct Factors<'a> {
    /// Weights of a row, `[size]` or [heads, size].
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f32,
    centred: bool,
}

impl<'a> Factors<'a> {
    fn of(scale: &'a NormParams) -> Result<Factors<'a>> {
        let NormParams { weight, bias, eps, centred } = scale;
        let weight = weight.as_ref().map(elements).transpose()?;
        let bias = bias.as_ref().map(elements).transpose()?;
        Ok(Factors { weight, bias, eps: *eps, centred: *centred })
    }

    /// Normalises a row of head `head` in place.
    fn normalise(&self, head: usize, row: &mut [f32]) {
        if self.centred {
            let mean = row::sum(row) / row.len() as f32;
            row.iter_mut().for_each(|x| *x -= mean);
        }
        let squares = row::squares(row);
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

#[cfg(test)]
mod tests;
