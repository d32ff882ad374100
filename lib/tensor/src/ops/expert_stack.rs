//! Weights of one linear layer of all experts, stacked in one array.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::gather_mm;

use super::weight_view::matrix;
use crate::array::elements;
use crate::cpu::{self, WeightView};
use crate::quantized;
#[cfg(test)]
use crate::weight::Quantized;
use crate::weight::Weight;

/// Linear layers [outs, ins], one for each expert.
pub struct ExpertStack {
    /// Weights, [experts, outs, ins].
    pub weight: Weight,
    /// Biases, [experts, outs].
    pub bias: Option<Array>,
    /// Outputs of an expert's layer.
    pub outs: usize,
    /// Inputs of an expert's layer.
    pub ins: usize,
}

impl ExpertStack {
    /// Layer of the expert of each row, in MLX: `x` [.., 1, ins] and `ids` [..] to [.., 1, outs].
    /// `sorted` promises that `ids` ascend.
    pub fn gather(&self, x: &Array, ids: &Array, sorted: bool) -> Result<Array> {
        let y = match &self.weight {
            Weight::Dense(weight) => gather_mm(x, weight.swap_axes(-1, -2)?, None, ids, sorted)?,
            Weight::Quantized(packed) => quantized::gather_matmul(packed, x, ids, sorted)?,
        };
        match &self.bias {
            Some(bias) => y.add(bias.take_axis(ids, 0)?.expand_dims(-2)?),
            None => Ok(y),
        }
    }

    /// Number of experts.
    pub fn count(&self) -> usize {
        match &self.weight {
            Weight::Dense(weight) => weight.dim(0) as usize,
            Weight::Quantized(packed) => packed.weight.dim(0) as usize,
        }
    }

    /// ExpertView of the weights in memory, for the CPU backend.
    pub fn view(&self) -> Result<ExpertView<'_>> {
        let weight = matrix(&self.weight)?;
        let bias = self.bias.as_ref().map(elements).transpose()?;
        Ok(ExpertView { weight, bias, outs: self.outs, ins: self.ins })
    }
}

/// Weights of all experts in memory.
pub struct ExpertView<'a> {
    weight: WeightView<'a>,
    bias: Option<&'a [f32]>,
    outs: usize,
    ins: usize,
}

impl ExpertView<'_> {
    /// Layer of one expert: `x` [rows, ins] to [rows, outs].
    pub fn times(&self, expert: usize, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.ins;
        let mut y = vec![0.0; rows * self.outs];
        let own = self.weight.rows(expert * self.outs, self.outs, self.ins);
        cpu::linear(x, &own, rows, &mut y);
        if let Some(bias) = self.bias {
            let bias = &bias[expert * self.outs..][..self.outs];
            for y in y.chunks_exact_mut(self.outs) {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        y
    }
}

#[cfg(test)]
impl ExpertStack {
    /// Experts with dense weights [experts, outs, ins] and biases [experts, outs].
    pub fn plain(weight: Array, bias: Option<Array>) -> ExpertStack {
        let [outs, ins] = [1, 2].map(|axis| weight.dim(axis) as usize);
        ExpertStack { weight: Weight::Dense(weight), bias, outs, ins }
    }

    /// Experts with quantised weights [experts, outs, ins] and no biases.
    pub fn packed(packed: Quantized) -> ExpertStack {
        let outs = packed.scales.dim(1) as usize;
        let ins = packed.scales.dim(2) as usize * packed.group_size as usize;
        ExpertStack { weight: Weight::Quantized(packed), bias: None, outs, ins }
    }
}
