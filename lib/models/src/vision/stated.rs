//! What config.json and the names of tensors say of towers in several families.

use mlxk_core::Result;
use serde_json::Value;

use crate::checkpoint::config_error::{fields, invalid, positive};
use crate::checkpoint::cursor::Cursor;

/// Elements of a hidden vector of the language model, whose family has `default` if config.json does
/// not state it.
///
/// # Errors
/// If it is not a positive number.
pub fn text_hidden(config: &Value, default: usize) -> Result<usize> {
    let stated = config.pointer("/text_config/hidden_size").filter(|size| !size.is_null());
    let size = stated.map_or(Ok(default), fields)?;
    positive(&[("text_config.hidden_size", size)])?;
    Ok(size)
}

/// Number of the last of `layers` layers whose hidden states `vision_feature_layer` skips: counted from
/// the end if negative, -1 being those after all layers, else from the embeddings, which are 0.
///
/// # Errors
/// If the tower has no such hidden states.
pub fn skipped_layers(config: &Value, layers: usize, default: i64) -> Result<usize> {
    let stated = config.get("vision_feature_layer").filter(|layer| !layer.is_null());
    let layer: i64 = stated.map_or(Ok(default), fields)?;
    let skipped = if layer < 0 { -1 - layer } else { layers as i64 - layer };
    let known = usize::try_from(skipped).ok().filter(|skipped| *skipped <= layers);
    known.ok_or_else(|| invalid(format!("`vision_feature_layer` cannot be {layer}")))
}

/// Place of the tensors of the tower at `w`, which are below `vision_model` in most checkpoints.
pub fn tower_place(w: &Cursor) -> &'static str {
    match w.holds("vision_tower.vision_model") {
        true => "vision_tower.vision_model",
        false => "vision_tower",
    }
}
