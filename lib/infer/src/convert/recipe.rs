//! Which matrices become what: MLX's ways to quantise, plain or mixed.

use std::str::FromStr;

use mlxk_core::packing::Form;
use mlxk_core::tensors::SHARD;
use mlxk_core::{Architecture, Error, Float, Kind, Packing, Result};
use serde_json::{Value, json};

/// What becomes of a model's weights.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The type of all that is plain; without a wish the one that config.json names, or as it is.
    pub dtype: Option<Float>,
    /// What becomes of the matrices.
    pub change: Change,
    /// The most bytes of tensors in a file; by default as MLX's own tools have it.
    pub shard: u64,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe { dtype: None, change: Change::None, shard: SHARD }
    }
}

impl Recipe {
    /// What it does, in a word.
    pub fn mode(&self) -> &'static str {
        match self.change {
            Change::None => "cast",
            Change::Quantize(_) => "quantize",
            Change::Dequantize => "dequantize",
        }
    }
}

/// What becomes of the matrices.
#[derive(Clone, Copy, Debug, Default)]
pub enum Change {
    /// They stay plain or packed.
    #[default]
    None,
    /// The plain ones are packed.
    Quantize(Quantize),
    /// The packed ones become plain.
    Dequantize,
}

/// How matrices are packed: most in one form, some in another.
#[derive(Clone, Copy, Debug)]
pub struct Quantize {
    form: Form,
    /// Bits of those that a mixture treats better.
    better: Option<usize>,
}

/// Bits of a weight, or a mixture of two.
#[derive(Clone, Copy, Debug)]
pub struct Bits {
    most: usize,
    better: Option<usize>,
}

impl Bits {
    /// Mixtures, by the names that mlx-lm gives them: bits of most matrices and of the better ones.
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
    /// In `packing`, `group_size` weights sharing a scale (by default as many as are usual). Errors
    /// if MLX has no such form.
    pub fn new(packing: Packing, bits: Bits, group_size: Option<usize>) -> Result<Quantize> {
        let usual = if packing == Packing::Affine { Some(64) } else { None };
        let group_size = group_size
            .or(usual)
            .or_else(|| packing.forms().next().map(|(_, group_size)| group_size))
            .unwrap_or_default();
        for bits in [Some(bits.most), bits.better].into_iter().flatten() {
            if !packing.forms().any(|form| form == (bits, group_size)) {
                return Err(impossible(packing, bits, group_size));
            }
        }
        if bits.better.is_some() && packing != Packing::Affine {
            return Err(impossible(packing, bits.most, group_size));
        }
        let form = Form { packing, bits: bits.most, group_size };
        Ok(Quantize { form, better: bits.better })
    }

    /// The form of most matrices.
    pub fn form(&self) -> Form {
        self.form
    }

    /// What was asked for, as a sentinel has it.
    pub fn asked(&self) -> Value {
        json!({"bits": self.form.bits, "group_size": self.form.group_size})
    }

    /// Decides on the `matrices` of a model: the form of each.
    pub fn decide<'m>(
        &self,
        architecture: Architecture,
        matrices: impl Iterator<Item = &'m String>,
    ) -> Box<dyn Fn(&str) -> Form> {
        let form = self.form;
        match self.better {
            Some(bits) => {
                let layers = matrices.filter_map(|name| layer(name)).max();
                let layers = layers.map_or(0, |last| last + 1);
                Box::new(move |name| match better(name, layers) {
                    true => Form { bits, ..form },
                    false => form,
                })
            }
            None => {
                let fine = delicate(architecture);
                let eight = Form { packing: Packing::Affine, bits: 8, group_size: 64 };
                Box::new(move |name| match fine.iter().any(|end| name.ends_with(end)) {
                    true => eight,
                    false => form,
                })
            }
        }
    }
}

/// Whether a mixture treats a matrix better (after mlx-lm's `mixed_quant_predicate_builder`): the
/// head, and of the first and last eighth of the layers and each third between them the values and
/// what leaves the feed-forward layer.
fn better(name: &str, layers: usize) -> bool {
    let parts = ["v_proj", "v_a_proj", "v_b_proj", "down_proj"];
    let layer = layer(name).unwrap_or(0);
    let eighth = layers / 8;
    let outer = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
    name.contains("lm_head") || outer && parts.iter().any(|part| name.contains(part))
}

