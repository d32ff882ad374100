//! The factors that a Falcon-H1 was trained with, which MLX has in the weights.

use mlxk_core::Result;
use mlxk_tensor::floats;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arithmetic::{rounded, times};
use super::checkpoint::{Checkpoint, trained};
use crate::checkpoint::tensor::Tensor;

/// Multiplies weights that are as they were in training.
pub fn fold(all: &mut Checkpoint) -> Result<()> {
    let first = all.tensors.get("model.layers.0.mamba.conv1d.weight");
    if !first.is_some_and(trained) {
        return Ok(());
    }
    let factors = Factors::read(all)?;
    for (name, tensor) in &mut all.tensors {
        let Some(stem) = name.strip_suffix(".weight") else { continue };
        if tensor.shape.len() == 2 {
            *tensor = factors.apply(stem, tensor.clone());
        }
    }
    Ok(())
}

struct Factors {
    /// By the ends of names, the first that fits.
    ends: Vec<(&'static str, f32)>,
    /// Of all that goes into a state space.
    ssm_in: f32,
    /// Of its gate, inputs, `b`, `c` and steps, each for so many rows.
    ssm: Vec<(usize, f32)>,
}

impl Factors {
    fn read(all: &Checkpoint) -> Result<Factors> {
        let one = |key: &str, usual: f32| given(all, key, usual);
        let attention_in = one("attention_in_multiplier", 1.0)?;
        let [gate, down]: [f32; 2] = given(all, "mlp_multipliers", [0.883_883_5, 0.585_937_5])?;
        let each: [f32; 5] =
            given(all, "ssm_multipliers", [0.353_553_4, 0.25, 0.353_553_4, 0.5, 0.353_553_4])?;
        let inner = given(all, "mamba_d_ssm", 1536)?;
        let shared = given::<usize>(all, "mamba_n_groups", 1)? * given(all, "mamba_d_state", 128)?;
        let sizes = [inner, inner, shared, shared, given(all, "mamba_n_heads", 24)?];
        Ok(Factors {
            ends: vec![
                ("embed_tokens", one("embedding_multiplier", 5.656_854)?),
                ("lm_head", one("lm_head_multiplier", 0.039_062_5)?),
                ("q_proj", attention_in),
                ("k_proj", attention_in),
                ("o_proj", one("attention_out_multiplier", 0.9375)?),
                ("out_proj", one("ssm_out_multiplier", 0.235_702_26)?),
                ("gate_proj", gate),
                ("down_proj", down),
            ],
            ssm_in: one("ssm_in_multiplier", 1.25)?,
            ssm: sizes.into_iter().zip(each).collect(),
        })
    }

    fn apply(&self, stem: &str, tensor: Tensor) -> Tensor {
        if let Some((_, factor)) = self.ends.iter().find(|(end, _)| stem.ends_with(end)) {
            return times(tensor, vec![*factor]);
        }
        let Some(float) = floats::kind(tensor.dtype).filter(|_| stem.ends_with("in_proj")) else {
            return tensor;
        };
        let rows: Vec<f32> =
            self.ssm.iter().flat_map(|&(rows, factor)| std::iter::repeat_n(factor, rows)).collect();
        let [all] = rounded(&[self.ssm_in], float)[..] else { return tensor };
        let rows = rounded(&rows, float).into_iter().map(|factor| factor * all).collect();
        times(tensor, rows)
    }
}

/// A field of config.json, or what the family has without it.
fn given<T: DeserializeOwned>(all: &Checkpoint, key: &str, usual: T) -> Result<T> {
    match all.text().get(key) {
        None | Some(Value::Null) => Ok(usual),
        Some(_) => all.number(key),
    }
}
