//! Greedy choices from logits.

use mlx_rs::error::{Exception, Result};
use mlx_rs::{Array, Dtype};

/// Numbers of an array, as float32.
pub fn numbers(array: &Array) -> Result<Vec<f32>> {
    let wide = array.as_dtype(Dtype::Float32)?.contiguous()?;
    let numbers: &[f32] =
        wide.try_as_slice().map_err(|error| Exception::custom(error.to_string()))?;
    Ok(numbers.to_vec())
}

/// Place of the largest logit, the first of several, and its probability; 0 of an empty list.
pub fn best(logits: &[f32]) -> (usize, f32) {
    let mut largest = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[largest] {
            largest = i;
        }
    }
    let top = logits.get(largest).copied().unwrap_or_default();
    let sum: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    (largest, if sum > 0.0 { 1.0 / sum } else { 0.0 })
}
