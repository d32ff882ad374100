//! Rotary position embedding: base, rotated elements and frequency scaling from the metadata.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use crate::dequant::dequantize;
use crate::dtype::Type;
use crate::model::{Model, Rope};

/// Tensor with a factor for each frequency.
const FACTORS: &str = "rope_freqs.weight";

/// Reads the rotary position embedding of `model`.
///
/// # Errors
/// A phrase, if the scaling is unknown or its factors are not Llama 3's.
pub fn read(model: &Model) -> Result<Rope, String> {
    let theta = model.find("rope.freq_base")?.unwrap_or(10000.0);
    let rotated = model.size("rope.dimension_count")?.unwrap_or(model.head);
    let scaling = match model.traits.llama3_factors {
        true => match factors(model, FACTORS, rotated)? {
            Some(factors) => Some(fit_llama3(&factors, theta)?),
            None => scaling(model)?,
        },
        false => scaling(model)?,
    };
    Ok(Rope { theta, rotated, scaling })
}

/// Value of `rope_scaling` according to the metadata.
fn scaling(model: &Model) -> Result<Option<Value>, String> {
    let kind = model.find::<&str>("rope.scaling.type")?.unwrap_or("none");
    let factor: Option<f64> = model.find("rope.scaling.factor")?;
    Ok(match (kind, factor) {
        ("none", _) | (_, Some(1.0)) => None,
        ("linear", Some(factor)) => Some(json!({ "rope_type": "linear", "factor": factor })),
        ("yarn", Some(factor)) => Some(yarn(model, factor)?),
        // The factors of longrope are tensors, which the architectures read.
        ("longrope", _) => None,
        (kind, None) => {
            return Err(format!("{kind} scaling without `{}`", model.key("rope.scaling.factor")));
        }
        (kind, _) => return Err(format!("the rotary scaling {kind:?} cannot be imported")),
    })
}

fn yarn(model: &Model, factor: f64) -> Result<Value, String> {
    let original = model.need_size("rope.scaling.original_context_length")?;
    let mut scaling = json!({
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original,
    });
    for name in ["beta_fast", "beta_slow"] {
        if let Some(beta) = model.find::<f64>(&format!("rope.scaling.yarn_{name}"))? {
            scaling[name] = beta.into();
        }
    }
    Ok(scaling)
}

/// Elements of the F32 tensor `name`, which must have one for each two of `rotated`.
pub fn factors(model: &Model, name: &str, rotated: usize) -> Result<Option<Vec<f32>>, String> {
    let Some(tensor) = model.tensor(name) else {
        return Ok(None);
    };
    if tensor.dtype != Type::F32 || tensor.shape != [rotated / 2] {
        let (dtype, shape) = (tensor.dtype.name(), &tensor.shape);
        return Err(format!("tensor {name:?} is {dtype} {shape:?}, not F32 [{}]", rotated / 2));
    }
    let mut factors = vec![0.0; rotated / 2];
    dequantize(Type::F32, tensor.data, &mut factors);
    Ok(Some(factors))
}

/// Share of frequencies with a finite factor (below 1e20), where the tensor of factors exists;
/// Gemma 4 disables the others with huge factors.
pub fn finite_share(model: &Model) -> Result<Option<f64>, String> {
    let factors = factors(model, FACTORS, model.rope.rotated)?;
    let share = |factors: Vec<f32>| {
        let finite = factors.iter().filter(|factor| **factor < 1e20).count();
        finite as f64 / factors.len() as f64
    };
    Ok(factors.map(share))
}

/// Parameters of Llama 3's scaling that result in `factors`.
///
/// The scaling keeps short wavelengths, stretches long ones by `factor`, and interpolates between
/// `original / 4` and `original` positions; the file keeps only the resulting factors.
fn fit_llama3(factors: &[f32], theta: f64) -> Result<Value, String> {
    let factor = f64::from(factors.iter().copied().fold(0.0, f32::max));
    let originals = (3..=20).map(|power| 1usize << power);
    let fits = |original: &usize| {
        let expected = llama3_factors(factors.len(), theta, factor, *original as f64);
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

/// Factors of Llama 3's scaling for the frequencies `theta ^ (-i / count)`.
fn llama3_factors(
    count: usize,
    theta: f64,
    factor: f64,
    original: f64,
) -> impl Iterator<Item = f64> {
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
    fn llama3_parameters_are_recovered() {
        for (count, theta, factor, original) in
            [(64, 500000.0, 32.0, 8192), (16, 10000.0, 8.0, 64), (32, 500000.0, 8.0, 4096)]
        {
            let factors: Vec<_> =
                llama3_factors(count, theta, factor, original as f64).map(|x| x as f32).collect();
            let scaling = fit_llama3(&factors, theta).unwrap();
            assert_eq!(scaling["factor"], factor);
            assert_eq!(scaling["original_max_position_embeddings"], original);
        }
    }

    #[test]
    fn other_factors_are_refused() {
        assert!(fit_llama3(&[1.0, 7.0, 3.0, 8.0], 10000.0).unwrap_err().contains("not Llama 3's"));
    }
}
