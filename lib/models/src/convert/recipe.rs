//! Recipe of a conversion: the quantisation of each matrix, uniform or mixed.

use std::str::FromStr;

use mlxk_core::quantization::{Mode, QuantSpec};
use mlxk_core::tensors::SHARD;
use mlxk_core::{Error, Float, Result};
use serde_json::{Value, json};

use crate::spec::Rules;

/// Target precision and quantisation of a model's weights.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Float type of dense tensors; `None` takes the type of config.json, or keeps that of each
    /// tensor.
    pub dtype: Option<Float>,
    /// Change to the matrices.
    pub change: Change,
    /// Maximum bytes of tensors in a file; by default that of MLX's tools.
    pub shard: u64,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe { dtype: None, change: Change::None, shard: SHARD }
    }
}

impl Recipe {
    /// Name of the conversion.
    pub fn mode(&self) -> &'static str {
        match self.change {
            Change::None => "cast",
            Change::Quantize(_) => "quantize",
            Change::Dequantize => "dequantize",
        }
    }
}

/// Change to the matrices.
#[derive(Clone, Copy, Debug, Default)]
pub enum Change {
    /// Matrices stay dense or quantised.
    #[default]
    None,
    /// Dense matrices are quantised.
    Quantize(Quantize),
    /// Quantised matrices become dense.
    Dequantize,
}

/// Quantisation of the matrices: most in one form, some with more bits.
#[derive(Clone, Copy, Debug)]
pub struct Quantize {
    form: QuantSpec,
    /// Bits of the matrices that a mixture keeps at higher precision.
    better: Option<usize>,
}

/// Bits of a weight, or a mixture of two.
#[derive(Clone, Copy, Debug)]
pub struct Bits {
    most: usize,
    better: Option<usize>,
}

impl Bits {
    /// Mixtures under mlx-lm's names: bits of most matrices, and of those at higher precision.
    pub const MIXTURES: [(&str, usize, usize); 4] =
        [("mixed_2_6", 2, 6), ("mixed_3_4", 3, 4), ("mixed_3_6", 3, 6), ("mixed_4_6", 4, 6)];
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Bits, String> {
        if let Some((_, most, better)) = Bits::MIXTURES.iter().find(|(name, ..)| *name == text) {
            return Ok(Bits { most: *most, better: Some(*better) });
        }
        match text.parse() {
            Ok(most) => Ok(Bits { most, better: None }),
            Err(_) => {
                let names = Bits::MIXTURES.map(|(name, ..)| name).join(", ");
                Err(format!("a number of bits, or one of {names}"))
            }
        }
    }
}

impl Quantize {
    /// Quantisation in mode `packing`, with `group_size` weights per scale (default of the mode if
    /// `None`). Errors if MLX has no such form.
    pub fn new(packing: Mode, bits: Bits, group_size: Option<usize>) -> Result<Quantize> {
        let usual = if packing == Mode::Affine { Some(64) } else { None };
        let group_size = group_size
            .or(usual)
            .or_else(|| packing.supported().next().map(|(_, group_size)| group_size))
            .unwrap_or_default();
        for bits in [Some(bits.most), bits.better].into_iter().flatten() {
            if !packing.supported().any(|form| form == (bits, group_size)) {
                return Err(impossible(packing, bits, group_size));
            }
        }
        if bits.better.is_some() && packing != Mode::Affine {
            return Err(impossible(packing, bits.most, group_size));
        }
        let form = QuantSpec { mode: packing, bits: bits.most, group_size };
        Ok(Quantize { form, better: bits.better })
    }

    /// Quantisation of most matrices.
    pub fn form(&self) -> QuantSpec {
        self.form
    }

    /// Bits and group size as the record of a conversion states them.
    pub fn asked(&self) -> Value {
        json!({"bits": self.form.bits, "group_size": self.form.group_size})
    }

