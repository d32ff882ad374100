//! The norm of a recurrent layer's outputs, with a gate before or behind it.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::fast::rms_norm;
use mlx_rs::ops::sigmoid;

use super::scan::{dot, wide};
use crate::array::{each_row, elements};

/// Division of each group of elements by the root of its mean square, a factor for each element, and
/// the product with `silu(gate)`.
pub struct GatedNorm {
    /// For a group, or for all groups one after another.
    pub weight: Array,
    /// Epsilon, added to the mean square.
    pub eps: f32,
    /// Elements of a group.
    pub group: usize,
    /// Order of norm and gate.
    pub order: Order,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The gate, and what it leaves is normed.
    Gate,
    /// The norm.
    Norm,
}

/// By MLX.
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

/// At once.
pub fn cpu(norm: &GatedNorm, x: &Array, gate: &Array) -> Result<Array> {
    let (gate, weight) = (elements(gate)?, elements(&norm.weight)?);
    let &GatedNorm { group, eps, order, .. } = norm;
    let mut y = elements(x)?.to_vec();
    each_row(&mut y, group, |i, y| {
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
