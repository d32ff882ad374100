//! Loading of the vision tower in a checkpoint beside a language model.

use std::collections::BTreeMap;

use mlxk_core::Result;
use serde_json::Value;

use super::tower::{Load, Tower};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::quantization::Quantization;
use crate::checkpoint::tensor::Tensor;
use crate::checkpoint::text_part::SENSES;
use crate::checkpoint::weights::{Inventory, LoadOptions, Weights};

/// Loads the tower of a checkpoint by the constructor `load` of its family, and records the tensors
/// it takes; `None` if the checkpoint has only the language model. Every rank has the whole tower.
///
/// # Errors
/// If config.json is not one of the family, and if tensors of the tower are missing, left over, or
/// of a shape or type that the family does not have.
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

/// Tensors of a checkpoint that belong to a tower.
pub fn tensors(all: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let of_senses = |(name, _): &(&String, &Tensor)| SENSES.iter().any(|part| name.contains(part));
    all.iter().filter(of_senses).map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
}
