//! Ministral 3, which scales queries by position, and Mistral 4.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::moe_route::Score;
use serde_json::Value;

use super::decoder::Decoder;
use super::deepseek::{self, Member};
use super::llama;
use crate::checkpoint::config_error::invalid;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::mla;
use crate::config::Config;
use crate::language::Language;
use crate::nn::attention::TemperatureTuning;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Ministral3, load_mini_3),
    Spec { sanitize: &[mla::split], ..Spec::new(Architecture::Mistral4, load_4) },
];

/// Loads a `ministral3`.
pub fn load_mini_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let mut arch = llama::arch(&c, None, false)?;
    arch.heads.temperature_tuning = Some(temperature_tuning(&c)?);
    Decoder::load(arch, w)
}

/// Loads a `mistral4`: a `deepseek_v3` with a softmax router and queries scaled by position.
pub fn load_4(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = deepseek::read(config, true)?;
    let moe = deepseek::mixture(&c, Score::Softmax, 2)?;
    let traditional = c.get("rope_interleave")?.unwrap_or(true);
    let temperature_tuning = Some(temperature_tuning(&c)?);
    deepseek::load(&c, Member { traditional, temperature_tuning, ..Member::new(moe) }, w)
}

/// Scaling of queries by position. Errors if config.json does not state it.
fn temperature_tuning(c: &Config) -> Result<TemperatureTuning> {
    let rope = c.rope_parameters.as_ref();
    let beta = rope.and_then(|rope| rope.llama_4_scaling_beta);
    let trained = rope.and_then(|rope| rope.original_max_position_embeddings);
    let (Some(beta), Some(trained)) = (beta, trained) else {
        let fields = "`llama_4_scaling_beta` and `original_max_position_embeddings`";
        return Err(invalid(format!("`rope_parameters` lacks {fields}")));
    };
    Ok(TemperatureTuning { beta: beta as f32, shift: 0, trained: trained as f32 })
}
