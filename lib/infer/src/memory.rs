//! How much memory a model will need, told before it is loaded.

use mlxk_core::tensors::{Dtype, Tensor};
use mlxk_core::{Facts, Result};

use crate::load;
use crate::models::Config;

/// The bytes that the weights of a model take, and its memory of `tokens` tokens.
///
/// On a CPU 16-bit floats are widened.
///
/// # Errors
/// If config.json is not one of a model that can run.
pub fn estimate(facts: &Facts, tokens: u64, on_cpu: bool) -> Result<u64> {
    let config = Config::read(&load::config(facts)?)?;
    let headers = facts.weights().into_iter().filter_map(|shard| shard.header.as_ref().ok());
    let tensors = headers.flat_map(|header| &header.tensors);
    let weights: u64 = tensors.map(|tensor| bytes(tensor, on_cpu)).sum();
    let element = if on_cpu { 4 } else { 2 };
    let elements = 2 * config.num_hidden_layers * config.kv_heads() * config.head_dim();
    Ok(weights.saturating_add(tokens.saturating_mul(elements as u64 * element)))
}

fn bytes(tensor: &Tensor, on_cpu: bool) -> u64 {
    let bytes = tensor.range.end - tensor.range.start;
    match tensor.dtype {
        Dtype::F16 | Dtype::BF16 if on_cpu => 2 * bytes,
        _ => bytes,
    }
}
