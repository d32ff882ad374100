//! Loading of the tower that lies beside a language model in one checkpoint.

use std::collections::BTreeMap;

use mlxk_core::Result;
use serde_json::Value;

use super::tower::{Load, Tower};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::quantization::Quantization;
use crate::checkpoint::tensor::Tensor;
use crate::checkpoint::text_part::SENSES;
use crate::checkpoint::weights::{Inventory, LoadOptions, Weights};

/// Loads the tower of a checkpoint by the constructor `load` of its family, and tells what the tower
/// takes; `None` if the checkpoint is that of the language model alone. Every rank has the whole tower.
///
/// # Errors
/// If config.json is not one of the family, and if tensors of the tower are missing, left over, or of
/// a shape or type that the family does not have.
pub fn load(
    load: Load,
    config: &Value,
    tensors: &BTreeMap<String, Tensor>,
    form: LoadOptions,
) -> Result<Option<(Box<dyn Tower>, Inventory)>> {
    let tensors = self::tensors(tensors);
    if tensors.is_empty() || config.get("vision_config").is_some_and(Value::is_null) {
        return Ok(None);
    }
    let form = LoadOptions { part: None, ..form };
    let mut weights = Weights::new(tensors, Quantization::read(config)?, form);
    let tower = load(config, Cursor::root(&mut weights))?;
    Ok(Some((tower, weights.finish()?)))
}

/// The tensors of a checkpoint that belong to a tower.
pub fn tensors(all: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let of_senses = |(name, _): &(&String, &Tensor)| SENSES.iter().any(|part| name.contains(part));
    all.iter().filter(of_senses).map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}
