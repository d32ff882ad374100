//! Sinkhorn normalisation: rows and columns of matrices are divided by their sums in turn (Sinkhorn
//! and Knopp).

use mlx_rs::Array;
use mlx_rs::error::Result;

use crate::array::{elements, for_each_row};

/// Sinkhorn normalisation of [.., n, n] in MLX: columns are divided by their sums, then `rounds -
/// 1` times rows and columns; `eps` is added to sums.
pub fn mlx(matrices: &Array, rounds: usize, eps: f32) -> Result<Array> {
    let eps = Array::from_f32(eps);
    let divided = |x: &Array, axis| x.divide(x.sum_axis(axis, true)?.add(&eps)?);
    let mut balanced = divided(matrices, -2)?;
    for _ in 1..rounds {
        balanced = divided(&divided(&balanced, -1)?, -2)?;
    }
    Ok(balanced)
}

/// Sinkhorn normalisation of [.., n, n] on the CPU.
pub fn cpu(matrices: &Array, rounds: usize, eps: f32) -> Result<Array> {
    let n = matrices.dim(-1) as usize;
    let mut balanced = elements(matrices)?.to_vec();
    for_each_row(&mut balanced, n * n, |_, matrix| {
        columns(matrix, n, eps);
        for _ in 1..rounds {
            rows(matrix, n, eps);
            columns(matrix, n, eps);
        }
    });
    Ok(Array::from_slice(&balanced, matrices.shape()))
}

fn rows(matrix: &mut [f32], n: usize, eps: f32) {
    for row in matrix.chunks_exact_mut(n) {
        let sum = row.iter().sum::<f32>() + eps;
        row.iter_mut().for_each(|x| *x /= sum);
    }
}

fn columns(matrix: &mut [f32], n: usize, eps: f32) {
    for column in 0..n {
        let sum = matrix[column..].iter().step_by(n).sum::<f32>() + eps;
        matrix[column..].iter_mut().step_by(n).for_each(|x| *x /= sum);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    #[test]
    fn both_forms_balance_alike() {
        let matrices = crate::mlx::noise(&[3, 5, 4, 4], 1).abs().unwrap();
        for rounds in [1, 2, 20] {
            let [a, b] = [mlx, cpu].map(|form| form(&matrices, rounds, 1e-6).unwrap());
            let apart = a.subtract(&b).unwrap().abs().unwrap().max(None).unwrap();
            assert!(apart.item_exact::<f32>() < 1e-6);
            if rounds == 20 {
                let sums = b.sum_axis(-1, false).unwrap();
                assert!(elements(&sums).unwrap().iter().all(|sum| (sum - 1.0).abs() < 1e-2));
            }
        }
    }
}