    /// Quantisation of each of the `matrices` of a model.
    pub fn decide<'m>(
        &self,
        rules: &Rules,
        matrices: impl Iterator<Item = &'m String>,
    ) -> Box<dyn Fn(&str) -> QuantSpec> {
        let form = self.form;
        match self.better {
            Some(bits) => {
                let layers = matrices.filter_map(|name| layer(name)).max();
                let layers = layers.map_or(0, |last| last + 1);
                Box::new(move |name| match better(name, layers) {
                    true => QuantSpec { bits, ..form },
                    false => form,
                })
            }
            None => {
                let fine = rules.eight;
                let eight = QuantSpec { mode: Mode::Affine, bits: 8, group_size: 64 };
                Box::new(move |name| match fine.iter().any(|end| name.ends_with(end)) {
                    true => eight,
                    false => form,
                })
            }
        }
    }
}

/// True if a mixture keeps a matrix at higher precision (after mlx-lm's
/// `mixed_quant_predicate_builder`): the head, and the value and down projections in the first and
/// last eighth of the layers and in every third layer between them.
fn better(name: &str, layers: usize) -> bool {
    let parts = ["v_proj", "v_a_proj", "v_b_proj", "down_proj"];
    let layer = layer(name).unwrap_or(0);
    let eighth = layers / 8;
    let outer = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
    name.contains("lm_head") || outer && parts.iter().any(|part| name.contains(part))
}

/// Layer index in a tensor name.
fn layer(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

fn impossible(packing: Mode, bits: usize, group_size: usize) -> Error {
    let forms: Vec<_> =
        packing.supported().map(|(bits, group_size)| format!("{bits} in {group_size}")).collect();
    let name = packing.name();
    let what = format!("{name} has no form of {bits} bits in groups of {group_size}");
    Error::command(what).hint(format!("its forms are {}", forms.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use mlxk_core::Architecture;

    use super::*;
    use crate::registry;

    /// Bits of a matrix of `architecture` in a 4-bit quantisation.
    fn bits(architecture: &str, name: &str) -> usize {
        let quantize = Quantize::new(Mode::Affine, "4".parse().unwrap(), Some(32)).unwrap();
        let architecture = Architecture::find(architecture).unwrap();
        quantize.decide(&registry::spec(architecture).convert, std::iter::empty())(name).bits
    }

    /// Expected bits follow the `quant_predicate` of each architecture in mlx-lm 0.32.2.
    #[test]
    fn what_mlx_lm_keeps_at_8_bits_is_kept_at_8_bits() {
        let layer = |end: &str| format!("model.layers.3.{end}");
        for (architecture, ends) in [
            ("afmoe", &["mlp.router.gate"][..]),
            ("bailing_moe", &["mlp.gate.gate_proj"]),
            ("gemma4", &["router.proj"]),
            ("gemma4_text", &["router.proj"]),
            ("gpt_oss", &["mlp.router"]),
            ("granite", &["self_attn.o_proj", "mlp.down_proj"]),
            ("granitemoe", &["block_sparse_moe.router.layer", "self_attn.o_proj", "mlp.down_proj"]),
            ("granitemoehybrid", &["block_sparse_moe.router.layer"]),
            ("jamba", &["feed_forward.router"]),
            ("laguna", &["mlp.gate.proj"]),
            ("lfm2_moe", &["feed_forward.gate"]),
            ("minimax", &["block_sparse_moe.gate"]),
            ("qwen3_5", &["mlp.gate", "mlp.shared_expert_gate"]),
            ("qwen3_5_moe", &["mlp.gate", "mlp.shared_expert_gate"]),
            ("qwen3_moe", &["mlp.gate"]),
            ("kimi_linear", &["mlp.gate"]),
            ("qwen3_vl_moe", &["mlp.gate"]),
            ("qwen3_next", &["mlp.gate", "mlp.shared_expert_gate"]),
        ] {
            for end in ends {
                assert_eq!(bits(architecture, &layer(end)), 8, "{architecture}: {end}");
            }
            for end in ["mlp.gate_proj", "self_attn.q_proj"] {
                assert_eq!(bits(architecture, &layer(end)), 4, "{architecture}: {end}");
            }
        }
        assert_eq!(["granite", "granitemoe", "llama"].map(|name| bits(name, "lm_head")), [8, 8, 4]);
        for architecture in ["mixtral", "qwen2_moe", "olmoe", "phimoe"] {
            assert_eq!(bits(architecture, &layer("mlp.gate")), 4, "{architecture}");
        }
    }
}
