//! Rotary positions: the base, and how frequencies are stretched for a longer context.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use crate::dequant::dequantize;
use crate::dtype::Type;
use crate::read::Gguf;

/// The tensor that holds a factor per frequency.
pub const FACTORS: &str = "rope_freqs.weight";

/// `rope_theta`, and `rope_scaling` if there is any, of heads of `head` dimensions.
pub fn read(gguf: &Gguf, architecture: &str, head: usize) -> Result<(f64, Option<Value>), String> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let theta = gguf.find(&key("freq_base"))?.unwrap_or(10000.0);
    let rotated = gguf.find(&key("dimension_count"))?.unwrap_or(head);
    if rotated != head {
        return Err(format!("`{}` is {rotated}, but heads have {head}", key("dimension_count")));
    }
    if let Some(factors) = factors(gguf, head)? {
        return Ok((theta, Some(llama3(&factors, theta)?)));
    }
    let kind = gguf.find::<&str>(&key("scaling.type"))?.unwrap_or("none");
    let factor: Option<f64> = gguf.find(&key("scaling.factor"))?;
    let scaling = match (kind, factor) {
        ("none", _) | (_, Some(1.0)) => None,
        ("linear", Some(factor)) => Some(json!({ "rope_type": "linear", "factor": factor })),
        ("yarn", Some(factor)) => {
            let original: usize = gguf.need(&key("scaling.original_context_length"))?;
            let original = ("original_max_position_embeddings", original);
            Some(json!({ "rope_type": "yarn", "factor": factor, original.0: original.1 }))
        }
        (kind, None) => {
            return Err(format!("{kind} scaling without `{}`", key("scaling.factor")));
        }
        (kind, _) => return Err(format!("the rotary scaling {kind:?} cannot be imported")),
    };
    Ok((theta, scaling))
}

fn factors(gguf: &Gguf, head: usize) -> Result<Option<Vec<f32>>, String> {
    let Some(tensor) = gguf.tensors.iter().find(|tensor| tensor.name == FACTORS) else {
        return Ok(None);
    };
    if tensor.dtype != Type::F32 || tensor.shape != [head / 2] {
        let (dtype, shape) = (tensor.dtype.name(), &tensor.shape);
        return Err(format!("tensor {FACTORS:?} is {dtype} {shape:?}, not F32 [{}]", head / 2));
    }
    let mut factors = vec![0.0; head / 2];
    dequantize(Type::F32, tensor.data, &mut factors);
    Ok(Some(factors))
}

/// The parameters of which these factors came.
///
/// Llama 3's scaling leaves short waves alone, stretches long ones by one factor, and blends
/// between `original / 4` and `original` positions; the file keeps only the outcome.
fn llama3(factors: &[f32], theta: f64) -> Result<Value, String> {
    let factor = f64::from(factors.iter().copied().fold(0.0, f32::max));
    let originals = (6..=20).map(|power| 1usize << power);
    let fits = |original: &usize| {
        let expected = stretched(factors.len(), theta, factor, *original as f64);
        let close = |(a, b): (&f32, f64)| (f64::from(*a) - b).abs() <= 1e-3 * b;
        factors.iter().zip(expected).all(close)
    };
    // Llama 3's own context is tried first: with few frequencies, several can fit.
    let original = std::iter::once(8192).chain(originals).find(fits);
    let original =
        original.ok_or_else(|| format!("the factors of {FACTORS:?} are not Llama 3's"))?;
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }))
}

/// The factors of the frequencies `theta ^ (-i / count)`.
fn stretched(count: usize, theta: f64, factor: f64, original: f64) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| {
        let wave = TAU * theta.powf(i as f64 / count as f64);
        match original / wave {
            turns if turns > 4.0 => 1.0,
            turns if turns < 1.0 => factor,
            turns => {
                let smooth = (turns - 1.0) / 3.0;
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_found_again() {
        for (count, theta, factor, original) in
            [(64, 500000.0, 32.0, 8192), (16, 10000.0, 8.0, 64), (32, 500000.0, 8.0, 4096)]
        {
            let factors: Vec<_> =
                stretched(count, theta, factor, original as f64).map(|x| x as f32).collect();
            let scaling = llama3(&factors, theta).unwrap();
            assert_eq!(scaling["factor"], factor);
            assert_eq!(scaling["original_max_position_embeddings"], original);
        }
    }

    #[test]
    fn other_factors_are_refused() {
        assert!(llama3(&[1.0, 7.0, 3.0, 8.0], 10000.0).unwrap_err().contains("not Llama 3's"));
    }
}
