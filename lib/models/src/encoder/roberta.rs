//! RoBERTa (arXiv 1907.11692), and its multilingual form XLM-RoBERTa (arXiv 1911.02116): a BERT
//! whose positions begin after the padding token's id. Jina embeddings v3 state the same type.

use mlxk_core::Architecture;
use serde_json::Value;

use super::bert;
use super::classifier::ClassifierArch;
use super::encode::Encoder;
use super::jina;
use super::transformer::{Arch, LearnedPositions, Transformer};
use crate::checkpoint::config_error::invalid;
use crate::checkpoint::cursor::Cursor;
use crate::spec::Spec;

/// Rows of the family.
pub const SPECS: &[Spec] =
    &[Spec { sanitize: &[jina::originals], ..Spec::encoder(Architecture::Roberta, load) }];

/// Loads a `roberta`, `xlm-roberta` or `camembert`, whose names may begin with `roberta.`, or Jina
/// embeddings v3, whose positions are rotary.
fn load(config: &Value, w: Cursor) -> mlxk_core::Result<Box<dyn Encoder>> {
    if config.get("position_embedding_type").is_some_and(|kind| kind == "rotary") {
        return jina::load(config, w);
    }
    bert::learned(config)?;
    let mut arch = after_padding(bert::arch(config)?, config)?;
    arch.prefixes = &["roberta"];
    arch.classifier = ClassifierArch::ROBERTA;
    Transformer::load(arch, w)
}

/// `arch` with positions that begin after the id of the padding token, by default 1.
///
/// # Errors
/// If that leaves no positions.
pub fn after_padding(mut arch: Arch, config: &Value) -> mlxk_core::Result<Arch> {
    let padding = config.get("pad_token_id").and_then(Value::as_u64).unwrap_or(1);
    let count = arch.max_length;
    let padding = u32::try_from(padding).ok().filter(|&id| (id as usize) + 1 < count);
    let Some(padding) = padding else {
        return Err(invalid(format!("`pad_token_id` leaves none of {count} positions")));
    };
    arch.positions = Some(LearnedPositions { count, padding: Some(padding) });
    arch.max_length = count - padding as usize - 1;
    Ok(arch)
}
