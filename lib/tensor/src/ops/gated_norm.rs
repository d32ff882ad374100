//! Gated RMS norm of a recurrent layer's output.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::fast::rms_norm;
use mlx_rs::ops::sigmoid;

use super::scan::{dot, wide};
use crate::array::{elements, for_each_row};

/// RMS norm of each group of elements, and a gate: the product with `silu(gate)`.
pub struct GatedNorm {
    /// Weights of a group that all groups share, `[group]`, or of all groups, `[size]`.
    pub weight: Array,
    /// Epsilon, added to the mean square.
    pub eps: f32,
    /// Elements of a group.
    pub group: usize,
    /// Order of gate and norm.
    pub order: Order,
}

/// Order of gate and norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Gate first: the norm applies to gated elements.
    Gate,
    /// Norm first.
    Norm,
}

/// Gated norm in MLX.
pub fn mlx(norm: &GatedNorm, x: &Array, gate: &Array) -> Result<Array> {
    let gate = wide(gate)?;
    let gate = gate.multiply(sigmoid(&gate)?)?;
    let mut y = wide(x)?;
    if norm.order == Order::Gate {
        y = y.multiply(&gate)?;
    }
    let shape = [1, x.dim(1), -1, norm.group as i32];
    y = rms_norm(y.reshape(&shape)?, None, norm.eps)?;
    y = y.multiply(wide(&norm.weight)?.reshape(&[-1, norm.group as i32])?)?.reshape(x.shape())?;
    if norm.order == Order::Norm {
        y = y.multiply(&gate)?;
    }
    y.as_dtype(x.dtype())
}

/// Gated norm on the CPU.
pub fn cpu(norm: &GatedNorm, x: &Array, gate: &Array) -> Result<Array> {
    let (gate, weight) = (elements(gate)?, elements(&norm.weight)?);
    let &GatedNorm { group, eps, order, .. } = norm;
    let mut y = elements(x)?.to_vec();
    for_each_row(&mut y, group, |i, y| {
        let open = |y: &mut [f32]| {
            for (y, g) in y.iter_mut().zip(&gate[i * group..]) {
                *y *= g / (1.0 + (-g).exp());
            }
        };
        if order == Order::Gate {
            open(y);
        }
        let factor = 1.0 / (dot(y, y) / y.len() as f32 + eps).sqrt();
        let weight = &weight[i * group % weight.len()..];
        y.iter_mut().zip(weight).for_each(|(y, w)| *y *= factor * w);
        if order == Order::Norm {
            open(y);
        }
    });
    Ok(Array::from_slice(&y, x.shape()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::super::scan::tests::{alike, some};
    use super::*;

    #[test]
    fn both_forms_agree_for_all_groups_and_orders() {
        let (x, gate) = (some(&[1, 5, 24], 1), some(&[1, 5, 24], 2));
        for (weights, group) in [(24, 24), (24, 8), (8, 8)] {
            for order in [Order::Gate, Order::Norm] {
                let weight = some(&[weights], 3);
                let norm = GatedNorm { weight, eps: 1e-2, group, order };
                alike(&cpu(&norm, &x, &gate).unwrap(), &mlx(&norm, &x, &gate).unwrap());
            }
        }
    }
}
