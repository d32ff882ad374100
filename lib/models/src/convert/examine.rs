//! Check of a model before it is written, by loading its architecture without reading weights.

use std::collections::BTreeMap;

use crate::sketch;
use mlxk_core::tensors::Entry;
use mlxk_core::{Architecture, Error, Kind, Result};
use serde_json::Value;

use crate::checkpoint::formats::Checkpoint;
use crate::checkpoint::tensor::{self, Bytes, Tensor};
use crate::sketch::Parts;

/// Errors unless `config` and tensors with the names and shapes of `entries` are a model that can
/// run.
pub fn examine(config: &Value, entries: &[Entry]) -> Result<()> {
    sketched(config, entries).map(|_| ())
}

/// Parts of the model made of `config` and tensors with the names and shapes of `entries`. Errors
/// as [`examine`] does.
pub fn sketched(config: &Value, entries: &[Entry]) -> Result<Parts> {
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let architecture = Architecture::find(model_type).ok_or_else(|| {
        let what = format!("the architecture {model_type:?} cannot run");
        Error::new(Kind::RuntimeIncompatible, "config.json", what)
    })?;
    let tensors = entries.iter().map(blank).collect::<Result<BTreeMap<_, _>>>()?;
    let checkpoint = Checkpoint { config: config.clone(), tensors };
    sketch::sketch(architecture, checkpoint)
}

/// Tensor of zeros with the name, shape and type of `entry`.
fn blank(entry: &Entry) -> Result<(String, Tensor)> {
    let dtype = tensor::in_memory(entry.dtype).ok_or_else(|| {
        let what = format!("elements of type {} cannot run", entry.dtype);
        Error::new(Kind::InvalidModel, &entry.name, what)
    })?;
    let size = entry.bytes().unwrap_or_default() as usize;
    let zeros = move || Bytes::of(&vec![0; size]);
    Ok((entry.name.clone(), Tensor::made(dtype, entry.shape.clone(), zeros)))
}
