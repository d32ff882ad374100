//! The matrices of all experts in one, and their biases.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::gather_mm;

use super::weight_view::matrix;
use crate::array::elements;
use crate::cpu;
use crate::quantized;
#[cfg(test)]
use crate::weight::Quantized;
use crate::weight::Weight;

/// A matrix [outs, ins] for each expert, plain or packed.
pub struct ExpertStack {
    /// Weight, [experts, outs, ins].
    pub weight: Weight,
    /// Biases [experts, outs], if the checkpoint has them.
    pub bias: Option<Array>,
    /// Outputs of an expert.
    pub outs: usize,
    /// Inputs of an expert.
    pub ins: usize,
}

impl ExpertStack {
    /// `x W.T + b` with the expert of each row: `x` [.., 1, ins] with `ids` [..] to [.., 1, outs].
    pub fn gather(&self, x: &Array, ids: &Array, sorted: bool) -> Result<Array> {
        let y = match &self.weight {
            Weight::Dense(weight) => gather_mm(x, weight.swap_axes(-1, -2)?, None, ids, sorted)?,
            Weight::Quantized(packed) => quantized::gathered(packed, x, ids, sorted)?,
        };
        match &self.bias {
            Some(bias) => y.add(bias.take_axis(ids, 0)?.expand_dims(-2)?),
            None => Ok(y),
        }
    }

    /// How many experts there are.
    pub fn count(&self) -> usize {
        match &self.weight {
            Weight::Dense(weight) => weight.dim(0) as usize,
            Weight::Quantized(packed) => packed.weight.dim(0) as usize,
        }
    }

    /// The matrices where they lie.
    pub fn view(&self) -> Result<View<'_>> {
        let weight = matrix(&self.weight)?;
        let bias = self.bias.as_ref().map(elements).transpose()?;
        Ok(View { weight, bias, outs: self.outs, ins: self.ins })
    }
}

/// The matrices of all experts in memory.
pub struct View<'a> {
    weight: cpu::Matrix<'a>,
    bias: Option<&'a [f32]>,
    outs: usize,
    ins: usize,
}

impl View<'_> {
    /// `x W.T + b` of one expert, for `x` [rows, ins]; [rows, outs].
    pub fn times(&self, expert: usize, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.ins;
        let mut y = vec![0.0; rows * self.outs];
        let own = self.weight.rows(expert * self.outs, self.outs, self.ins);
        cpu::product(x, &own, rows, &mut y);
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