/// The number in a name, which is that of its layer.
fn layer(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// Ends of the names of matrices that mlx-lm keeps at 8 bits in this architecture: those that choose
/// experts, and in Granite those whose weights are too small for scales of few bits.
fn delicate(architecture: Architecture) -> &'static [&'static str] {
    match architecture.name() {
        "gpt_oss" | "jamba" => &["router"],
        "gemma4" | "gemma4_text" => &["router.proj"],
        "granite" => &["self_attn.o_proj", "mlp.down_proj", "lm_head"],
        "granitemoe" => {
            &["block_sparse_moe.router.layer", "self_attn.o_proj", "mlp.down_proj", "lm_head"]
        }
        "afmoe" => &["router.gate"],
        "bailing_moe" => &["mlp.gate.gate_proj"],
        "granitemoehybrid" => &["router.layer"],
        "laguna" => &["mlp.gate.proj"],
        "lfm2_moe" => &["feed_forward.gate"],
        "minimax" => &["block_sparse_moe.gate"],
        "kimi_linear" | "qwen3_moe" | "qwen3_vl_moe" => &["mlp.gate"],
        "qwen3_next" | "qwen3_5" | "qwen3_5_moe" => &["mlp.gate", "shared_expert_gate"],
        _ => &[],
    }
}

/// Ends of the names of matrices that mlx-lm has as plain numbers whatever becomes of others.
pub fn plain(architecture: Architecture) -> &'static [&'static str] {
    match architecture.name() {
        "deepseek" | "deepseek_v2" | "deepseek_v3" | "deepseek_v32" | "deepseek_v41" | "dots1"
        | "exaone_moe" | "glm4_moe" | "glm4_moe_lite" | "glm_moe_dsa" | "kimi_k25" | "kimi_vl"
        | "mimo_v2_flash" | "solar_open" => &["mlp.gate"],
        "nemotron_h" => &["mixer.gate"],
        "bailing_hybrid" => &[
            "model.word_embeddings",
            "lm_head",
            "q_a_proj",
            "q_b_proj",
            "kv_a_proj_with_mqa",
            "embed_q",
            "unembed_out",
            "attention.b_proj",
            "mlp.gate",
        ],
        _ => &[],
    }
}

/// Ends of the names of tensors that keep their type: sums that many small numbers go into.
pub fn kept(architecture: Architecture) -> &'static [&'static str] {
    match architecture.name() {
        "deepseek_v3" | "deepseek_v32" | "glm_moe_dsa" | "exaone_moe" | "glm4_moe"
        | "glm4_moe_lite" | "kimi_k25" | "kimi_vl" | "laguna" | "mimo_v2_flash" | "minimax"
        | "solar_open" => &["e_score_correction_bias"],
        "afmoe" | "bailing_hybrid" | "bailing_moe" | "lfm2_moe" => &["expert_bias"],
        "deepseek_v41" => &[
            "_hc.fn",
            "_hc.base",
            "_hc.scale",
            "self_attn.sinks",
            "e_score_correction_bias",
            "compressor.kv_proj.weight",
            "compressor.gate_proj.weight",
            "compressor.kv_norm.weight",
        ],
        "nemotron_h" => &["e_score_correction_bias", "A_log"],
        "kimi_linear" => &["e_score_correction_bias", "A_log", "dt_bias"],
        "qwen3_5" | "qwen3_5_moe" => &["A_log"],
        _ => &[],
    }
}

fn impossible(packing: Packing, bits: usize, group_size: usize) -> Error {
    let forms: Vec<_> =
        packing.forms().map(|(bits, group_size)| format!("{bits} in {group_size}")).collect();
    let name = packing.name();
    let what = format!("{name} has no form of {bits} bits in groups of {group_size}");
    Error::new(Kind::Validation, "", what).hint(format!("its forms are {}", forms.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    /// Bits of a matrix of `architecture` where 4 are asked for.
    fn bits(architecture: &str, name: &str) -> usize {
        let quantize = Quantize::new(Packing::Affine, "4".parse().unwrap(), Some(32)).unwrap();
        let architecture = Architecture::find(architecture).unwrap();
        quantize.decide(architecture, std::iter::empty())(name).bits
    }

    /// After the `quant_predicate` of each architecture in mlx-lm 0.32.2.
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
